# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a plan is, how one follows from another, and what it keeps to."""
