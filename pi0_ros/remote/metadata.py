# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a server of this package says of itself, and what is assumed of others."""

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.checkpoint.normalise import Normaliser
from pi0_ros.checkpoint.spec import NETWORKS, PI0, PolicySpec

KEY = 'pi0_ros'
VERSION = 1
LEFTOVER, DELAY, SEED, NOISE, ID, GIVEN, DEADLINE = (
    f'{KEY}/{name}' for name in ('leftover', 'delay', 'seed', 'noise', 'id', 'given', 'deadline'))
REPLICAS, REPLACES = 'replicas', 'replaces'  # of a fleet: how many, and what went before
MOST_STEPS, MOST_WIDTH = 1000, 256


def describe(spec: PolicySpec, rate_hz: float, offset: int, rtc: str, noise: tuple[int, int],
             fingerprint: str) -> dict[str, Any]:
    """Return what is told of a checkpoint, without the path of its folder."""
    def feature(normaliser: Normaliser, names: tuple[str, ...] | None) -> dict[str, Any]:
        return {'middle': np.asarray(normaliser.middle, float),
                'spread': np.asarray(normaliser.spread, float),
                'far': float(normaliser.far), 'names': list(names) if names else None}

    return {KEY: {
        'version': VERSION, 'checkpoint': spec.folder.name,
        'fingerprint': fingerprint, 'network': spec.network,
        'layout': spec.layout, 'trainer': spec.trainer, 'cameras': list(spec.cameras),
        'renamed': dict(spec.renamed), 'image_size': list(spec.image_size),
        'letterbox': spec.letterbox, 'plain_images': not spec.pixels,
        'state': feature(spec.state, spec.state_names),
        'action': feature(spec.action, spec.action_names),
        'relative': np.asarray(spec.relative, bool), 'widths_recorded': spec.widths_recorded,
        'chunk_length': spec.chunk_length, 'denoising_steps': spec.denoising_steps,
        'action_rate': float(rate_hz), 'action_offset': offset,
        'trained_delay': spec.trained_delay, 'rtc': rtc, 'noise': list(noise),
        'extras': [LEFTOVER, DELAY, SEED, NOISE, ID, DEADLINE]}}


def contract(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a robot relies on of all that is told: another checkpoint must have the same."""
    plain = {name: said[name] for name in (
        'cameras', 'renamed', 'action_rate', 'action_offset', 'trained_delay', 'rtc', 'noise')}
    return plain | {'relative': np.asarray(said['relative']).tolist()} | {
        f'{part} {what}': value for part in ('state', 'action') for what, value in (
            ('names', said[part]['names']), ('width', len(said[part]['middle'])))}


def read(metadata: Mapping[Any, Any]) -> tuple[PolicySpec, dict[str, Any]] | None:
    """
    Return the checkpoint that a server of this package has, and all it says; None of another.

    :raises ValueError: it says it wrongly.
    """
    said = metadata.get(KEY)
    if said is None:
        return None
    try:
        if said['version'] != VERSION:
            raise ValueError(f"it speaks version {said['version']!r}, this package {VERSION}: use "
                             'the same release on both machines')
        state, action = _feature(said['state']), _feature(said['action'])
        names = [_names(said[part]['names'], len(one.middle))
                 for part, one in (('state', state), ('action', action))]
        rate, noise = float(said['action_rate']), [int(side) for side in said['noise']]
        height, width = (int(side) for side in said['image_size'])
        relative = np.asarray(said['relative'], bool)
        if relative.shape != action.middle.shape or len(noise) != 2 \
                or not (rate == 0 or 0.01 <= rate <= 1000) \
                or not 2 <= int(said['chunk_length']) <= MOST_STEPS \
                or not all(1 <= side <= MOST_STEPS for side in (height, width, *noise)) \
                or not 0 <= int(said['action_offset']) <= 10 or not said['cameras'] \
                or not 0 <= int(said['trained_delay']) <= MOST_STEPS:
            raise ValueError('it describes a checkpoint that cannot be')
        spec = PolicySpec(
            Path(str(said['checkpoint'])), str(said['layout']), _texts(said['cameras']),
            len(state.middle), len(action.middle), state, action, *names,
            bool(said['widths_recorded']), relative, int(said['chunk_length']),
            int(said['denoising_steps']), 1 / rate if rate else None, (height, width),
            str(said['letterbox']), 'lerobot', 0, None, str(said['trainer']),
            renamed={str(mine): str(its) for mine, its in dict(said['renamed']).items()},
            action_offset=int(said['action_offset']), trained_delay=int(said['trained_delay']),
            network=said['network'] if said['network'] in NETWORKS else PI0)
    except (KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise ValueError(f'what it says of itself is incomplete or damaged: '
                         f'{type(error).__name__}: {error}') from error
    return spec, dict(said) | {'noise': noise}


def assumed(address: str, cameras: tuple[str, ...], states: int, actions: int) -> PolicySpec:
    """Return a checkpoint as nothing is known of it: the parameter file says what there is."""
    def plain(width: int) -> Normaliser:
        zero, one = np.zeros(width), np.ones(width)
        return Normaliser(zero, one, one, zero, None, math.inf)

    return PolicySpec(Path(address), 'remote', cameras, states, actions, plain(states),
                      plain(actions), None, None, True, np.zeros(actions, bool), 0, 0, None,
                      (224, 224), 'openpi', 'openpi', 0, None, 'a server that does not say')


def _feature(said: Mapping[str, Any]) -> Normaliser:
    middle, spread = (np.asarray(said[name], float) for name in ('middle', 'spread'))
    if middle.ndim != 1 or spread.shape != middle.shape or not 0 < len(middle) <= MOST_WIDTH \
            or not (np.isfinite(middle).all() and np.isfinite(spread).all()):
        raise ValueError('its statistics are damaged')
    return Normaliser(middle, np.ones(len(middle)), spread, middle, None, float(said['far']))


def _names(said: Any, width: int) -> tuple[str, ...] | None:
    names = _texts(said or [])
    return names if len(names) == width else None


def _texts(said: Any) -> tuple[str, ...]:
    if not isinstance(said, list) or not all(
            isinstance(name, str) and name.isprintable() and len(name) < 200 for name in said):
        raise ValueError(f'it names {said!r:.80}, expected a list of text')
    return tuple(said)
