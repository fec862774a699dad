# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Reads a checkpoint folder of any supported layout: what the policy is, wants and gives.

Only JSON and safetensors are read; a pickle is never opened.
"""

from collections.abc import Mapping
from dataclasses import replace
import math
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.checkpoint import (layout_lerobot, layout_openpi, layout_pi_zero,
                                layout_transformers)
from pi0_ros.checkpoint.normalise import Normaliser, STILL_RANGE
from pi0_ros.checkpoint.spec import (Choices, DELTA, NETWORKS, PI0, PI05, PI_ZERO,
                                     PolicySpec, POSE, require_sane, Unrecorded, VELOCITIES,
                                     whole)
from pi0_ros.weights.files import CheckpointError, read_json
from pi0_ros.weights.header import read_header
from pi0_ros.weights.places import hint, OWN
from pi0_ros.weights.tensors import BUFFERS, MARK, Stored, WRAPPED

EMBEDDINGS = 'model.vlm.vision_tower.embeddings.'
# How many first actions training gave: ours, and LeRobot's of pi0.5, which may be null.
OURS = 'pi0_ros.json'  # what LeRobot's configuration has no key for, and stops at
DELAYS = ('trained_delay', 'rtc_training_max_delay')
AROUND = 4  # times nearer to 0 than the state
OF_POSES = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'rx', 'ry', 'rz', 'qx', 'qy', 'qz', 'qw')
KINDS = {'pi0': PI0, 'pi05': PI05, 'pi0_5': PI05, 'pi0.5': PI05}
OTHER_NETWORKS = {'pi0fast': 'pi0-FAST', 'pi0_fast': 'pi0-FAST'}


def read(folder: Path, choices: Choices = Choices()) -> PolicySpec:
    """
    Return the description of the checkpoint in ``folder``.

    :raises CheckpointError: the folder is missing, incomplete, or of a kind that is not supported.
    """
    if not _is_folder(folder):
        raise CheckpointError(f"checkpoint folder '{folder}' does not exist: give the folder that "
                              f'holds config.json and model.safetensors{hint(folder)}')
    if not any((folder / name).exists() for name in OWN) and hint(folder):
        raise CheckpointError(f"folder '{folder}' holds no checkpoint itself{hint(folder)}")
    if not (folder / 'model.safetensors').exists() and (
            (folder / 'params').is_dir() or (folder / '_CHECKPOINT_METADATA').exists()):
        raise CheckpointError(f"checkpoint '{folder}' is openpi's Orbax (JAX) format: convert it "
                              'with openpi/examples/convert_jax_model_to_pytorch.py')
    config = read_json(folder / 'config.json') if (folder / 'config.json').exists() else {}
    kind = str(config.get('type') or config.get('model_type') or '')
    if kind.lower() in OTHER_NETWORKS:
        raise CheckpointError(f"checkpoint '{folder}' is {OTHER_NETWORKS[kind.lower()]}, another "
                              'network: this package runs PI0 and pi0.5; serve it with openpi and '
                              "set 'policy' to remote")
    names, stored = read_header(folder)
    buffers = [name for name in names if WRAPPED.sub('', name).removeprefix('model.').startswith(
        BUFFERS)]
    if buffers and not (folder / 'policy_preprocessor.json').exists():
        raise CheckpointError(f"checkpoint '{folder}' was saved by LeRobot before 0.4: "
                              f'{layout_lerobot.migrate(config)}')
    network = PI_ZERO if kind == PI_ZERO else PI05 if MARK in stored else PI0
    if KINDS.get(kind.lower(), network) != network:
        raise CheckpointError(f"checkpoint '{folder}' is {NETWORKS[KINDS[kind.lower()]]} by its "
                              f'config.json, its weights are of {NETWORKS[network]}: files of two '
                              'checkpoints are mixed, copy the whole folder that training saved')
    layout = _layout(folder, config, kind)
    ours = config | (read_json(folder / OURS) if (folder / OURS).exists() else {})
    try:
        spec = layout.describe(folder.absolute(), config, choices, network)
        left = (f'the weights hold {len(buffers)} statistics of LeRobot before 0.4, such as '
                f'{buffers[0]}: left out, those of the processors count',) if buffers else ()
        spec = replace(spec, warnings=spec.warnings + _still(spec) + left, network=network,
                       trained_delay=trained_delay(ours),
                       action_offset=whole(ours, 'action_offset', 0))
        spec = replace(spec, velocity=_velocities(spec, choices))
        spec = replace(spec, warnings=spec.warnings + _meaning(spec, choices))
        require_sane(spec, config)
        _require_image_size(spec, stored)
        return spec
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is incomplete or damaged: "
                              f'{type(error).__name__}: {error}') from error
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from error


def not_positions(state: Normaliser, action: Normaliser, relative: np.ndarray) -> list[int]:
    """
    Return the absolute actions that stay around 0 where their states do not; [] if few do.

    Whoever commands positions commands about what is measured.
    """
    count = min(len(state.middle), len(action.middle))
    absolute, far, near = ~relative[:count], np.abs(state.middle[:count]), np.abs(
        action.middle[:count])
    clear = absolute & (far > state.spread[:count])
    odd = clear & (near < far / AROUND)
    if odd.sum() >= max(2, clear.sum() / 2):
        return np.flatnonzero(odd).tolist()
    small = absolute & (near + action.spread[:count] < (far + state.spread[:count]) / AROUND)
    return np.flatnonzero(small).tolist() if small.sum() >= max(2, absolute.sum() / 2) else []


def _meaning(spec: PolicySpec, choices: Choices) -> tuple[str, ...]:
    """
    Return a warning if actions do not look like positions; of openpi's that must be said.

    :raises Unrecorded: openpi's do not look like positions, and nobody said what they are.
    :raises ValueError: they are said to be velocities, and stay where velocities do not.
    """
    odd = not_positions(spec.state, spec.action, spec.relative)
    told = (f"its actions do not look like positions: actions {', '.join(map(str, odd))} are "
            'around 0, the states there are not, as where actions are relative to the state '
            "('relative_joints' says which are), velocities (DROID), or steps of a tool (LIBERO). "
            "Set 'actions' to velocities or end_effector_delta, or to positions if that is what "
            'they are')
    if odd and not choices.actions and spec.layout in ('openpi', 'pi-zero-pytorch'):
        raise Unrecorded(f"checkpoint '{spec.folder}': {told}", 'actions')
    poses = [name for name in spec.action_names or () if plain(name) in OF_POSES]
    if len(poses) > 2 and not choices.actions:
        raise Unrecorded(
            f"checkpoint '{spec.folder}': its actions are called {', '.join(poses)}, "
            "as the pose of a tool: set 'actions' to end_effector_pose if they are where it "
            'shall be, to end_effector_delta if they are steps from where it is, to positions if '
            'they are joints', 'actions')
    _require_places(spec, choices)
    if spec.velocity is not None:
        away = np.flatnonzero((spec.velocity != 0)
                              & (np.abs(spec.action.middle) > spec.action.spread))
        if len(away):
            first = int(away[0])
            raise ValueError(
                f"'actions' is velocities, but action {first} is {spec.action.middle[first]:.3g} "
                f'give or take {spec.action.spread[first]:.3g} in the training data, so that its '
                'joint always turned one way: those are positions, or it belongs to '
                "'position_joints'")
    return (told,) if odd and not choices.actions else ()


def plain(name: str) -> str:
    """Return what is behind the last dot of a name, in lower case: ee.x is x."""
    return name.lower().removesuffix('.pos').rpartition('.')[2]


def _require_places(spec: PolicySpec, choices: Choices) -> None:
    """
    Refuse poses of a tool that stay around 0, where it is not, and steps that do not.

    :raises ValueError: they look like the other.
    """
    if not choices.places or max(map(max, choices.places)) >= spec.action_width:
        return
    places = np.array([action for action, _ in choices.places])
    middle, spread = spec.action.middle[places], spec.action.spread[places]
    if choices.actions == DELTA and (np.abs(middle) > 2 * spread).any():
        at = int(np.argmax(np.abs(middle) - 2 * spread))
        raise ValueError(f"'actions' is {DELTA}, but action {places[at]} is {middle[at]:.3g} give "
                         f'or take {spread[at]:.3g} in the training data, so that the tool always '
                         f"went one way: those are poses, set 'actions' to {POSE}")
    pairs = [(action, state) for action, state in choices.places
             if 0 <= state < spec.state_width and not spec.relative[action]]
    if choices.actions != POSE or not pairs:
        return
    actions, states = np.array(pairs).T
    far, near = np.abs(spec.state.middle[states]), np.abs(spec.action.middle[actions])
    clear = far > spec.state.spread[states]
    odd = actions[clear & (near < far / AROUND)]
    if len(odd) >= max(1, clear.sum() / 2):
        raise ValueError(f"'actions' is {POSE}, but actions {', '.join(map(str, odd))} are around "
                         f"0 where the states are not: those are steps, set 'actions' to {DELTA}, "
                         "or say in 'relative_joints' that they are relative to the state")


def trained_delay(config: Mapping[str, Any]) -> int:
    """
    Return how many first actions training gave, as a config.json says.

    :raises ValueError: it is no whole number.
    """
    if config.get('type') == PI_ZERO:  # draws from 0 to one less
        return max(0, whole(config, 'train_time_rtc_max_delay', 0) - 1) if config.get(
            'train_time_rtc') else 0
    return max((whole(config, name) for name in DELAYS if config.get(name) is not None), default=0)


def _velocities(spec: PolicySpec, choices: Choices) -> np.ndarray | None:
    """
    Return what each action of 1 is in rad/s or m/s, 0 where it is a position.

    :raises ValueError: an action is both a velocity and relative.
    """
    if choices.actions != VELOCITIES:
        return None
    out = np.full(spec.action_width, choices.velocity)
    out[[number for number in choices.positions if number < len(out)]] = 0.0
    both = np.flatnonzero((out != 0) & spec.relative)
    if len(both):
        raise ValueError(f"action {both[0]} is relative to the state and a velocity: 'actions' is "
                         "velocities, so 'relative_joints' has only joints of 'position_joints'")
    return out


def _require_image_size(spec: PolicySpec, stored: dict[str, Stored]) -> None:
    """Refuse images that the network's position table does not fit."""
    try:
        patch = stored[EMBEDDINGS + 'patch_embedding.weight'].shape[-1]
        places = stored[EMBEDDINGS + 'position_embedding.weight'].shape[0]
    except (KeyError, IndexError):
        return  # loading names what is missing
    side = math.isqrt(places) * patch
    if spec.image_size != (side, side):
        raise ValueError(f'it wants images of {spec.image_size}, but its network reads '
                         f'{side} x {side}')


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _still(spec: PolicySpec) -> tuple[str, ...]:
    """Return a warning for states that hardly moved in the training data."""
    padding = (spec.state.middle == 0) & (not spec.widths_recorded)
    still = np.flatnonzero(spec.state.still & ~padding)
    if not len(still):
        return ()
    names = ', '.join(spec.state_names[i] if spec.state_names else str(i) for i in still)
    return (f'state {names} hardly moved in training: its normalised value stays within '
            f'{STILL_RANGE:.0f} standard deviations',)


def _layout(folder: Path, config: dict, kind: str):
    """Return the module that reads this layout."""
    if config.get('model_type') == 'pi0':
        return layout_transformers
    if kind == PI_ZERO:
        return layout_pi_zero
    if str(config.get('type')).lower() in KINDS:
        return layout_lerobot
    if kind:
        raise CheckpointError(f"checkpoint '{folder}' has type '{kind}', expected pi0, pi05 or "
                              f'{PI_ZERO}')
    openpi = 'action_expert_variant' in config and 'input_features' not in config
    if openpi or (folder / 'assets').is_dir() or any(
            (folder / name).exists() for name in ('metadata.pt', layout_openpi.STATISTICS)):
        return layout_openpi
    if not config:
        raise CheckpointError(f"checkpoint file '{folder / 'config.json'}' is missing: copy the "
                              'whole folder that training saved')
    raise CheckpointError(f"checkpoint '{folder}' is none of LeRobot, openpi or transformers: its "
                          'config.json has no type')
