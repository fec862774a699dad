# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where a checkpoint lies: what people point at, and what is meant. Nothing is fetched."""

import os
from pathlib import Path
import re

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

OWN = ('config.json', 'model.safetensors', 'model.safetensors.index.json', 'adapter_config.json',
       'adapter_model.safetensors', '_CHECKPOINT_METADATA', 'params', 'metadata.pt')
# As LeRobot's training makes them.
INNER = ('pretrained_model', 'last', 'checkpoints', 'checkpoint')
CACHED = 'models--'  # how a model's folder in the hub's cache begins
HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+')


def locate(name: str) -> Path:
    """
    Return the folder that is meant by a folder, or by a name of the hub that is in its cache.

    A folder may be a run's, one of its ``checkpoints``, ``last`` or a step there, or lie in the
    hub's cache. What leads nowhere is returned as it is, see ``hint``.
    """
    path = Path(os.path.expanduser(name))
    try:
        if path.is_dir():
            return _inner(path)
    except OSError:  # a name that is too long
        return path
    return cached(name) or path


def cached(name: str, revision: str | None = None) -> Path | None:
    """Return the snapshot of a model in the hub's cache on this disk, None where it is not."""
    name, _, given = name.partition('@')
    for file in ('config.json', 'adapter_config.json', 'model.safetensors'):
        try:
            found = try_to_load_from_cache(name, file, revision=given or revision)
        except HFValidationError:  # a path, no name
            return None
        if isinstance(found, str):
            return Path(found).parent
    if not HUB_NAME.fullmatch(name) or given or revision:
        return None
    return _snapshot(Path(constants.HF_HUB_CACHE) / f"{CACHED}{name.replace('/', '--')}")


def hint(path: Path) -> str:
    """Return what to give instead of a place without a checkpoint, '' where that is not known."""
    try:
        there = path.is_dir()
    except OSError:  # a name that is too long
        return ''
    if not there:
        name, _, revision = str(path).partition('@')
        fetch = f'hf download {name}' + f' --revision {revision}' * bool(revision)
        if path.is_file():
            return f": it is a file, give the folder that it is in, '{path.parent}'"
        if path.is_symlink():
            return f": it is a link to '{path.readlink()}', which is not there" + (
                hint(path.parent) if path.parent.is_dir() else '')
        return (f'; if it is a name of the hub, fetch it first: {fetch}'
                if HUB_NAME.fullmatch(name) else '')
    if path.name.startswith(CACHED) or path.name == 'snapshots':
        base = path if path.name == 'snapshots' else path / 'snapshots'
        return ': it holds the snapshots ' + ', '.join(
            sorted(one.name for one in base.glob('*'))) + ', give the folder of one'
    steps, models = _steps(path), _models(path)
    if not steps and not models:
        for name in INNER:
            steps = steps or _steps(path / name)
    if steps:
        return f": it holds the steps {', '.join(steps)}, give the folder of one"
    if models:
        return ': it holds the models ' + ', '.join(
            one.name.removeprefix(CACHED).replace('--', '/') for one in models) + ', give one'
    return ''


def _inner(folder: Path) -> Path:
    """Return the folder that holds the checkpoint, where there is no doubt."""
    if any((folder / name).exists() for name in OWN):
        return folder
    for name in INNER:
        if (folder / name).is_dir():
            return _inner(folder / name)
    if folder.name == 'snapshots' and folder.parent.name.startswith(CACHED):
        folder = folder.parent
    models = [folder] if folder.name.startswith(CACHED) else _models(folder)
    if len(models) == 1:
        return _snapshot(models[0]) or folder
    steps = _steps(folder)
    return _inner(folder / steps[0]) if len(steps) == 1 else folder


def _models(folder: Path) -> list[Path]:
    return sorted([*folder.glob(f'{CACHED}*'), *folder.glob(f'hub/{CACHED}*')])


def _snapshot(model: Path) -> Path | None:
    main, all_of_it = model / 'refs' / 'main', sorted(model.glob('snapshots/*'))
    if main.is_file():
        found = model / 'snapshots' / main.read_text().strip()
        if found.is_dir():
            return found
    return all_of_it[0] if len(all_of_it) == 1 else None


def _steps(folder: Path) -> list[str]:
    """Return the names of folders of training's steps."""
    if not folder.is_dir():
        return []
    return sorted(one.name for one in folder.iterdir() if one.name.isdigit() and one.is_dir())
