"""Verb ``demo``: a simulated robot takes three blocks that it is told to take.

Starts the simulated robot and the node as processes of their own, arms the robot, gives three
instructions through the instruction topic and watches what happens.
"""

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from pi0_ros.observation.decoding import to_ns
from pi0_ros.ros.demo.processes import Children, private_environment
from pi0_ros.ros.demo.starting import grouped, start_processes, start_verbs
from pi0_ros.ros.links import conversions, qos
from pi0_ros.sim import arm
from pi0_ros.sim.controller import KINDS
from pi0_ros.sim.recording import Recording, plot_joints, write_animation
from pi0_ros.sim.world import COLOURS

PHRASES = ('pick up the {} block', 'now take the {} cube', 'grab the {} one please')
READY_S, ATTEMPT_S, REST_S = 30.0, 12.0, 0.7
PAUSE_NS = 200_000_000  # a longer gap between commands is silence, not jitter


class Observer(Node):
    """Watches a run and gives instructions."""

    def __init__(self) -> None:
        """Subscribe to everything the demo reports."""
        super().__init__('demo')
        self.recording = Recording(arm.JOINT_NAMES)
        self.started = time.monotonic()
        self.caption, self.taken, self.state = '', '', ''
        self.armed, self.records = False, True
        self.command_stamps_ns: list[int] = []
        self.joints: list[float] | None = None
        self._commanded: dict[str, float] = {}
        self.figures: dict[str, dict[str, str]] = {}
        self._decoder = conversions.ImageDecoder()
        self._instruction = self.create_publisher(String, 'instruction', 10)
        self.enable_client = self.create_client(SetBool, 'pi0/enable')
        for kind, topic, callback, profile in (
                (Image, 'overhead/image_raw', self._on_image, qos.NEWEST),
                (JointState, 'joint_states', self._on_joints, qos.NEWEST),
                *((JointTrajectory, f'{name}joint_trajectory', self._on_command, 50)
                  for name in ('', 'arm/', 'gripper/')),
                (JointTrajectory, 'pi0/action_chunk', self._on_chunk, 10),
                (String, 'sim/taken', self._on_taken, qos.LATCHED),
                (DiagnosticStatus, 'pi0/status', self._on_status, qos.LATCHED),
                (DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)):
            self.create_subscription(kind, topic, callback, profile)

    def elapsed(self) -> float:
        """Return seconds since the start of the recording."""
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        """Print a line with the time."""
        print(f'{self.elapsed():6.1f} s  {text}', flush=True)

    def instruct(self, text: str) -> None:
        """Publish an instruction, as `ros2 topic pub --once` would."""
        self.caption = text
        if self.records:
            self.recording.instructions.append((self.elapsed(), text))
        self._instruction.publish(String(data=text))
        self.say(f'instruction: {text}')

    def instruction_subscribers(self) -> int:
        """Return how many nodes would hear an instruction."""
        return self._instruction.get_subscription_count()

    def _on_image(self, message: Image) -> None:
        if self.armed and self.records and self.recording.wants_frame(self.elapsed()):
            self.recording.add_frame(self.elapsed(), self._decoder(message), self.caption)

    def _on_joints(self, message: JointState) -> None:
        by_name = dict(zip(message.name, message.position))
        self.joints = [by_name[name] for name in arm.JOINT_NAMES]
        if self.records:
            self.recording.measured.append((self.elapsed(), self.joints))

    def _on_command(self, message: JointTrajectory) -> None:
        if self.records:
            if arm.JOINT_NAMES[0] in message.joint_names:
                self.command_stamps_ns.append(to_ns(message.header.stamp))
            self._commanded |= dict(zip(message.joint_names, message.points[0].positions))
            self.recording.commands.append((self.elapsed(), [
                self._commanded.get(name, np.nan) for name in arm.JOINT_NAMES]))

    def _on_chunk(self, message: JointTrajectory) -> None:
        if self.records:
            self.recording.chunks.append(self.elapsed())

    def _on_taken(self, message: String) -> None:
        self.taken = message.data
        if self.taken:
            self.say(f'the arm took the {self.taken} block')

    def _on_status(self, message: DiagnosticStatus) -> None:
        told = {pair.key: pair.value for pair in message.values}
        state = told.get('state', '')
        if state != self.state and (state == 'faulted' or told.get('reason')) and self.caption:
            self.say(f'node: {state}: {message.message}')
        self.state = state

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for part in message.status:
            self.figures[part.name.split(': ', 1)[-1]] = {pair.key: pair.value
                                                          for pair in part.values}


class Demo:
    """One run of the demo, from the first process to the last picture."""

    def __init__(self, args: argparse.Namespace, children: Children, observer: Observer) -> None:
        """Use ``children`` for processes and ``observer`` for topics."""
        self.args, self.children, self.observer = args, children, observer
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(observer)

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Let callbacks run until ``done`` or the time is over.

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

    def start(self) -> None:
        """Start robot and node, and arm the robot when both are ready.

        :raises RuntimeError: they did not become ready.
        """
        if self.args.groups:
            start_verbs(self.children, self.args.seed, self.args.delay, self.args.controller,
                        *grouped(), sim=['-p', 'groups:=true'])
        else:
            start_processes(self.children, self.args.seed, self.args.delay, self.args.controller)
        self.observer.say('started the simulated robot and the node, loading the policy')
        self.arm()

    def arm(self) -> None:
        """Arm the robot as soon as it and the node are ready.

        :raises RuntimeError: they did not become ready.
        """
        observer = self.observer
        ready = (lambda: observer.enable_client.service_is_ready()
                 and observer.instruction_subscribers() and observer.joints
                 and observer.count_publishers('overhead/image_raw'))
        if not self.wait(ready, READY_S):
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

    def attempt(self, colour: str, phrase: str) -> dict[str, object]:
        """Give one instruction; return how it went."""
        observer = self.observer
        instruction, began = phrase.format(colour), observer.elapsed()
        before = observer.taken
        observer.instruct(instruction)
        self.wait(lambda: observer.taken not in ('', before), ATTEMPT_S)
        success = observer.taken == colour and before != colour
        out = {'instruction': instruction, 'named': colour, 'taken': observer.taken,
               'success': success, 'seconds': round(observer.elapsed() - began, 2)}
        if not success:
            observer.say(f'failed: took {observer.taken or "nothing"}')
        self.wait(lambda: False, REST_S)
        return out

    def summary(self, episodes: list[dict]) -> dict[str, object]:
        """Return the figures of the run."""
        stamps = np.array(self.observer.command_stamps_ns)
        intervals_ms = np.diff(stamps) / 1e6
        moving_ms = intervals_ms[intervals_ms < PAUSE_NS / 1e6]
        policy = self.observer.figures.get('policy', {})
        control = self.observer.figures.get('control', {})
        return {'episodes': len(episodes),
                'successes': sum(bool(episode['success']) for episode in episodes),
                'instructions': episodes,
                'command_hz': round(1e3 / moving_ms.mean(), 2) if len(moving_ms) else 0.0,
                'command_pauses': len(intervals_ms) - len(moving_ms),
                'tick_interval_ms': {name: float(control.get(f'tick_{name}_ms', 0))
                                     for name in ('p50', 'p99', 'max')},
                'missed_ticks': int(control.get('missed_ticks', 0)),
                'commands': len(stamps), 'chunks': int(policy.get('chunks', 0)),
                'control': control,
                'inference_ms': {'p50': float(policy.get('inference_p50_ms', 0)),
                                 'p95': float(policy.get('inference_p95_ms', 0))}}

    def live(self) -> None:
        """Keep running so that a person can give instructions."""
        print('\nThe robot is armed. In another terminal, with ROS 2 at hand:\n'
              f"  export ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']} "
              'ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST\n'
              "  ros2 topic pub --once /instruction std_msgs/msg/String "
              '"{data: \'pick up the red block\'}"\n'
              'or type an instruction here. Ctrl-C ends it.\n', flush=True)
        self.observer.records = False
        while True:
            if not self.wait(lambda: bool(select.select([sys.stdin], [], [], 0)[0]), 60):
                continue
            line = sys.stdin.readline()
            if not line:  # no terminal: only the topic gives instructions
                self.wait(lambda: False, float('inf'))
            self.observer.instruct(line.strip())


def table(episodes: list[dict]) -> str:
    """Return the result as lines of text."""
    rows = [f'{"instruction":34} {"taken":8} {"seconds":>7}  result']
    rows += [f"{episode['instruction']:34} {episode['taken'] or 'nothing':8} "
             f"{episode['seconds']:7.1f}  {'ok' if episode['success'] else 'FAILED'}"
             for episode in episodes]
    return '\n'.join(rows)


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(prog='pi0_ros demo', description=__doc__)
    out.add_argument('--live', action='store_true',
                     help='keep running and take instructions from you')
    out.add_argument('--seed', type=int, default=7, help='of the block places (default: 7)')
    out.add_argument('--delay', type=float, default=0.0, metavar='S',
                     help='added to every inference (default: 0)')
    out.add_argument('--controller', choices=KINDS, default=KINDS[1],
                     help="whose joint_trajectory_controller the robot has, at 500 Hz (default: "
                          '%(default)s)')
    out.add_argument('--groups', action='store_true',
                     help='arm and gripper on controllers of their own, the gripper behind an '
                          'action where control_msgs is installed')
    out.add_argument('--out', type=Path, default=Path('out/demo'),
                     help='folder for summary.json, pictures and logs (default: out/demo)')
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return 0 if at least two of three blocks were taken."""
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    environment = private_environment()
    os.environ.update(environment)
    children = Children(environment, args.out)
    rclpy.init()
    observer = Observer()
    demo = Demo(args, children, observer)
    episodes: list[dict] = []
    failed = False
    try:
        demo.start()
        if args.live:
            demo.live()
        order = np.random.default_rng(args.seed).permutation(COLOURS)
        for colour, phrase in zip(order, PHRASES):
            episodes.append(demo.attempt(str(colour), phrase))
        demo.wait(lambda: False, 1.1)  # the last diagnostics
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
    except RuntimeError as error:
        print(f'pi0_ros demo: {error}', file=sys.stderr)
        failed = True
    finally:
        children.end()
        observer.destroy_node()
        rclpy.try_shutdown()
    if args.live:
        return int(failed)
    code = report(args.out, demo.summary(episodes), observer.recording)
    return 1 if failed else code


def report(out: Path, summary: dict, recording: Recording) -> int:
    """Write and print the results; return the exit code."""
    try:
        (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
        write_animation(recording, out / 'overhead.gif')
        plot_joints(recording, out / 'joints.png')
    except OSError as error:
        print(f"pi0_ros demo: cannot write to '{out}': {error}; make room, or give another folder "
              'with --out', file=sys.stderr)
        return 1
    print(f'\n{table(summary["instructions"])}\n')
    ticks, inference = summary['tick_interval_ms'], summary['inference_ms']
    print(f"{summary['successes']} of {summary['episodes']} taken\n"
          f"{summary['command_hz']} commands a second, {ticks['p50']:.2f} ms apart "
          f"(p99 {ticks['p99']:.2f}, max {ticks['max']:.2f}), {summary['missed_ticks']} missed\n"
          f"{summary['chunks']} chunks, inference {inference['p50']:.0f} ms "
          f"(p95 {inference['p95']:.0f})\n"
          f'see {out}/overhead.gif, {out}/joints.png, {out}/summary.json')
    return 0 if summary['successes'] >= 2 else 1
