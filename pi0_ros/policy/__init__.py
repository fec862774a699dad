# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who decides: the protocol, PI0 and its prompt and pixels, mocks, records of decisions."""
