# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is known of LeRobot's training data: names and rate, from files on this disk."""

import contextlib
import os
from pathlib import Path
from typing import Any

from pi0_ros.weights.files import CheckpointError, read_json

FASTEST_HZ = 1000


def flat_names(value: Any) -> tuple[str, ...]:
    """
    Return the names of joints in whatever shape a data set has them, () where that is no list.

    A list, nested or not; groups of lists; names to indices.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, dict):
        if value and all(type(index) is int for index in value.values()):
            return tuple(sorted(value, key=value.get))
        value = list(value.values())
    if not isinstance(value, list):
        return ()
    return tuple(name for part in value for name in flat_names(part))


class DataSet:
    """What is known of the training data: in the checkpoint, else in the data set on this disk."""

    def __init__(self, folder: Path) -> None:
        """
        Look for it.

        :raises ValueError: its rate is none.
        """
        path = folder / 'train_config.json'
        config = read_json(path) if path.exists() else {}
        data = config.get('dataset')
        data = data if isinstance(data, dict) else {}
        self._info: dict[str, Any] = {}
        for info in _info_files(data):
            if info.is_file():
                with contextlib.suppress(CheckpointError):  # it is no part of the checkpoint
                    self._info = read_json(info)
                break
        # The data set's rate times the actions; an environment is where it was tried out.
        rate = next((section['fps'] for section in (data, self._info)
                     if section.get('fps') is not None), None)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))
                                 or not 0 < rate <= FASTEST_HZ):
            raise ValueError(f'its control rate (fps) is {rate!r}, expected above 0 to '
                             f"{FASTEST_HZ} Hz: set 'action_rate'")
        self.control_period = 1 / rate if rate else None  # seconds

    def names(self, feature: str, width: int) -> tuple[str, ...] | None:
        """Return the names of a feature's values, where they are known."""
        names = flat_names(self._feature(feature).get('names'))
        return names if len(names) == width else None

    def is_depth(self, camera: str) -> bool:
        """Return whether the data set says that a camera gives depth images."""
        of = self._feature(f'observation.images.{camera}')
        return any(isinstance(told, dict) and bool(told.get('video.is_depth_map'))
                   for told in (of.get('info'), of.get('video_info')))

    def _feature(self, name: str) -> dict[str, Any]:
        features = self._info.get('features')
        found = features.get(name) if isinstance(features, dict) else None
        return found if isinstance(found, dict) else {}


def _info_files(data: dict[str, Any]) -> list[Path]:
    """Return where the info.json of a data set may lie on this disk."""
    hub = Path(os.environ.get('HF_HOME') or '~/.cache/huggingface')
    home = Path(os.environ.get('HF_LEROBOT_HOME') or hub / 'lerobot').expanduser()
    roots, repo = [data.get('root')], data.get('repo_id')
    if isinstance(repo, str) and repo:
        roots.append(home / repo)
        cached = f"datasets--{repo.replace('/', '--')}"
        for cache in (home / 'hub', hub.expanduser() / 'hub'):
            refs = [cache / cached / 'refs' / 'main',
                    *sorted((cache / cached / 'refs').glob('*'), reverse=True)]
            roots += [cache / cached / 'snapshots' / ref.read_text().strip()
                      for ref in refs if ref.is_file()]
    return [Path(str(root)).expanduser() / 'meta' / 'info.json' for root in roots if root]
