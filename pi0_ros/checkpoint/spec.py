# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint is, whatever trained it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
import numpy as np
from pi0_ros.checkpoint.normalise import Normaliser
from pi0_ros.weights.files import CheckpointError

ENGINES = ('auto', 'fast', 'reference')
# What actions mean.
POSITIONS, VELOCITIES, POSE, DELTA = ACTIONS = (
    'positions', 'velocities', 'end_effector_pose', 'end_effector_delta')
COMPILE = ('auto', 'on', 'off')
PALIGEMMA = 'google/paligemma-3b-pt-224'  # whose tokenizer PI0 reads
PI0, PI05, PI_ZERO = 'pi0', 'pi05', 'pi_zero_pytorch'
NETWORKS = {PI0: 'PI0', PI05: 'pi0.5', PI_ZERO: 'pi-zero-pytorch'}
PLAIN = 'plain'  # the text as the tokenizer has it
# pi0.5's has the state in it, for either trainer.
PROMPTS = ('lerobot', 'openpi', PI05, PLAIN)
MOST_OFFSET = 10  # periods
MOST_STEPS, MOST_PIXELS, MOST_WIDE = 1000, 2048, 1000
LETTERBOXES = ('lerobot', 'lerobot_0.4', 'lerobot_0.3', 'openpi', 'transformers')


class Unrecorded(CheckpointError):
    """
    A checkpoint does not record what it should, and the user did not say it.

    ``setting`` is what says it.
    """

    def __init__(self, text: str, setting: str) -> None:
        """Say it in ``text``."""
        super().__init__(text)
        self.setting = setting


@dataclass(frozen=True)
class PolicySpec:
    """The description that everything after the loading works with."""

    folder: Path
    layout: str                   # LeRobot, openpi, transformers or pi-zero-pytorch
    cameras: tuple[str, ...]      # names, in the order of the prefix
    state_width: int
    action_width: int
    state: Normaliser
    action: Normaliser
    state_names: tuple[str, ...] | None   # as the training data calls them, where known
    action_names: tuple[str, ...] | None
    widths_recorded: bool         # else the statistics may be padded
    relative: np.ndarray          # [action_width] bool: relative to the state of the observation
    chunk_length: int
    denoising_steps: int
    dt_s: float | None            # control period of the training data, None when not recorded
    image_size: tuple[int, int]   # height, width
    letterbox: str                # one of LETTERBOXES
    prompt: str                   # how an instruction becomes a prompt: one of PROMPTS
    max_prompt_tokens: int
    tokenizer: Path | None        # folder with tokenizer.json
    trainer: str                  # what is known of the version that trained it
    warnings: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)  # the data set's cameras: names here
    # Of each camera whose images training normalised: (value in [0, 1] - shift) * scale, both [3].
    pixels: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    relative_why: str = ''        # which actions are relative, and by which rule
    action_offset: int = 0        # periods after the observation at which step 0 is due
    trained_delay: int = 0        # so many first actions training gave it, for rtc_trained
    network: str = PI0            # one of NETWORKS
    # [action_width] what an action of 1 is in rad/s or m/s, where it is a velocity; else 0.
    velocity: np.ndarray | None = None
    prompt_states: int = 0        # so many digits a prompt of pi0.5 has, those behind of 0; 0: all

    def camera(self, name: str) -> str:
        """Return the checkpoint's name of a camera that the data set may call otherwise."""
        return name if name in self.cameras else self.renamed.get(name, name)


@dataclass(frozen=True)
class Choices:
    """What a user may know better than the checkpoint, and what openpi does not record."""

    letterbox: str = ''                       # '' takes the layout's newest
    relative_joints: tuple[int, ...] | None = None  # action indices; None: as recorded
    assets: str = ''                          # openpi: folder below assets/, '' if there is one
    chunk_length: int = 0                     # steps; 0: as recorded
    actions: str = ''                         # what they mean: one of ACTIONS; '': as it seems
    plain_prompt: bool | None = None          # openpi's pi0.5 without the state in it
    velocity: float = 0.0                     # of VELOCITIES: what 1 is, rad/s or m/s
    positions: tuple[int, ...] = ()           # of VELOCITIES: actions that are none
    # Of POSE and DELTA: actions that are x, y or z of a tool, and the state of that name, or -1.
    places: tuple[tuple[int, int], ...] = ()


def whole(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """
    Return a whole number of a JSON object.

    :raises ValueError: it is something else, or missing and without ``default``.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'its {key} is {value!r}, expected a whole number')
    return value


def texts(value: Any, what: str) -> tuple[str, ...]:
    """
    Return a list of text of a JSON object, empty for null.

    :raises ValueError: it is something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f'its {what} is {value!r}, expected a list of text')
    return tuple(value)


def relative_mask(indices: Sequence[int], width: int) -> np.ndarray:
    """
    Return [width] bool, True at ``indices``.

    :raises ValueError: there are not so many actions.
    """
    if any(index >= width for index in indices):
        raise ValueError(f'action {max(indices)} shall be relative, but it has {width} actions')
    out = np.zeros(width, bool)
    out[list(indices)] = True
    return out


def require_sane(spec: PolicySpec, config: Mapping[str, Any]) -> None:
    """
    Refuse numbers that no PI0 has, before memory is asked for.

    :param config: its config.json. :raises ValueError: there are some.
    """
    if spec.relative[spec.state_width:].any():
        raise ValueError(f'action {np.flatnonzero(spec.relative)[-1]} is relative to a state, but '
                         f'it has {spec.state_width} states')
    state, action = (whole(config, key, whole(config, 'action_dim', 32))
                     for key in ('max_state_dim', 'max_action_dim'))
    if spec.network == PI_ZERO:
        state = action = MOST_WIDE
    for what, value, high in (
            ('state width', spec.state_width, state), ('action width', spec.action_width, action),
            ('chunk length', spec.chunk_length, MOST_STEPS),
            ('number of denoising steps', spec.denoising_steps, MOST_STEPS),
            ('image height', spec.image_size[0], MOST_PIXELS),
            ('image width', spec.image_size[1], MOST_PIXELS),
            ('prompt length', spec.max_prompt_tokens, MOST_STEPS)):
        if not 1 <= value <= high:
            raise ValueError(f'its {what} is {value}, expected 1 to {high}')
    if not 0 <= spec.action_offset <= MOST_OFFSET:
        raise ValueError(f'its action_offset is {spec.action_offset}, expected 0 to {MOST_OFFSET}')
    if not 0 <= spec.trained_delay <= spec.chunk_length:
        raise ValueError(f'its trained_delay is {spec.trained_delay}, expected 0 to '
                         f'{spec.chunk_length}')


def find_tokenizer(beside: Path, name: str | None) -> Path | None:
    """
    Return a folder with tokenizer.json: ``beside`` the policy, or what is called ``name``.

    :param name: a folder, or the hub's name of a tokenizer, which is looked up in the hub's cache
        on this disk and never fetched.
    """
    for folder in (beside, Path(name or '').expanduser()):
        if folder.is_absolute() and (folder / 'tokenizer.json').is_file():
            return folder
    try:
        cached = name and try_to_load_from_cache(name, 'tokenizer.json')
    except HFValidationError:  # a path, no name
        return None
    return Path(cached).parent if isinstance(cached, str) else None
