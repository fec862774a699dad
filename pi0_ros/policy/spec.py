"""What a checkpoint is, whatever trained it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pi0_ros.policy.normalise import Normaliser

LETTERBOXES = ('lerobot', 'lerobot_0.4', 'lerobot_0.3', 'openpi', 'transformers')


class CheckpointError(Exception):
    """A checkpoint cannot be used; the text says why and what to do."""


class RelativeUnknown(CheckpointError):
    """A checkpoint does not record which actions are relative, and the user did not say."""


@dataclass(frozen=True)
class PolicySpec:
    """The description that everything after the loading works with."""

    folder: Path
    layout: str                   # LeRobot, openpi or transformers
    cameras: tuple[str, ...]      # names, in the order of the prefix
    state_width: int
    action_width: int
    state: Normaliser
    action: Normaliser
    action_names: tuple[str, ...] | None
    relative: np.ndarray          # [action_width] bool: relative to the state of the observation
    chunk_length: int
    denoising_steps: int
    dt_s: float | None            # control period of the training data, None when not recorded
    image_size: tuple[int, int]   # height, width
    letterbox: str                # one of LETTERBOXES
    prompt: str                   # 'lerobot' or 'openpi': how an instruction becomes a prompt
    max_prompt_tokens: int
    tokenizer: Path | None        # folder with tokenizer.json


@dataclass(frozen=True)
class Choices:
    """What a user may know better than the checkpoint, and what openpi does not record."""

    letterbox: str = ''                       # '' takes the layout's newest
    relative_joints: tuple[int, ...] | None = None  # action indices; None: as recorded
    assets: str = ''                          # openpi: folder below assets/, '' if there is one


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    :raises CheckpointError: it is missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved') from error
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"checkpoint file '{path}' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint file '{path}' holds no JSON object")
    return value
