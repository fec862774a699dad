# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How a chunk is computed: the fast path, and the guidance of real-time chunking."""
