# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A terminal for the person beside the robot."""
