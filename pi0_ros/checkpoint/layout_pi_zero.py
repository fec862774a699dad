# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Folders with a network of pi-zero-pytorch, which has no format of its own.

config.json has ``type``, the constructor's arguments, and what the network does not know: cameras,
statistics, rate, prompt. The weights are in model.safetensors, the tokenizer in tokenizer/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
import json
from pathlib import Path
import shutil
import tempfile
from typing import Any, TYPE_CHECKING

import numpy as np
from pi0_ros.checkpoint.normalise import lerobot_normaliser, NEEDS, Normaliser
from pi0_ros.checkpoint.spec import (Choices, find_tokenizer, LETTERBOXES, PI_ZERO, PLAIN,
                                     PolicySpec, relative_mask, require_sane, texts, whole)
from pi0_ros.weights.files import inside, part, read_json
from pi0_ros.weights.pi_zero import (ARGUMENTS, checked, ENCODER_NEEDS, ENCODERS, REQUIRED,
                                     SIGLIP, TYPE, version)

if TYPE_CHECKING:
    from torch import nn

CONFIG = 'config.json'
IMAGES = 'observation.images.'
FEATURES = ('observation.state', 'action')  # as the statistics call them
PROMPTS = (PLAIN, 'lerobot', 'openpi')
# What is in config.json beside the constructor's arguments.
OURS = ('type', 'vision', 'cameras', 'image_size', 'image_mean', 'image_std', 'letterbox',
        'state_names', 'action_names', 'normalization', 'statistics', 'trajectory_length', 'steps',
        'fps', 'action_offset', 'prompt', 'max_prompt_tokens', 'relative', 'library_version')
LEAST_STEPS = 2  # times of the solver, the first and the last among them
FASTEST_HZ = 1000


def describe(folder: Path, config: dict[str, Any], choices: Choices, network: str = PI_ZERO
             ) -> PolicySpec:
    """Return the description of a folder that ``save_pi_zero`` wrote, or somebody by hand."""
    given, vision, _ = network_of(folder, config)
    encoder = vision.get('image_size')
    side = whole(config, 'image_size', encoder or 224)
    if encoder and side != encoder:
        raise ValueError(f'its image_size is {side}, its vision reads {encoder}')
    cameras = tuple(name.removeprefix(IMAGES) for name in texts(
        config.get('cameras'), 'cameras'))
    if not cameras or len(set(cameras)) < len(cameras):
        raise ValueError(f'its cameras are {list(cameras)}, expected one name for each image')
    widths = given['dim_joint_state'], given['dim_action_input']
    names = tuple(texts(config.get(key), key) or None for key in ('state_names', 'action_names'))
    for key, told, width in zip(('state_names', 'action_names'), names, widths):
        if told and len(told) != width:
            raise ValueError(f'its {key} are {len(told)}, the network has {width}')
    mode = part(config, 'normalization', str, CONFIG, 'MEAN_STD')
    numbers = part(config, 'statistics', dict, CONFIG, {})
    state, action = _normalisers(mode, numbers, widths)
    image_scaling(config)
    relative = _relative(config, choices, widths[1])
    letterbox = choices.letterbox or part(config, 'letterbox', str, CONFIG, 'lerobot')
    prompt, fps = part(config, 'prompt', str, CONFIG, PLAIN), part(config, 'fps', float, CONFIG, 0)
    steps = whole(config, 'steps', 18)
    for what, value, known in (('letterbox', letterbox, LETTERBOXES), ('prompt', prompt, PROMPTS)):
        if value not in known:
            raise ValueError(f"its {what} is '{value}', expected one of {', '.join(known)}")
    if not 0 <= fps <= FASTEST_HZ or steps < LEAST_STEPS:
        raise ValueError(f'its fps is {fps:g} and its steps are {steps}, expected 0 to '
                         f'{FASTEST_HZ} and at least {LEAST_STEPS}')
    return PolicySpec(
        folder, 'pi-zero-pytorch', cameras, *widths, state, action, *names, True,
        relative,
        choices.chunk_length or whole(config, 'trajectory_length'), steps,
        1 / fps if fps else None, (side, side), letterbox, prompt,
        whole(config, 'max_prompt_tokens', 48), find_tokenizer(folder / 'tokenizer', None),
        'pi-zero-pytorch', network=PI_ZERO)


def network_of(folder: Path, config: Mapping[str, Any]
               ) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    """
    Return the constructor's arguments, the encoder inside ({} for none), and one that lies beside.

    :raises ValueError: an argument is unknown, missing, or of another type.
    """
    given = checked({name: value for name, value in config.items() if name not in OURS},
                    ARGUMENTS, CONFIG, REQUIRED)
    if given.get('train_time_rtc') and 'train_time_rtc_max_delay' not in given:
        raise ValueError("its train_time_rtc is true, but it has no 'train_time_rtc_max_delay'")
    told = config.get('vision')
    if told == SIGLIP:  # the library's own with what it has by default, or a folder beside
        told = {'type': SIGLIP, **({'checkpoint': 'vision'} if (folder / 'vision').is_dir()
                                   else {})}
    if not isinstance(told, dict) or told.get('type') not in ENCODERS:
        raise ValueError(f"its vision is {str(told)[:60]!r}, expected '{SIGLIP}', or an object "
                         f"with type {' or '.join(ENCODERS)} and the encoder's arguments")
    kind, rest = told['type'], {name: value for name, value in told.items() if name != 'type'}
    if 'checkpoint' in rest:
        if kind != SIGLIP or len(rest) > 1:
            raise ValueError(f"its vision has a checkpoint, which is of type '{SIGLIP}' and says "
                             f'the rest itself, and {", ".join(sorted(rest))}')
        beside = inside(folder, part(rest, 'checkpoint', str, 'its vision'), 'vision')
        return given, {'image_size': _side(beside, given)}, beside
    made = {'type': kind, **checked(rest, ENCODERS[kind], 'its vision', ENCODER_NEEDS[kind])}
    return given, {'image_size': 224, **made} if kind == SIGLIP else made, None


def _side(beside: Path, given: Mapping[str, Any]) -> int:
    """
    Return the side of the images that an encoder beside the network reads.

    :raises ValueError: its tokens have another width than the network reads.
    """
    told = read_json(beside / CONFIG)
    told = told.get('vision_config', told)
    width = given.get('vit_dim', given['dim'])
    if whole(told, 'hidden_size', 768) != width:
        raise ValueError(f"its vision makes tokens of {told.get('hidden_size', 768)} numbers, the "
                         f'network reads {width} (vit_dim, or dim without it)')
    return whole(told, 'image_size', 224)


def _relative(config: Mapping[str, Any], choices: Choices, width: int) -> np.ndarray:
    """
    Return [width] which actions are relative to the state.

    :raises ValueError: nobody says so, and the statistics do not tell what actions mean.
    """
    told = config.get('relative')
    if choices.relative_joints is not None:
        return relative_mask(choices.relative_joints, width)
    if told is None and config.get('normalization') == 'IDENTITY' and not choices.actions:
        raise ValueError("it has no statistics that tell what actions are: say 'relative' (a list "
                         'of the numbers of actions that are relative to the state, [] for none)')
    if told is not None and (not isinstance(told, list) or not all(
            type(one) is int and one >= 0 for one in told)):
        raise ValueError(f'its relative is {told!r:.80}, expected numbers of actions')
    return relative_mask(told or (), width)


def _normalisers(mode: str, numbers: Mapping[str, Any], widths: Sequence[int]
                 ) -> list[Normaliser]:
    """Return those of state and actions."""
    out = []
    for feature, width in zip(FEATURES, widths):
        told = part(numbers, feature, dict, 'its statistics', {})
        try:
            flat = {f'{feature}.{name}': np.asarray(value, float) for name, value in told.items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"statistics of '{feature}' are no lists of numbers") from error
        out.append(lerobot_normaliser(mode, feature, flat, width))
    return out


def image_scaling(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Return mean and deviation [3] of images in [0, 1]; None where the network reads [-1, 1].

    :raises ValueError: they are no such numbers.
    """
    told = [config.get(key) for key in ('image_mean', 'image_std')]
    if told == [None, None]:
        return None
    try:
        mean, std = (np.asarray(one, float) for one in told)
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all() or not np.isfinite(
                mean).all():
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f'its image_mean and image_std are {told[0]!r} and {told[1]!r}, expected '
                         'three numbers each, or none of the two for images in [-1, 1]') from None
    return mean, std


def save_pi_zero(model: 'nn.Module', folder: Path, *, tokenizer: Path, cameras: Sequence[str],
                 trajectory_length: int, statistics: Mapping[str, Mapping[str, Sequence[float]]],
                 vision: Mapping[str, Any] | str, encoder: Path | None = None,
                 state_names: Sequence[str] = (), action_names: Sequence[str] = (),
                 fps: float = 0.0, action_offset: int = 0, steps: int = 18,
                 normalization: str = 'MEAN_STD', prompt: str = PLAIN, max_prompt_tokens: int = 48,
                 letterbox: str = 'lerobot', image_mean: Sequence[float] | None = None,
                 image_std: Sequence[float] | None = None, relative: Sequence[int] = ()) -> None:
    """
    Write a trained PiZero as a folder that the node, ``inspect`` and ``infer`` read.

    :param model: a ``pi_zero_pytorch.PiZero``; it remembers its arguments itself.
    :param folder: to write, which does not exist; it is there whole or not at all.
    :param tokenizer: folder with tokenizer.json, or that file: what token_ids were made with.
    :param cameras: names, in the order in which their images were stacked.
    :param statistics: of ``observation.state`` and ``action``: mean and std [D], or what
        ``normalization`` needs (MIN_MAX: min, max; QUANTILES: q01, q99; IDENTITY: nothing).
    :param vision: of the encoder: {'type': 'vit', and what ViT was made of}, {'type': 'siglip',
        and what SigLIP was made of}, or 'siglip' with ``encoder``.
    :param encoder: transformers' SiglipVisionModel that made the tokens, where the network has no
        ``vit``: a folder with config.json and model.safetensors, which is copied.
    :param state_names: of joint_state [D]. :param action_names: of actions [D].
    :param fps: control rate of the training data, Hz. :param action_offset: periods after the
        observation at which the first action is due. :param steps: times of the solver.
    :param prompt: plain, the tokenizer's own way; lerobot or openpi, PaliGemma's.
    :param letterbox: how images are fitted to the network's, see docs/checkpoints.md.
    :param image_mean: and ``image_std`` [3], of images in [0, 1]; without, they are in [-1, 1].
    :param relative: numbers of actions that are relative to the state of the observation.
    :raises ValueError: the model has what a folder cannot keep, or something does not fit.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"'{folder}' exists: name another folder, or remove it")
    model = getattr(model, '_orig_mod', getattr(model, 'module', model))
    if not hasattr(model, '_init_args_kwargs'):
        raise ValueError(f'the model is {type(model).__name__}, expected a PiZero')
    if isinstance(cameras, str) or (image_mean is None) != (image_std is None):
        raise ValueError('expected a list of cameras, and image_mean and image_std together')
    if (encoder is None) != (model.vit is not None):
        raise ValueError('the model has no vit: give the encoder that made its tokens'
                         if encoder is None else 'the model has a vit of its own: leave out '
                         'encoder')
    lacking = [f'{feature}.{name}' for feature in FEATURES for name in NEEDS.get(
        normalization, ()) if name not in statistics.get(feature, {})]
    if lacking:
        raise ValueError(f"statistics lack '{lacking[0]}', which normalization {normalization} "
                         'needs')
    config = {
        'type': TYPE, **_arguments(model),
        'vision': {'type': SIGLIP, 'checkpoint': 'vision'} if encoder else vision,
        'cameras': list(cameras), 'trajectory_length': int(trajectory_length),
        'steps': int(steps), 'fps': float(fps), 'action_offset': int(action_offset),
        'normalization': normalization, 'statistics': {
            feature: {name: _floats(statistics[feature][name])
                      for name in NEEDS.get(normalization, ())} for feature in FEATURES},
        'relative': [int(one) for one in relative], 'prompt': prompt,
        'max_prompt_tokens': int(max_prompt_tokens), 'letterbox': letterbox,
        'state_names': list(state_names), 'action_names': list(action_names),
        'library_version': version(), **({} if image_mean is None else {
            'image_mean': _floats(image_mean), 'image_std': _floats(image_std)})}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        made = Path(aside) / folder.name
        (made / 'tokenizer').mkdir(parents=True)
        path = Path(tokenizer)
        shutil.copy(path if path.is_file() else path / 'tokenizer.json',
                    made / 'tokenizer' / 'tokenizer.json')
        if encoder:
            (made / 'vision').mkdir()
            for name in (CONFIG, 'model.safetensors'):
                shutil.copy(Path(encoder) / name, made / 'vision' / name)
        (made / CONFIG).write_text(json.dumps(config, indent=2) + '\n')
        save_file({name: value.detach().cpu().contiguous().clone()
                   for name, value in model.state_dict().items()}, made / 'model.safetensors')
        spec = replace(describe(made, config, Choices()), action_offset=int(action_offset))
        require_sane(spec, config)
        _require_the_same(model, made, spec.image_size[0])
        made.rename(folder)


def _arguments(model: 'nn.Module') -> dict[str, Any]:
    """
    Return all arguments that a model was made of, so that other defaults do not matter later.

    :raises ValueError: it has some that a folder cannot keep.
    """
    positional, named = model._init_args_kwargs
    usual = {one.name: one.default
             for one in list(signature(type(model).__init__).parameters.values())[1:]}
    given = dict(zip(usual, positional)) | named
    other = {name: value for name, value in given.items()
             if name not in ('vit', 'sample_times_fn') and value != usual[name]}
    checked(other, ARGUMENTS, 'the model', REQUIRED)
    return checked({name: given.get(name, default) for name, default in usual.items()
                    if name in ARGUMENTS}, ARGUMENTS, 'the model', REQUIRED)


def _floats(values: Any) -> list[float]:
    return np.asarray(values, float).tolist()


def _require_the_same(model: 'nn.Module', folder: Path, side: int) -> None:
    """
    Refuse a folder that computes something else than its model.

    :raises ValueError: it does, as where ``vision`` is told wrongly.
    :raises CheckpointError: it cannot be loaded.
    """
    import torch
    from pi0_ros.weights.pi_zero import load, load_encoder
    from tokenizers import Tokenizer
    try:
        known = Tokenizer.from_file(str(folder / 'tokenizer' / 'tokenizer.json')).get_vocab_size()
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f'the tokenizer is no tokenizer.json: {error}') from error
    arguments, inner, beside = network_of(folder, read_json(folder / CONFIG))
    if known > arguments['num_tokens']:
        raise ValueError(f'the tokenizer has {known} tokens, the network '
                         f'{arguments["num_tokens"]}')
    again = load(folder, arguments, None if beside else inner, torch.device('cpu'))
    dice = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, side, side, generator=dice) * 2 - 1
    ids = torch.randint(0, arguments['num_tokens'], (1, 4), generator=dice)
    state = torch.randn(1, arguments['dim_joint_state'], generator=dice)
    actions = torch.randn(1, 4, arguments['dim_action_input'], generator=dice)
    with torch.no_grad():
        if beside:
            pixels = load_encoder(beside, torch.device('cpu'))(
                pixel_values=pixels).last_hidden_state
        was, device = model.training, model.device
        found = []
        for one in (model.eval(), again):
            out = one(pixels, ids, state, actions.to(one.device), times=torch.tensor(
                [0.5], device=one.device), return_actions_flow=True)
            found.append((out[0] if isinstance(out, tuple) else out).float().cpu())
        model.train(was)
    away = float((found[0] - found[1]).abs().max() / found[0].abs().max().clamp(min=1e-9))
    if not away < (1e-4 if device.type == 'cpu' else 1e-2):
        raise ValueError(f'the folder computes something else than the model, by {away:.1g} of '
                         'the largest value: vision is not what its encoder was made of')
