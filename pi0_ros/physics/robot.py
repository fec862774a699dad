# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot in MuJoCo: bodies, controllers and cameras on one clock, without ROS."""

import mujoco
import numpy as np
from pi0_ros.physics import HOW_TO_DRAW, NotInstalled
from pi0_ros.physics.models import load, Model, STEP_S
from pi0_ros.sim.controller import Settings, TrajectoryController, TrajectoryMessage

STEP_NS = round(STEP_S * 1e9)
TAKEN_HEIGHT = 0.03  # m: a thing counts as taken once it is that far above where it lay
SETTLES = 500  # steps
PLAIN = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)


class PhysicsRobot:
    """What the simulated robot is, with inertia and contact."""

    def __init__(self, model: Model, seed: int = 0, start_ns: int = 0,
                 settings: Settings | None = None, size: tuple[int, int] = (320, 240)) -> None:
        """
        Set the table for ``seed`` at the time ``start_ns``.

        :param settings: of the controllers, whose period is a multiple of 2 ms.
        :param size: width and height of the images.
        :raises NotInstalled: the package that has the model's files is not there.
        """
        self.model, self.joint_names, self.groups = model, model.names, model.groups
        self.cameras = tuple(model.cameras)
        self.settings = settings or Settings(update_rate=model.update_rate)
        self.mjcf = load(model)
        self._size, self._renderer = size, None
        self._data = mujoco.MjData(self.mjcf)
        self._leaders = [self.mjcf.joint(joint.leader) for joint in model.joints]
        # what the driver tells: offset + scale * place of the model's joint
        self._scale, self._offset = np.ones(len(model.joints)), np.zeros(len(model.joints))
        for number, (joint, leader) in enumerate(zip(model.joints, self._leaders)):
            if joint.driver:
                low, high = leader.range
                self._scale[number] = (joint.driver[1] - joint.driver[0]) / (high - low)
                self._offset[number] = joint.driver[0] - self._scale[number] * low
        self._places = [leader.qposadr[0] for leader in self._leaders]
        self._speeds = [leader.dofadr[0] for leader in self._leaders]
        driven = {self.mjcf.actuator(i).trnid[0]: i for i in range(self.mjcf.nu)}
        moved = [(number, driven[self.mjcf.joint(name).id], sign)
                 for number, joint in enumerate(model.joints) for name, sign in joint.moves]
        self._from, self._actuators, self._signs = (np.array(column) for column in zip(*moved))
        self.servos = {number: servo for number, servo, _ in reversed(moved)}
        self._columns = [[self.joint_names.index(name) for name in group.joints]
                         for group in self.groups]
        self.reset(seed, start_ns)

    def reset(self, seed: int, now_ns: int) -> None:
        """Put the arm home and the thing where ``seed`` says."""
        self.seed, self.now_ns = seed, now_ns
        mujoco.mj_resetData(self.mjcf, self._data)
        home = np.array(self.model.home)
        for number, joint in enumerate(self.model.joints):
            for name, sign in joint.moves:
                self._data.joint(name).qpos[0] = sign * (
                    home[number] - self._offset[number]) / self._scale[number]
        rng = np.random.default_rng(seed)
        (x0, x1), (y0, y1), self._lay = self.model.places
        thing = self._free
        thing[:7] = x1, y1, self._lay, 1, 0, 0, 0
        self.command(home)
        for _ in range(SETTLES):  # under its weight
            mujoco.mj_step(self.mjcf, self._data)
        thing[:7] = rng.uniform(x0, x1), rng.uniform(y0, y1), self._lay, 1, 0, 0, 0
        self._data.qvel[:] = 0
        mujoco.mj_forward(self.mjcf, self._data)
        self.controllers = [TrajectoryController(group.joints, home[its], self.settings)
                            for group, its in zip(self.groups, self._columns)]

    @property
    def _free(self) -> np.ndarray:
        """Return place and orientation [7] of the thing, to be read and written."""
        address = self.mjcf.jnt_qposadr[self.mjcf.body(self.model.thing).jntadr[0]]
        return self._data.qpos[address:address + 7]

    @property
    def thing(self) -> np.ndarray:
        """Return where the thing is, [3] metres."""
        return self._free[:3].copy()

    @property
    def joints(self) -> np.ndarray:
        """Return the measured joint positions [D], as the driver tells them."""
        return self._offset + self._scale * self._data.qpos[self._places]

    @property
    def velocity(self) -> np.ndarray:
        """Return the measured joint velocities [D]."""
        return self._scale * self._data.qvel[self._speeds]

    @property
    def taken(self) -> str | None:
        """Return the name of the thing if it is held clear of the table, or None."""
        return self.model.thing if self._free[2] > self._lay + TAKEN_HEIGHT else None

    def command(self, positions: np.ndarray) -> None:
        """Let the servos go to positions [D], as the driver has them."""
        wanted = (np.asarray(positions) - self._offset) / self._scale
        self._data.ctrl[self._actuators] = self._signs * wanted[self._from]

    def accept(self, message: TrajectoryMessage, number: int = 0) -> None:
        """Let a controller follow a trajectory; see ``TrajectoryController.accept``."""
        self.controllers[number].accept(message, self.now_ns)

    def advance(self, now_ns: int) -> None:
        """Let the time run until ``now_ns``; the controllers update once in their period."""
        period_ns = self.settings.period_ns
        while self.now_ns + STEP_NS <= now_ns:
            self.now_ns += STEP_NS
            if self.now_ns // period_ns > (self.now_ns - STEP_NS) // period_ns:
                measured, velocity = self.joints, self.velocity
                commanded = np.empty(len(self.joint_names))
                for controller, its in zip(self.controllers, self._columns):
                    commanded[its] = controller.update(self.now_ns, measured[its], velocity[its])
                self.command(commanded)
            mujoco.mj_step(self.mjcf, self._data)

    def image(self, camera: str) -> np.ndarray:
        """
        Return what ``camera`` sees now, [H, W, 3] uint8 RGB.

        :raises NotInstalled: this machine cannot draw.
        """
        if self._renderer is None:
            width, height = self._size
            try:
                self._renderer = mujoco.Renderer(self.mjcf, height, width)
            except Exception as error:  # whatever a driver says
                raise NotInstalled(f'MuJoCo cannot draw: {error}: {HOW_TO_DRAW}') from error
            for flag in PLAIN:
                self._renderer.scene.flags[flag] = 0
        self._renderer.update_scene(self._data, camera=self.model.cameras[camera])
        return self._renderer.render()

    def close(self) -> None:
        """Let go of what draws."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def urdf(self) -> str | None:
        """Return a robot description of joints and limits; None if its driver publishes none."""
        if not self.model.described:
            return None
        links = ['<link name="base"/>']
        before = 'base'
        for number, (joint, leader) in enumerate(zip(self.model.joints, self._leaders)):
            low, high = leader.range
            sliding = leader.type[0] == mujoco.mjtJoint.mjJNT_SLIDE
            links.append(
                f'<link name="{joint.name}_link"/><joint name="{joint.name}" '
                f'type="{"prismatic" if sliding else "revolute"}"><parent link="{before}"/>'
                f'<child link="{joint.name}_link"/><axis xyz="{" ".join(map(str, leader.axis))}"/>'
                f'<origin xyz="{" ".join(map(str, self.mjcf.body(leader.bodyid[0]).pos))}"/>'
                f'<limit lower="{low:.6f}" upper="{high:.6f}" effort="10" '
                f'velocity="{self.model.velocity[number]}"/></joint>')
            before = f'{joint.name}_link'
        return f'<robot name="{self.model.name}">{"".join(links)}</robot>'
