# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A bounded part of ``make fuzz``."""

from fuzz import Life, same_in_any_order
import pytest


@pytest.mark.parametrize('seed', range(40))
def test_every_command_of_a_random_life_is_safe(seed):
    assert Life(seed, split=seed % 2 == 1).live(150) > 150


@pytest.mark.parametrize('seed', range(20))
def test_every_command_is_safe_where_a_person_takes_over(seed):
    assert Life(seed, split=seed % 2 == 1, led=True).live(150) > 150


@pytest.mark.parametrize('seed', range(10))
def test_the_order_of_joints_makes_no_difference(seed):
    same_in_any_order(seed)
