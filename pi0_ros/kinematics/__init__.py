# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the tool is, and how the joints bring it somewhere else."""
