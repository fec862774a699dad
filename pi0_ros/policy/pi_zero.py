# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A network of pi-zero-pytorch: the way of PI0 around the library's own sampling."""

import logging
from pathlib import Path

import numpy as np
from pi0_ros.checkpoint.layout_pi_zero import image_scaling, LEAST_STEPS, network_of
from pi0_ros.checkpoint.spec import PI_ZERO
from pi0_ros.engine.paths import Prompt, Report
from pi0_ros.engine.pi_zero import PiZero
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.pi0 import Pi0Policy, USUAL_PROMPT
from pi0_ros.policy.policy import Leftover
from pi0_ros.weights import pi_zero
from pi0_ros.weights.files import CheckpointError, read_json
import torch

log = logging.getLogger(__name__)


class PiZeroPolicy(Pi0Policy):
    """Normalise, letterbox, tokenise; the library denoises; restore."""

    def __init__(self, folder: Path, **settings: object) -> None:
        """
        Read what the checkpoint is; ``load`` reads the weights. See ``Pi0Policy`` for the rest.

        :raises CheckpointError: the library is not installed, or cannot do what is asked for.
        """
        pi_zero.library()
        super().__init__(folder, **settings)
        if self._engine == 'fast':
            raise CheckpointError("engine 'fast' was asked for, but the library computes itself "
                                  "with pi_zero_pytorch: set 'engine' to auto")
        if self.dtype != torch.float32:
            raise CheckpointError("dtype 'bfloat16' was asked for, but pi_zero_pytorch computes "
                                  "in float32: set 'dtype' to auto")
        if self.steps < LEAST_STEPS:
            raise CheckpointError(f"'denoising_steps' is {self.steps}, but pi_zero_pytorch counts "
                                  'the times of its solver, the first and the last among them: '
                                  f'expected at least {LEAST_STEPS}, 18 is usual')
        given = read_json(self.spec.folder / 'config.json')
        clean = given.get('model_predict_output', 'flow') != 'flow'
        if self.rtc and clean:
            raise CheckpointError(f"checkpoint '{folder}' predicts actions, no flow "
                                  '(model_predict_output), which the library cannot continue: set '
                                  "'handover' to blend (serve: --rtc none)")
        if self.rtc in ('identity', 'full') and given.get('train_time_rtc'):
            raise CheckpointError(
                f"checkpoint '{folder}' cannot be guided (train_time_rtc): set 'handover' to "
                'blend (serve: --rtc none)'
                + (', or to rtc_trained (serve: --rtc trained)' if self.spec.trained_delay
                   else ''))
        if self.rtc == 'full':
            log.warning('the library does not differentiate its network: jacobian full is '
                        'identity here')

    @staticmethod
    def usual_dtype(device: str) -> str:
        """Return float32, which the library computes in."""
        return 'float32'

    def _load(self) -> None:
        folder, config = self.spec.folder, read_json(self.spec.folder / 'config.json')
        arguments, inner, beside = network_of(folder, config)
        self.model = pi_zero.load(folder, arguments, None if beside else inner, self.device)
        self._table = self.model.token_emb
        encoder = pi_zero.load_encoder(beside, self.device) if beside else None
        self._path = self._reference = PiZero(self.model, encoder, self.steps, self.rtc,
                                              image_scaling(config))

    def _choose(self) -> None:
        self.report = Report(PI_ZERO, f"the library's own sampling, {pi_zero.version()}")
        config = read_json(self.spec.folder / 'config.json')
        made = config.get('library_version', '')
        if made and made != pi_zero.version():
            log.warning(f'the folder was written with pi-zero-pytorch {made}, installed is '
                        f'{pi_zero.version()}: pip install pi-zero-pytorch=={made}')

    def warm_up(self) -> None:
        """
        Infer once on grey images, and once more as hand-over rtc does.

        :raises CheckpointError: the network and its folder do not fit together.
        """
        try:
            super().warm_up()
            if self.rtc:
                height, width = self.spec.image_size
                seen = Observation(0, np.zeros(self._observed()), {
                    name: np.full((height, width, 3), 128, np.uint8)
                    for name in self.spec.cameras}, {}, USUAL_PROMPT)
                count = max(2, self.spec.chunk_length // 2)
                self.infer(seen, np.zeros(self.noise_shape), Leftover(
                    np.zeros((count, len(self.joints.columns))), 1))
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            raise CheckpointError(
                f"checkpoint '{self.spec.folder}': pi-zero-pytorch fails with what its "
                f'config.json says: {type(error).__name__}: '
                f"{(str(error).strip().splitlines() or [''])[0]}") from error
        self.number = 0

    def prepare(self, observation: Observation
                ) -> tuple[np.ndarray, torch.Tensor, Prompt, torch.Tensor]:
        """
        Return what the network reads, see ``Pi0Policy.prepare``.

        :raises ValueError: the observation does not fit the checkpoint.
        """
        if len(observation.images) != len(self.spec.cameras):
            raise ValueError(f'cameras {sorted(observation.images)} are not all of '
                             f'{list(self.spec.cameras)}, and a network of pi-zero-pytorch cannot '
                             'do without')
        return super().prepare(observation)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Return the shape [chunk_length, D] that denoising starts from."""
        return self.spec.chunk_length, self.spec.action_width

    @property
    def _padded_state(self) -> int:
        return self.spec.state_width
