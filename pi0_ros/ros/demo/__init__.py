# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The demo: a simulated robot, the node, and who speaks to it."""
