# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Weights of a checkpoint in transformers' classes, or pi0.5's own, loaded strictly."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
import gc
import logging
from pathlib import Path
import threading
import traceback

from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.header import described_by, read_header
from pi0_ros.weights.network import network_config
from pi0_ros.weights.pi05 import PI05ForConditionalGeneration
from pi0_ros.weights.tensors import MARK, Stored, TABLE, UNUSED
from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import nn
from transformers import PI0Config, PI0ForConditionalGeneration

log = logging.getLogger(__name__)
LARGE = 2**30    # bytes, from which on loading tells how far it is
REOPEN = 2**29   # bytes that are read before the file is opened anew
_making = threading.Lock()


def load_model(folder: Path, dtype: torch.dtype, device: torch.device, chunk_length: int = 50
               ) -> PI0ForConditionalGeneration:
    """
    Return the network of the checkpoint in ``folder``, in evaluation mode.

    Every tensor of the network must be in the file, in its shape, and nothing else may be. The
    text embedding is ``embed_tokens`` where the file has it, ``lm_head`` where it does not:
    fine-tuning moves the former only. Tensors go one by one from the file to their device and
    type; there is never a second copy of the network.

    :param chunk_length: steps of a chunk.
    :raises CheckpointError: a tensor is missing, unexpected, of another shape or not finite.
    """
    _, stored = read_header(folder)
    shapes = {name: part.shape for name, part in stored.items()}
    try:
        source = described_by(folder)
        model = _empty(network_config(source, shapes, chunk_length), source, MARK in shapes)
        _require_equal(folder, dict(model.named_parameters()), stored)
        _fill(model, stored, dtype, device)
        # Buffers stay float32: time and position frequencies in bfloat16 would be off by up to
        # 28 % of an action. So does the noise that is denoised; it is cast where the network
        # reads it.
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights of checkpoint '{folder}' are damaged: {error}") \
            from error
    if device.type != 'cpu':
        _keep_on_host(model.model.vlm.get_input_embeddings(), device)
    model.embed_action_time.action_in_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return model.eval()


def _fill(model: nn.Module, stored: Mapping[str, Stored], dtype: torch.dtype,
          device: torch.device) -> None:
    """Give ``model`` its parameters, one by one from the files to their device and type."""
    files = _Files()
    size, done = sum(path.stat().st_size for path in {part.path for part in stored.values()}), 0
    for name, part in sorted(stored.items(), key=lambda one: one[1].path.name):
        read = files.read(part)
        # The file's own memory could be taken away from under a robot that moves.
        tensor = read.to(device='cpu' if name == TABLE else device, dtype=dtype, copy=True)
        # One pass without a temporary; exact only where the sum itself overflows.
        if not (tensor.sum().isfinite() or torch.isfinite(tensor).all()):
            whose = part.path if part.change is None else (
                f'{part.path} with {part.change.a.path.name}')
            raise CheckpointError(f"checkpoint file '{whose}': {part.name} holds values that are "
                                  'not finite')
        owner, _, attribute = name.rpartition('.')
        model.get_submodule(owner).register_parameter(
            attribute, nn.Parameter(tensor, requires_grad=False))
        before, done = done, done + read.nbytes
        if size > LARGE and 4 * done // size > 4 * before // size:
            log.info(f'loading weights: {100 * done // size} % of {size / 2**30:.1f} GiB')


class _Files:
    """The files of the weights, one open at a time, and now and then opened anew."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._done = 0

    def read(self, part: Stored) -> torch.Tensor:
        """Return a tensor, with what an adapter adds to it."""
        if part.path != self._path or self._done > REOPEN:  # gives the pages back that were read
            self._file, self._path, self._done = safe_open(part.path, 'pt'), part.path, 0
        out = self._file.get_tensor(part.name)
        self._done += out.nbytes
        if part.change is None:
            return out
        a, b = (_Files().read(one).float() for one in (part.change.a, part.change.b))
        return out.float() + part.change.scale * (b @ a)


def stored_tensors(folder: Path, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return tensors of a checkpoint as its file has them. :param names: as transformers has."""
    _, stored = read_header(folder)
    files = _Files()
    return {name: files.read(stored[name]).clone() for name in sorted(
        set(names) & set(stored), key=lambda one: stored[one].path.name)}


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
    needed = sum(path.stat().st_size for path in {
        part.path for part in read_header(folder)[1].values()}) / 2**30
    return CheckpointError(
        f"checkpoint '{folder}' needs more memory than the GPU has: its weights are "
        f'{needed:.1f} GiB as stored, free are {free / 2**30:.1f} of {total / 2**30:.1f} GiB: end '
        "what else uses the GPU (nvidia-smi), or set 'dtype' to bfloat16")


def _empty(config: PI0Config, folder: Path, pi05: bool = False) -> PI0ForConditionalGeneration:
    """Return the network without memory for its parameters."""
    try:
        with _parameters_on_meta():
            model = (PI05ForConditionalGeneration if pi05 else PI0ForConditionalGeneration)(config)
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


def _require_equal(folder: Path, wanted: Mapping[str, torch.Tensor],
                   given: Mapping[str, Stored]) -> None:
    problems = [f'missing {name}' for name in wanted if name not in given]
    problems += [f'unexpected {part.name}' for name, part in given.items() if name not in wanted]
    for name, part in given.items():
        if name in wanted and part.shape != tuple(wanted[name].shape):
            problems.append(f'{name} has shape {part.shape}, expected '
                            f'{tuple(wanted[name].shape)}')
    if problems:
        path = next(iter(given.values())).path if given else folder
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
