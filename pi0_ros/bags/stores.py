# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Bags that lie elsewhere: s3://, gs://, sftp://, http:// and what else fsspec reads.

Such a bag is copied to this disk, whole or not at all, and stays in a cache of bounded size: the
one that was not used for the longest goes first.
"""

from collections.abc import Iterable
import errno
import hashlib
import os
from pathlib import Path
import shutil
import tempfile

from pi0_ros.bags.bag import BagError, NO_ROOM

CACHE = 'PI0_ROS_BAG_CACHE'   # the folder, where it is not the usual one
CACHE_GIB = 'PI0_ROS_BAG_CACHE_GIB'
USUAL_GIB = 50.0
FULL = (*NO_ROOM, errno.EIO)  # a disk that is written to is, or is broken
KEPT = ': what was done is kept, and the same command goes on from there'
Address = Path | str  # of a bag: here, or elsewhere


def address(text: str) -> Address:
    """Return where a bag is, as it is given on a command line."""
    return text if '://' in text else Path(text)


def named(bag: Address) -> str:
    """Return the name of a bag's folder or file."""
    return str(bag).rstrip('/').rpartition('/')[2]


def on_disk(bags: Iterable[Address]) -> list[Path]:
    """Return those that lie in a folder."""
    return [bag for bag in bags if isinstance(bag, Path)]


def here(bag: Address) -> Path:
    """
    Return where a bag can be read: itself, or its copy.

    :raises BagError: it is not there, cannot be reached, or is larger than the cache.
    :raises OSError: the disk of the cache is full.
    """
    if isinstance(bag, Path):
        return bag
    try:
        import fsspec
    except ImportError as error:
        raise BagError(f"bag '{bag}' needs fsspec: pip install fsspec") from error
    try:
        files, path = fsspec.core.url_to_fs(bag)
        if not files.exists(path):
            raise BagError(f"bag '{bag}' does not exist")
        found = {path: files.info(path)} if files.isfile(path) else files.find(path, detail=True)
        return _copied(bag, files, path.rstrip('/'), found)
    except BagError:
        raise
    except ImportError as error:  # fsspec says what to install for a kind of address
        raise BagError(f"bag '{bag}': {error}") from error
    except Exception as error:  # of every store its own
        if getattr(error, 'errno', None) in NO_ROOM:
            raise
        raise BagError(f"bag '{bag}' cannot be fetched: {type(error).__name__}: {error}") \
            from error


def _copied(bag: str, files: object, path: str, found: dict[str, dict]) -> Path:
    size = sum(int(one.get('size') or 0) for one in found.values())
    # Another content is another copy: sizes and whatever else a store tells of its files.
    told = sorted((name, one.get('size'), str(one.get('ETag') or one.get('mtime') or one.get(
        'created') or '')) for name, one in found.items())
    name = path.rpartition('/')[2]
    folder = _cache() / hashlib.sha256(repr((bag, told)).encode()).hexdigest()[:24]
    out = folder / name
    if out.exists():
        os.utime(folder)
        return out
    _make_room(size, bag)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix='part-') as part:
        aside = Path(part) / 'bag'
        aside.mkdir()
        for one in found:
            below = one[len(path):].lstrip('/')
            target = aside / name / below if below else aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(one, str(target))
        try:
            aside.rename(folder)
        except OSError:  # another process was faster
            if not out.exists():
                raise
    return out


def _cache() -> Path:
    usual = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'pi0_ros' / 'bags'
    out = Path(os.environ.get(CACHE) or usual)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _make_room(size: int, bag: str) -> None:
    """Remove what was not used for the longest, until so much more has room."""
    try:
        most = float(os.environ.get(CACHE_GIB) or USUAL_GIB) * 2**30
    except ValueError:
        raise BagError(f"{CACHE_GIB} is '{os.environ[CACHE_GIB]}', expected a number") from None
    if size > most:
        raise BagError(f"bag '{bag}' has {size / 2**30:.1f} GiB, the cache "
                       f'{most / 2**30:.1f}: set {CACHE_GIB} higher')
    kept = sorted((one for one in _cache().iterdir() if one.is_dir()
                   and not one.name.startswith('part-')), key=lambda one: one.stat().st_mtime)
    sizes = {one: sum(file.stat().st_size for file in one.rglob('*') if file.is_file())
             for one in kept}
    for one in kept:
        if sum(sizes.values()) + size <= most:
            return
        shutil.rmtree(one, ignore_errors=True)  # who has it open goes on reading
        del sizes[one]
