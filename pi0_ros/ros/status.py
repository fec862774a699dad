"""What the node tells its operator: status on change, diagnostics once a second."""

from collections import deque
from types import SimpleNamespace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode

from pi0_ros.control.pilot import Pilot
from pi0_ros.observation.buffers import Arrivals, Stamped
from pi0_ros.ros import qos
from pi0_ros.ros.control_loop import ControlLoop
from pi0_ros.ros.inputs import Inputs

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
        self._status = node.create_publisher(DiagnosticStatus, '~/status', qos.LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.publishers = (self._status, self._diagnostics)
        self._node, self._shown = node, None

    def show(self, level: bytes, state: str, message: str, instruction: str) -> None:
        """Publish the status if it differs from the last one."""
        shown = (level, state, message, instruction)
        if shown != self._shown:
            self._shown = shown
            self._status.publish(status(level, self._node.get_name(), message, state=state,
                                        instruction=instruction))

    def diagnose(self, parts: list[DiagnosticStatus]) -> None:
        """Publish ``parts`` under the node's full name."""
        out = DiagnosticArray(status=parts)
        out.header.stamp = self._node.get_clock().now().to_msg()
        prefix = self._node.get_fully_qualified_name().lstrip('/')
        for part in parts:
            part.name = f'{prefix}: {part.name}'
        self._diagnostics.publish(out)


class Latency:
    """Recent durations, milliseconds."""

    def __init__(self) -> None:
        """Start empty."""
        self._recent: deque[float] = deque(maxlen=600)
        self.count = 0

    def add(self, seconds: float) -> None:
        """Remember one duration."""
        self._recent.append(seconds * 1e3)
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds, 0 before the first duration."""
        recent = self._recent.copy()
        return float(np.percentile(np.array(recent), percent)) if recent else 0.0


def node_report(values: SimpleNamespace, policy: dict[str, str], pilot: Pilot, inputs: Inputs,
                loop: ControlLoop | None, latency: Latency, fault: str, others: int,
                now_ns: int) -> list[DiagnosticStatus]:
    """Return the node's diagnostics: policy, control, and one for each input."""
    queue = pilot.queue
    obs_ns = pilot.chunk_obs_ns
    age_ms = (now_ns - obs_ns) / 1e6 if obs_ns is not None else 0.0
    out = [status(
        ERROR if fault else OK, 'policy', fault or values.policy, checkpoint=values.checkpoint,
        **policy, chunks=latency.count, inference_p50_ms=latency.percentile(50),
        inference_p95_ms=latency.percentile(95), inference_max_ms=latency.percentile(100),
        chunk_age_ms=age_ms)]
    ticks = loop.intervals_ms() if loop else {'p50': 0.0, 'p99': 0.0, 'max': 0.0, 'rate': 0.0}
    out.append(status(
        WARN if others > 0 else OK, 'control',
        f'{others} other publishers command this robot' if others > 0 else
        ('armed' if pilot.enabled else 'disarmed'),
        rate_hz=ticks['rate'], tick_p50_ms=ticks['p50'], tick_p99_ms=ticks['p99'],
        tick_max_ms=ticks['max'], lateness_p99_ms=loop.lateness_p99_ms() if loop else 0.0,
        realtime=bool(loop and loop.realtime), ticks=loop.ticks if loop else 0,
        missed_ticks=loop.missed if loop else 0,
        queue_ms=queue.remaining_ns(now_ns) / 1e6, chunks_merged=queue.merged,
        chunks_dropped=queue.dropped, late_steps=queue.late_steps, late_ticks=pilot.late_ticks,
        clamps=pilot.clamps, handover=pilot.timing.handover, delay_steps=queue.delay,
        starved=queue.starved))
    joints = inputs.joints.get()
    out.append(_input('joint_states', joints, inputs.joint_arrivals, now_ns,
                      inputs.builder.check_joints(now_ns)))
    for name, buffer in inputs.cameras.items():
        newest = buffer.get()
        out.append(_input(f'camera {name}', newest, buffer.arrivals, now_ns,
                          inputs.builder.check_camera(name, now_ns)))
    return out


def _input(name: str, newest: Stamped | None, arrivals: Arrivals, now_ns: int,
           problem: str | None) -> DiagnosticStatus:
    age_ms = (now_ns - newest.stamp_ns) / 1e6 if newest else -1.0
    # Of joint states, which may come in parts, gaps tell nothing.
    lost = {} if name == 'joint_states' else {'lost_of_100': arrivals.lost()}
    return status(WARN if problem else OK, name, problem or 'fresh', received=arrivals.count,
                  rate_hz=arrivals.rate_hz(now_ns), **lost, age_ms=age_ms)
