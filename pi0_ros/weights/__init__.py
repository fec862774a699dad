# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tensors on the disk, whatever trained them: found, described, loaded strictly."""
