# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint is, wants and gives, whatever trained it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return ``save_pi_zero``, for who has trained a network of pi-zero-pytorch."""
    if name == 'save_pi_zero':
        from pi0_ros.checkpoint.layout_pi_zero import save_pi_zero
        return save_pi_zero
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
