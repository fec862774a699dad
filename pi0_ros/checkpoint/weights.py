"""Weights of a checkpoint in transformers' PI0 classes, loaded strictly."""

import gc
import logging
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PI0Config, PI0ForConditionalGeneration

from pi0_ros.checkpoint.network import network_config
from pi0_ros.checkpoint.spec import CheckpointError
from pi0_ros.checkpoint.tensors import TABLE, UNUSED, WEIGHTS, Shapes, stored_names

log = logging.getLogger(__name__)
LARGE = 2**30    # bytes, from which on loading tells how far it is
REOPEN = 2**29   # bytes that are read before the file is opened anew
_making = threading.Lock()


def load_model(folder: Path, dtype: torch.dtype, device: torch.device, chunk_length: int = 50
               ) -> PI0ForConditionalGeneration:
    """Return the network of the checkpoint in ``folder``, in evaluation mode.

    Every tensor of the network must be in the file, in its shape, and nothing else may be. The
    text embedding is ``embed_tokens`` where the file has it, ``lm_head`` where it does not:
    fine-tuning moves the former only. Tensors go one by one from the file to their device and
    type; there is never a second copy of the network.

    :param chunk_length: steps of a chunk.
    :raises CheckpointError: a tensor is missing, unexpected, of another shape or not finite.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, 'pt') as file:
            names = stored_names(file.keys(), file.metadata())
            shapes = {name: tuple(file.get_slice(stored).get_shape())
                      for name, stored in names.items()}
        model = _empty(network_config(folder, shapes, chunk_length), folder)
        _require_equal(path, dict(model.named_parameters()), names, shapes)
        _fill(model, path, names, dtype, device)
        # Buffers stay float32: time and position frequencies in bfloat16 would be off by up to
        # 28 % of an action. So does the noise that is denoised; it is cast where the network
        # reads it.
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved') from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint file '{path}' is damaged: {error}") from error
    if device.type != 'cpu':
        _keep_on_host(model.model.vlm.get_input_embeddings(), device)
    model.embed_action_time.action_in_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return model.eval()


def _fill(model: nn.Module, path: Path, names: Mapping[str, str], dtype: torch.dtype,
          device: torch.device) -> None:
    """Give ``model`` its parameters, one by one from the file to their device and type."""
    size, done, opened = path.stat().st_size, 0, 0
    file = None
    for name, stored in names.items():
        if file is None or done - opened > REOPEN:
            file, opened = safe_open(path, 'pt'), done  # gives the pages that were read back
        read = file.get_tensor(stored)
        # The file's own memory could be taken away from under a robot that moves.
        tensor = read.to(device='cpu' if name == TABLE else device, dtype=dtype, copy=True)
        # One pass without a temporary; exact only where the sum itself overflows.
        if not (tensor.sum().isfinite() or torch.isfinite(tensor).all()):
            raise CheckpointError(f"checkpoint file '{path}': {stored} holds values that are not "
                                  'finite')
        owner, _, attribute = name.rpartition('.')
        model.get_submodule(owner).register_parameter(
            attribute, nn.Parameter(tensor, requires_grad=False))
        before, done = done, done + read.nbytes
        if size > LARGE and 4 * done // size > 4 * before // size:
            log.info(f'loading weights: {100 * done // size} % of {size / 2**30:.1f} GiB')


def _keep_on_host(table: nn.Module, device: torch.device) -> None:
    """Let the text embedding, 1 GB for some twenty rows an instruction, work from the host."""
    table.to('cpu')  # its scale, too
    table.register_forward_pre_hook(lambda module, inputs: (inputs[0].cpu(),))
    table.register_forward_hook(lambda module, inputs, out: out.to(device))


def out_of_memory(error: Exception, folder: Path, device: torch.device) -> CheckpointError:
    """Return what to say when a GPU has too little memory, and give back what was taken."""
    traceback.clear_frames(error.__traceback__)  # they hold what was loaded so far
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    needed = (folder / WEIGHTS).stat().st_size / 2**30
    return CheckpointError(
        f"checkpoint '{folder}' needs more memory than the GPU has: its weights are "
        f'{needed:.1f} GiB as stored, free are {free / 2**30:.1f} of {total / 2**30:.1f} GiB: end '
        "what else uses the GPU (nvidia-smi), or set 'dtype' to bfloat16")


def _empty(config: PI0Config, folder: Path) -> PI0ForConditionalGeneration:
    """Return the network without memory for its parameters."""
    try:
        with _parameters_on_meta():
            model = PI0ForConditionalGeneration(config)
    except Exception as error:  # whatever a width that no network has leads to
        raise CheckpointError(f"checkpoint file '{folder / 'config.json'}' describes no PI0 "
                              f'network: {error}') from error
    model.model.dit.embed_tokens = nn.Identity()  # the expert never reads tokens
    return model


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules be made without memory for their parameters; buffers are made as ever."""
    thread = threading.get_ident()

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            parameter = nn.Parameter(parameter.to('meta'), requires_grad=False)
        register(module, name, parameter)

    with _making:
        register = nn.Module.register_parameter
        nn.Module.register_parameter = without_memory
        try:
            yield
        finally:
            nn.Module.register_parameter = register


def _require_equal(path: Path, wanted: Mapping[str, torch.Tensor], given: Mapping[str, str],
                   shapes: Shapes) -> None:
    problems = [f'missing {name}' for name in wanted if name not in given]
    problems += [f'unexpected {stored}' for name, stored in given.items() if name not in wanted]
    for name, shape in shapes.items():
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
