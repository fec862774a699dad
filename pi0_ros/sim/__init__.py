# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot in a box: arm, blocks, cameras and controller, in pure Python without ROS."""
