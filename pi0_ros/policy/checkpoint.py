"""Reads a checkpoint folder of any supported layout: what the policy is, wants and gives.

Only JSON and safetensors are read; a pickle is never opened.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pi0_ros.policy import layout_lerobot, layout_openpi, layout_transformers
from pi0_ros.policy.spec import CheckpointError, Choices, PolicySpec, read_json

WEIGHTS = 'model.safetensors'
OTHER_NETWORKS = {'pi05': 'pi0.5', 'pi0_5': 'pi0.5', 'pi0.5': 'pi0.5', 'pi0fast': 'pi0-FAST',
                  'pi0_fast': 'pi0-FAST'}


def read(folder: Path, choices: Choices = Choices()) -> PolicySpec:
    """Return the description of the checkpoint in ``folder``.

    :raises CheckpointError: the folder is missing, incomplete, or of a kind that is not supported.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint folder '{folder}' does not exist: give the folder that "
                              'holds config.json and model.safetensors')
    if (folder / 'params').is_dir() or (folder / '_CHECKPOINT_METADATA').exists():
        raise CheckpointError(f"checkpoint '{folder}' is openpi's Orbax (JAX) format: convert it "
                              'with openpi/examples/convert_jax_model_to_pytorch.py')
    names = tensor_sizes(folder)
    if any('time_mlp_in' in name and 'action_time' not in name or name.endswith('dense.weight')
           for name in names) or not any('state_proj' in name for name in names):
        raise CheckpointError(f"checkpoint '{folder}' holds no state projection, so it is pi0.5, "
                              'pi0-FAST or another network: this package runs PI0')
    config = read_json(folder / 'config.json') if (folder / 'config.json').exists() else {}
    kind = str(config.get('type') or config.get('model_type') or '')
    if kind.lower() in OTHER_NETWORKS:
        raise CheckpointError(f"checkpoint '{folder}' is {OTHER_NETWORKS[kind.lower()]}, another "
                              'network: this package runs PI0')
    layout = _layout(folder, config, kind)
    try:
        return layout.describe(folder, config, choices)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is incomplete or damaged: "
                              f'{type(error).__name__}: {error}') from error
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from error


def _layout(folder: Path, config: dict, kind: str):
    """Return the module that reads this layout."""
    if config.get('model_type') == 'pi0':
        return layout_transformers
    if config.get('type') == 'pi0':
        return layout_lerobot
    if kind:
        raise CheckpointError(f"checkpoint '{folder}' has type '{kind}', expected pi0")
    openpi = 'action_expert_variant' in config and 'input_features' not in config
    if openpi or (folder / 'assets').is_dir() or (folder / 'metadata.pt').exists():
        return layout_openpi
    if not config:
        raise CheckpointError(f"checkpoint file '{folder / 'config.json'}' is missing: copy the "
                              'whole folder that training saved')
    raise CheckpointError(f"checkpoint '{folder}' is none of LeRobot, openpi or transformers: its "
                          'config.json has no type')


def tensor_sizes(folder: Path) -> dict[str, int]:
    """Return the number of values in each tensor of the checkpoint.

    :raises CheckpointError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved')
    try:
        with safe_open(path, 'numpy') as file:
            return {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint file '{path}' is damaged: {error}") from error
