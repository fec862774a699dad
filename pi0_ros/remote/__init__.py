# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who decides on another machine: openpi's websocket protocol, spoken and answered."""
