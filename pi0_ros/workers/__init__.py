# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where is it decided: in a thread, or in a process of its own."""
