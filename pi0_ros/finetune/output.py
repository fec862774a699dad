# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The folder of a fine-tuning: its settings, its log, and its checkpoints, as LeRobot has them."""

from collections.abc import Callable
import contextlib
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
            begun = {one.name for one in self.folder.iterdir()} <= {path.name, 'log.jsonl',
                                                                    'checkpoints'}
            if not begun or self.checkpoints.exists() and any(self.checkpoints.iterdir()):
                raise ValueError(f"'{self.folder}' exists: say --resume to go on with it, or give "
                                 'another --output')
            (self.folder / 'log.jsonl').unlink(missing_ok=True)  # of one that saved nothing
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings.same(), indent=2) + '\n')

    def resumed(self, number: int) -> float:
        """Return the best measure so far; forget what was logged after step ``number``."""
        log, kept = self.folder / 'log.jsonl', []
        for line in log.read_text().splitlines() if log.exists() else ():
            with contextlib.suppress(ValueError):  # one that was being written
                if json.loads(line)['step'] <= number:
                    kept.append(line + '\n')
        part = log.with_name('log.jsonl.partial')
        part.write_text(''.join(kept))
        part.replace(log)
        return json.loads((self.last / BEST).read_text())['best']

    def log(self, **values: Any) -> None:
        """Add a line to log.jsonl."""
        with (self.folder / 'log.jsonl').open('a') as lines:
            lines.write(json.dumps(values) + '\n')

    def save(self, number: int, model: Callable[[Path], None], state: Callable[[Path], None],
             best: float) -> None:
        """
        Write a checkpoint, and what is needed to go on; those that no link leads to go after that.

        :param model: writes the checkpoint into a folder. :param state: writes the rest to a file.
        :param best: measure of the best.
        :raises OSError: the disk is full; what was there before stays.
        """
        folder = self.checkpoints / f'{number:06d}'
        try:
            (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
            model(folder / MODEL)
            state(folder / STATE)
            (folder / BEST).write_text(json.dumps({'best': best}))
        except OSError:
            if not self.last.exists() or self.last.resolve() != folder.resolve():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _point(self.last, folder)
        self._tidy()

    def mark_best(self, number: int, best: float) -> None:
        """Let ``best`` lead to the checkpoint of a step."""
        folder = self.checkpoints / f'{number:06d}'
        (folder / BEST).write_text(json.dumps({'best': best}))
        _point(self.checkpoints / 'best', folder)
        self._tidy()

    def _tidy(self) -> None:
        """Remove checkpoints that no link leads to, and what only the last needs to go on."""
        last, best = (link.resolve() for link in (self.last, self.checkpoints / 'best'))
        for path in self.checkpoints.iterdir():
            if path.is_symlink() or not path.is_dir() or path.resolve() == last:
                continue
            shutil.rmtree(path / STATE.parent if path.resolve() == best else path,
                          ignore_errors=True)


def _point(link: Path, folder: Path) -> None:
    """Let a link lead to a folder beside it, at once."""
    part = link.with_name(link.name + '.partial')
    part.unlink(missing_ok=True)
    part.symlink_to(folder.name)
    os.replace(part, link)
