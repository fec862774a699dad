# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot with weight: models in MuJoCo, moved by the controllers of the simulated robot."""

import ctypes.util
import os


class NotInstalled(ImportError):
    """What a model needs is not there; the text says how it is installed."""


HOW_TO_DRAW = ('apt install libegl1 libgl1-mesa-dri, or set MUJOCO_GL to glfw where there is a '
               'screen')
os.environ.setdefault('MUJOCO_GL', 'egl')  # pictures without a screen; read when it is imported
try:
    import mujoco  # noqa: F401
except ImportError as error:
    raise NotInstalled('robots in physics need MuJoCo: pip install --no-deps -r '
                       f'requirements/mujoco.txt ({error})') from None
except (AttributeError, RuntimeError) as error:  # as it comes where it cannot draw
    raise NotInstalled(f"MuJoCo cannot draw with MUJOCO_GL='{os.environ['MUJOCO_GL']}' ({error}): "
                       f'{HOW_TO_DRAW}') from None
if os.environ['MUJOCO_GL'] == 'egl' and not ctypes.util.find_library('EGL'):
    raise NotInstalled(f'drawing without a screen needs EGL: {HOW_TO_DRAW}')
