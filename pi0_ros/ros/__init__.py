# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The shell: nodes, parameters and conversions. Only this folder imports ROS."""
