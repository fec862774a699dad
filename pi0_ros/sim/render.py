# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The cameras of the simulated robot: pinhole projections drawn with OpenCV."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from pi0_ros.sim import arm
from pi0_ros.sim.world import BLOCK_SIZE, PEG_HEIGHT, World

WIDTH, HEIGHT = 640, 480
CAMERAS = ('overhead', 'wrist', 'side')
RGB = {'red': (205, 45, 45), 'green': (45, 160, 70), 'blue': (50, 85, 205)}

TABLE = (222, 214, 200)
GRID = (200, 190, 174)
ARM = (70, 74, 82)
JOINT = (116, 120, 130)
FINGER = (245, 200, 60)
PEG = (120, 60, 130)

_CUBE = BLOCK_SIZE / 2 * np.array([[x, y, z] for z in (-1, 1) for x, y in
                                   ((-1, -1), (1, -1), (1, 1), (-1, 1))])
_FACES = ((4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
_SHADES = (1.0, 0.72, 0.82, 0.62, 0.78)


@dataclass(frozen=True)
class Pinhole:
    """A camera at ``position`` with ``rotation`` (rows: image right, image down, forward)."""

    position: np.ndarray
    rotation: np.ndarray
    focal: float  # pixels

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel coordinates [..., 2] and depths [...] of world points [..., 3]."""
        local = (points - self.position) @ self.rotation.T
        depth = np.maximum(local[..., 2], 0.01)
        pixels = local[..., :2] * (self.focal / depth)[..., None]
        return pixels + np.array([WIDTH / 2, HEIGHT / 2]), depth


def camera(name: str, joints: np.ndarray) -> Pinhole:
    """Return the camera ``name`` for an arm at ``joints`` [5]; the wrist camera moves with it."""
    if name == 'overhead':
        return Pinhole(np.array([0.20, 0.0, 1.50]),
                       np.array([[0, -1.0, 0], [-1.0, 0, 0], [0, 0, -1.0]]), 2000.0)
    if name == 'side':
        position, target = np.array([0.75, -0.55, 0.45]), np.array([0.16, 0.0, 0.06])
        return Pinhole(position, _look(target - position, np.array([0, 0, 1.0])), 900.0)
    if name == 'wrist':
        points = arm.forward(joints)
        down = (points[3] - points[2]) / arm.HAND
        out = np.array([np.cos(joints[0]), np.sin(joints[0]), 0.0])
        up = out - down * (out @ down)
        return Pinhole(points[2] - 0.02 * down, _look(down, up), 330.0)
    raise ValueError(f"unknown simulated camera '{name}': expected one of {', '.join(CAMERAS)}")


def _look(forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def render(world: World, name: str, row: int = 0) -> np.ndarray:
    """Return what camera ``name`` sees of table ``row``: [480, 640, 3] uint8, RGB."""
    joints = world.joints[row]
    view = camera(name, joints)
    image = _fixed_table(name).copy() if name != 'wrist' else _table(view)
    order = np.argsort(-np.linalg.norm(world.blocks[row] - view.position, axis=-1))
    for block in order:
        _block(image, view, world.blocks[row, block], world.angles[row, block],
               tuple(RGB.values())[block])
    if np.isfinite(world.peg[row]).all():
        foot = np.append(world.peg[row], 0.0)
        _link(image, view, np.stack([foot, foot + [0, 0, PEG_HEIGHT]]), PEG, 0.02)
    _arm(image, view, joints, links=name != 'wrist')
    return image


@lru_cache
def _fixed_table(name: str) -> np.ndarray:
    return _table(camera(name, arm.home()))


def _table(view: Pinhole) -> np.ndarray:
    """Return the empty table: a plain surface with a grid line every 10 cm."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = TABLE
    across = np.arange(-4, 9) / 10
    ends = np.zeros((2, 2 * len(across), 3))
    ends[:, :len(across), 1] = across
    ends[0, :len(across), 0], ends[1, :len(across), 0] = -0.4, 0.8
    ends[:, len(across):, 0] = across
    ends[0, len(across):, 1], ends[1, len(across):, 1] = -0.6, 0.6
    pixels, depth = view.project(ends)
    for start, end, near in zip(*pixels, depth.min(0)):
        if near > 0.02:
            _line(image, start, end, GRID, 2)
    return image


def _block(image: np.ndarray, view: Pinhole, centre: np.ndarray, angle: float,
           colour: tuple[int, int, int]) -> None:
    cos, sin = np.cos(angle), np.sin(angle)
    corners = _CUBE @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + centre
    pixels, _ = view.project(corners)
    faces = []
    for face, shade in zip(_FACES, _SHADES):
        middle = corners[list(face)].mean(0)
        if (middle - centre) @ (view.position - middle) > 0:
            faces.append((np.linalg.norm(middle - view.position), face, shade))
    for _, face, shade in sorted(faces, reverse=True):
        polygon = np.round(pixels[list(face)] * 16).astype(np.int32)
        cv2.fillConvexPoly(image, polygon, tuple(int(c * shade) for c in colour),
                           cv2.LINE_AA, shift=4)


def _arm(image: np.ndarray, view: Pinhole, joints: np.ndarray, links: bool) -> None:
    points = arm.forward(joints)
    if links:
        base = np.array([[0, 0, 0.0], [0, 0, arm.BASE_HEIGHT]])
        _link(image, view, base, ARM, 0.05)
        for start in range(2):
            _link(image, view, points[start:start + 2], ARM, 0.026)
        for point in points[:3]:
            pixel, depth = view.project(point)
            cv2.circle(image, _pixel(pixel), int(0.017 * view.focal / depth), JOINT, -1,
                       cv2.LINE_AA)
    # The hand: a palm across the wrist and two fingers, the gripper's opening apart.
    across = np.array([-np.sin(joints[0]), np.cos(joints[0]), 0.0])
    down = (points[3] - points[2]) / arm.HAND
    palm = points[2] + 0.35 * arm.HAND * down
    half = (joints[arm.GRIPPER] / 2 + 0.004) * across
    if links:
        _link(image, view, np.stack([points[2], palm]), JOINT, 0.02)
        _link(image, view, np.stack([palm - 0.034 * across, palm + 0.034 * across]), JOINT, 0.008)
    for side in (half, -half):
        _link(image, view, np.stack([palm + side, points[3] + side]), FINGER, 0.008)


def _link(image: np.ndarray, view: Pinhole, ends: np.ndarray, colour: tuple[int, int, int],
          width: float) -> None:
    pixels, depth = view.project(ends)
    _line(image, pixels[0], pixels[1], colour, max(1, int(width * view.focal / depth.mean())))


def _line(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, int, int],
          thickness: int) -> None:
    cv2.line(image, _pixel(start), _pixel(end), colour, thickness, cv2.LINE_AA)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return int(np.clip(point[0], -5000, 5000)), int(np.clip(point[1], -5000, 5000))
