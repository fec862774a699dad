# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Watching a run: what is heard, what is waited for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
from pi0_ros.observation.decoding import to_ns
from pi0_ros.ros.demo.processes import Children
from pi0_ros.ros.links import conversions, qos
from pi0_ros.sim.recording import Recording
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

READY_S = 30.0
PAUSE_NS = 200_000_000  # a longer gap between commands is silence, not jitter


@dataclass(frozen=True)
class Watched:
    """What is heard of a robot."""

    joint_names: Sequence[str]
    commands: Sequence[tuple[str, str]]      # topics, and what their joints' names lack
    joint_states: Sequence[tuple[str, str]]  # the same
    cameras: Sequence[str]                   # of which the first is recorded
    namespace: str = ''
    own_time: bool = False                   # whether the robot's clock is /clock


class Observer(Node):
    """Watches a run and gives instructions."""

    def __init__(self, watched: Watched, **kwargs: object) -> None:
        """Subscribe to everything that is reported. Arguments go to Node."""
        super().__init__('demo', namespace=watched.namespace, parameter_overrides=[
            Parameter('use_sim_time', value=watched.own_time)], **kwargs)
        self._watched, self._names = watched, list(watched.joint_names)
        self.cameras = list(watched.cameras)
        self.recording = Recording(tuple(self._names))
        self.started = self._time()
        self.caption, self.taken, self.state = '', '', ''
        self.armed, self.records, self.faults = False, True, 0
        self.command_stamps_ns: list[int] = []
        self.windows_end_s = 0.0  # when the last window is at rest
        self._measured: dict[str, float] = {}
        self._commanded: dict[str, float] = {}
        self.figures: dict[str, dict[str, str]] = {}
        self.pictures: dict[str, np.ndarray] = {}  # the first of every camera
        self._decoder = conversions.ImageDecoder()
        self._instruction = self.create_publisher(String, 'instruction', 10)
        self.enable_client = self.create_client(SetBool, 'pi0/enable')
        for kind, topic, callback, profile in (
                *((Image, f'{name}/image_raw', self._images_of(name), qos.NEWEST)
                  for name in watched.cameras),
                *((JointState, topic, self._joints_of(prefix), qos.NEWEST)
                  for topic, prefix in watched.joint_states),
                *((JointTrajectory, topic, self._commands_of(prefix), 50)
                  for topic, prefix in watched.commands),
                (JointTrajectory, 'pi0/action_chunk', self._on_chunk, 10),
                (String, 'sim/taken', self._on_taken, qos.LATCHED),
                (DiagnosticStatus, 'pi0/status', self._on_status, qos.LATCHED),
                (DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)):
            self.create_subscription(kind, topic, callback, profile)

    def _time(self) -> float:
        return (self.get_clock().now().nanoseconds / 1e9 if self._watched.own_time
                else time.monotonic())

    def _when(self, stamp: object) -> float:
        """Return the time of a stamp as ``elapsed`` has it, or now where the clocks differ."""
        return to_ns(stamp) / 1e9 - self.started if self._watched.own_time else self.elapsed()

    def elapsed(self) -> float:
        """Return seconds since the start of the recording, in the robot's time."""
        return self._time() - self.started

    def say(self, text: str) -> None:
        """Print a line with the time."""
        print(f'{self.elapsed():6.1f} s  {text}', flush=True)

    @property
    def joints(self) -> list[float] | None:
        """Return where the joints are, once all are known."""
        if len(self._measured) < len(self._names):
            return None
        return [self._measured[name] for name in self._names]

    def ready(self) -> bool:
        """Return whether robot and node are there."""
        return bool((not self._watched.own_time or self._time() > 0)  # /clock is heard
                    and self.enable_client.service_is_ready() and self.joints
                    and self._instruction.get_subscription_count()
                    and self.count_publishers(f'{self._watched.cameras[0]}/image_raw'))

    def instruct(self, text: str) -> None:
        """Publish an instruction, as `ros2 topic pub --once` would."""
        self.caption = text
        if self.records:
            self.recording.instructions.append((self.elapsed(), text))
        self._instruction.publish(String(data=text))
        self.say(f'instruction: {text}')

    def _images_of(self, name: str) -> Callable[[Image], None]:
        recorded = name == self._watched.cameras[0]

        def heard(message: Image) -> None:
            if name not in self.pictures:
                self.pictures[name] = self._decoder(message)
            if (recorded and self.armed and self.records
                    and self.recording.wants_frame(self.elapsed())):
                self.recording.add_frame(self.elapsed(), self._decoder(message), self.caption)
        return heard

    def _joints_of(self, prefix: str) -> Callable[[JointState], None]:
        def heard(message: JointState) -> None:
            self._measured |= {prefix + name: place
                               for name, place in zip(message.name, message.position)}
            if self.records and self.joints:
                self.recording.measured.append((self._when(message.header.stamp), self.joints))
        return heard

    def _commands_of(self, prefix: str) -> Callable[[JointTrajectory], None]:
        def heard(message: JointTrajectory) -> None:
            if not self.records:
                return
            names = [prefix + name for name in message.joint_names]
            if self._names[0] in names:
                self.command_stamps_ns.append(to_ns(message.header.stamp))
                self.windows_end_s = self._when(message.header.stamp) + to_ns(
                    message.points[-1].time_from_start) / 1e9
            if self._watched.own_time and to_ns(message.points[0].time_from_start):
                return  # the first piece of a motion, which says where it ends
            self._commanded |= dict(zip(names, message.points[0].positions))
            self.recording.commands.append((self._when(message.header.stamp), [
                self._commanded.get(name, np.nan) for name in self._names]))
        return heard

    def _on_chunk(self, message: JointTrajectory) -> None:
        if self.records:
            self.recording.chunks.append(self.elapsed())

    def _on_taken(self, message: String) -> None:
        self.taken = message.data
        if self.taken:
            self.say(f'the arm took: {self.taken}')

    def _on_status(self, message: DiagnosticStatus) -> None:
        told = {pair.key: pair.value for pair in message.values}
        state = told.get('state', '')
        if state != self.state and (state == 'faulted' or told.get('reason')) and self.armed:
            self.say(f'node: {state}: {message.message}')
            self.faults += state in ('faulted', 'disarmed')  # nobody disarms it here
        self.state = state

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for part in message.status:
            self.figures[part.name.split(': ', 1)[-1]] = {pair.key: pair.value
                                                          for pair in part.values}


class Run:
    """Processes that run, and what is heard of them."""

    def __init__(self, children: Children, observer: Observer) -> None:
        """Use ``children`` for processes and ``observer`` for topics."""
        self.children, self.observer = children, observer
        self._executor = SingleThreadedExecutor(context=observer.context)
        self._executor.add_node(observer)

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """
        Let callbacks run until ``done`` or the time is over.

        :raises RuntimeError: a process ended by itself.
        """
        end = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
            problem = self.children.ended()
            if problem:
                raise RuntimeError(problem)
        return True

    def arm(self) -> None:
        """
        Arm the robot as soon as it and the node are ready.

        :raises RuntimeError: they did not become ready.
        """
        observer = self.observer
        if not self.wait(observer.ready, READY_S):
            raise RuntimeError(f'the node was not ready within {READY_S:.0f} s, see '
                               f'{self.children.logs}')
        refusal = ''
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            answer = observer.enable_client.call_async(SetBool.Request(data=True))
            if self.wait(answer.done, 5.0) and answer.result().success:
                observer.say('armed')
                observer.armed = True
                return
            refusal = answer.result().message if answer.done() else 'no answer'
            self.wait(lambda: False, 0.3)
        raise RuntimeError(f'the robot could not be armed: {refusal}')

    def figures(self) -> dict[str, object]:
        """Return the figures of the run."""
        stamps = np.array(self.observer.command_stamps_ns)
        intervals_ms = np.diff(stamps) / 1e6
        moving_ms = intervals_ms[intervals_ms < PAUSE_NS / 1e6]
        policy = self.observer.figures.get('policy', {})
        control = self.observer.figures.get('control', {})
        return {'command_hz': round(1e3 / moving_ms.mean(), 2) if len(moving_ms) else 0.0,
                'command_pauses': len(intervals_ms) - len(moving_ms),
                'tick_interval_ms': {name: float(control.get(f'tick_{name}_ms', 0))
                                     for name in ('p50', 'p99', 'max')},
                'missed_ticks': int(control.get('missed_ticks', 0)),
                'commands': len(stamps), 'chunks': int(policy.get('chunks', 0)),
                'control': control,
                'inference_ms': {'p50': float(policy.get('inference_p50_ms', 0)),
                                 'p95': float(policy.get('inference_p95_ms', 0))}}
