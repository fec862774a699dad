# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Run PI0, the vision-language-action policy, on a robot with ROS 2."""

__version__ = '0.1.0'
