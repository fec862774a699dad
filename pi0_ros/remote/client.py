# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy that asks a server: joints, units and cameras are ours, what is decided is not."""

from collections import deque
from collections.abc import Callable
import logging
from pathlib import Path
import re
import ssl
import time

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit, table
from pi0_ros.checkpoint.spec import VELOCITIES
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.images import FITTED
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.actions import Actions
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.factory import require_every_joint
from pi0_ros.policy.policy import ActionChunk, Leftover, Unserved
from pi0_ros.remote import metadata, schemas
from pi0_ros.remote.link import Link, read_key, ServerError, ServerLeft
from pi0_ros.remote.wire import pack
from pi0_ros.weights.files import CheckpointError

log = logging.getLogger(__name__)
ADDRESS = re.compile(r'wss?://[^\s/]+(/\S*)?')
WARM_UP_S = 600.0     # for a server that compiles at its first question
LOAD_S = 5.0          # for a server to speak when the node starts
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # between attempts to reach it again
KEPT = 100            # durations
USUAL_PROMPT = 'pick up the red block and put it in the box'


class RemotePolicy:
    """
    Decides on another machine. One thread calls all methods but ``describe`` and ``abort``.

    Whoever cannot be reached is looked for again, with growing pauses, whenever something is to be
    decided; after that it says again what it is, and its first answer is not executed.
    """

    def __init__(self, config: PolicyConfig, robot: RobotConfig, rtc: str = '') -> None:
        """
        Prepare; ``load`` connects.

        :param robot: with a name for every number of an action, see ``RobotConfig.in_numbers``.
        :raises CheckpointError: the server or its schema is not told whole.
        """
        if not ADDRESS.fullmatch(config.server):
            raise CheckpointError(f"'server' is '{config.server}', expected ws://HOST:PORT or "
                                  'wss://HOST')
        if not config.server_schema:
            raise CheckpointError(
                "'server_schema' is empty: set 'server_schema' to what the server calls the parts "
                f"of an observation, {', '.join(schemas.NAMES)}")
        try:
            key = read_key(config.server_key_file)
            if config.server_ca:
                ssl.create_default_context(cafile=str(Path(config.server_ca).expanduser()))
            self._texts = schemas.named(config.server_schema, config.server_map) \
                if config.server_schema != schemas.OURS else None
        except (ValueError, OSError) as error:
            raise CheckpointError(str(error) if isinstance(error, ValueError) else
                                  f"'server_ca' is '{config.server_ca}', which cannot be used: "
                                  f'{error}') from error
        self._config, self.robot, self.rtc = config, robot, rtc
        self._link = Link(config.server, key, str(Path(
            config.server_ca).expanduser()) if config.server_ca else '')
        self.number, self.seed = 0, config.seed
        self.dt_ns, self.offset = config.dt_ns, max(0, config.action_offset)
        self.noise_shape = (0, 0)
        self._velocity: np.ndarray | None = None
        self._ours: dict | None = None
        self.identity: bytes | None = None  # what a server of ours said at first
        self._asked, self._pause_s, self._next_s = 0, 0.0, 0.0
        self._last: ServerError | None = None
        self._took = {name: deque(maxlen=KEPT) for name in ('resize', 'send', 'infer', 'network')}

    @property
    def observed(self) -> int:
        """Return how many joints it observes."""
        return len(self.robot.observed)

    # ---- connecting ----

    def load(self) -> None:
        """
        Connect and see what the server is; one that cannot be reached yet is looked for later.

        :raises CheckpointError, ValueError: the server has another checkpoint than this robot is
            configured for.
        """
        try:
            self._connect(LOAD_S)
        except ServerError as error:
            self._missed(error)
            log.warning(f'{error.finding.text}; it is looked for again')

    def warm_up(self) -> None:
        """Ask once for nothing, so that the first real answer is not the slow one."""
        if not self.loaded:
            return
        try:
            self._warm_up()
        except ServerError as error:
            self._missed(error)
            log.warning(f'{error.finding.text}; it is asked again')

    @property
    def loaded(self) -> bool:
        """Return whether there is a connection."""
        return self._link.up

    def ensure_loaded(self) -> None:
        """
        Connect again, if it is time for it.

        :raises ServerError: there is still no server, or it is another one.
        """
        if self.loaded:
            return
        if self._last is not None and time.monotonic() < self._next_s:
            raise Unserved(self._last.finding, fresh=False)
        known = self._last
        self._connect_again(self._link.again_s if known else LOAD_S, self._warm_up)
        if known:
            log.info(f"server '{self._config.server}' is there again")

    def _connect_again(self, patience_s: float, then: Callable[[], None] = lambda: None) -> None:
        try:
            self._connect(patience_s)
            then()
        except ServerError as error:
            self._missed(error)
            raise
        except (CheckpointError, ValueError) as error:
            problem = ServerError('server_answer', f'{error}')
            self._missed(problem)
            raise problem from error
        self._pause_s, self._last = 0.0, None

    def _missed(self, error: ServerError) -> None:
        self._link.close()
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._last, self._next_s = error, time.monotonic() + self._pause_s

    def _connect(self, patience_s: float) -> None:
        """Connect, and make sure that the server fits the robot."""
        said = self._link.connect(patience_s)
        try:
            self._read(said)
        except (CheckpointError, ValueError):
            self._link.close()
            raise
        except Exception as error:  # whatever it says of itself, it is not half used
            self._link.close()
            raise ServerError('server_answer', f"server '{self._config.server}' says of itself "
                              f'what cannot be: {type(error).__name__}: {error}') from error

    def _read(self, said: dict) -> None:
        config, robot = self._config, self.robot
        where = f"server '{config.server}'"
        try:
            ours = metadata.read(said)
        except ValueError as error:
            raise CheckpointError(f'{where}: {error}') from error
        identity = pack(said[metadata.KEY]) if ours else None
        if self.identity not in (None, identity) and not self._replaced(said.get(metadata.KEY)):
            raise CheckpointError(f'{where} has another checkpoint than before, or other '
                                  'settings: configure the node again to use it')
        if config.server_schema == schemas.OURS and ours is None:
            raise CheckpointError(f'{where} does not say that it is one of this package: set '
                                  "'server_schema' to what it calls the parts of an observation")
        if self.rtc and (ours is None or ours[1].get('rtc') != self.rtc):
            offered = ours[1].get('rtc') if ours else ''
            raise CheckpointError(
                f"{where} {'continues chunks by ' + offered if offered else 'continues no chunks'}"
                f": set 'handover' to blend, or start it with --rtc {self.rtc} if it is ours")
        if ours:
            self.spec, self._ours = ours
            self.noise_shape = tuple(self._ours['noise'])
        else:
            self.spec, self._ours = metadata.assumed(
                config.server, self._texts.cameras, len(robot.states),
                len(robot.joint_names)), None
        self.dt_ns = config.dt_ns or round((self.spec.dt_s or 0) * 1e9)
        if not self.dt_ns:
            raise CheckpointError(f"{where} does not say its control rate: set 'action_rate' to "
                                  'the fps of the training data')
        self.offset = self.spec.action_offset if config.action_offset < 0 else \
            config.action_offset
        if self._texts is None:
            size = (self.spec.image_size if not config.server_raw_images and self.spec.letterbox
                    in FITTED and self._ours['plain_images'] else None)
            self._schema = schemas.ours(self.spec.cameras, size, self.spec.letterbox)
        else:
            self._schema = self._texts
        self.joints = fit(self.spec, robot)
        require_every_joint(self.spec, robot, self.rtc)
        self.cameras = tuple(name for name in self.spec.cameras
                             if name in {self.spec.camera(one) for one in robot.cameras})
        if config.actions == VELOCITIES:
            choices = config.choices(robot)
            self._velocity = np.full(self.spec.action_width, choices.velocity)
            self._velocity[list(choices.positions)] = 0.0
        self.identity = identity
        log.info(f"{where}, checkpoint '{self.spec.folder.name}' ({self.spec.trainer}) and this "
                 f'robot:\n' + table(self.spec, robot))

    def _replaced(self, said: dict | None) -> bool:
        """Return whether a fleet has put another checkpoint in the place of the one before."""
        before = self._ours
        return bool(before and said and said.get(metadata.REPLICAS)) and before[
            'fingerprint'] in (said['fingerprint'], *said.get(metadata.REPLACES, ())) and (
            metadata.contract(before) == metadata.contract(said))

    def _warm_up(self) -> None:
        height, width = self.spec.image_size
        images = {name: np.full((height, width, 3), 128, np.uint8) for name in self.cameras}
        seen = Observation(0, np.zeros(self.observed), images, {}, USUAL_PROMPT)
        self._actions(self._link.ask(self._question(seen), self._config.server_deadline if (
            self._ours or {}).get(metadata.REPLICAS) else WARM_UP_S))

    # ---- deciding ----

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """
        Decide a chunk there.

        :raises ServerError: no answer came in time, or one that is none.
        """
        if not self.loaded:  # who asks first lets it connect, which may take long
            raise Unserved(self._last.finding if self._last else Finding(
                'server_unreachable', f"server '{self._config.server}' is not connected",
                'server'), fresh=False)
        number, self.number = self.number, self.number + 1
        began = time.monotonic()
        try:
            return self._infer(observation, noise, leftover, number, began)
        except ServerLeft as error:
            # State travels with a question, so that another replica can answer it.
            if not (self._ours and self._ours.get(metadata.REPLICAS)):
                raise
            log.warning(f'{error.finding.text}; another replica is asked')
        self._connect_again(max(0.1, (  # to connect, and to be greeted
            began + self._config.server_deadline - time.monotonic()) / 2))
        return self._infer(observation, noise, leftover, number, began)

    def _infer(self, observation: Observation, noise: np.ndarray | None,
               leftover: Leftover | None, number: int, began: float) -> ActionChunk:
        question, deadline = self._question(observation), began + self._config.server_deadline
        seed, given = None, 0
        self._asked += 1
        if self._ours:
            question[metadata.ID] = self._asked
            question[metadata.DEADLINE] = max(1e-3, deadline - time.monotonic())
            if noise is not None:
                question[metadata.NOISE] = np.asarray(noise, float)
            else:
                seed = self.seed
                question[metadata.SEED] = [seed, number]
            if self.rtc and leftover is not None and len(leftover.positions):
                planned = leftover.positions[:self.spec.chunk_length]
                given = min(leftover.delay, len(planned) - bool(len(self._meaning.moving)))
                question[metadata.LEFTOVER] = self._meaning.back(planned, self.spec.action_width)
                question[metadata.DELAY] = given
        asked = time.monotonic()
        try:
            answer = self._link.ask(question, max(0.0, deadline - asked))
            if self._ours and answer.get(metadata.ID) != self._asked:
                raise ServerError('server_answer', f"server '{self._config.server}' answers "
                                  'another question')
            actions = self._actions(answer)
        except ServerError as error:
            self._missed(error)
            raise
        self._count(answer, asked - began, time.monotonic() - asked)
        if self._ours:
            said = answer.get(metadata.GIVEN, 0)
            given = min(max(0, said), given) if isinstance(said, int) else 0
        return ActionChunk(observation.t_obs_ns, self.dt_ns,
                           self._meaning.out(actions, observation.state),
                           observation.instruction, number, observation.image_stamps_ns, seed,
                           given, self.offset)

    @property
    def _meaning(self) -> Actions:
        return Actions(self.joints, self._velocity, self.dt_ns, self.offset)

    def _question(self, observation: Observation) -> dict:
        images = {self.spec.camera(name): image for name, image in observation.images.items()}
        state = self.joints.state_in(observation.state, self.spec.state.middle)
        # Of padded statistics only the robot's own numbers are sent.
        return self._schema.request(state[:len(self.robot.states)], images,
                                    observation.instruction)

    def _actions(self, answer: dict) -> np.ndarray:
        """
        Return the actions [T, width] of an answer.

        :raises ServerError: they are none.
        """
        actions, width = answer.get('actions'), self.spec.action_width
        problem = ''
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in 'fiu':
            has = ', '.join(f'{key}' for key in list(answer)[:8])
            problem = f'its answer has no array of actions, it has {has or "nothing"}'
        elif actions.ndim != 2 or actions.shape[1] != width:
            problem = (f'its actions have shape {list(actions.shape)}, expected [steps, {width}], '
                       f"for {', '.join(self.robot.joint_names)}")
        elif not 2 <= len(actions) <= metadata.MOST_STEPS:
            problem = (f'its chunk has {len(actions)} steps, expected 2 to '
                       f'{metadata.MOST_STEPS}: a single action cannot be followed')
        elif not np.isfinite(actions).all():
            problem = 'its actions have values that are not finite'
        if problem:
            raise ServerError('server_answer', f"server '{self._config.server}': {problem}")
        return actions.astype(float)

    # ---- telling ----

    def _count(self, answer: dict, resize_s: float, took_s: float) -> None:
        timing = answer.get('server_timing')
        inferred = timing.get('infer_ms', 0.0) if isinstance(timing, dict) else 0.0
        inferred = float(inferred) if isinstance(inferred, (int, float)) else 0.0
        send_ms = 1e3 * self._link.send_s
        for name, value in (('resize', 1e3 * resize_s), ('send', send_ms), ('infer', inferred),
                            ('network', max(0.0, 1e3 * took_s - inferred - send_ms))):
            self._took[name].append(value)

    def describe(self) -> dict[str, str]:
        """Return where it is decided, and where the time of a chunk goes."""
        def median(name: str) -> str:
            values = list(self._took[name])
            return f'{np.median(values):.1f}' if values else ''

        spec = getattr(self, 'spec', None)
        return {'engine': 'remote', 'engine_reason': "parameter 'policy'", 'self_check': 'none',
                'kernels': 'not counted', 'device': self._config.server, 'dtype': 'its own',
                'denoising_steps': str(spec.denoising_steps) if spec and spec.denoising_steps
                else 'its own',
                'server': self._config.server, 'connected': 'yes' if self.loaded else 'no',
                'sent_bytes': str(self._link.sent_bytes),
                **{f'server_{name}_ms': median(name) for name in self._took}}

    def abort(self) -> None:
        """Cut the connection: a call that waits for it fails."""
        self._link.abort()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()
