# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the weights of a folder are: one file, several, or an adapter and its base."""

from pathlib import Path

from pi0_ros.weights import adapter
from pi0_ros.weights.files import CheckpointError, inside, read_json
from pi0_ros.weights.tensors import ADAPTER, read_raw, Stored, stored_names, WEIGHTS

INDEX = WEIGHTS + '.index.json'
PICKLES = ('pytorch_model.bin', 'adapter_model.bin', 'model.pt',
           'model.pth', 'model.bin', 'optimizer.pt')


def read_header(folder: Path) -> tuple[list[str], dict[str, Stored]]:
    """
    Return all names in the files, and what the network reads under transformers' names.

    Of an adapter that is what its base stores, with what the adapter changes.

    :raises CheckpointError: a file is missing or damaged.
    """
    if (folder / adapter.CONFIG).exists():
        config = adapter.read_config(folder)
        names, stored = read_header(adapter.base_folder(folder, config))
        return names, adapter.changed(folder, config, stored)
    found, told = read_raw(weight_files(folder))
    if not (folder / WEIGHTS).is_file():
        _require_index(folder / INDEX, found)
    return list(found), {name: found[stored]
                         for name, stored in stored_names(found, told).items()}


def described_by(folder: Path) -> Path:
    """Return the folder whose config.json describes the network: an adapter's base has it."""
    if not (folder / adapter.CONFIG).exists():
        return folder
    own = read_json(folder / 'config.json') if (folder / 'config.json').exists() else {}
    return folder if own.get('vlm_config') else adapter.base_folder(
        folder, adapter.read_config(folder))


def weight_files(folder: Path) -> list[Path]:
    """
    Return the files that hold the weights: one, or those of an index.

    :raises CheckpointError: there are none.
    """
    path, index = folder / WEIGHTS, folder / INDEX
    if path.is_file():
        return [path]
    if not index.exists():
        raise CheckpointError(f"checkpoint file '{path}' is missing: {_instead(folder)}")
    told = read_json(index).get('weight_map')
    if not isinstance(told, dict) or not told or not all(
            isinstance(name, str) for name in told.values()):
        raise CheckpointError(f"checkpoint file '{index}' has no weight_map from tensors to files")
    try:
        files = [inside(folder, name, 'weight_map') for name in sorted(set(told.values()))]
    except ValueError as error:
        raise CheckpointError(f"checkpoint file '{index}': {error}") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"checkpoint file '{folder / missing[0]}' is missing, which "
                              f'{INDEX} names: copy the whole folder')
    return files


def _require_index(index: Path, found: dict[str, Stored]) -> None:
    """Refuse an index that says otherwise than its files."""
    told = read_json(index)['weight_map']
    wrong = sorted(name for name in told.keys() | found.keys()
                   if name not in found or told.get(name) != found[name].path.name)
    if wrong:
        there = found[wrong[0]].path.name if wrong[0] in found else 'no file'
        raise CheckpointError(
            f"checkpoint file '{index}' has tensor {wrong[0]} in {told.get(wrong[0], 'no file')}, "
            f'it is in {there}: copy the whole folder again')


def _instead(folder: Path) -> str:
    """Return what is there in place of the weights, and what to do."""
    if (folder / ADAPTER).exists():
        return (f"'{ADAPTER}' is an adapter (LoRA) of another checkpoint, without its "
                'adapter_config.json: copy the whole folder that training saved')
    parts = [path for name in ('.metadata', '*.distcp', '*/.metadata', '*/*.distcp')
             for path in folder.glob(name)]
    if parts:
        return (f"'{parts[0].relative_to(folder)}' belongs to a distributed checkpoint of torch, "
                'which holds pickles and is never opened: let training save it whole '
                '(accelerate merge-weights FOLDER OUT makes one safetensors file of it)')
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if pickles:
        return (f"'{pickles[0]}' is a pickle, which can run any code and is never opened; save "
                'the weights as safetensors')
    return 'copy the whole folder that training saved'
