# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``demonstrate``: a bag of the expert at work, to try evaluation and export on."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
import tempfile

import cv2
import numpy as np
from pi0_ros.sim import arm, expert, world
from pi0_ros.sim.description import urdf
from pi0_ros.sim.render import CAMERAS, render
from pi0_ros.sim.world import COLOURS
from rosbags.interfaces import (Qos, QosDurability, QosHistory, QosLiveliness, QosReliability,
                                QosTime)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import get_typestore, Stores
from tqdm import tqdm

STEP_NS = 10_000_000     # of joint states; commands and physics at half that rate
COMMAND_STEPS = 2
IMAGE_NS = 33_333_333
LIFTED_STEPS = 60        # for which a block is shown before the next instruction
LONGEST_STEPS = 1200
START_NS = 1_700_000_000_000_000_000
JPEG_QUALITY = 90
_store = get_typestore(Stores.ROS2_JAZZY)
_FOREVER = QosTime(0, 0)
# As robot_state_publisher offers it: `ros2 bag play` offers what was recorded.
LATCHED = {'/robot_description': (Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _FOREVER,
    _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False),)}


class BagWriter:
    """Writes messages of standard types into a bag."""

    def __init__(self, path: Path, storage: str = 'mcap', compression: str = 'none') -> None:
        """
        Begin a bag.

        :param storage: mcap or sqlite3. :param compression: none, file, or message.
        """
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        if compression != 'none':
            self._writer.set_compression(CompressionMode[compression.upper()],
                                         CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, object] = {}

    def write(self, topic: str, kind: str, at_ns: int, stamp_ns: int | None = None,
              **fields: object) -> None:
        """
        Write a message as it is received at ``at_ns``.

        :param kind: such as sensor_msgs/msg/Image. :param stamp_ns: of its header, if it has one.
        """
        if stamp_ns is not None:
            fields['header'] = make('std_msgs/msg/Header', stamp=_time(stamp_ns), frame_id='')
        self.write_raw(topic, kind, at_ns, _store.serialize_cdr(make(kind, **fields), kind))

    def write_raw(self, topic: str, kind: str, at_ns: int, raw: bytes | memoryview) -> None:
        """Write a message that is serialised already."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=_store, offered_qos_profiles=LATCHED.get(topic, ()))
        self._writer.write(self._connections[topic], at_ns, raw)

    def close(self) -> None:
        """End the bag."""
        self._writer.close()


def make(kind: str, **fields: object) -> object:
    """Return a message of a standard type."""
    return _store.types[kind](**fields)


def _time(nanoseconds: int, kind: str = 'Time') -> object:
    return make(f'builtin_interfaces/msg/{kind}', sec=nanoseconds // 10**9,
                nanosec=nanoseconds % 10**9)


def trajectory(points: Sequence[tuple[int, Sequence[float]]]) -> list[object]:
    """Return the points of a JointTrajectory: nanoseconds from its start, and positions."""
    none = np.zeros(0)
    return [make('trajectory_msgs/msg/JointTrajectoryPoint', positions=np.array(row, float),
                 velocities=none, accelerations=none, effort=none,
                 time_from_start=_time(after_ns, 'Duration')) for after_ns, row in points]


def demonstrate(out: BagWriter, seed: int, colours: Sequence[str], cameras: Sequence[str]
                ) -> int:
    """
    Write the expert taking blocks one after another; return when it ends, nanoseconds.

    The topics are those of the simulated robot; its driver has some milliseconds of delay.
    """
    rng = np.random.default_rng(seed)
    table = world.random_world(rng)
    command, side = table.joints.copy(), np.ones(1, int)
    at_ns, image_ns = START_NS, START_NS
    out.write('/robot_description', 'std_msgs/msg/String', at_ns, data=urdf())
    for colour in colours:
        out.write('/instruction', 'std_msgs/msg/String', at_ns,
                  data=f'pick up the {colour} block')
        target, lifted = np.array([COLOURS.index(colour)]), 0
        for step in range(LONGEST_STEPS):
            if at_ns >= image_ns:
                for name in cameras:
                    _, jpeg = cv2.imencode('.jpg', render(table, name)[:, :, ::-1],
                                           [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                    out.write(f'/{name}/image_raw/compressed', 'sensor_msgs/msg/CompressedImage',
                              at_ns + int(rng.integers(6, 12)) * 10**6, at_ns, format='jpeg',
                              data=jpeg.ravel())
                image_ns += IMAGE_NS
            out.write('/joint_states', 'sensor_msgs/msg/JointState',
                      at_ns + int(rng.integers(10**5, 10**6)), at_ns,
                      name=list(arm.JOINT_NAMES), position=table.joints[0].copy(),
                      velocity=table.velocity[0].copy(), effort=np.zeros(0))
            if step % COMMAND_STEPS == 0:
                command = expert.advance(table, command, target,
                                         COMMAND_STEPS * STEP_NS / 1e9, side)
                out.write('/joint_trajectory', 'trajectory_msgs/msg/JointTrajectory',
                          at_ns + 10**6, at_ns, joint_names=list(arm.JOINT_NAMES),
                          points=trajectory([(COMMAND_STEPS * STEP_NS, command[0])]))
            world.step(table, command, STEP_NS / 1e9)
            at_ns += STEP_NS
            taken = table.held[0] == target[0] and table.blocks[0, target[0], 2] > 0.05
            lifted = lifted + 1 if taken else 0
            if lifted > LIFTED_STEPS:
                break
        else:
            raise RuntimeError(f'the {colour} block could not be taken: try another --seed')
    return at_ns


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros demonstrate', description='Write a bag in which a rule takes the blocks of '
        'the simulated robot, to try evaluate and export on.')
    out.add_argument('bag', type=Path, help='folder to write, which must not exist')
    out.add_argument('--seed', type=int, default=0, help='of the block places (default: 0)')
    out.add_argument('--blocks', nargs='+', choices=COLOURS, default=['red', 'green', 'blue'],
                     help='to take, one after another (default: red green blue)')
    out.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    out.add_argument('--cameras', nargs='+', choices=tuple(CAMERAS),
                     default=['overhead', 'wrist'])
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    try:
        args.bag.absolute().parent.mkdir(parents=True, exist_ok=True)
        if args.bag.exists():
            raise WriterError(f"'{args.bag}' exists: name another folder, or remove it")
        with tempfile.TemporaryDirectory(dir=args.bag.absolute().parent) as folder:
            out = BagWriter(Path(folder) / args.bag.name, args.storage)
            try:
                end_ns = demonstrate(out, args.seed, tqdm(args.blocks, unit='block'),
                                     args.cameras)
            finally:
                out.close()
            (Path(folder) / args.bag.name).rename(args.bag)
    except KeyboardInterrupt:
        return 130
    except (WriterError, OSError, RuntimeError) as error:
        print(f'pi0_ros demonstrate: {error}', file=sys.stderr)
        return 1
    print(f'{args.bag}: {(end_ns - START_NS) / 1e9:.1f} s')
    return 0
