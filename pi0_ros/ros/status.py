# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the node tells its operator: status on change, diagnostics once a second."""

import re

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from pi0_ros.configuration.advice import advised
from pi0_ros.control.leading import TAKEOVER
from pi0_ros.control.states import State
from pi0_ros.observation.buffers import Arrivals, Stamped
from pi0_ros.observation.finding import Finding
from pi0_ros.ros.asked import Asked
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.inputs import Inputs
from pi0_ros.ros.links.run_server import Situation
from pi0_ros.ros.session import Session
from rclpy.lifecycle import LifecycleNode

NUMBER = re.compile(r'\d+\.\d+')
# What a policy tells of itself; one that has nothing to tell has these keys too.
POLICY_KEYS = ('engine', 'engine_reason', 'self_check', 'kernels', 'device', 'dtype',
               'denoising_steps', 'process')
BY_HAND = ('operator', 'node')  # who disarms, and needs not be told so
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def status(level: bytes, name: str, message: str, **values: object) -> DiagnosticStatus:
    """Return a status whose values are written with three decimals where they are floats."""
    pairs = [KeyValue(key=key, value=f'{value:.3f}' if isinstance(value, float) else str(value))
             for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id='pi0_ros',
                            values=pairs)


class StatusBoard:
    """Publishes ``~/status`` when it changes, ``/diagnostics`` when asked."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers."""
        self._status = node.create_publisher(DiagnosticStatus, '~/status', qos.LATCHED,
                                             event_callbacks=qos.SAID)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10,
                                                  event_callbacks=qos.SAID)
        self.publishers = (self._status, self._diagnostics)
        self._node, self._shown = node, None

    def show(self, level: bytes, state: str, reason: str, armed: bool, message: str,
             instruction: str) -> None:
        """Publish the status if it differs from the last one by more than a measured number."""
        shown = (level, state, reason, armed, NUMBER.sub('', message), instruction)
        if shown != self._shown:
            self._shown = shown
            self._status.publish(status(level, self._node.get_name(), message, state=state,
                                        armed=armed, reason=reason, instruction=instruction))

    def diagnose(self, parts: list[DiagnosticStatus]) -> None:
        """Publish ``parts`` under the node's full name."""
        out = DiagnosticArray(status=parts)
        out.header.stamp = self._node.get_clock().now().to_msg()
        prefix = self._node.get_fully_qualified_name().lstrip('/')
        for part in parts:
            part.name = f'{prefix}: {part.name}'
        self._diagnostics.publish(out)


def summary(session: Session, asked: Asked, problem: Finding | None
            ) -> tuple[bytes, str, str, bool, str]:
    """Return level, state, reason, whether armed, and message of the status."""
    guard = session.guard
    state, armed, fault = session.pilot.state, session.pilot.enabled, guard.fault
    if fault:
        shown = state.value if state is State.STOPPING else State.FAULTED.value
        text = f'loading the policy again after: {advised(fault)}' if session.loading else (
            advised(fault))
        return ERROR, shown, fault.reason, armed, text
    if not session.active:
        return OK, 'inactive', '', armed, 'activate the node to use it'
    if state is State.ARMING:
        return OK, state.value, '', armed, 'asking the policy what it would do first'
    if session.loading and not session.unserved:
        return WARN, state.value, 'loading', armed, 'loading the policy again'
    if not armed:
        last = guard.stopped_by
        found = problem or (last if last and last.subject not in BY_HAND else None)
        arm = f'call {session.node.get_fully_qualified_name()}/enable to arm'
        return (WARN if found else OK, state.value,
                found.reason if found else '', armed, advised(found or arm))
    if session.leading.engaged:
        found = session.leading.problem or problem
        return (WARN if found else OK, TAKEOVER, found.reason if found else '', armed,
                advised(found or 'a person leads'))
    if problem:
        return WARN, state.value, problem.reason, armed, advised(problem)
    refused = asked.refused
    return (WARN if refused else OK, state.value, 'refused' if refused else '',
            armed, refused or asked.instruction or 'waiting for an instruction')


def situation(session: Session, asked: Asked) -> Situation | None:
    """Return what the robot does, for a run; None while the node is not active."""
    if not session.active:
        return None
    _, state, reason, armed, message = summary(session, asked, session.problem())
    last = session.guard.fault or session.guard.stopped_by
    if session.pilot.state is State.ARMING:
        reason = 'arming'
    elif not armed and last:
        reason, message = last.reason, advised(last)
    return Situation(armed, session.armings, state, reason, message,
                     session.pilot.remaining_ns(session.now()) / 1e9,
                     session.pilot.counters.merged)


def node_report(session: Session, instruction: str, controller: str) -> list[DiagnosticStatus]:
    """
    Return the node's diagnostics: policy, control, and one for each input.

    :param instruction: that is followed.
    :param controller: what is wrong with the controller's settings.
    """
    now_ns = session.now()
    return [_policy(session, instruction, now_ns), _control(session, controller, now_ns),
            *_inputs(session.inputs, session.guard.image_problem(now_ns), now_ns)]


def _policy(session: Session, instruction: str, now_ns: int) -> DiagnosticStatus:
    config, latency, fault = session.config.policy, session.latency, session.guard.fault
    told, obs_ns = session.policy.describe(), session.pilot.chunk_obs_ns
    age_ms = (now_ns - obs_ns) / 1e6 if obs_ns is not None else -1.0
    about = f"{config.policy}, {told.get('engine', '?')} on {told.get('device', 'no device')}"
    mine = fault if fault and fault.reason.startswith(('policy_', 'chunk_')) else None
    return status(
        ERROR if mine else OK, 'policy', advised(mine or about), checkpoint=config.checkpoint,
        **{key: told.get(key, '') for key in POLICY_KEYS},
        instruction=instruction, chunks=latency.count,
        rate_hz=latency.rate_hz(session.steady()), inference_p50_ms=latency.percentile(50),
        inference_p95_ms=latency.percentile(95), inference_max_ms=latency.percentile(100),
        chunk_age_ms=age_ms)


def _control(session: Session, controller: str, now_ns: int) -> DiagnosticStatus:
    pilot, guard, loop = session.pilot, session.guard, session.loop
    counters = pilot.counters
    ticks = loop.intervals_ms() if loop else {'p50': 0.0, 'p99': 0.0, 'max': 0.0, 'rate': 0.0}
    others = [who for who, _ in session.commands.others()] if loop else []
    reason = guard.stopped_by
    state = pilot.state.value
    doing = ('not active' if not loop else f'{state}: {advised(reason)}' if reason and
             pilot.state is State.STANDING else state)
    level, message = OK, doing + (' (dry run)' if session.config.safety.dry_run else '')
    if others:
        level, message = WARN, f"{', '.join(others)} commands this robot too"
    elif controller:
        level, message = WARN, controller
    if guard.fault:
        level, message = ERROR, f'disarmed by a fault: {advised(guard.fault)}'
    return status(
        level, 'control', message, state=state, armed=pilot.enabled,
        leads='person' if session.leading.engaged else 'policy',
        led_for_s=(now_ns - session.leading.since_ns) / 1e9 if session.leading.engaged else 0.0,
        rate_hz=ticks['rate'],
        tick_p50_ms=ticks['p50'], tick_p99_ms=ticks['p99'], tick_max_ms=ticks['max'],
        lateness_p99_ms=loop.lateness_p99_ms() if loop else 0.0,
        realtime=bool(loop and loop.realtime), ticks=loop.ticks if loop else 0,
        missed_ticks=loop.missed if loop else 0,
        clock_step_ms=loop.clock_step_ns() / 1e6 if loop else 0.0,
        queue_ms=pilot.remaining_ns(now_ns) / 1e6, chunks_merged=counters.merged,
        chunks_dropped=counters.dropped, chunks_rejected=guard.rejections,
        inferences_failed=guard.failures, late_steps=counters.late_steps,
        late_ticks=counters.late_ticks, late_plans=counters.late_plans, clamps=counters.clamped,
        slowed=counters.slowed, handover=pilot.timing.handover, delay_steps=pilot.delay,
        starved=counters.starved, speed_scaling=float(pilot.scale.factor),
        stop_reason=reason.reason if reason else '')


def _inputs(inputs: Inputs, image: Finding | None, now_ns: int) -> list[DiagnosticStatus]:
    joints, builder = inputs.joints.get(), inputs.builder
    out = [_input('joint_states', joints, inputs.joint_arrivals, now_ns,
                  builder.check_joints(now_ns) or inputs.joint_error)]
    for name, buffer in inputs.cameras.items():
        newest = buffer.get()
        skew_ms = (newest.stamp_ns - joints.stamp_ns) / 1e6 if newest and joints else 0.0
        unreadable = image if image and image.subject == name else None
        out.append(_input(f'camera {name}', newest, buffer.arrivals, now_ns,
                          builder.check_camera(name, now_ns) or unreadable, skew_ms=skew_ms,
                          lost_of_100=buffer.arrivals.lost(),
                          encoding=_encoding(newest.value) if newest else ''))
    return out


def _encoding(message: object) -> str:
    return getattr(message, 'encoding', '') or getattr(message, 'format', '')


def _input(name: str, newest: Stamped | None, arrivals: Arrivals, now_ns: int,
           problem: Finding | str | None, **more: object) -> DiagnosticStatus:
    rate_hz = arrivals.rate_hz(now_ns)
    age_ms = (now_ns - newest.stamp_ns) / 1e6 if newest else -1.0
    return status(WARN if problem else OK, name, advised(problem or f'{rate_hz:.0f} Hz'),
                  received=arrivals.count, rate_hz=rate_hz, age_ms=age_ms, **more)
