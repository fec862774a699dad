"""Weights of a checkpoint in transformers' PI0 classes, loaded strictly."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PI0Config, PI0ForConditionalGeneration

from pi0_ros.policy.spec import CheckpointError

# The trainers' tensor names (LeRobot's without their leading 'model.') in transformers' terms.
RENAMES = (
    (r'^paligemma_with_expert\.paligemma\.model\.', 'model.vlm.'),
    (r'^model\.vlm\.vision_tower\.vision_model\.', 'model.vlm.vision_tower.'),
    (r'^model\.vlm\.language_model\.model\.', 'model.vlm.language_model.'),
    (r'^paligemma_with_expert\.gemma_expert\.model\.', 'model.dit.'),
    (r'^(action_in_proj|action_time_mlp_in|action_time_mlp_out|state_proj)\.',
     r'embed_action_time.\1.'),
)
TABLE = 'model.vlm.language_model.embed_tokens.weight'
HEAD = 'paligemma_with_expert.paligemma.lm_head.weight'
UNUSED = ('paligemma_with_expert.gemma_expert.lm_head.weight', 'model.dit.embed_tokens.weight')


def load_model(folder: Path, dtype: torch.dtype, device: torch.device
               ) -> PI0ForConditionalGeneration:
    """Return the network of the checkpoint in ``folder``, in evaluation mode.

    Every tensor of the network must be in the file, in its shape, and nothing else may be. The
    text embedding is ``embed_tokens`` where the file has it, ``lm_head`` where it does not:
    fine-tuning moves the former only. Tensors go one by one from the file to their device and
    type; there is never a second copy of the network.

    :raises CheckpointError: a tensor is missing, unexpected, of another shape or not finite.
    """
    path = folder / 'model.safetensors'
    try:
        with _parameters_on_meta():
            model = PI0ForConditionalGeneration(_config(folder))
    except Exception as error:  # transformers' strict configuration has no common error class
        raise CheckpointError(f"checkpoint file '{folder / 'config.json'}' describes no PI0 "
                              f'network: {error}') from error
    model.model.dit.embed_tokens = nn.Identity()  # the expert never reads tokens
    try:
        with safe_open(path, 'pt') as file:
            names = stored_names(file.keys())
            _require_equal(path, dict(model.named_parameters()), names, file)
            for name, stored in names.items():
                tensor = file.get_tensor(stored).to(device=device, dtype=dtype)
                # One pass without a temporary; exact only where the sum itself overflows.
                if not (tensor.sum().isfinite() or torch.isfinite(tensor).all()):
                    raise CheckpointError(f"checkpoint file '{path}': {stored} holds values that "
                                          'are not finite')
                owner, _, attribute = name.rpartition('.')
                model.get_submodule(owner).register_parameter(
                    attribute, nn.Parameter(tensor, requires_grad=False))
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved') from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint file '{path}' is damaged: {error}") from error
    # Buffers stay float32: time and position frequencies in bfloat16 would be off by up to 28 %
    # of an action. So does the noise that is denoised; it is cast where the network reads it.
    model.to(device=device)
    model.embed_action_time.action_in_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return model.eval()


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules be made without memory for their parameters; buffers are made as ever."""
    register = nn.Module.register_parameter

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to('meta'), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = without_memory
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _config(folder: Path) -> PI0Config:
    """Return the network's configuration; openpi calls the chunk length action_horizon."""
    config = PI0Config.from_pretrained(folder)
    config.chunk_size = int(getattr(config, 'action_horizon', config.chunk_size))
    return config


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """Return transformers' names of a trainer's tensors, without those that nothing reads.

    :returns: transformers' name to the name in the file.
    """
    out, head = {}, None
    for stored in names:
        name = stored
        if not name.startswith(('model.vlm.', 'model.dit.')):
            name = name.removeprefix('model.')
        if name in UNUSED:
            continue
        if name == HEAD:
            head = stored
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        out[name] = stored
    if head is not None:
        out.setdefault(TABLE, head)
    return out


def _require_equal(path: Path, wanted: dict[str, torch.Tensor], given: dict[str, str],
                   file: safe_open) -> None:
    problems = [f'missing {name}' for name in wanted if name not in given]
    problems += [f'unexpected {stored}' for name, stored in given.items() if name not in wanted]
    for name, stored in given.items():
        shape = tuple(file.get_slice(stored).get_shape())
        if name in wanted and shape != tuple(wanted[name].shape):
            problems.append(f'{name} has shape {shape}, expected {tuple(wanted[name].shape)}')
    if problems:
        raise CheckpointError(f"checkpoint file '{path}' does not fit the network in "
                              f'{len(problems)} places: ' + '; '.join(problems[:10]))


def save_as_lerobot(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write transformers' ``tensors`` under the names LeRobot gives them."""
    out = {}
    for name, tensor in tensors.items():
        if name in UNUSED:
            continue
        name = name.removeprefix('embed_action_time.')
        name = name.replace('model.vlm.vision_tower.',
                            'paligemma_with_expert.paligemma.model.vision_tower.vision_model.')
        name = name.replace('model.vlm.', 'paligemma_with_expert.paligemma.model.')
        name = name.replace('model.dit.', 'paligemma_with_expert.gemma_expert.model.')
        out['model.' + name] = tensor.detach().cpu().contiguous()
    save_file(out, path, metadata={'format': 'pt'})
