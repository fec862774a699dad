# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Pictures of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
import io
from typing import Any

import matplotlib
import numpy as np
from pi0_ros.evaluation.measures import Rows

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402, I100
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

COLOURS = ('#1f6fb4', '#d9541e', '#2a9d55', '#8a4fbe', '#b8860b', '#17899b')
BASELINES = {'hold_still': ('hold still', '#8a8f98', '--'),
             'last_velocity': ('last velocity', '#b9bdc4', ':')}
DONE = '#20242a'
WINDOW_S = 24.0   # of a longer bag, around its worst moment
GAP_S = 0.3         # in which nothing is known of what was done
LABEL_SHARE = 0.16  # of the width, that a text takes
LONGEST_NAME = 44
MOMENT_JOINTS = 3   # that are drawn of one of the worst moments
COLUMNS = 2         # runs side by side
FAN_SHARE = 0.5   # of a chunk, between fans that are drawn
plt.rcParams.update({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
                     'axes.grid': True, 'grid.color': '#e8eaee', 'axes.edgecolor': '#9aa0a8',
                     'legend.frameon': False, 'figure.facecolor': 'white',
                     'text.parse_math': False})  # a $ in an instruction is a $


@dataclass(frozen=True)
class Shown:
    """One run, as it is drawn."""

    name: str
    rows: Rows
    errors: np.ndarray   # [M] of every moment, share of the range
    seconds: np.ndarray  # [M] since its bag began
    bags: np.ndarray     # [M]
    ranges: np.ndarray   # [D] of the joints
    colour: str


def shown(done: Sequence[dict[str, Any]], begins_ns: Sequence[int]) -> list[Shown]:
    """Return runs with what figures need of them. :param begins_ns: when each bag begins."""
    out = []
    for number, one in enumerate(done):
        rows = one['rows']
        bags = rows.bags()
        at_ns = np.array([record['bag_ns'] for record in rows.records])
        out.append(Shown(one['run'].name, rows, rows.moment_errors(one['ranges']),
                         (at_ns - np.array(begins_ns)[bags]) / 1e9, bags, one['ranges'],
                         COLOURS[number % len(COLOURS)]))
    return out


def legend(name: str) -> str:
    """Return a name as a picture can show it: matplotlib hides those that begin with _."""
    return name.lstrip('_') if len(name) < LONGEST_NAME else name[:LONGEST_NAME - 4] + ' ...'


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, and close it."""
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=120, bbox_inches='tight', metadata={'Software': None})
    plt.close(figure)
    return out.getvalue()


def draw_horizon(axis: Axes, runs: Sequence[Shown], result: dict[str, Any]) -> None:
    """Draw the error over the steps of a chunk, against the baselines."""
    for run in runs:
        steps = result['runs'][run.name]['steps_error_share']
        after_s = run.rows.after_s
        axis.plot(after_s, _percent(steps['policy']['mean']), color=run.colour,
                  label=legend(run.name), linewidth=2)
        axis.plot(after_s, _percent(steps['policy']['p95']), color=run.colour, linewidth=0.8,
                  alpha=0.6, label=None)
    steps = result['runs'][runs[0].name]['steps_error_share']
    after_s = runs[0].rows.after_s
    for name, (label, colour, line) in BASELINES.items():
        axis.plot(after_s, _percent(steps[name]['mean']), line, color=colour, label=label)
    axis.set(xlabel='seconds ahead', ylabel='error, % of range', ylim=(0, None))
    axis.legend(fontsize=8)


def _percent(values: Sequence[float | None]) -> np.ndarray:
    return 100 * np.array([np.nan if value is None else value for value in values])


def draw_timeline(axis: Axes, runs: Sequence[Shown], bag: int, worst: Sequence[tuple[int, float]]
                  ) -> None:
    """Draw the error over the time of a bag; ``worst`` are rank and time of moments to mark."""
    for run in runs:
        here = run.bags == bag
        seconds, errors = run.seconds[here], 100 * run.errors[here]
        apart = np.diff(seconds)
        gaps = np.flatnonzero(apart > 3 * np.median(apart)) + 1 if len(apart) else []
        axis.plot(np.insert(seconds, gaps, np.nan), np.insert(errors, gaps, np.nan),
                  color=run.colour, label=legend(run.name), linewidth=1.2, marker='.',
                  markersize=3)
    first, height = runs[0], axis.get_ylim()[1]
    here = np.flatnonzero(first.bags == bag)
    said, last_s = '', -np.inf
    width_s = LABEL_SHARE * np.ptp(first.seconds[here]) if len(here) else 0.0
    for index in here:
        record, at_s = first.rows.records[index], first.seconds[index]
        if record['instruction'] != said:
            said = record['instruction']
            axis.axvline(at_s, color='#2a9d55', linewidth=0.8, alpha=0.7)
            if at_s - last_s < width_s:
                continue
            last_s = at_s
            text = said if len(said) < 27 else said[:24] + '...'
            axis.annotate(text, (at_s, 1.0), xycoords=('data', 'axes fraction'), fontsize=7,
                          color='#2a7d45', xytext=(2, 6), textcoords='offset points')
    for rank, at_s in worst:
        axis.annotate(str(rank), (at_s, height), fontsize=7, color='white', ha='center',
                      va='top', bbox={'boxstyle': 'circle,pad=0.2', 'color': '#b3261e'})
    axis.set(xlabel='seconds of the bag', ylabel='error, % of range', ylim=(0, None))


def window(run: Shown, bag: int) -> tuple[float, float]:
    """Return the part of a bag that is drawn joint by joint: all, or that around the worst."""
    here = run.bags == bag
    seconds = run.seconds[here]
    if not len(seconds):
        return 0.0, 1.0
    chunk_s = run.rows.dt_s * run.rows.done.shape[1]
    begin, end = seconds.min(), seconds.max() + chunk_s
    if end - begin <= WINDOW_S:
        return begin, end
    middle = seconds[np.argmax(run.errors[here])]
    begin = float(np.clip(middle - WINDOW_S / 2, begin, end - WINDOW_S))
    return begin, begin + WINDOW_S


def draw_joint(axis: Axes, run: Shown, bag: int, joint: int, part: tuple[float, float]) -> None:
    """Draw what was done with one joint, and fans of what the policy would have done."""
    rows, chosen = run.rows, np.flatnonzero((run.bags == bag) & (run.seconds >= part[0] - 0.01)
                                            & (run.seconds <= part[1]))
    steps = rows.after_s
    known: dict[float, float] = {}
    for index in chosen:
        t_obs_s = run.seconds[index] - (rows.records[index]['now_ns']
                                        - rows.records[index]['t_obs_ns']) / 1e9
        done = rows.done[index, :, joint]
        there = np.isfinite(done)
        known |= dict(zip(np.round(t_obs_s + steps[there], 4), done[there]))
    times = np.array(sorted(known))
    values = np.array([known[at] for at in times])
    gaps = np.flatnonzero(np.diff(times) > GAP_S) + 1
    axis.plot(np.insert(times, gaps, np.nan), np.insert(values, gaps, np.nan), color=DONE,
              linewidth=1.4, label='done')
    last_s = -np.inf
    for index in chosen:
        if run.seconds[index] - last_s < FAN_SHARE * steps[-1]:
            continue
        last_s = run.seconds[index] - (rows.records[index]['now_ns']
                                       - rows.records[index]['t_obs_ns']) / 1e9
        fan = rows.predicted[index, :, :, joint]
        axis.fill_between(last_s + steps, fan.min(axis=0), fan.max(axis=0), color=run.colour,
                          alpha=0.22, linewidth=0)
        axis.plot(last_s + steps, np.median(fan, axis=0), color=run.colour, linewidth=1.2)
        axis.plot(last_s, rows.state[index, joint], '.', color=run.colour, markersize=4)
    axis.set_xlim(*part)


def joints_figure(runs: Sequence[Shown], bag: int, names: Sequence[str],
                  part: tuple[float, float]) -> Figure:
    """
    Return done against predicted, a row for every joint, a column for every run.

    :param part: of the bag, seconds.
    """
    figure, axes = plt.subplots(len(names), len(runs), sharex=True, sharey='row', squeeze=False,
                                figsize=(max(10.5, 5.4 * len(runs)), 1.45 * len(names) + 0.7))
    for column, run in enumerate(runs):
        for row, name in enumerate(names):
            draw_joint(axes[row, column], run, bag, row, part)
            if not column:
                axes[row, 0].set_ylabel(name.replace('_', '\n'), fontsize=8)
        axes[0, column].set_title(legend(run.name), fontsize=10, color=run.colour, loc='left')
        axes[-1, column].set_xlabel('seconds of the bag')
    figure.tight_layout()
    return figure


def moment_figure(run: Shown, index: int, names: Sequence[str]) -> Figure:
    """Return what was predicted at one moment against what was done, the worst joints first."""
    rows, error = run.rows, run.rows.errors['policy'][index] / run.ranges
    order = np.argsort(-np.nanmean(error, axis=0), kind='stable')[:MOMENT_JOINTS]
    figure, axes = plt.subplots(len(order), 1, sharex=True, squeeze=False,
                                figsize=(4.4, 0.95 * len(order) + 0.55))
    for axis, joint in zip(axes[:, 0], order):
        axis.plot(rows.after_s, rows.predicted[index, :, :, joint].T, color=run.colour,
                  linewidth=0.9, alpha=0.8)
        axis.plot(rows.after_s, rows.done[index, :, joint], color=DONE, linewidth=1.4)
        axis.plot(0, rows.state[index, joint], '.', color=DONE, markersize=5)
        axis.set_title(names[joint], fontsize=8, loc='left', pad=2)
    axes[-1, 0].set_xlabel('seconds ahead', fontsize=8)
    figure.subplots_adjust(hspace=0.5)  # a layout that is found takes as long as drawing
    return figure


def latency_figure(latencies: dict[str, np.ndarray], colours: dict[str, str]) -> Figure:
    """Return how long inferences took, as shares of all that took at most so long."""
    figure, axis = plt.subplots(figsize=(5.6, 2.6))
    for name, values in latencies.items():
        axis.plot(np.sort(values), 100 * np.arange(1, len(values) + 1) / len(values),
                  color=colours[name], label=legend(name), linewidth=1.8)
    axis.set(xlabel='ms', ylabel='% of inferences', ylim=(0, 101), xlim=(0, None))
    axis.legend(fontsize=8)
    return figure


def summary_figure(runs: Sequence[Shown], result: dict[str, Any],
                   worst: Sequence[tuple[int, float]], bag: int) -> Figure:
    """Return the whole in one picture: the bag of the worst moment, and the error ahead."""
    names = result['joint_names']
    rows = 2 + len(names)
    figure = plt.figure(figsize=(13, 3.4 + 2.4 + 1.35 * len(names)))
    grid = figure.add_gridspec(rows, 2, height_ratios=[2.6, 2.2, *[1.2] * len(names)],
                               hspace=0.62, wspace=0.18)
    axis = figure.add_subplot(grid[0, 0])
    labels = [legend(run.name) for run in runs] + [label for label, _, _ in BASELINES.values()]
    share = [result['runs'][run.name]['error_share']['policy'] for run in runs]
    share += [result['runs'][runs[0].name]['error_share'][name] for name in BASELINES]
    bars = axis.barh(labels, _percent(share), color=[run.colour for run in runs] + [
        colour for _, colour, _ in BASELINES.values()])
    axis.bar_label(bars, fmt='%.2f %%', padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel='mean error, % of range')
    axis.margins(x=0.16)
    axis.set_axisbelow(True)
    draw_horizon(figure.add_subplot(grid[0, 1]), runs, result)
    axis = figure.add_subplot(grid[1, :])
    draw_timeline(axis, runs, bag, worst)
    axis.set_xlabel('seconds of the bag', loc='right')
    part = window(runs[0], bag)
    columns = runs[:COLUMNS]
    for column, run in enumerate(columns):
        for row, name in enumerate(names):
            axis = figure.add_subplot(grid[2 + row, column if len(columns) > 1 else slice(None)])
            draw_joint(axis, run, bag, row, part)
            axis.set_ylabel(name.replace('_', '\n'), fontsize=8)
            if not row:
                axis.set_title(f'{legend(run.name)}: predicted, and done in black', fontsize=10,
                               color=run.colour, loc='left')
    return figure
