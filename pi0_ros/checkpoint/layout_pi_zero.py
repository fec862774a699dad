# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Folders with a network of pi-zero-pytorch, which has no format of its own.

config.json has ``type``, the constructor's arguments, and what the network does not know: cameras,
statistics, rate, prompt. The weights are in model.safetensors, the tokenizer in tokenizer/.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
import json
from pathlib import Path
import shutil
import tempfile
from typing import Any, TYPE_CHECKING

import numpy as np
from pi0_ros.checkpoint.normalise import lerobot_normaliser, NEEDS, Normaliser
from pi0_ros.checkpoint.spec import (Choices, find_tokenizer, LETTERBOXES, PI_ZERO, PLAIN,
                                     PolicySpec, relative_mask, texts, whole)
from pi0_ros.weights.files import inside, part
from pi0_ros.weights.pi_zero import (ARGUMENTS, checked, ENCODER_NEEDS, ENCODERS, REQUIRED,
                                     SIGLIP, TYPE)

if TYPE_CHECKING:
    from torch import nn

CONFIG = 'config.json'
FEATURES = ('observation.state', 'action')  # as the statistics call them
PROMPTS = (PLAIN, 'lerobot', 'openpi')
# What is in config.json beside the constructor's arguments.
OURS = ('type', 'vision', 'cameras', 'image_size', 'image_mean', 'image_std', 'letterbox',
        'state_names', 'action_names', 'normalization', 'statistics', 'trajectory_length', 'steps',
        'fps', 'action_offset', 'prompt', 'max_prompt_tokens')
LEAST_STEPS = 2  # times of the solver, the first and the last among them


def describe(folder: Path, config: dict[str, Any], choices: Choices, network: str = PI_ZERO
             ) -> PolicySpec:
    """Return the description of a folder that ``save_pi_zero`` wrote, or somebody by hand."""
    given, vision, _ = network_of(folder, config)
    encoder = vision.get('image_size')
    side = whole(config, 'image_size', encoder or 224)
    if encoder and side != encoder:
        raise ValueError(f'its image_size is {side}, its vision reads {encoder}')
    cameras = texts(config.get('cameras'), 'cameras')
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
    letterbox = choices.letterbox or part(config, 'letterbox', str, CONFIG, 'lerobot')
    prompt, fps = part(config, 'prompt', str, CONFIG, PLAIN), part(config, 'fps', float, CONFIG, 0)
    steps = whole(config, 'steps', 18)
    for what, value, known in (('letterbox', letterbox, LETTERBOXES), ('prompt', prompt, PROMPTS)):
        if value not in known:
            raise ValueError(f"its {what} is '{value}', expected one of {', '.join(known)}")
    if fps < 0 or steps < LEAST_STEPS:
        raise ValueError(f'its fps is {fps:g} and its steps are {steps}, expected at least 0 and '
                         f'{LEAST_STEPS}')
    return PolicySpec(
        folder, 'pi-zero-pytorch', cameras, *widths, state, action, *names, True,
        relative_mask(choices.relative_joints or (), widths[1]),
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
        side = part(json.loads((beside / CONFIG).read_text()), 'image_size', int, 'its vision',
                    224) if (beside / CONFIG).exists() else 224
        return given, {'image_size': side}, beside
    made = {'type': kind, **checked(rest, ENCODERS[kind], 'its vision', ENCODER_NEEDS[kind])}
    return given, {'image_size': 224, **made} if kind == SIGLIP else made, None


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
                 image_std: Sequence[float] | None = None) -> None:
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
    :param image_mean: and ``image_std`` [3], of images in [0, 1]; without, they are in [-1, 1].
    :raises ValueError: the model has what a folder cannot keep, or something does not fit.
    """
    from pi0_ros.weights.pi_zero import load
    from safetensors.torch import save_file
    import torch

    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"'{folder}' exists: name another folder, or remove it")
    positional, named = model._init_args_kwargs
    usual = list(signature(type(model).__init__).parameters.values())[1:]
    given = dict(zip((one.name for one in usual), positional)) | named
    given = {one.name: given[one.name] for one in usual if one.name not in (
        'vit', 'sample_times_fn') and given.get(one.name, one.default) != one.default}
    if (encoder is None) != (model.vit is not None):
        raise ValueError('the model has no vit: give the encoder that made its tokens'
                         if encoder is None else 'the model has a vit of its own: leave out '
                         'encoder')
    told = {'type': SIGLIP, 'checkpoint': 'vision'} if encoder else vision
    config = {'type': TYPE, **checked(given, ARGUMENTS, 'the model', REQUIRED), 'vision': told,
              'cameras': list(cameras), 'trajectory_length': trajectory_length, 'steps': steps,
              'fps': fps, 'action_offset': action_offset, 'normalization': normalization,
              'statistics': {feature: {name: np.asarray(statistics[feature][name], float).tolist()
                                       for name in NEEDS.get(normalization, ())}
                             for feature in FEATURES}, 'prompt': prompt,
              'max_prompt_tokens': max_prompt_tokens, 'letterbox': letterbox,
              'state_names': list(state_names), 'action_names': list(action_names),
              **({'image_mean': list(image_mean), 'image_std': list(image_std)}
                 if image_mean is not None and image_std is not None else {})}
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
        describe(made, config, Choices())
        arguments, inner, _ = network_of(made, config)
        load(made, arguments, None if encoder else inner, torch.device('cpu'))
        made.rename(folder)
