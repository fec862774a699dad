# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The tensors of a checkpoint's files: names, shapes and types, without reading them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import re

from pi0_ros.weights.files import CheckpointError, pointer
from safetensors import safe_open, SafetensorError

WEIGHTS = 'model.safetensors'
ADAPTER = 'adapter_model.safetensors'
Shapes = Mapping[str, tuple[int, ...]]
MARK = 'embed_action_time.time_mlp_in.weight'  # a tensor of pi0.5 that pi0 does not have
TABLE = 'model.vlm.language_model.embed_tokens.weight'
# The trainers' tensor names (LeRobot's without their leading 'model.') in transformers' terms.
RENAMES = (
    (r'^paligemma_with_expert\.paligemma\.model\.', 'model.vlm.'),
    (r'^model\.vlm\.vision_tower\.vision_model\.', 'model.vlm.vision_tower.'),
    (r'^model\.vlm\.language_model\.model\.', 'model.vlm.language_model.'),
    (r'^paligemma_with_expert\.gemma_expert\.model\.', 'model.dit.'),
    (r'^(action_in_proj|(action_)?time_mlp_in|(action_)?time_mlp_out|state_proj)\.',
     r'embed_action_time.\1.'),
)
HEAD = 'paligemma_with_expert.paligemma.lm_head.weight'
UNUSED = ('paligemma_with_expert.gemma_expert.lm_head.weight', 'model.dit.embed_tokens.weight')
# What DDP and torch.compile put before a name.
WRAPPED = re.compile(r'^(module\.|_orig_mod\.)+|\b_orig_mod\.|(?<=^model\.)module\.')


# Statistics that LeRobot before 0.4 kept among the weights.
BUFFERS = ('normalize_inputs.', 'normalize_targets.', 'unnormalize_outputs.')


@dataclass(frozen=True)
class Stored:
    """One tensor in a file."""

    name: str   # in the file
    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it: F32, BF16 ...
    path: Path  # of the file
    change: 'Change | None' = None  # that an adapter makes to it

    @property
    def size(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Change:
    """What an adapter adds to a tensor: ``scale * B A`` (LoRA, arXiv 2106.09685, section 4.1)."""

    scale: float
    a: Stored  # [rank, in]
    b: Stored  # [out, rank]


def read_raw(paths: Sequence[Path]) -> tuple[dict[str, Stored], dict[str, str]]:
    """
    Return the tensors in ``paths`` under their own names, and the files' metadata.

    :raises CheckpointError: one is damaged.
    """
    found: dict[str, Stored] = {}
    told: dict[str, str] = {}
    for path in paths:
        try:
            with safe_open(path, 'numpy') as file:
                told |= file.metadata() or {}
                for name in file.keys():
                    if name in found:
                        raise CheckpointError(f"tensor {name} is in '{found[name].path.name}' and "
                                              f"in '{path.name}' of checkpoint '{path.parent}': "
                                              'copy the whole folder again')
                    part = file.get_slice(name)
                    found[name] = Stored(name, tuple(part.get_shape()), str(part.get_dtype()),
                                         path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    return found, told


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"checkpoint file '{path}' "
                           f'{pointer(path) or f"is damaged: {error}; copy it again"}')


def stored_names(names: Iterable[str], aliases: Mapping[str, str] | None = None
                 ) -> dict[str, str]:
    """
    Return transformers' names of a trainer's tensors, without those that nothing reads.

    :param aliases: the file's metadata; safetensors notes there which tensors it left out because
        they share the memory of another.
    :returns: transformers' name to the name in the file.
    :raises CheckpointError: two of them are one.
    """
    files = {name: name for name in names}
    for alias, stored in (aliases or {}).items():
        if stored in files:
            files.setdefault(alias, stored)
    out, head = {}, None
    for name, stored in files.items():
        name = WRAPPED.sub('', name)
        if not name.startswith(('model.vlm.', 'model.dit.')):
            name = name.removeprefix('model.')
        if name in UNUSED or name.startswith(BUFFERS):
            continue
        if name == HEAD:
            head = stored
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if out.get(name, stored) != stored:
            raise CheckpointError(f'the weights hold {name} twice, as {out[name]} and {stored}: '
                                  'which of them was trained is not known; save them again')
        out[name] = stored
    if head is not None:
        out.setdefault(TABLE, head)
    return out
