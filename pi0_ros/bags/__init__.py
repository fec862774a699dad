# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Recordings: read without ROS, and played as the node would hear them."""
