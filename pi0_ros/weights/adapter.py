# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Adapters (LoRA) as PEFT saves them: which base they belong to, and what they change in it."""

from collections.abc import Mapping
from dataclasses import replace
import math
from pathlib import Path
import re
from typing import Any

from pi0_ros.weights import places
from pi0_ros.weights.files import CheckpointError, read_json
from pi0_ros.weights.tensors import ADAPTER, Change, read_raw, Stored, stored_names

CONFIG = 'adapter_config.json'
PREFIX = 'base_model.model.'
# What is said of training, or is read here; anything else that is set changes what comes out.
KNOWN = ('auto_mapping', 'base_model_name_or_path', 'inference_mode', 'init_lora_weights',
         'lora_alpha', 'lora_dropout', 'modules_to_save', 'peft_type', 'peft_version', 'r',
         'rank_pattern', 'alpha_pattern', 'revision', 'target_modules', 'exclude_modules',
         'task_type', 'use_rslora', 'layers_to_transform', 'layers_pattern', 'runtime_config',
         'qalora_group_size', 'megatron_core', 'bias', 'eva_config', 'ensure_weight_tying')
STARTS = (True, False, 'gaussian', 'eva', 'orthogonal', None)  # others change the base, too


def read_config(folder: Path) -> dict[str, Any]:
    """
    Return the adapter's configuration.

    :raises CheckpointError: it is of another kind than LoRA, or asks for what is not done here.
    """
    path = folder / CONFIG
    config = read_json(path)
    kind = config.get('peft_type')
    problems = [f'peft_type {kind!r}'] if kind != 'LORA' else []
    problems += [f'{key} {value!r}' for key, value in config.items()
                 if value and key not in KNOWN]
    if config.get('bias', 'none') != 'none':
        problems.append(f"bias {config['bias']!r}")
    if config.get('init_lora_weights') not in STARTS:
        problems.append(f"init_lora_weights {config['init_lora_weights']!r}")
    _require_patterns(path, config)
    if problems:
        raise CheckpointError(f"checkpoint file '{path}' asks for {', '.join(problems)}, which is "
                              "not done here: merge the adapter with PEFT's merge_and_unload and "
                              'save the whole model with its processors')
    return config


def base_folder(folder: Path, config: Mapping[str, Any]) -> Path:
    """
    Return the folder of the checkpoint that an adapter belongs to.

    :raises CheckpointError: it is not on this disk.
    """
    policy = read_json(folder / 'config.json') if (folder / 'config.json').exists() else {}
    told = [str(name) for name in (config.get('base_model_name_or_path'),
                                   policy.get('pretrained_path')) if name]
    revision = config.get('revision')
    found = [folder / 'base']
    for name in told:
        found += [folder / name, Path(name).expanduser(), *filter(None, [
            places.cached(name, revision)])]
    for one in (places.locate(str(one)) if one.is_dir() else one for one in found):
        adapts = one.resolve() == folder.resolve() or (one / CONFIG).exists()
        if one.is_dir() and not adapts and any(one.glob('model.safetensors*')):
            return one
    name = told[0] if told else 'a base that it does not name'
    which = f' --revision {revision}' if revision else ''
    fetch = f'fetch it (hf download {name}{which}), or ' if places.HUB_NAME.fullmatch(
        name) else ''
    raise CheckpointError(f"checkpoint '{folder}' is an adapter (LoRA) of '{name}', which is not "
                          f'on this disk: {fetch}put or link the folder of that checkpoint at '
                          f"'{folder / 'base'}'")


def changed(folder: Path, config: Mapping[str, Any], base: Mapping[str, Stored]
            ) -> dict[str, Stored]:
    """
    Return what ``base`` stores, by transformers' names, with what the adapter changes.

    :raises CheckpointError: it is damaged, or changes what the base does not have.
    """
    path = folder / ADAPTER
    if not path.is_file():
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved')
    out, pairs = dict(base), {}
    for name, part in read_raw([path])[0].items():
        module = name.removeprefix(PREFIX).replace('.default.', '.')
        found = re.fullmatch(r'(.*)\.lora_([AB])\.weight', module)
        if found:
            pairs.setdefault(found[1], {})[found[2]] = part
            continue
        whole = _named(path, module.replace('.modules_to_save.', '.'), base)
        if 'lora_' in module or part.shape != base[whole].shape:
            raise CheckpointError(f"checkpoint file '{path}' has {name} {part.shape}, which is no "
                                  'part of LoRA that is known here')
        out[whole] = part
    for module, pair in pairs.items():
        name = _named(path, f'{module}.weight', base)
        if set(pair) != {'A', 'B'}:
            raise CheckpointError(f"checkpoint file '{path}' has only half of the change of "
                                  f'{module}: copy it again')
        a, b, wanted = pair['A'], pair['B'], base[name].shape
        rank = _of(config.get('rank_pattern'), module, config.get('r'))
        alpha = _of(config.get('alpha_pattern'), module, config.get('lora_alpha'))
        if a.shape != (rank, wanted[-1]) or b.shape != (wanted[0], rank) or len(wanted) != 2:
            raise CheckpointError(f"checkpoint file '{path}' changes {module} by {b.shape} x "
                                  f'{a.shape} of rank {rank}, but its base has {wanted}')
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not (
                math.isfinite(alpha)):
            raise CheckpointError(f"checkpoint file '{folder / CONFIG}' has lora_alpha {alpha!r}, "
                                  'expected a number')
        scale = alpha / (math.sqrt(rank) if config.get('use_rslora') else rank)
        out[name] = replace(out[name], change=Change(scale, a, b))  # also of what it has whole
    return out


def _named(path: Path, name: str, base: Mapping[str, Stored]) -> str:
    """Return transformers' name of what an adapter changes."""
    found = next(iter(stored_names([name])), '')
    if found not in base:
        raise CheckpointError(f"checkpoint file '{path}' changes {name}, which its base does not "
                              'have: it belongs to another one')
    return found


def _of(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that a module's name ends with, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf'(.*\.)?({pattern})', module):
            return value
    return default


def _require_patterns(path: Path, config: Mapping[str, Any]) -> None:
    for key in ('rank_pattern', 'alpha_pattern'):
        told = config.get(key) or {}
        try:
            fits = isinstance(told, dict) and all(re.compile(one) for one in told)
        except re.error:
            fits = False
        if not fits:
            raise CheckpointError(f"{key} of checkpoint file '{path}' is {str(told)[:60]!r}, "
                                  'expected patterns of module names: copy it again')
