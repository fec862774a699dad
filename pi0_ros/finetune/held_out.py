# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How far a network is from episodes that it was not trained on, by the measures of evaluate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pi0_ros.dataset.reader import DataSet
from pi0_ros.engine.paths import Prompt, Reference
from pi0_ros.evaluation.measures import Rows, summarise
from pi0_ros.finetune.inputs import Inputs
import torch

SECOND = 1e9


@torch.no_grad()
def measure(model: torch.nn.Module, inputs: Inputs, data: DataSet, frames: Sequence[int],
            steps: int, seed: int) -> dict[str, Any]:
    """
    Return ``evaluation.measures.summarise`` of what the network would do at ``frames``.

    One sample each, from noise that is the same every time.
    """
    spec, device = inputs.meaning.spec, model.action_out_proj.weight.device
    reference, table = Reference(model, steps), model.model.vlm.get_input_embeddings()
    names = spec.action_names or [f'action {number}' for number in range(spec.action_width)]
    relative = np.flatnonzero(spec.relative)
    # Where the robot is, to hold still: by names, or if there are as many; else a first action.
    known = spec.state_names or ()
    places = [known.index(name) for name in names if name in known]
    if len(places) < spec.action_width:
        places = list(range(spec.action_width)) if spec.state_width == spec.action_width else []
    records = []
    training = model.training
    model.eval()
    try:
        for number, index in enumerate(frames):
            item = data.item(int(index), spec.chunk_length)
            batch = inputs.batch([item]).to(device)
            ids = batch.ids[0, -int((batch.ids[0] != inputs.image_token).sum()):]
            noise = torch.from_numpy(np.random.default_rng((seed, number)).standard_normal(
                batch.actions.shape[1:])).float()
            out = reference(batch.images[0], Prompt(ids, table(ids)), batch.state[0], noise)
            actions = spec.action.restore(out[:, :spec.action_width].double().cpu().numpy())
            actions[:, relative] += item.state[relative]
            which, at_s = data.since(int(index))
            done = item.actions.astype(float)
            done[data.remaining(int(index)):] = np.nan  # nobody knows what comes after the end
            still = item.state[places] if places else item.actions[0]
            records.append({
                'skipped': '', 'bag': which, 'now_ns': round(at_s * SECOND), 'bag_ns': 0,
                'dt_ns': round(SECOND / data.fps), 'action_offset': spec.action_offset,
                'state': still.tolist(), 'velocity': [0.0] * spec.action_width,
                'predicted': [actions.tolist()], 'done': done.tolist(),
                'joint_age_s': 0.0, 'image_age_s': {}, 'skew_s': {}, 'latency_ms': [0.0],
                'refused': '', 'clamped': [], 'slowed': [], 'jump': None, 'border': None,
                'inside': None})
    finally:
        model.train(training)
    rows = Rows(records, np.zeros(spec.action_width, bool))
    low, high = (inputs.meaning.statistics.get(f'action.{name}') for name in ('min', 'max'))
    ranges = rows.extent() if low is None or spec.relative.any() else high - low
    return summarise(records, rows, list(names), np.maximum(ranges, 1e-3))
