# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint is, wants and gives, whatever trained it."""
