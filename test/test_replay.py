# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A bag through the live node: the same observations, and the same decisions again."""

import json
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from bags import MS, STRING, write_demonstration  # noqa: E402, I100
from graph import Graph  # noqa: E402
from pi0_ros.bags.bag import _store, Bag  # noqa: E402
from pi0_ros.bags.playback import Playback  # noqa: E402
from pi0_ros.bags.routes import resolve, Wanted  # noqa: E402
from pi0_ros.configuration.file import read_all_parameters  # noqa: E402
from pi0_ros.policy.record import InferenceRecord  # noqa: E402
from pi0_ros.ros.links import qos  # noqa: E402
from pi0_ros.sim.arm import JOINT_NAMES  # noqa: E402
from pi0_ros.sim.demonstration import BagWriter  # noqa: E402
from pi0_ros.verbs import evaluate  # noqa: E402
from rclpy.clock import Clock as ROSClock  # noqa: E402
from rclpy.clock import ClockType  # noqa: E402
from rclpy.time import Time  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CompressedImage, JointState  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402

SIM = Path(__file__).parents[1] / 'config' / 'sim.yaml'
PARAMETERS = {'joint_names': list(JOINT_NAMES), 'cameras': ['overhead', 'wrist'],
              'image_transport': 'compressed', 'gripper_joints': ['gripper']}
INPUTS = {'/joint_states': JointState, '/instruction': String, '/robot_description': String,
          '/overhead/image_raw/compressed': CompressedImage,
          '/wrist/image_raw/compressed': CompressedImage}
SLOT = {'/overhead/image_raw/compressed': 'camera_1/image_raw/compressed',
        '/wrist/image_raw/compressed': 'camera_2/image_raw/compressed'}


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write_demonstration(tmp_path_factory.mktemp('bags') / 'demonstration', seed=11)


class Player:
    """Plays a bag to a graph message by message, each only when the one before has arrived."""

    def __init__(self, graph):
        self.graph, robot = graph, graph.robot
        graph._feeding.cancel()
        # The robot's own publishers would be a second driver.
        self.publishers = {
            topic: robot.create_publisher(kind, SLOT.get(topic, topic.strip('/')),
                                          qos.LATCHED if topic == '/robot_description' else 100)
            for topic, kind in INPUTS.items()}
        self.inputs = graph.node.session.inputs
        self.records = []
        robot.create_subscription(String, 'pi0/inference', self._on_record, qos.RECORD)
        graph.wait(lambda: all(one.get_subscription_count() for one in self.publishers.values())
                   and graph.node.session._inferences.get_subscription_count())

    def _on_record(self, message):
        self.records.append((self.graph.node.get_clock().now().nanoseconds, message.data))

    def time(self, now_ns):
        """Set /clock, and wait until the node has it and its control thread has looked at it."""
        session, clock = self.graph.node.session, self.graph.node.get_clock()
        self.graph.robot.clock_publisher.publish(Clock(clock=Time(nanoseconds=now_ns).to_msg()))
        self.graph.wait(lambda: clock.now().nanoseconds == now_ns)
        if session.loop is not None:
            period = session.pilot.timing.period_ns
            self.graph.wait(lambda: abs(now_ns - session.loop._clock_at_ns) < 2 * period)

    def _arrived(self):
        return (self.inputs.joint_arrivals.count, *(
            one.arrivals.count for one in self.inputs.cameras.values()))

    def play(self, path, until=lambda: False, before=lambda now_ns: None):
        """
        Play the inputs of a bag until its end, or until ``until``; call ``before`` first.

        A node that arms itself may take all the time it wants for that, and so may inferences.
        """
        session = self.graph.node.session
        with Bag(path) as bag:
            for topic, now_ns, message in bag.messages(INPUTS):
                before(now_ns)
                if until():
                    return
                if session.config.safety.auto_enable and now_ns > bag.begin_ns + 400 * MS:
                    self.graph.wait(lambda: session.pilot.enabled
                                    and session.guard._watchdog.working_since_ns is None
                                    and not session.guard.wants_chunk(session.now()))
                self.time(now_ns)
                raw = bytes(_store.serialize_cdr(message, message.__msgtype__))
                counts, active = self._arrived(), len(self.graph.robot.active)
                self.publishers[topic].publish(raw)
                if topic == '/instruction':
                    self.graph.wait(lambda: len(self.graph.robot.active) > active)
                elif topic != '/robot_description':
                    self.graph.wait(lambda: self._arrived() != counts)


@pytest.fixture
def graph():
    made = []

    def make(**values):
        made.append(Graph(use_sim_time=True, **PARAMETERS | values))
        assert made[-1].node.trigger_configure().name == 'SUCCESS'
        return made[-1]

    yield make
    for one in made:
        one.close()


def same(one, other):
    return (one.t_obs_ns == other.t_obs_ns and one.instruction == other.instruction
            and dict(one.image_stamps_ns) == dict(other.image_stamps_ns)
            and (one.state == other.state).all() and one.images.keys() == other.images.keys()
            and all((one.images[name] == other.images[name]).all() for name in one.images))


def test_node_and_reader_see_the_same(bag, graph):
    made = graph(policy='mock_hold')
    player, every_ns = Player(made), 250 * MS
    wanted = Wanted.of(read_all_parameters(SIM, policy='mock_hold',
                                           image_transport='compressed'))
    live = {}
    with Bag(bag) as source:
        play = Playback(source, resolve(source, wanted, {}), wanted)
        read = {}
        for moment in play.moments(every_ns):
            if play.streams.builder.check(moment.now_ns) is None:
                read[moment.now_ns] = play.streams.builder.build(moment.now_ns, play.instruction)
    due = sorted(read)

    def look(now_ns):
        while due and due[0] <= now_ns:
            at_ns = due.pop(0)
            player.time(at_ns)
            live[at_ns] = player.inputs.builder.build(at_ns, made.node.operator.asked.instruction)

    player.play(bag, before=look)
    assert len(live) == len(read) > 12
    assert all(same(live[at_ns], read[at_ns]) for at_ns in live)
    assert len({one.instruction for one in read.values()}) == 2


@pytest.mark.parametrize('handover', ['blend', 'rtc'])
def test_what_a_node_decides_in_a_dry_run_is_decided_again(bag, graph, tmp_path, capsys,
                                                           handover):
    """The whole way: play, arm by itself, decide, record, and make it again from the bag."""
    made = graph(policy='pi0', checkpoint='demo', dry_run=True, auto_enable=True,
                 handover=handover, max_chunk_age=10.0)
    assert made.node.trigger_activate().name == 'SUCCESS'
    player = Player(made)
    player.play(bag, until=lambda: len(player.records) >= 5)
    assert len(player.records) >= 5 and made.node.session.pilot.enabled
    assert not made.robot.commands  # not one command, in a dry run
    records = [InferenceRecord.from_json(text) for _, text in player.records]
    assert all(record.handover == handover for record in records)
    assert handover == 'blend' or any(record.leftover for record in records)
    path = tmp_path / 'recorded'
    out = BagWriter(path)
    with Bag(bag) as source:
        for topic, at_ns, message in source.messages(INPUTS):
            out.write_raw(topic, message.__msgtype__, at_ns,
                          _store.serialize_cdr(message, message.__msgtype__))
        for _, text in player.records:
            out.write('/pi0/inference', STRING, source.end_ns, data=text)
    out.close()
    params = tmp_path / 'params.yaml'
    params.write_text(SIM.read_text() + f'    handover: {handover}\n')
    status = evaluate.main([str(path), '--params-file', str(params), '--checkpoint', 'demo',
                            '--out', str(tmp_path / 'out'), '--reproduce'])
    assert status == 0, capsys.readouterr()
    told = json.loads((tmp_path / 'out/reproduced.json').read_text())['inferences']
    assert len(told) == len(records) and all(row['same'] for row in told)


def test_a_bag_that_loops_starts_again_by_itself(bag, graph):
    made = graph(policy='mock_hold', dry_run=True, auto_enable=True)
    assert made.node.trigger_activate().name == 'SUCCESS'
    player, session = Player(made), made.node.session
    clock, begin_ns = made.node.get_clock(), 1_700_000_000 * 10**9
    player.play(bag, until=lambda: clock.now().nanoseconds > begin_ns + 2 * 10**9)
    disarmed, before = [], len(player.records)
    assert before >= 2
    player.play(bag, until=lambda: len(player.records) >= before + 2,
                before=lambda now_ns: disarmed.append(not session.pilot.enabled))
    assert any(disarmed) and session.pilot.enabled and len(player.records) >= before + 2
    assert not made.robot.commands


def test_a_bag_that_is_paused_goes_on(bag, graph):
    made = graph(policy='mock_hold', dry_run=True, auto_enable=True)
    assert made.node.trigger_activate().name == 'SUCCESS'
    player, session = Player(made), made.node.session
    paused = []

    def pause(now_ns):
        """Let the node's diagnostics come twice, by a clock of their own, while /clock stands."""
        if len(player.records) >= 2 and not paused:
            paused.append((session.pilot.enabled, len(player.records)))
            for _ in range(2):
                made.robot.diagnostics.clear()
                made.wait(lambda: 'pi0: control' in made.robot.diagnostics)
            assert session.pilot.enabled and session.guard.fault is None

    player.play(bag, until=lambda: paused and len(player.records) >= paused[0][1] + 2,
                before=pause)
    assert paused[0][0] and len(player.records) >= paused[0][1] + 2


def test_what_a_person_says_goes_before_auto_enable(bag, graph):
    made = graph(policy='mock_hold', dry_run=True, auto_enable=True)
    assert made.node.trigger_activate().name == 'SUCCESS'
    player, session, operator = Player(made), made.node.session, made.node.operator
    tries = []
    arm = operator._arm
    operator._arm = lambda quiet=False: (tries.append(quiet), arm(quiet))[1]
    player.play(bag, until=lambda: len(player.records) >= 1)
    assert session.pilot.enabled and tries

    def rest():
        """Let the timer that arms come twice."""
        calls = []
        timer = made.node.create_timer(1.1, lambda: calls.append(1), clock=steady)
        made.wait(lambda: calls)
        made.node.destroy_timer(timer)

    steady = ROSClock(clock_type=ClockType.STEADY_TIME)
    assert made.enable(False).success
    tries.clear()
    rest()
    assert not session.pilot.enabled and not tries
    operator._on_stop(Bool(data=True))
    operator._disarmed = False
    rest()
    operator._on_stop(Bool(data=False))
    rest()
    assert session.guard.fault.reason == 'operator_stop' and not tries
    assert made.reset().success
    made.wait(lambda: tries)


def test_nobody_but_a_person_arms_a_robot():
    made = Graph(use_sim_time=True, **PARAMETERS, policy='mock_hold', auto_enable=True)
    try:
        assert made.node.trigger_configure().name != 'SUCCESS'
    finally:
        made.close()


@pytest.mark.parametrize('clock_ms, slow', [(100, True), (5, False)])
def test_a_slow_clock_is_told(graph, clock_ms, slow, capfd):
    made = graph(policy='mock_hold', dry_run=True)
    assert made.node.trigger_activate().name == 'SUCCESS'
    clock, now_ns = made.node.get_clock(), 10**12
    for step in range(80):
        now_ns += clock_ms * MS
        made.robot.clock_publisher.publish(Clock(clock=Time(nanoseconds=now_ns).to_msg()))
        loop = made.node.session.loop
        made.wait(lambda: clock.now().nanoseconds == now_ns == loop._clock_at_ns)
    assert made.node.session.loop.clock_step_ns() == clock_ms * MS

    def control():
        told = made.robot.diagnostics.get('pi0: control')
        return told and {pair.key: pair.value for pair in told.values}

    made.wait(lambda: control() and float(control()['clock_step_ms']) == clock_ms)
    assert ('/clock comes every 100 ms' in capfd.readouterr().err) is slow
