# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is wrong with the terminal that a verb is started in, before an import says it worse."""

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
import os
from pathlib import Path
import re
import sys

OURS = ('torch', 'transformers', 'safetensors', 'tokenizers', 'numpy', 'cv2', 'PIL', 'tqdm',
        'yaml', 'jinja2', 'matplotlib', 'rosbags', 'mcap', 'pyarrow', 'av', 'websockets',
        'msgpack')


def wheels() -> list[str]:
    """Return the ROS 2 that is installed as wheels, such as ros-jazzy-rclpy."""
    return sorted(one.name for one in metadata.distributions()
                  if re.fullmatch(r'ros-\w+-rclpy', one.name or ''))


def ros_problem(environment: Mapping[str, str], version: tuple[int, int], prefix: str,
                wheels: Callable[[], Sequence[str]], exists: Callable[[Path], bool] = Path.exists
                ) -> str | None:
    """
    Return what is wrong with the ROS that is sourced, or None.

    :param version: of the running Python. :param prefix: of its environment.
    :param wheels: tells the ROS 2 in it; asked only if need be, as it looks at every package.
    """
    sourced = [Path(part) for part in environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
               if part and part != prefix]
    found = {path.name: path for path in sourced if path.parent.name == 'ros'
             and exists(path / 'share' / 'rclpy')}
    if len(found) > 1:
        return (f"two ROS 2 installations are sourced, {' and '.join(map(str, found.values()))}: "
                'open a new terminal and source one of them (look at ~/.bashrc)')
    for part in environment.get('PYTHONPATH', '').split(os.pathsep):
        other = re.search(r'python3\.(\d+)(?=/|$)', part)
        if other and int(other[1]) != version[1] and exists(Path(part) / 'rclpy'):
            its = f'3.{other[1]}'
            return (f'the ROS 2 that is sourced ({part}) is of Python {its}, this is Python '
                    f"{'.'.join(map(str, version))} ({prefix}): make the environment anew, python"
                    f'{its} -m venv --system-site-packages ~/pi0_venv')
    own = wheels() if found else ()
    if own:
        return (f"{' and '.join(map(str, found.values()))} is sourced and this environment "
                f"({prefix}) has ROS 2 of its own ({', '.join(own)}): use one of them, a new "
                'terminal without ROS or another environment')
    return None


def problem() -> str | None:
    """Return what is wrong with the ROS of this process, or None."""
    return ros_problem(os.environ, sys.version_info[:2], sys.prefix, wheels)


def missing(error: ModuleNotFoundError) -> str | None:
    """Return a sentence on a module of ours that is not installed, None if it is another's."""
    name = (error.name or '').partition('.')[0]
    if name not in OURS:
        return None
    return (f"the module '{name}' is not installed for {sys.executable}: activate the environment "
            'that it was installed in (source ~/pi0_venv/bin/activate), then source '
            'install/setup.bash again; or see step 1 of the README')
