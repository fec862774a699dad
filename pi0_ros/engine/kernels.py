# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kernels on a GPU: recorded as CUDA graphs, and counted."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

KEPT_GRAPHS = 4  # of other numbers of cameras and prompt tokens
# Operations that only look at memory in another way, or ask for it.
NO_KERNEL = {
    '_reshape_alias', '_unsafe_view', 'alias', 'as_strided', 'detach', 'diagonal', 'empty',
    'empty_like', 'empty_strided', 'expand', 'lift_fresh', 'movedim', 'new_empty', 'permute',
    'select', 'slice', 'split', 'split_with_sizes', 'squeeze', 't', 'transpose', 'unbind',
    'unfold', 'unsqueeze', 'view'}


class _Counter(TorchDispatchMode):

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in NO_KERNEL
        return function(*args, **(kwargs or {}))


def count_kernels(call: Callable[[], object]) -> int:
    """
    Return how many kernels ``call`` launches: every operation that computes counts as one.

    What torch compiled is not seen.
    """
    with _Counter() as counter, torch.no_grad():
        call()
    return counter.count


@dataclass
class _Graph:
    graph: 'torch.cuda.CUDAGraph'
    inputs: tuple[Tensor, ...]
    out: Tensor


class Graphs:
    """
    A computation on a GPU, one CUDA graph for all inputs of the same shapes.

    A graph is captured when its shapes first come, in the thread that infers: the control thread
    goes on. The graphs share the engine's memory, so one runs at a time.
    """

    def __init__(self, compute: Callable[..., Tensor], device: torch.device,
                 kept: int = KEPT_GRAPHS) -> None:
        """Capture nothing yet. :param compute: what of tensors on the device."""
        self._compute, self._device, self._kept = compute, device, kept
        # One of each for all graphs, which run one at a time: every stream and every pool keeps
        # memory of its own.
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[tuple[torch.Size, ...], _Graph] = OrderedDict()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what ``compute`` would; inputs may lie in pinned memory of the host."""
        key = tuple(value.shape for value in inputs)
        graph = self._graphs.pop(key, None)
        if graph is None:
            while len(self._graphs) >= self._kept:
                self._graphs.popitem(last=False)
            graph = self._capture(*inputs)
        self._graphs[key] = graph  # the last used stays longest
        for fixed, given in zip(graph.inputs, inputs):
            fixed.copy_(given, non_blocking=True)
        graph.graph.replay()
        return graph.out.clone()

    def clear(self) -> None:
        """Forget all graphs."""
        self._graphs.clear()

    def _capture(self, *inputs: Tensor) -> _Graph:
        """Record the kernels; a call outside of the graph lets libraries set up before."""
        fixed = tuple(value.to(self._device, copy=True) for value in inputs)
        before = torch.cuda.current_stream()
        try:
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):
                self._compute(*fixed)
            before.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the GPU.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream,
                                  capture_error_mode='thread_local'):
                out = self._compute(*fixed)
        except BaseException:
            torch.cuda.set_stream(before)  # a capture that fails may leave its own in place
            raise
        return _Graph(graph, fixed, out)
