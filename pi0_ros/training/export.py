# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Writes the demo checkpoint in LeRobot's layout."""

from pathlib import Path

import numpy as np
from pi0_ros.checkpoint.spec import PI05, PolicySpec
from pi0_ros.finetune.inputs import Meaning
from pi0_ros.finetune.saving import write_checkpoint
from pi0_ros.sim import arm
from pi0_ros.sim.render import HEIGHT, WIDTH
from pi0_ros.training.demonstrations import CAMERAS, CHUNK, DT
from pi0_ros.training.instructions import MAX_TOKENS
from pi0_ros.training.learning import Samples
from pi0_ros.training.model import IMAGE_SIZE, small_config
from tokenizers import Tokenizer
import torch

CARD = """# The demo checkpoint

A small {network} of 1.8 million parameters for the simulated robot of pi0_ros (docs/training.md).
"""


def export(folder: Path, weights: dict[str, torch.Tensor], samples: Samples,
           tokenizer: Tokenizer, trained_delay: int = 0) -> None:
    """
    Write a checkpoint that our loader reads, in LeRobot's layout.

    :param trained_delay: how many actions the network was trained to be given, see Learner.
    """
    network, names = samples.network, tuple(arm.JOINT_NAMES)
    state, action = samples.normalisers['state'], samples.normalisers['action']
    spec = PolicySpec(
        folder, 'LeRobot', tuple(CAMERAS), len(names), len(names), state, action, names, names,
        True, np.zeros(len(names), bool), CHUNK, 10, DT, (IMAGE_SIZE, IMAGE_SIZE), 'lerobot',
        PI05 if network == PI05 else 'lerobot', MAX_TOKENS[network], None, 'pi0_ros',
        action_offset=1,  # the demonstrator's actions are the next states
        network=network)
    write_checkpoint(
        folder, weights, Meaning(spec, samples.mode, samples.statistics, ('gripper',), state,
                                 action),
        small_config(network), tokenizer, {name: (HEIGHT, WIDTH) for name in CAMERAS},
        {'dataset': {'repo_id': 'pi0_ros/sim', 'fps': round(1 / DT)}},
        CARD.format(network=network), trained_delay)
