# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How messages come in and go out."""
