# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which links of a description are tools, and which joints move them."""

from collections.abc import Sequence
from dataclasses import dataclass
import re
import xml.etree.ElementTree as ElementTree

from pi0_ros.kinematics.urdf import parse, UrdfError

TOOL = re.compile(r'(?i)(^|[_/])(tool\d*|tcp|tool_center_point|ee_link|eef|gripper_frame\w*|'
                  r'grasp\w*|fingertip\w*)$')


@dataclass(frozen=True)
class Chain:
    """A tool, the frame that it is told in, and the joints between them."""

    frame: str
    tool: str
    joints: tuple[str, ...]  # in the order of the joints that were asked about


def chains(urdf: str, joints: Sequence[str], grippers: Sequence[str], tools: Sequence[str] = ()
           ) -> list[Chain]:
    """
    Return a chain for each tool; its frame is the last link above that ``joints`` do not move.

    :param joints: that are commanded. :param grippers: those of them that move no tool.
    :param tools: links; none are the ends of the arms, of what the last joint that is no gripper
        moves: a link with a name of a tool, the one that a gripper is on, or that link itself.
    :raises UrdfError: a tool is missing, or no joint moves it.
    """
    robot = parse(urdf)
    above, fixed, carry = {}, {}, set()
    for joint in robot.findall('joint'):
        parent, child = (joint.find(end) for end in ('parent', 'child'))
        if parent is not None and child is not None:
            above[child.get('link', '')] = joint
    for link, joint in above.items():
        parent = joint.find('parent').get('link', '')
        if joint.get('type') == 'fixed':
            fixed.setdefault(parent, []).append(link)
        else:
            carry.add(parent)
    arm = set(joints) - set(grippers)
    moved = [link for link, joint in above.items() if joint.get('name') in arm]
    inner = {passed for link in moved for passed in _way(link, above)[1:]}
    wanted = list(tools) or [_end(link, fixed, carry) for link in moved if link not in inner]
    out = []
    for tool in wanted:
        if tool not in above:
            raise UrdfError('link_unknown', f'robot_description has no joint that leads to a link '
                            f"'{tool}', it has {', '.join(sorted(above))}")
        moving = []
        for link in _way(tool, above):
            joint = above.get(link)
            if joint is not None and joint.get('type') != 'fixed':
                if joint.get('name') not in joints:
                    break
                moving.append(joint.get('name'))
        if not moving:
            raise UrdfError('tool_stands', f"none of the commanded joints {', '.join(joints)} "
                            f"moves the link '{tool}' of robot_description")
        out.append(Chain(link, tool, tuple(name for name in joints if name in moving)))
    return out


def _way(link: str, above: dict[str, ElementTree.Element]) -> list[str]:
    """Return the links from ``link`` up to the root."""
    out = [link]
    while link in above:
        link = above[link].find('parent').get('link', '')
        if link in out:
            break
        out.append(link)
    return out


def _end(link: str, fixed: dict[str, list[str]], carry: set[str]) -> str:
    """Return the tool of what is fixed to ``link``: cameras are fixed to it too."""
    links = [link]
    for one in links:
        links += fixed.get(one, ())
    named = [one for one in links if TOOL.search(one)]
    bearing = [one for one in links if one in carry]
    return (named or bearing or [link])[-1]
