# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One inference, so that it can be made again from a bag, bit for bit."""

from dataclasses import asdict, dataclass
import json
from typing import Any

import numpy as np
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover
from pi0_ros.policy.provenance import image_hash

VERSION = 1


@dataclass(frozen=True)
class InferenceRecord:
    """What an inference was made from, and what came out. Numbers survive JSON unchanged."""

    t_obs_ns: int
    state: list[float]              # [N] radians or metres, of all observed joints
    image_stamps_ns: dict[str, int]  # of the images in the bag, by camera
    image_hashes: dict[str, int]    # of their pixels
    instruction: str
    seed: int | None                # the noise is numpy's default_rng((seed, number))
    number: int
    handover: str
    leftover: list[list[float]] | None  # [M, D] what the chunk was to continue
    delay: int                      # so many of its steps were executed meanwhile
    dt_ns: int
    positions: list[list[float]]    # [T, D] the chunk
    engine: str
    configuration: dict[str, Any]   # what decides, see provenance.configuration
    hash: str                       # noqa: A003 - of that
    version: int = VERSION

    @staticmethod
    def of(seen: Observation, leftover: Leftover | None, chunk: ActionChunk, handover: str,
           engine: str, configuration: dict[str, Any], digest: str) -> 'InferenceRecord':
        """Return the record of a chunk that was decided from ``seen``."""
        return InferenceRecord(
            seen.t_obs_ns, seen.state.tolist(), dict(seen.image_stamps_ns),
            {name: image_hash(image) for name, image in seen.images.items()}, seen.instruction,
            chunk.seed, chunk.number, handover,
            None if leftover is None else leftover.positions.tolist(),
            0 if leftover is None else leftover.delay, chunk.dt_ns, chunk.positions.tolist(),
            engine, configuration, digest)

    def to_json(self) -> str:
        """Return the record as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> 'InferenceRecord':
        """
        Return the record in ``text``.

        :raises ValueError: it is none, or of another version.
        """
        try:
            values = json.loads(text)
            version = values['version']
            if version == VERSION:
                return InferenceRecord(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f'this is no record of an inference: {error}') from error
        raise ValueError(f'record of an inference has version {version}, expected {VERSION}: read '
                         'it with the release of pi0_ros that wrote it')

    def given(self) -> Leftover | None:
        """Return what the chunk was to continue."""
        return None if self.leftover is None else Leftover(np.array(self.leftover), self.delay)
