# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the policy would do first, for whoever arms: asked in one thread, decided in another."""

from collections.abc import Callable

from pi0_ros.control.guard import Guard
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Policy, PolicyGone, Unserved
from pi0_ros.ros.asked import Preview


class LookAhead:
    """At most one question at a time."""

    def __init__(self, guard: Guard, wake: Callable[[], None], now: Callable[[], int],
                 steady: Callable[[], int], show: Callable[[ActionChunk], None]) -> None:
        """
        Prepare.

        :param wake: lets the policy's thread call ``decide`` if ``asked``.
        :param show: gets what was decided, for who looks.
        """
        self._guard, self._wake, self._now, self._steady = guard, wake, now, steady
        self._show = show
        self.asked: Preview | None = None

    def ask(self, instruction: str) -> Preview:
        """
        Ask why the robot should not be armed for what comes first.

        Without an instruction nothing comes yet, and only the images are looked at.
        """
        preview = Preview(instruction)
        if instruction:
            self.asked = preview
            self._wake()
        else:
            observation = self._guard.observe(self._now(), '')
            preview.answer(observation if isinstance(observation, Finding) else None)
        return preview

    def answer(self, finding: Finding) -> None:
        """Answer a question that is open, from any thread."""
        preview, self.asked = self.asked, None
        if preview is not None:
            preview.answer(finding)

    def decide(self, policy: Policy) -> None:
        """Decide what would be done first, and answer whether that is near enough to arm."""
        preview = self.asked
        if preview is None:
            return
        try:
            answer = observation = self._guard.observe(self._now(), preview.instruction)
            if isinstance(observation, Observation):
                self._guard.begin(self._steady())
                chunk = policy.infer(observation)
                preview.told = chunk.preview
                self._show(chunk)
                answer = self._guard.unready(chunk, observation, self._now())
        except UrdfError as error:
            answer = Finding(error.reason, str(error), 'robot_description')
        except Unserved as error:
            answer = error.finding
        except Exception as error:
            answer = Finding('policy_failed', f'{type(error).__name__}: {error}', 'policy')
            if isinstance(error, PolicyGone):
                self._guard.failed(str(error), self._now(), gone=True)
        self._guard.end()
        if self.asked is preview:
            self.asked = None
        preview.answer(answer)
