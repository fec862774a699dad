# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files of a checkpoint folder, and what is wrong with one."""

import json
from pathlib import Path
from typing import Any

WORDS = {dict: 'an object', list: 'a list', str: 'text', float: 'a number', bool: 'true or false'}
LFS = b'version https://git-lfs'
AGAIN = 'copy the file again, as training saved it'


class CheckpointError(Exception):
    """A checkpoint cannot be used; the text says why and what to do."""


def pointer(path: Path) -> str:
    """Return that a file is a Git LFS pointer, '' if it is none."""
    try:
        with path.open('rb') as file:
            if file.read(len(LFS)) == LFS:
                return 'is a Git LFS pointer, its content is not here: git lfs pull'
    except OSError:
        pass
    return ''


def inside(folder: Path, name: str, what: str) -> Path:
    """
    Return a file that a checkpoint names.

    :raises ValueError: it is not in the checkpoint: who reads it would read somebody else's.
    """
    if Path(name).is_absolute() or '..' in Path(name).parts:
        raise ValueError(f"its {what} is '{name}', which leads out of the checkpoint")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """
    Return the JSON object in ``path``.

    :raises CheckpointError: it is missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved') from error
    except OSError as error:
        raise CheckpointError(f"checkpoint file '{path}' cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint file '{path}' "
                              f'{pointer(path) or f"is not JSON: {error}"}') from error
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint file '{path}' holds no JSON object")
    return value


def part(value: dict[str, Any], key: str, kind: type, where: str, *default: Any) -> Any:
    """
    Return what a JSON object has under a key; ``default``, if given, for nothing or null.

    :param where: what the object is, for people.
    :raises ValueError: it is missing, or of another kind.
    """
    found = value.get(key)
    if found is None and default:
        return default[0]
    if key not in value:
        raise ValueError(f"{where} lacks '{key}': {AGAIN}")
    fits = isinstance(found, (int, float) if kind is float else kind)
    if not fits or (isinstance(found, bool) and kind is not bool):
        raise ValueError(f"'{key}' of {where} is {str(found)[:60]!r}, expected {WORDS[kind]}: "
                         f'{AGAIN}')
    return found
