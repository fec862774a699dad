# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How a room says what can be set in it: the fields of its configuration, a frozen dataclass."""

import dataclasses
from typing import Any


def setting(default: Any, description: str, *, unit: str = '', low: float | None = None,
            high: float | None = None, choices: tuple[str, ...] = (), dynamic: bool = False,
            nested: tuple[str, ...] | None = None) -> Any:
    """
    Return a field with a default, what it is for, and what it may be.

    Its name is that of a parameter of the node. :param dynamic: whether it may change while the
    node runs. :param nested: it is said as a block, for each joint these keys with numbers, or,
    for (), a text; here it is a text for each joint, 'elbow: upper 1.5, velocity 1.0'.
    """
    return dataclasses.field(default=default, metadata={
        'description': description, 'unit': unit, 'low': low, 'high': high, 'choices': choices,
        'dynamic': dynamic, 'nested': nested})
