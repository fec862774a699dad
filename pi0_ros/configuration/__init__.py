# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be set: one source, checked, and given to each room whole."""
