# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the launch files share: how topics of cameras are said, and what is set around a node."""

from collections.abc import Mapping
from pathlib import Path

COMPRESSED = '/compressed'
NONE = ('', 'none', "''")
# What Fast DDS reads its profile from: the first until version 3, the second since.
PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
BEFORE_3 = ('humble', 'iron', 'jazzy')
WITHOUT_TOPICS = ('humble', 'iron')  # whose `ros2 bag record` has no --topics


def is_none(topic: str) -> bool:
    """Return whether somebody says that there is no such topic."""
    return topic.strip() in NONE


def camera_remappings(slot: str, topic: str) -> list[tuple[str, str]]:
    """
    Return how a camera's topics are remapped; none where there is no camera.

    :param topic: of the raw or of the compressed images, which means the same.
    """
    if is_none(topic):
        return []
    raw = topic.removesuffix(COMPRESSED)
    return [(f'{slot}/image_raw', raw), (f'{slot}/image_raw{COMPRESSED}', raw + COMPRESSED)]


def parameter_files(folder: Path, robot: str, own: str) -> list[str]:
    """
    Return the parameter files of a robot: its profile, and the user's own on top of it.

    :param folder: config/. :param robot: name of a profile in config/robots, '' or none for none.
    :param own: the user's file, '' for none.
    :raises ValueError: there is no such profile.
    """
    robot = '' if is_none(robot) else robot
    profiles = {path.stem: str(path) for path in sorted((folder / 'robots').glob('*.yaml'))}
    if robot and robot not in profiles:
        raise ValueError(f"robot is '{robot}', expected one of {', '.join(profiles)}, or a "
                         'params_file of your own')
    files = [profiles[robot]] if robot else [] if own else [str(folder / 'pi0.yaml')]
    return files + ([own] if own else [])


def transport(topics: Mapping[str, str]) -> dict[str, str]:
    """Return the parameter that topics of compressed images ask for, if there are any."""
    return {'image_transport': 'compressed'} if any(
        topic.endswith(COMPRESSED) for topic in topics.values()) else {}


def profile(environment: Mapping[str, str], path: str) -> dict[str, str]:
    """Return what is to be set so that Fast DDS reads a profile: nothing if another is set."""
    if any(environment.get(name) for name in PROFILES):
        return {}
    distro = environment.get('ROS_DISTRO')
    names = PROFILES if not distro else PROFILES[:1] if distro in BEFORE_3 else PROFILES[1:]
    return dict.fromkeys(names, path)


def record_topics(environment: Mapping[str, str], topics: list[str]) -> list[str]:
    """Return how ``ros2 bag record`` is told topics."""
    return topics if environment.get('ROS_DISTRO') in WITHOUT_TOPICS else ['--topics', *topics]
