# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Networks of pi-zero-pytorch, built from a closed list of arguments and loaded strictly.

The library (MIT, by Phil Wang) is no dependency: it is looked for when such a checkpoint is named.
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TYPE_CHECKING

from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.header import weight_files
from pi0_ros.weights.tensors import read_raw, WEIGHTS
from safetensors import SafetensorError

if TYPE_CHECKING:
    import torch
    from torch import nn

TYPE = 'pi_zero_pytorch'
INSTALL = 'pip install pi-zero-pytorch'
SIGLIP, VIT = 'siglip', 'vit'
MOST = 10**7  # of a whole number, tokens
NUMBERS, TRUTHS, TEXT = (int, float), (bool,), (str,)
# Of PiZero's constructor; left out is what needs code, the network, a memory from chunk to chunk,
# or something that a robot does not give: flex attention, encoders of other states, latents,
# tokens of memory, advantages and tasks, a state in the prompt (pi05), critics, FAST.
ARGUMENTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys((
        'dim', 'num_tokens', 'dim_action_input', 'dim_joint_state', 'dim_action', 'dim_time_cond',
        'time_mlp_depth', 'depth', 'dim_head', 'heads', 'kv_heads', 'vit_dim',
        'num_action_register_tokens', 'lm_pad_id', 'max_timesteps', 'train_time_rtc_max_delay',
        'num_task_status', 'task_status_is_invalid', 'num_residual_streams'), (int,)),
    **dict.fromkeys((
        'time_min_period', 'time_max_period', 'ff_expand_factor', 'action_ff_expand_factor',
        'norm_eps', 'token_scale', 'sample_guidance_beta', 'lm_loss_weight', 'flow_loss_weight',
        'task_status_loss_weight', 'reward_tokens_dropout_prob', 'advantage_tokens_dropout_prob',
        'predict_discrete_action_loss_weight'), NUMBERS),
    **dict.fromkeys((
        'time_sinusoidal', 'time_infused_action_tokens', 'layer_time_cond', 'rtc_guidance',
        'train_time_rtc', 'action_dit_norm_all_linears', 'predict_task_status_head', 'use_spo',
        'use_asymmetric_spo', 'critic_use_discrete_bins'), TRUTHS),
    **dict.fromkeys(('activation', 'model_predict_output'), TEXT),
}
REQUIRED = ('dim', 'num_tokens', 'dim_action_input', 'dim_joint_state')
# Of the image encoders inside: vit-pytorch's ViT, and the library's own SigLIP.
ENCODERS: dict[str, dict[str, tuple[type, ...]]] = {
    VIT: {**dict.fromkeys(('image_size', 'patch_size', 'num_classes', 'dim', 'depth', 'heads',
                           'mlp_dim', 'channels', 'dim_head'), (int,)),
          'pool': TEXT, 'dropout': NUMBERS, 'emb_dropout': NUMBERS},
    SIGLIP: {**dict.fromkeys(('image_size', 'patch_size', 'dim', 'depth', 'heads', 'mlp_dim'),
                             (int,)),
             'norm_eps': NUMBERS, 'activation': TEXT},
}
ENCODER_NEEDS = {VIT: ('image_size', 'patch_size', 'num_classes', 'dim', 'depth', 'heads',
                       'mlp_dim'), SIGLIP: ()}


def library() -> Any:
    """
    Return the module ``pi_zero_pytorch``.

    :raises CheckpointError: it is not installed, or something that it needs is not.
    """
    try:
        import pi_zero_pytorch
    except ImportError as error:
        raise CheckpointError(f'a checkpoint of pi-zero-pytorch needs that library ({error}): '
                              f'{INSTALL}') from error
    return pi_zero_pytorch


def version() -> str:
    """Return the library's, '' where it is not installed."""
    try:
        return metadata.version('pi-zero-pytorch')
    except metadata.PackageNotFoundError:
        return ''


def checked(given: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], what: str,
            required: tuple[str, ...] = ()) -> dict[str, Any]:
    """
    Return arguments that are all known and of their types; null is as if it were left out.

    :raises ValueError: one is not.
    """
    strange = sorted(set(given) - set(known))
    if strange:
        raise ValueError(f"{what} has '{strange[0]}', which is none of "
                         f"{', '.join(sorted(known))}: a network with that cannot be run here")
    out = {name: value for name, value in given.items() if value is not None}
    missing = [name for name in required if name not in out]
    if missing:
        raise ValueError(f"{what} lacks '{missing[0]}'")
    for name, value in out.items():
        kinds = known[name]
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds == TRUTHS):
            raise ValueError(f"'{name}' of {what} is {value!r}, expected "
                             f"{' or '.join(kind.__name__ for kind in kinds)}")
        if kinds == (int,) and not -1 <= value <= MOST:
            raise ValueError(f"'{name}' of {what} is {value}, expected at most {MOST}")
    return out


def build(arguments: Mapping[str, Any], vision: Mapping[str, Any] | None) -> 'nn.Module':
    """
    Return a network with weights that mean nothing.

    :param vision: ``type`` and arguments of the encoder inside; None for one that reads tokens.
    :raises ValueError: the library cannot make one of these arguments.
    """
    pi_zero, encoder = library(), None
    try:
        if vision is not None:
            given = {name: value for name, value in vision.items() if name != 'type'}
            if vision['type'] == VIT:
                extractor, vit = _vit()
                encoder = extractor(vit(**given), return_embeddings_only=True)
            else:
                encoder = pi_zero.SigLIP(**given)
        return pi_zero.PiZero(vit=encoder, **arguments)
    except CheckpointError:
        raise
    except Exception as error:  # beartype's, asserts, torch's
        raise ValueError(f'pi-zero-pytorch makes no network of its arguments: '
                         f'{type(error).__name__}: {error}') from error


def _vit() -> tuple[Any, Any]:
    """Return vit-pytorch's Extractor and ViT."""
    try:
        from vit_pytorch import ViT
        from vit_pytorch.extractor import Extractor
    except (ImportError, RuntimeError) as error:  # of a torchvision for another torch
        raise CheckpointError(f'an encoder of type vit needs vit-pytorch, and that needs '
                              f'torchvision ({error}): pip install torchvision, for this torch') \
            from error
    return Extractor, ViT


def load(folder: Path, arguments: Mapping[str, Any], vision: Mapping[str, Any] | None,
         device: 'torch.device') -> 'nn.Module':
    """
    Return the network of ``folder``, in evaluation mode, float32.

    What is in the file must be what the network has, name by name and shape by shape; that is seen
    before memory is asked for.

    :raises CheckpointError: it is not, or is not finite.
    """
    import torch  # which takes a second, and not everybody who reads a folder needs it
    from safetensors.torch import load_file
    files = weight_files(folder)
    try:
        with torch.device('meta'):
            wanted = build(arguments, vision).state_dict()
        _require_equal(folder, {name: tuple(one.shape) for name, one in wanted.items()},
                       {name: one.shape for name, one in read_raw(files)[0].items()})
        model = build(arguments, vision)
        tensors = {name: value for file in files for name, value in load_file(file).items()}
        broken = [name for name, value in tensors.items() if not value.isfinite().all()]
        if broken:
            raise CheckpointError(f"tensor {broken[0]} of checkpoint '{folder}' is not finite")
        model.load_state_dict(tensors)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights of checkpoint '{folder}' are damaged: {error}") \
            from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from error
    return model.eval().requires_grad_(False).to(device)


def load_encoder(folder: Path, device: 'torch.device') -> 'nn.Module':
    """
    Return transformers' SigLIP of a folder, which makes tokens [N, L, W] of images.

    :raises CheckpointError: there is none, or it lacks weights.
    """
    from transformers import SiglipVisionModel
    weight_files(folder)  # no pickle is opened
    try:
        model, told = SiglipVisionModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # of many kinds
        raise CheckpointError(f"'{folder}' holds no SigLIP of transformers: {error}") from error
    lacking = sorted(name for name in told['missing_keys'] if '.head.' not in name)
    if lacking or told['mismatched_keys']:
        raise CheckpointError(f"'{folder}' lacks weights of its SigLIP, such as "
                              f"{(lacking or sorted(told['mismatched_keys']))[0]}")
    return model.eval().requires_grad_(False).to(device)


def _require_equal(folder: Path, wanted: Mapping[str, tuple[int, ...]],
                   found: Mapping[str, tuple[int, ...]]) -> None:
    missing, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    other = [name for name in wanted if name in found and wanted[name] != tuple(found[name])]
    told = [f'lacks {len(missing)} tensors, such as {missing[0]}'] if missing else []
    told += [f'has {len(more)} that the network does not know, such as {more[0]}'] if more else []
    told += [f'has {other[0]} of {tuple(found[other[0]])}, expected {wanted[other[0]]}'] \
        if other else []
    if told:
        raise CheckpointError(f"'{WEIGHTS}' of checkpoint '{folder}' " + ' and '.join(told)
                              + ': config.json and the weights are of two networks')
