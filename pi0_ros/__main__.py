# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Runs ``python -m pi0_ros VERB``."""

import sys

from pi0_ros.cli import main

if __name__ == '__main__':
    sys.exit(main())
