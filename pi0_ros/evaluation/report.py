# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The report of an evaluation: one HTML file that needs nothing else, and one picture."""

import base64
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
import numpy as np
from pi0_ros.bags.bag import Bag
from pi0_ros.bags.bags import Bags
from pi0_ros.bags.routes import Routes
from pi0_ros.bags.stamps import STALL_NS
from pi0_ros.evaluation import figures
from pi0_ros.evaluation.figures import Shown
from pi0_ros.evaluation.store import write_whole
from pi0_ros.observation.decoding import message_to_rgb, to_ns, turned

WORST = 10
APART_S = 1.0        # between two of the worst moments: neighbours show the same
FRAME_WIDTH = 300
BEFORE_NS = 11 * 10**9  # that an image may be old, at most
MOST_BAGS = 6        # that are drawn joint by joint


def write_report(result: dict[str, Any], done: Sequence[dict[str, Any]], bags: Bags,
                 folder: Path) -> None:
    """
    Write report.html and report.png of all runs into ``folder``.

    :param result: what ``evaluate.compare`` returned. :param done: what its runs returned.
    """
    runs = figures.shown(done, [bag.begin_ns for bag in bags.bags])
    worst = _worst(runs[0], runs[0].errors, runs[0].rows.errors['policy'] / runs[0].ranges)
    chosen = worst[0]['bag']
    marks = [(one['rank'], one['seconds']) for one in worst if one['bag'] == chosen]
    picture = figures.png(figures.summary_figure(runs, result, marks, chosen))
    write_whole(folder / 'report.png', picture)
    led = _worst(runs[0], done[0]['led'].errors, done[0]['led'].policy)
    for one in [*worst, *led]:
        bag, routes = bags.bags[one['bag']], bags.routes[one['bag']]
        one['picture'] = _uri(figures.png(figures.moment_figure(
            runs[0], one['index'], result['joint_names'])))
        one['frames'] = {name: _uri(image, 'jpeg') for name, image
                         in frames(bag, routes, one['record']).items()}
    latencies = {one['run'].name: np.concatenate([record['latency_ms'] for record
                                                  in one['records'] if 'latency_ms' in record])
                 for one in done}
    drawn = sorted({record['bag'] for record in runs[0].rows.records})[:MOST_BAGS]
    odd = [(bag['bag'], text) for one in done for bag in one['health']
           for text in (bag['damage'], *bag['warnings']) if text]
    read = [part for one in done[:1] for part in one['read']]
    context = {
        'date': datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'), 'read': read,
        'result': result, 'odd': list(dict.fromkeys(odd)), 'worst': worst, 'led': led, 'runs': [
            {'name': run.name, 'colour': run.colour, 'engine': one['engine'],
             **result['runs'][run.name]} for run, one in zip(runs, done)],
        'names': result['joint_names'], 'baselines': figures.BASELINES,
        'bags': [{'path': str(bag.path), 'seconds': bag.seconds, 'table': routes.table(bag)}
                 for bag, routes in zip(bags.bags, bags.routes)],
        'latency': {name: {part: float(np.percentile(values, percent)) for part, percent in (
            ('p50', 50), ('p95', 95), ('max', 100))} for name, values in latencies.items()},
        'horizon': _uri(figures.png(_horizon(runs, result))),
        'timelines': [(bags.bags[bag].name, _uri(figures.png(_timeline(runs, bag, worst))))
                      for bag in drawn],
        'joints': [(bags.bags[bag].name, _joints(runs, bag, result['joint_names']))
                   for bag in drawn],
        'left_out': len(bags.bags) - len(drawn),
        'latency_picture': _uri(figures.png(figures.latency_figure(
            latencies, {run.name: run.colour for run in runs})))}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    result = {'outcomes': None, **result}
    context['result'] = result
    environment.filters['percent'] = lambda value: '–' if value is None else f'{100 * value:.2f} %'
    environment.filters['number'] = lambda value: '–' if value is None else f'{value:.4f}'
    text = environment.get_template('report.html.j2').render(context)
    write_whole(folder / 'report.html', text.encode())


def _worst(run: Shown, errors: np.ndarray, parts: np.ndarray) -> list[dict[str, Any]]:
    """
    Return the moments with the largest error, worst first; neighbours if few are left.

    :param errors: [M], NaN for those that do not count. :param parts: [M, T, D] of them.
    """
    out: list[dict[str, Any]] = []
    order = [int(index) for index in np.argsort(-errors, kind='stable')
             if np.isfinite(errors[index])]
    chosen: list[int] = []
    for index in order:
        near = [other for other in chosen if run.bags[other] == run.bags[index]
                and abs(run.seconds[other] - run.seconds[index]) < APART_S]
        if not near:
            chosen.append(index)
    chosen += [index for index in order if index not in chosen][:max(0, WORST - len(chosen))]
    for index in sorted(chosen[:WORST], key=order.index):
        bag, at_s = int(run.bags[index]), float(run.seconds[index])
        steps = np.isfinite(parts[index]).any(axis=1)
        by_joint = np.nanmean(parts[index][steps], axis=0) * run.ranges
        worst = int(np.argmax(by_joint / run.ranges))
        out.append({'rank': len(out) + 1, 'index': index, 'bag': bag, 'seconds': at_s,
                    'error': float(errors[index]), 'joint': worst,
                    'joint_error': float(by_joint[worst]), 'record': run.rows.records[index]})
    return out


def frames(bag: Bag, routes: Routes, record: dict[str, Any]) -> dict[str, bytes]:
    """Return the images that a moment was decided from, by camera, small and as JPEG."""
    wanted = {routes.cameras[name]: (name, at) for name, at in record['image_stamps_ns'].items()}
    shift_ns, out = record['now_ns'] - record['bag_ns'], {}
    for topic, received_ns, message in bag.messages(
            wanted, record['bag_ns'] - BEFORE_NS, record['bag_ns'] + STALL_NS):
        name, stamp_ns = wanted[topic]
        if stamp_ns == to_ns(message.header.stamp) or (  # it had none, or none that counted
                name not in out and abs(received_ns + shift_ns - stamp_ns) < 10**6):
            image = message_to_rgb(turned(message, routes.turns.get(name, 0)))
            height = round(FRAME_WIDTH * image.shape[0] / image.shape[1])
            small = cv2.resize(image, (FRAME_WIDTH, height), interpolation=cv2.INTER_AREA)
            out[name] = cv2.imencode('.jpg', small[:, :, ::-1])[1].tobytes()
    return {name: out[name] for name in sorted(out)}


def _horizon(runs: Sequence[Shown], result: dict[str, Any]) -> Any:
    figure, axis = figures.plt.subplots(figsize=(6.4, 3.2))
    figures.draw_horizon(axis, runs, result)
    return figure


def _timeline(runs: Sequence[Shown], bag: int, worst: Sequence[dict[str, Any]]) -> Any:
    figure, axis = figures.plt.subplots(figsize=(12, 2.6))
    figures.draw_timeline(axis, runs, bag, [(one['rank'], one['seconds']) for one in worst
                                            if one['bag'] == bag])
    axis.legend(fontsize=8, loc='upper left', bbox_to_anchor=(0.0, -0.2), ncols=len(runs))
    return figure


def _joints(runs: Sequence[Shown], bag: int, names: Sequence[str]) -> list[str]:
    """Return pictures of a few runs each, all of the same part of the bag."""
    part = figures.window(runs[0], bag)
    return [_uri(figures.png(figures.joints_figure(
        runs[begin:begin + figures.COLUMNS], bag, names, part)))
        for begin in range(0, len(runs), figures.COLUMNS)]


def _uri(data: bytes, kind: str = 'png') -> str:
    return f'data:image/{kind};base64,' + base64.b64encode(data).decode()
