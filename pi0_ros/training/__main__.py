# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""``python -m pi0_ros.training``: make the small demo checkpoint."""

import sys

from pi0_ros.training.train import main

if __name__ == '__main__':
    sys.exit(main())
