# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the robot sees: the newest inputs, in the checkpoint's order, as one observation."""
