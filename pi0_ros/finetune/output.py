# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The folder of a fine-tuning: its settings, its log, and its checkpoints, as LeRobot has them."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
from typing import Any

from pi0_ros.finetune.settings import Settings

MODEL, STATE = 'pretrained_model', Path('training_state') / 'state.safetensors'
BEST = Path('training_state') / 'best.json'


class Output:
    """``checkpoints/STEP/pretrained_model``; the last and the best are kept, and have links."""

    def __init__(self, settings: Settings, resume: bool, first: bool = True) -> None:
        """
        Begin, or take up what was begun.

        :param first: of the processes, which alone writes.
        :raises ValueError: the folder holds another training, or none to go on with.
        """
        self.folder, self.checkpoints = settings.output, settings.output / 'checkpoints'
        self.last = self.checkpoints / 'last'
        path = self.folder / 'settings.json'
        if resume:
            if not path.exists() or not self.last.exists():
                raise ValueError(f"'{self.folder}' has no training to go on with: leave out "
                                 '--resume')
            before, now = json.loads(path.read_text()), settings.same()
            other = [name for name in now if before.get(name) != now[name]]
            if other:
                raise ValueError(f"'{self.folder}' was begun with another {', '.join(other)}: "
                                 'give the same, or another --output')
            return
        if not first:
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"'{self.folder}' exists: say --resume to go on with it, or give "
                             'another --output')
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings.same(), indent=2) + '\n')

    def resumed(self, number: int) -> float:
        """Return the best measure so far; forget what was logged after step ``number``."""
        log = self.folder / 'log.jsonl'
        if log.exists():
            kept = [line for line in log.read_text().splitlines()
                    if json.loads(line)['step'] <= number]
            log.write_text(''.join(line + '\n' for line in kept))
        return json.loads((self.last / BEST).read_text())['best']

    def log(self, **values: Any) -> None:
        """Add a line to log.jsonl."""
        with (self.folder / 'log.jsonl').open('a') as lines:
            lines.write(json.dumps(values) + '\n')

    def save(self, number: int, model: Callable[[Path], None], state: Callable[[Path], None],
             best: float, is_best: bool) -> None:
        """
        Write a checkpoint, and what is needed to go on; those that no link leads to go after that.

        :param model: writes the checkpoint into a folder. :param state: writes the rest to a file.
        :raises OSError: the disk is full; what was there before stays.
        """
        folder = self.checkpoints / f'{number:06d}'
        self.checkpoints.mkdir(exist_ok=True)
        before = [path for path in self.checkpoints.iterdir()
                  if path.is_dir() and not path.is_symlink() and path != folder]
        try:
            (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
            model(folder / MODEL)
            state(folder / STATE)
            (folder / BEST).write_text(json.dumps({'best': best}))
        except OSError:
            if self.last.exists() and self.last.resolve() != folder.resolve():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _point(self.last, folder)
        if is_best:
            _point(self.checkpoints / 'best', folder)
        kept = {(self.checkpoints / name).resolve() for name in ('last', 'best')}
        for path in before:
            if path.resolve() not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _point(link: Path, folder: Path) -> None:
    """Let a link lead to a folder beside it, at once."""
    part = link.with_name(link.name + '.partial')
    part.unlink(missing_ok=True)
    part.symlink_to(folder.name)
    os.replace(part, link)
