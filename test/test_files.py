# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Parameter files as people write them: the verbs read them as the node does."""

import os
from pathlib import Path
import subprocess
import sys

from pi0_ros.configuration.file import parameter_files, read_parameters, sections_missing
from pi0_ros.configuration.parameters import ParameterError
from pi0_ros.control.config import GroupConfig
from pi0_ros.ros.demo.processes import private_environment
import pytest

ROOT = Path(__file__).parents[1]
WRONG = 'cannot configure'
# Text of a file, what it makes of a parameter, and of which; None: it is refused by both.
FILES = {
    'one section': ('/**: {ros__parameters: {velocity_scale: 0.3}}', 'velocity_scale', 0.3),
    'by name': ('pi0: {ros__parameters: {velocity_scale: 0.3}}', 'velocity_scale', 0.3),
    'by full name': ('/pi0: {ros__parameters: {velocity_scale: 0.3}}', 'velocity_scale', 0.3),
    'two, merged': ('/**: {ros__parameters: {velocity_scale: 0.3, max_jump: 0.1}}\n'
                    '/pi0: {ros__parameters: {velocity_scale: 0.2}}', 'velocity_scale', 0.2),
    'two, the other': ('/**: {ros__parameters: {velocity_scale: 0.3, max_jump: 0.1}}\n'
                       '/pi0: {ros__parameters: {velocity_scale: 0.2}}', 'max_jump', 0.1),
    'a great number': ('/**: {ros__parameters: {max_acceleration: 1e2}}', 'max_acceleration',
                       100.0),
    'a small number': ('/**: {ros__parameters: {max_jump: 5e-2}}', 'max_jump', 0.05),
    'an integer': ('/**: {ros__parameters: {max_jump: 1}}', 'max_jump', 1.0),
    'an empty list': ('/**: {ros__parameters: {joint_limits: [], state_names: []}}',
                      'joint_limits', ()),
    'an empty text in a list': ("/**: {ros__parameters: {joint_limits: ['']}}", 'joint_limits',
                                ()),
    'use_sim_time beside it': ('/**: {ros__parameters: {use_sim_time: true, max_jump: 0.1}}',
                               'max_jump', 0.1),
    'text for a number': ("/**: {ros__parameters: {max_jump: 'wide'}}", 'max_jump', None),
    'a number in quotes': ("/**: {ros__parameters: {max_jump: '1e-1'}}", 'max_jump', None),
    'an unknown name': ('/**: {ros__parameters: {max_jmup: 0.1}}', 'max_jump', None),
    'out of range': ('/**: {ros__parameters: {max_jump: 100.0}}', 'max_jump', None),
    'a list of numbers for texts': ('/**: {ros__parameters: {joint_limits: [1, 2]}}',
                                    'joint_limits', None),
    'limits of a joint': ('/**: {ros__parameters: {joint_limits: {a: {upper: 1, lower: -0.5}}}}',
                          'joint_limits', ('a: upper 1.0, lower -0.5',)),
    'limits as a list': ("/**: {ros__parameters: {joint_limits: ['a: upper 1']}}", 'joint_limits',
                         None),
    'an unknown limit': ('/**: {ros__parameters: {joint_limits: {a: {top: 1.0}}}}', 'joint_limits',
                         None),
    'a limit that is text': ('/**: {ros__parameters: {joint_limits: {a: {upper: high}}}}',
                             'joint_limits', None),
    'rules of a pattern': ("/**: {ros__parameters: {joint_names: ['a'], conversions: {'*': "
                           "'degree, sign -1'}}}", 'conversions', ('*: degree, sign -1',)),
    'blocks, merged': ("/**: {ros__parameters: {joint_names: ['a'], commands: ['arm'], "
                       "arm: {joints: ['a'], interface: positions}}}\n"
                       '/pi0: {ros__parameters: {arm: {max_effort: 10}}}', 'blocks',
                       {'arm': GroupConfig('positions', ('a',), 10.0)}),
    'a block of nobody': ("/**: {ros__parameters: {hand: {joints: ['a']}}}", 'commands', None),
    'yes for true': ('/**: {ros__parameters: {dry_run: yes}}', 'dry_run', True),
    'true in capitals': ('/**: {ros__parameters: {dry_run: True}}', 'dry_run', True)}


@pytest.mark.parametrize('what', FILES)
def test_verbs_and_node_make_the_same_of_a_file(tmp_path, what):
    rclpy = pytest.importorskip('rclpy')
    from pi0_ros.ros import parameters
    from pi0_ros.ros.node import Pi0Node
    text, name, wanted = FILES[what]
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    base = ['policy:=mock_hold', "joint_names:=['a']", "cameras:=['c']", 'autostart:=false']
    arguments = ['--ros-args', '--params-file', str(path), *(
        word for one in base for word in ('-p', one))]
    context = rclpy.Context()
    context.init(args=[])
    node = Pi0Node(context=context, cli_args=arguments, use_global_arguments=False)
    try:
        if wanted is None:
            assert node._problems
            with pytest.raises(ParameterError, match=name[:7]):
                parameters.read(node, node._problems)
            with pytest.raises(ValueError, match=name[:7]):
                read_parameters(path)
            return
        assert not node._problems
        assert found_in(parameters.read(node, []), name) == wanted
    finally:
        node.destroy_node()
        context.try_shutdown()
    assert found_in(read_parameters(path), name) == wanted


def found_in(config, name):
    """Return a setting, wherever it is."""
    return next(getattr(part, name) for part in (config, *vars(config).values())
                if hasattr(part, name))


def test_a_file_that_speaks_of_another_node_is_named_with_what_it_has(tmp_path):
    path, other = tmp_path / 'a.yaml', tmp_path / 'launch_params_x1'  # as launch writes it
    path.write_text('pi1: {ros__parameters: {max_jump: 0.1}}')
    other.write_text('/arm_a/pi0: {ros__parameters: {image_transport: compressed}}')
    (told,) = sections_missing([path, other], '/arm_a/pi0')
    assert "for '/arm_a/pi0' or '/**'" in told and f"'{path}' has /pi1" in told
    (told,) = sections_missing([tmp_path / 'missing.yaml'], '/pi0')
    assert "missing.yaml' does not exist" in told
    assert sections_missing([], '/pi0') == []
    for text, node, fits in (('pi0', '/pi0', True), ('/pi0', '/arm_a/pi0', False),
                             ('/arm_a/pi0', '/arm_a/pi0', True), ('/*/pi0', '/arm_a/pi0', True),
                             ('/*/pi0', '/a/b/pi0', False), ('/**/pi0', '/a/b/pi0', True),
                             ('/**', '/a/b/pi0', True)):
        path.write_text(f'{text}: {{ros__parameters: {{max_jump: 0.1}}}}')
        assert (sections_missing([path], node) == []) == fits, (text, node)
    path.write_text('arm_a: {pi0: {ros__parameters: {max_jump: 0.1}}}')
    assert sections_missing([path], '/arm_a/pi0') == []
    assert parameter_files(['x', '--params-file', 'a', '-p', 'b', '--params-file', 'c']) == [
        Path('a'), Path('c')]


@pytest.mark.parametrize('text, words', [
    (None, 'does not exist'), ('pi1: {ros__parameters: {max_jump: 0.1}}', 'has /pi1'),
    ('/**: {ros__parameters: {max_jump: [}', 'params.yaml')])
def test_a_node_whose_file_says_nothing_to_it_says_so(tmp_path, text, words):
    pytest.importorskip('rclpy')
    path = tmp_path / 'params.yaml'
    if text:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, '-m', 'pi0_ros', 'node', '--ros-args', '--params-file', str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, **private_environment()})
    assert done.returncode
    assert words in done.stderr and 'Traceback' not in done.stderr


def test_a_file_of_two_robots_is_refused_by_verbs(tmp_path):
    path = tmp_path / 'params.yaml'
    path.write_text('/arm_a/*: {ros__parameters: {max_jump: 0.1}}\n'
                    '/arm_b/*: {ros__parameters: {max_jump: 0.2}}')
    with pytest.raises(ValueError, match=r'has 2 sections .* \(/arm_a/\*, /arm_b/\*\), expected'):
        read_parameters(path)
