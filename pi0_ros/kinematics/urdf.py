# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The text of a robot's description (URDF), taken as robot_state_publisher takes it."""

import re
import xml.etree.ElementTree as ElementTree

OTHER_FORMATS = {'sdf': 'an SDF (<sdf>)', 'mujoco': 'an MJCF model (<mujoco>)',
                 'COLLADA': 'a COLLADA file (<COLLADA>)'}
PREFIX = re.compile(r'(</?|\s)(?!xmlns)[A-Za-z_][\w.-]*:(?=[A-Za-z_][\w.-]*[\s=/>])')


class UrdfError(ValueError):
    """A description, or limits, cannot be used; ``reason`` is a word for programs."""

    def __init__(self, reason: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


def parse(urdf: str) -> ElementTree.Element:
    """
    Return the <robot> of a description.

    :raises UrdfError: it is none.
    """
    text = urdf.strip().lstrip('\ufeff')
    if not text:
        raise UrdfError('no_urdf', 'robot_description is empty, expected a URDF (<robot>)')
    if not text.startswith('<') and '<' not in text:
        raise UrdfError('no_urdf', f"robot_description is '{text[:80]}', which may be a file's "
                        'name, expected its content, a URDF (<robot>)')
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        if 'unbound prefix' not in str(error):
            raise UrdfError('no_urdf', f'robot_description is no URDF: {error}') from error
        try:  # whoever forgot to declare it meant the name behind it
            root = ElementTree.fromstring(PREFIX.sub(r'\1', text))
        except ElementTree.ParseError as other:
            raise UrdfError('no_urdf', f'robot_description is no URDF: {other}') from other
    for element in root.iter():
        element.tag = str(element.tag).rpartition('}')[2]
    if root.tag != 'robot':
        what = OTHER_FORMATS.get(root.tag, f'<{root.tag}>')
        raise UrdfError('no_urdf', f'robot_description is {what}, expected a URDF (<robot>)')
    return root
