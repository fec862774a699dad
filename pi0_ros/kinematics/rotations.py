# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Rotations as data sets write them, and as matrices.

``rotation_6d`` are the first two columns of the matrix, one after the other (Zhou et al., 2019,
arXiv 1812.07035); ``rotation_6d_rows`` its first two rows, as pytorch3d has them. ``rpy`` are
URDF's roll, pitch and yaw: about the fixed axes x, y, z, in this order.
"""

import numpy as np

ROTATIONS = {  # the numbers of each
    'axis_angle': ('wx', 'wy', 'wz'), 'rpy': ('roll', 'pitch', 'yaw'),
    'rotation_6d': ('xx', 'yx', 'zx', 'xy', 'yy', 'zy'),
    'rotation_6d_rows': ('xx', 'xy', 'xz', 'yx', 'yy', 'yz'),
    'quaternion_xyzw': ('qx', 'qy', 'qz', 'qw'), 'quaternion_wxyz': ('qw', 'qx', 'qy', 'qz')}
SMALL = 1e-9


def matrices(values: np.ndarray, kind: str) -> np.ndarray:
    """
    Return rotation matrices [..., 3, 3] of ``values`` [..., numbers], radians.

    What a network says is never quite a rotation: the two axes of 6-D are made orthonormal as in
    the paper, quaternions are normalised.

    :raises ValueError: it is none at all: axes without length, or parallel, or not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError('a rotation is not finite')
    if kind == 'axis_angle':
        return _about(values)
    if kind == 'rpy':
        roll, pitch, yaw = (_about(values[..., index, None] * np.eye(3)[index])
                            for index in range(3))
        return yaw @ pitch @ roll
    if kind.startswith('rotation_6d'):
        first = _unit(values[..., :3])
        second = values[..., 3:]
        second = _unit(second - (first * second).sum(-1, keepdims=True) * first)
        return np.stack([first, second, np.cross(first, second)],
                        axis=-2 if kind == 'rotation_6d_rows' else -1)
    x, y, z, w = np.moveaxis(_unit(_xyzw(values, kind)), -1, 0)
    return np.stack([
        np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1)], -2)


def numbers(matrix: np.ndarray, kind: str, near: np.ndarray | None = None) -> np.ndarray:
    """
    Return a rotation matrix [3, 3] as ``kind`` writes it, [numbers], radians.

    One rotation can be written in several ways: as a turn by 3.1 rad or by -3.2 rad the other way
    around, as a quaternion or its negative.

    :param near: [numbers] what it shall be close to, such as the mean of training; None: the
        shortest turn, angles within +-pi, a positive w.
    """
    if kind == 'rotation_6d':
        return matrix[:, :2].T.ravel()
    if kind == 'rotation_6d_rows':
        return matrix[:2].ravel()
    if kind == 'rpy':
        return _closest(_rpy(matrix), near)
    quaternion = _quaternion(matrix)
    if kind == 'axis_angle':
        turn = _turn(quaternion)
        angle = np.linalg.norm(turn)
        if near is None or angle < SMALL:
            return turn
        axis = turn / angle
        return axis * _closest(angle, axis @ near)
    if near is not None and quaternion @ _xyzw(near, kind) < 0:
        quaternion = -quaternion
    return quaternion if kind == 'quaternion_xyzw' else np.roll(quaternion, 1)


def turn(matrix: np.ndarray) -> np.ndarray:
    """Return the axis times the angle [3] of a rotation matrix, at most pi."""
    return _turn(_quaternion(matrix))


def _closest(angles: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    return angles if near is None else angles + 2 * np.pi * np.round((near - angles) / 2 / np.pi)


def _xyzw(values: np.ndarray, kind: str) -> np.ndarray:
    return values if kind == 'quaternion_xyzw' else np.roll(values, -1, axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (length < SMALL).any():
        raise ValueError('a rotation has an axis without length, or two that are parallel')
    return vectors / length


def _about(turns: np.ndarray) -> np.ndarray:
    """Return the matrices of axes times angles [..., 3]: Rodrigues' formula."""
    angle = np.linalg.norm(turns, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(turns, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1),
                      np.stack([-y, x, zero], -1)], -2)
    return (np.eye(3) + np.sinc(angle / np.pi) * cross
            + 0.5 * np.sinc(angle / 2 / np.pi)**2 * cross @ cross)


def _rpy(matrix: np.ndarray) -> np.ndarray:
    level = np.hypot(matrix[0, 0], matrix[1, 0])
    pitch = np.arctan2(-matrix[2, 0], level)
    if level < 1e-6:  # roll and yaw are about one axis: yaw is 0
        return np.array([np.arctan2(-matrix[1, 2], matrix[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(matrix[2, 1], matrix[2, 2]), pitch,
                     np.arctan2(matrix[1, 0], matrix[0, 0])])


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return x, y, z, w with w >= 0, by the largest of the four, which is exact for any turn."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    most = max(a, e, i, a + e + i)
    if most == a + e + i:
        out = [h - f, c - g, d - b, 1 + most]
    elif most == a:
        out = [1 + a - e - i, b + d, c + g, h - f]
    elif most == e:
        out = [b + d, 1 + e - a - i, f + h, c - g]
    else:
        out = [c + g, f + h, 1 + i - a - e, d - b]
    quaternion = np.array(out)
    quaternion /= np.linalg.norm(quaternion) * (-1 if out[3] < 0 else 1)
    return quaternion


def _turn(quaternion: np.ndarray) -> np.ndarray:
    sine = np.linalg.norm(quaternion[:3])
    if sine < SMALL:
        return 2 * quaternion[:3]
    return 2 * np.arctan2(sine, quaternion[3]) / sine * quaternion[:3]
