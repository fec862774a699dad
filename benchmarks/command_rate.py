"""Commands and intervals of the live graph: simulated robot, two cameras, demo checkpoint.

    python benchmarks/command_rate.py [--seconds 60] [--replan-period 0.3]
                                      [--out out/command_rate.json]
"""

import argparse
import itertools
import json
import os
from pathlib import Path

import numpy as np
import rclpy
from machine import machine
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from pi0_ros.ros import demo
from pi0_ros.ros.processes import Children, private_environment


def main() -> None:
    """Keep the robot busy, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--seed', type=int, default=7)
    parser.add_argument('--replan-period', type=float, default=0.3,
                        help='s; 0.1 asks for ten chunks a second')
    parser.add_argument('--out', type=Path, default=Path('out/command_rate.json'))
    args = parser.parse_args()
    environment = private_environment()
    os.environ.update(environment)
    children = Children(environment, args.out.parent / 'command_rate')
    rclpy.init()
    observer = demo.Observer()
    run = demo.Demo(args, children, observer)
    try:
        run.start()
        parameters = AsyncParameterClient(observer, 'pi0')
        run.wait(parameters.services_are_ready, 10)
        answer = parameters.set_parameters([Parameter('replan_period', value=args.replan_period)])
        run.wait(answer.done, 10)
        end = observer.elapsed() + args.seconds
        for colour in itertools.cycle(('red', 'blue', 'green')):
            if observer.elapsed() > end:
                break
            observer.instruct(f'take the {colour} block')
            run.wait(lambda: observer.elapsed() > end, min(5.0, end - observer.elapsed()))
        run.wait(lambda: False, 1.1)
        figures = run.summary([])
        figures['cameras'] = {name: float(values['received']) for name, values
                              in observer.figures.items() if name.startswith('camera')}
    finally:
        children.end()
        observer.destroy_node()
        rclpy.try_shutdown()
    intervals = np.diff(observer.command_stamps_ns) / 1e6
    figures['gaps_over_30_ms'] = int((intervals > 30).sum())
    print(f'{figures["commands"]} commands in {args.seconds:.0f} s, {figures["command_hz"]} Hz; '
          f'interval ms {figures["tick_interval_ms"]}; missed {figures["missed_ticks"]}; over '
          f'30 ms {figures["gaps_over_30_ms"]}; images {figures["cameras"]}; chunks '
          f'{figures["chunks"]}; inference ms {figures["inference_ms"]}')
    args.out.write_text(json.dumps({'machine': machine(), **figures}, indent=1) + '\n')
    print(f'{machine()}; {args.out}')


if __name__ == '__main__':
    main()
