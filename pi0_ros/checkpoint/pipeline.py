# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
LeRobot's processors: their steps, statistics and normalisation, or a refusal.

Whatever changes states, images or actions is done here as LeRobot does it, or is refused: a robot
would move wrongly.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.checkpoint.normalise import EPS, lerobot_normaliser, NEEDS, Normaliser
from pi0_ros.checkpoint.spec import texts
from pi0_ros.weights.files import inside, part, pointer, read_json
from safetensors import safe_open, SafetensorError

IMAGES = 'observation.images.'
CHANNELS = 3
MOST_EPS = 1e-3
# The steps of LeRobot's own pipelines for pi0 and pi0.5, and what is set of each: all of it is
# done here, or does nothing here.
NORMALISER = ('eps', 'features', 'norm_map', 'stats', 'normalize_observation_keys', 'device',
              'dtype')
RENAMES, NEW_LINE, TOKENIZES = (
    'rename_observations_processor', 'pi0_new_line_processor', 'tokenizer_processor')
STATE_PROMPT = 'pi05_prepare_state_tokenizer_processor_step'
PROMPTS = {'pi0': NEW_LINE, 'pi05': STATE_PROMPT}
RELATIVE, NORMALISES = 'relative_actions_processor', 'normalizer_processor'
RESTORES, ABSOLUTE = 'unnormalizer_processor', 'absolute_actions_processor'
BEFORE = {
    RENAMES: ('rename_map',), 'to_batch_processor': (), NEW_LINE: (),
    STATE_PROMPT: ('max_state_dim', 'task_key'), TOKENIZES: (
        'max_length', 'task_key', 'padding_side', 'padding', 'truncation', 'tokenizer_name'),
    'device_processor': ('device', 'float_dtype'),
    RELATIVE: ('enabled', 'exclude_joints', 'action_names'), NORMALISES: NORMALISER}
AFTER = {RESTORES: NORMALISER, ABSOLUTE: ('enabled',),
         'device_processor': ('device', 'float_dtype')}
# What comes before what; the other order is another network's input.
ORDER = ((RENAMES, NORMALISES), (NEW_LINE, TOKENIZES), (RELATIVE, NORMALISES),
         (NORMALISES, STATE_PROMPT), (STATE_PROMPT, TOKENIZES), (RESTORES, ABSOLUTE))


@dataclass(frozen=True)
class Step:
    """One step of a pipeline."""

    where: str               # its file and name, for people
    config: dict[str, Any]
    state_file: str | None   # with its tensors
    artifacts: dict[str, Any]


def read_steps(path: Path, known: dict[str, tuple[str, ...]]) -> dict[str, Step]:
    """
    Return the steps of a pipeline by name.

    :raises ValueError: there is one, or something that is set of one, that nobody here knows: it
        may change what moves the robot.
    """
    out = {}
    for number, step in enumerate(part(read_json(path), 'steps', list, path.name)):
        where = f'step {number} of {path.name}'
        if not isinstance(step, dict):
            raise ValueError(f'{where} is {str(step)[:60]!r}, expected an object')
        name = part(step, 'registry_name', str, where, '')
        if name not in known:
            raise ValueError(f"its pipeline has the step '{name or step.get('class')}', which is "
                             f"none of LeRobot's for pi0 ({', '.join(known)}): what it does to "
                             'states, images or actions is not known, so the robot could move '
                             'wrongly')
        where = f"step '{name}' of {path.name}"
        config = part(step, 'config', dict, where, {})
        for key, value in config.items():
            nothing = value is None or value is False or value in ([], {}, '')
            if not nothing and key not in known[name]:
                raise ValueError(f"{where} has {key} {value!r}, which LeRobot's lacks: what it "
                                 'does is not known, so the robot could move wrongly')
        if name in out:
            if name != RENAMES:
                raise ValueError(f"{path.name} has step '{name}' twice, which LeRobot's have not: "
                                 'what is done twice moves the robot wrongly')
            config = {'rename_map': renamed_twice(out.pop(name), config, where)}
        out[name] = Step(where, config, part(step, 'state_file', str, where, None),
                         part(step, 'artifacts', dict, where, {}))
    names = list(out)
    for first, second in ORDER:
        if first in out and second in out and names.index(first) > names.index(second):
            raise ValueError(f"{path.name} has step '{first}' behind '{second}', LeRobot's have "
                             'it before: the robot would move wrongly')
    return out


def renamed_twice(first: Step, second: dict[str, Any], where: str) -> dict[str, str]:
    """Return what two renames, one after the other, make of names."""
    one = part(first.config, 'rename_map', dict, first.where, {})
    two = part(second, 'rename_map', dict, where, {})
    return {old: two.get(str(new), new) for old, new in one.items()} | {
        old: new for old, new in two.items() if old not in one.values()}


def require_steps(steps: dict[str, Step], names: tuple[str, ...], file: str) -> None:
    """
    Return if a pipeline has these steps.

    :raises ValueError: it lacks one.
    """
    for name in names:
        if name not in steps:
            raise ValueError(f"{file} has no step '{name}', which training saves: copy the file "
                             'again')


def require_prompt(steps: dict[str, Step], network: str, file: str) -> None:
    """
    Return if a pipeline writes the prompt of ``network``, 'pi0' or 'pi05', and no other.

    :raises ValueError: it does not.
    """
    require_steps(steps, (PROMPTS[network],), file)
    other = [name for name in PROMPTS.values() if name in steps and name != PROMPTS[network]]
    if other:
        raise ValueError(f"{file} has step '{other[0]}', which is another network's: its prompts "
                         'are not those that these weights have seen')


def modes(normalise: Step, restore: Step) -> dict[str, str]:
    """
    Return how each type of feature is normalised; both ways alike.

    :raises ValueError: the two disagree, so that what is restored is not what was learnt.
    """
    there, back = (part(step.config, 'norm_map', dict, step.where) for step in (
        normalise, restore))
    if there != back:
        raise ValueError(f'the two processors normalise differently: norm_map is {there} in the '
                         f'one and {back} in the other: copy both files again, from one training')
    if not all(isinstance(mode, str) for mode in there.values()):
        raise ValueError(f'norm_map of {normalise.where} is {there}, expected texts')
    if _eps(normalise) != _eps(restore):
        raise ValueError(f'eps is {_eps(normalise)} in the one processor and {_eps(restore)} in '
                         'the other: copy both files again, from one training')
    return there


def _eps(step: Step) -> float:
    eps = float(part(step.config, 'eps', float, step.where, EPS))
    if not 0 < eps <= MOST_EPS:
        raise ValueError(f'eps of {step.where} is {eps}, expected above 0 to {MOST_EPS}')
    return eps


def _features(step: Step) -> dict[str, Any]:
    return part(step.config, 'features', dict, step.where)


def _keys(step: Step) -> tuple[str, ...] | None:
    """Return which observations are normalised, None for all."""
    keys = step.config.get('normalize_observation_keys')
    return None if keys is None else texts(keys, 'normalize_observation_keys')


def normaliser(folder: Path, step: Step, kind: str, feature: str, width: int,
               warnings: list[str]) -> tuple[Normaliser, int]:
    """
    Return the normaliser of a feature, and how many values it has.

    As LeRobot's ``normalize_processor.py``: a type that the map lacks, and a feature that the step
    does not have, stay as they are. The width is that of the statistics: the configuration of a
    fine-tuned model keeps its base's.
    """
    features, keys = _features(step), _keys(step)
    left_out = kind == 'STATE' and (feature not in features
                                    or (keys is not None and feature not in keys))
    mode = step.config['norm_map'].get(kind)
    if mode is None or left_out:
        warnings.append(f'its {feature} is not normalised, as its processor says: LeRobot gives '
                        'the network the numbers as they are')
        mode = 'IDENTITY'
    if mode == 'IDENTITY' or mode not in NEEDS:
        width = _width_of(folder, step, feature) or width
        return lerobot_normaliser(mode, feature, {}, width), width
    told = statistics(folder, step)
    for name in NEEDS[mode]:
        value = told.get(f'{feature}.{name}')
        if value is not None and value.ndim and value.size == value.shape[-1]:
            told[f'{feature}.{name}'] = value.reshape(-1)
            width = value.size
    return lerobot_normaliser(mode, feature, told, width, _eps(step)), width


def _width_of(folder: Path, step: Step, feature: str) -> int | None:
    """Return how many values the statistics have of a feature, None where they have none."""
    if step.state_file is None and not step.config.get('stats'):
        return None
    sizes = {value.size for key, value in statistics(folder, step).items()
             if key.rpartition('.')[0] == feature and key.rpartition('.')[2] in (
                 'mean', 'std', 'min', 'max', 'q01', 'q99')}
    return sizes.pop() if len(sizes) == 1 else None


def cameras_in(folder: Path, step: Step) -> set[str]:
    """Return the data set's names of cameras that the statistics have."""
    if step.state_file is None and not step.config.get('stats'):
        return set()
    return {key.rpartition('.')[0].removeprefix(IMAGES)
            for key in statistics(folder, step) if key.startswith(IMAGES)}


def pixels(folder: Path, step: Step, cameras: tuple[str, ...]
           ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """
    Return shift and scale of each camera whose images training normalised by statistics.

    As LeRobot does: a camera without statistics stays as it is.
    """
    mode = step.config['norm_map'].get('VISUAL', 'IDENTITY')
    if mode == 'IDENTITY':
        return {}
    told, features, keys, out = statistics(folder, step), _features(step), _keys(step), {}
    for name in cameras:
        feature = f'{IMAGES}{name}' if f'{IMAGES}{name}' in features else name
        flat = {key: value.reshape(-1) for key, value in told.items()
                if key.startswith(f'{feature}.')}
        if not flat or feature not in features or (keys is not None and feature not in keys):
            continue
        it = lerobot_normaliser(mode, feature, flat, CHANNELS, _eps(step))
        out[name] = it.shift, it.scale
    return out


def statistics(folder: Path, step: Step) -> dict[str, np.ndarray]:
    """Return statistics by flat names: of the JSON, else of the file, as LeRobot resolves them."""
    name, told = step.state_file, part(step.config, 'stats', dict, step.where, {})
    if name is None or told:
        if not told:
            raise ValueError('it has no statistics: it is a base model, which says nothing to a '
                             'robot before it is fine-tuned on its data')
        try:
            return {f'{feature}.{key}': np.asarray(value, np.float64)
                    for feature, of in told.items() for key, value in of.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"'stats' of {step.where} are no lists of numbers for each feature") \
                from error
    path = inside(folder, name, 'state_file')
    try:
        with safe_open(path, 'pt') as file:  # numpy knows no bfloat16
            return {key: file.get_tensor(key).double().numpy() for key in file.keys()}
    except FileNotFoundError as error:
        raise ValueError(f"statistics file '{path.name}' is missing: copy the whole folder") \
            from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"statistics file '{path.name}' "
                         f'{pointer(path) or f"is damaged: {error}"}') from error


def migrated(folder: Path, normalise: Step) -> bool:
    """
    Return whether statistics are those that LeRobot's migration takes out of old weights.

    Those of a data set also have counts and quantiles.
    """
    if normalise.state_file is None or normalise.config.get('stats'):
        return False
    kinds = {key.rpartition('.')[2] for key in statistics(folder, normalise)}
    return kinds in ({'mean', 'std'}, {'min', 'max'}, {'mean', 'std', 'min', 'max'})
