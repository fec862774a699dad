# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags for tests, and ways to break them."""

import numpy as np
from pi0_ros.bags.bag import Bag
from pi0_ros.sim.demonstration import BagWriter, demonstrate, make, START_NS, trajectory

MS = 1_000_000
CAMERAS = ('overhead', 'wrist')
STRING, JOINTS = 'std_msgs/msg/String', 'sensor_msgs/msg/JointState'
IMAGE, PACKED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'


def write_demonstration(path, seed=0, colours=('red', 'green'), storage='mcap',
                        compression='none'):
    """Write a bag of the expert; return its folder."""
    out = BagWriter(path, storage, compression)
    try:
        demonstrate(out, seed, colours, CAMERAS)
    finally:
        out.close()
    return path


class Tape:
    """A small bag, message by message: two joints, one camera of 4 x 4 pixels."""

    def __init__(self, path, storage='mcap'):
        self.path, self._out = path, BagWriter(path, storage)

    def joints(self, at_ms, positions, stamp_ms=None, names=('a', 'b'), topic='/joint_states'):
        self._out.write(topic, JOINTS, START_NS + at_ms * MS, self._stamp(at_ms, stamp_ms),
                        name=list(names), position=np.array(positions, float),
                        velocity=np.zeros(0), effort=np.zeros(0))

    def image(self, at_ms, value=0, stamp_ms=None, topic='/camera_1/image_raw', encoding='rgb8',
              size=4):
        self._out.write(topic, IMAGE, START_NS + at_ms * MS, self._stamp(at_ms, stamp_ms),
                        height=size, width=size, encoding=encoding, is_bigendian=0,
                        step=3 * size, data=np.full(3 * size**2, value % 256, np.uint8))

    def command(self, at_ms, points, stamp_ms=None, names=('a', 'b'),
                topic='/joint_trajectory'):
        self._out.write(topic, TRAJECTORY, START_NS + at_ms * MS, self._stamp(at_ms, stamp_ms),
                        joint_names=list(names),
                        points=trajectory([(ms * MS, row) for ms, row in points]))

    def say(self, at_ms, text, topic='/instruction'):
        self._out.write(topic, STRING, START_NS + at_ms * MS, data=text)

    def clock(self, at_ms, sim_ms):
        self._out.write('/clock', 'rosgraph_msgs/msg/Clock', START_NS + at_ms * MS,
                        clock=make('builtin_interfaces/msg/Time', sec=sim_ms // 1000,
                                   nanosec=sim_ms % 1000 * MS))

    def flag(self, at_ms, value, topic='/episode'):
        self._out.write(topic, 'std_msgs/msg/Bool', START_NS + at_ms * MS, data=value)

    def array(self, at_ms, values, topic='/position_commands'):
        layout = make('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
        self._out.write(topic, 'std_msgs/msg/Float64MultiArray', START_NS + at_ms * MS,
                        layout=layout, data=np.array(values, float))

    @staticmethod
    def _stamp(at_ms, stamp_ms):
        """Return the stamp: that of receipt, or so many ms after the start; 'zero' for none."""
        if stamp_ms == 'zero':
            return 0
        return START_NS + (at_ms if stamp_ms is None else stamp_ms) * MS

    def close(self):
        self._out.close()
        return self.path


def ordinary(path, seconds=3.0, instruction='go', camera_ms=40, storage='mcap'):
    """Write a bag in which nothing is odd: joint a swings, b stands."""
    tape = Tape(path, storage)
    if instruction:
        tape.say(0, instruction)
    for at_ms in range(0, round(1000 * seconds), 10):
        tape.joints(at_ms, [np.sin(at_ms / 500), 0.5])
        if at_ms % camera_ms == 0:
            tape.image(at_ms, at_ms // camera_ms)
    return tape.close()


def messages(path, topics):
    with Bag(path) as bag:
        return list(bag.messages(topics)), bag.warnings, bag.damage
