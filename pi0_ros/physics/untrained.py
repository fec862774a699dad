# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint for any robot, of a network that knows nothing of it: the real path, no skill."""

from collections.abc import Sequence
import json
from pathlib import Path
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

SOURCE = Path(__file__).parents[1] / 'sim' / 'checkpoint'
STATISTICS = {'mean': 0.0, 'std': 1.0, 'min': -3.0, 'max': 3.0, 'q01': -2.0, 'q10': -1.3,
              'q50': 0.0, 'q90': 1.3, 'q99': 2.0}  # in standard deviations


def write_untrained(folder: Path, names: Sequence[str], cameras: Sequence[str],
                    mean: np.ndarray, std: np.ndarray) -> Path:
    """
    Write the demo's network for other joints and cameras; return ``folder``.

    :param mean, std: [D] of states and actions, in the checkpoint's units.
    """
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    for path in folder.glob('*processor.safetensors'):
        save_file({key: np.asarray(mean + STATISTICS[key.rpartition('.')[2]] * std, np.float32)
                   if not key.endswith('.std') else np.asarray(std, np.float32)
                   for key in load_file(path)}, path)
    for name in ('config.json', 'policy_preprocessor.json', 'policy_postprocessor.json'):
        content = json.loads((folder / name).read_text())
        for part in [content, *(step['config'] for step in content.get('steps', []))]:
            for key in ('input_features', 'output_features', 'features'):
                if part.get(key):
                    part[key] = _features(part[key], len(names), cameras)
        if 'action_feature_names' in content:
            content['action_feature_names'] = list(names)
        (folder / name).write_text(json.dumps(content, indent=2) + '\n')
    return folder


def _features(before: dict, width: int, cameras: Sequence[str]) -> dict:
    pictures = [value for value in before.values() if value['type'] == 'VISUAL']
    out = {name: {**value, 'shape': [width]} for name, value in before.items()
           if value['type'] != 'VISUAL'}
    return ({f'observation.images.{name}': pictures[0] for name in cameras} if pictures
            else {}) | out
