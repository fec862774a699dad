"""The tensors of a checkpoint's file: their names, shapes and types, without reading them."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pi0_ros.checkpoint.spec import CheckpointError

WEIGHTS = 'model.safetensors'
Shapes = Mapping[str, tuple[int, ...]]
TABLE = 'model.vlm.language_model.embed_tokens.weight'
# The trainers' tensor names (LeRobot's without their leading 'model.') in transformers' terms.
RENAMES = (
    (r'^paligemma_with_expert\.paligemma\.model\.', 'model.vlm.'),
    (r'^model\.vlm\.vision_tower\.vision_model\.', 'model.vlm.vision_tower.'),
    (r'^model\.vlm\.language_model\.model\.', 'model.vlm.language_model.'),
    (r'^paligemma_with_expert\.gemma_expert\.model\.', 'model.dit.'),
    (r'^(action_in_proj|action_time_mlp_in|action_time_mlp_out|state_proj)\.',
     r'embed_action_time.\1.'),
)
HEAD = 'paligemma_with_expert.paligemma.lm_head.weight'
UNUSED = ('paligemma_with_expert.gemma_expert.lm_head.weight', 'model.dit.embed_tokens.weight')
PICKLES = ('pytorch_model.bin', 'model.pt', 'model.pth', 'model.bin', 'optimizer.pt')
# What DDP and torch.compile put before a name.
WRAPPED = re.compile(r'^(module\.|_orig_mod\.)+|\b_orig_mod\.')
LFS = b'version https://git-lfs'


@dataclass(frozen=True)
class Stored:
    """One tensor in a file."""

    name: str   # in the file
    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it: F32, BF16 ...

    @property
    def size(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


def read_header(folder: Path) -> tuple[list[str], dict[str, Stored]]:
    """Return all names in the file, and what the network reads under transformers' names.

    :raises CheckpointError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"checkpoint file '{path}' is missing: {_instead(folder)}")
    try:
        with safe_open(path, 'numpy') as file:
            found = {}
            for name, stored in stored_names(file.keys(), file.metadata()).items():
                part = file.get_slice(stored)
                found[name] = Stored(stored, tuple(part.get_shape()), str(part.get_dtype()))
            return list(file.keys()), found
    except (SafetensorError, OSError) as error:
        with path.open('rb') as file:
            pointer = file.read(len(LFS)) == LFS
        if pointer:
            raise CheckpointError(f"checkpoint file '{path}' is a Git LFS pointer, the weights "
                                  'are not here: git lfs pull') from error
        raise CheckpointError(f"checkpoint file '{path}' is damaged: {error}; copy it again") \
            from error


def _instead(folder: Path) -> str:
    """Return what is there in place of the weights, and what to do."""
    if (folder / 'adapter_config.json').exists():
        return ('this is an adapter (LoRA) of another checkpoint; merge the two with '
                "PEFT's merge_and_unload and save that")
    if (folder / (WEIGHTS + '.index.json')).exists():
        return 'the weights are in several files; save them with max_shard_size of 50GB'
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if pickles:
        return (f"'{pickles[0]}' is a pickle, which can run any code and is never opened; save "
                'the weights as safetensors')
    for name in ('pretrained_model', 'checkpoint', 'last'):
        if (folder / name).is_dir():
            return f"give its folder '{name}'"
    return 'copy the whole folder that training saved'


def stored_names(names: Iterable[str], aliases: Mapping[str, str] | None = None
                 ) -> dict[str, str]:
    """Return transformers' names of a trainer's tensors, without those that nothing reads.

    :param aliases: the file's metadata; safetensors notes there which tensors it left out because
        they share the memory of another.
    :returns: transformers' name to the name in the file.
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
