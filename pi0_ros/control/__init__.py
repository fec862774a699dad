# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the robot does: action queue, limits, and the trajectory that is published."""
