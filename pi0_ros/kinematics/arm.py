# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""An arm of a robot's description: where its tool is, and how joints move it. By Pinocchio."""

from collections.abc import Sequence
import xml.etree.ElementTree as ElementTree

import numpy as np
from pi0_ros.kinematics.urdf import parse, UrdfError

try:
    import pinocchio
except ImportError:  # optional: only poses of a tool need it
    pinocchio = None

MISSING = ('poses of a tool need Pinocchio, which is not installed: apt install '
           'ros-$ROS_DISTRO-pinocchio, or pip install pin where no ROS is sourced')
RANK, SAMPLES = 1e-6, 5
TURNING = 100.0  # rad, stands for no limit of a continuous joint
MOVING = ('revolute', 'continuous', 'prismatic')


class Arm:
    """The chain of joints between a frame and a tool, both links of the description."""

    def __init__(self, urdf: str, joints: Sequence[str], frame: str, tool: str) -> None:
        """
        Read the chain; whatever else the description holds does not matter.

        :param joints: those that move the tool, in the order in which positions come.
        :raises UrdfError: Pinocchio or a link is missing, or other joints move the tool.
        """
        if pinocchio is None:
            raise UrdfError('no_pinocchio', MISSING)
        up, down = _chain(parse(urdf), frame, tool)
        _require(up, down, joints, frame, tool)
        try:
            self._model = pinocchio.buildModelFromXML(_small(up + down))
        except ValueError as error:
            raise UrdfError('no_kinematics', 'robot_description has joints that cannot be read '
                            f'({error})') from error
        model = self._model
        self._data = model.createData()
        self._frame, self._tool = model.getFrameId(frame), model.getFrameId(tool)
        order = [model.joints[model.getJointId(name)].idx_q for name in joints]
        self._columns = np.array(order, int)
        self._full = np.zeros(model.nq)
        self.joints, self.tool = tuple(joints), tool
        random = np.random.default_rng(0)
        # In so many directions the joints move the tool, wherever they are but in singularities.
        self.rank = max(np.linalg.matrix_rank(self.jacobian(at), RANK) for at in random.uniform(
            -1, 1, (SAMPLES, len(joints))))

    def pose(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return where the tool is in the frame, [3] metres, and its rotation matrix [3, 3].

        :param positions: of ``joints``, radians or metres.
        """
        self._full[self._columns] = positions
        pinocchio.framesForwardKinematics(self._model, self._data, self._full)
        at = self._data.oMf[self._frame].actInv(self._data.oMf[self._tool])
        return at.translation.copy(), at.rotation.copy()

    def jacobian(self, positions: np.ndarray) -> np.ndarray:
        """
        Return how the tool moves in the axes of the frame, [6, n]: metres, then radians.

        Of the joints as ``pose`` takes them.
        """
        self._full[self._columns] = positions
        jacobian = pinocchio.computeFrameJacobian(
            self._model, self._data, self._full, self._tool,
            pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED).reshape(6, -1)  # flat for one joint
        pinocchio.updateFramePlacement(self._model, self._data, self._frame)
        turned = self._data.oMf[self._frame].rotation.T  # it stands
        return np.concatenate([turned @ jacobian[:3], turned @ jacobian[3:]])[:, self._columns]


def _chain(robot: ElementTree.Element, frame: str, tool: str
           ) -> tuple[list[ElementTree.Element], list[ElementTree.Element]]:
    """
    Return the joints on the ways from frame, and from tool, up to where these meet.

    :raises UrdfError: one of the links is missing, or they are of two robots.
    """
    links = {link.get('name') for link in robot.findall('link')}
    above: dict[str, ElementTree.Element] = {}
    for joint in robot.findall('joint'):
        parent, child = joint.find('parent'), joint.find('child')
        if parent is not None and child is not None:
            above[child.get('link', '')] = joint
            links |= {parent.get('link'), child.get('link')}
    for name in (frame, tool):
        if name not in links:
            raise UrdfError('link_unknown', f"robot_description has no link '{name}', it has "
                            f"{', '.join(sorted(filter(None, links)))}")

    def ways(link: str) -> list[ElementTree.Element]:
        out = []
        while link in above and above[link] not in out:
            out.append(above[link])
            link = above[link].find('parent').get('link', '')
        return out

    up, down = ways(frame), ways(tool)
    tops = {(way[-1].find('parent').get('link') if way else name)
            for way, name in ((up, frame), (down, tool))}
    if len(tops) > 1:
        raise UrdfError('link_apart', f"links '{frame}' and '{tool}' of robot_description are not "
                        'connected')
    return ([joint for joint in up if joint not in down],
            [joint for joint in down if joint not in up])


def _require(up: Sequence[ElementTree.Element], chain: Sequence[ElementTree.Element],
             joints: Sequence[str], frame: str, tool: str) -> None:
    """Refuse joints that do not move the tool, a tool that others move, a frame that moves."""
    for joint in up:
        if joint.get('type') != 'fixed':
            raise UrdfError('frame_moves', f"joint '{joint.get('name')}' of robot_description "
                            f"moves '{frame}', in which '{tool}' is to be measured: name a frame "
                            'that stands')
    moving = [joint.get('name', '') for joint in chain if joint.get('type') != 'fixed']
    where = f"between links '{frame}' and '{tool}' of robot_description"
    for name in joints:
        if name not in moving:
            raise UrdfError('joint_elsewhere', f"joint '{name}' is not {where}; there are "
                            f"{', '.join(reversed(moving)) or 'none that move'}")
    for joint in chain:
        name, kind = joint.get('name', ''), joint.get('type', '')
        if kind != 'fixed' and (name not in joints or kind not in MOVING
                                or joint.find('mimic') is not None):
            raise UrdfError('joint_more', f"joint '{name}' ({kind}) {where} moves, but is not one "
                            f"of the hand's joints {', '.join(joints)}")


def _small(chain: Sequence[ElementTree.Element]) -> str:
    """
    Return a description of nothing but these joints.

    A continuous joint is one number here, and two for Pinocchio: it becomes a revolute one.
    """
    robot = ElementTree.Element('robot', name='arm')
    links = dict.fromkeys(joint.find(end).get('link', '')
                          for joint in chain for end in ('parent', 'child'))
    for name in links:
        ElementTree.SubElement(robot, 'link', name=name)
    for joint in chain:
        kind = joint.get('type', '')
        out = ElementTree.SubElement(robot, 'joint', name=joint.get('name', ''), type={
            'continuous': 'revolute'}.get(kind, kind))
        for part in ('parent', 'child', 'origin', 'axis'):
            found = joint.find(part)
            if found is not None:
                ElementTree.SubElement(out, part, dict(found.attrib))
        if kind != 'fixed':
            ElementTree.SubElement(out, 'limit', lower=str(-TURNING), upper=str(TURNING),
                                   velocity='1', effort='1')
    return ElementTree.tostring(robot, 'unicode')
