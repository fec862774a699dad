# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The states of an armed or disarmed robot, and which may follow which."""

from enum import Enum


class State(Enum):
    """What the node does with the robot. The value is what status and diagnostics tell."""

    DISARMED = 'disarmed'  # nothing is commanded
    ARMING = 'arming'      # a person asked for it, and the policy is asked what it would do first
    STANDING = 'standing'  # armed, and nothing is commanded
    MOVING = 'moving'      # a plan is commanded
    STOPPING = 'stopping'  # the way to rest is commanded, or known to be followed
    FAULTED = 'faulted'    # nothing is commanded until a person resets


ALLOWED = {
    State.DISARMED: (State.ARMING, State.FAULTED),
    State.ARMING: (State.STANDING, State.DISARMED, State.FAULTED),
    State.STANDING: (State.MOVING, State.DISARMED, State.FAULTED),
    State.MOVING: (State.STANDING, State.STOPPING),
    State.STOPPING: (State.MOVING, State.STANDING, State.DISARMED, State.FAULTED),
    State.FAULTED: (State.DISARMED,),
}
ARMED = (State.STANDING, State.MOVING)


class Machine:
    """One state, and what a stop ends in."""

    def __init__(self) -> None:
        """Begin disarmed."""
        self.state = State.DISARMED
        self.after = State.DISARMED  # of STOPPING

    @property
    def armed(self) -> bool:
        """Return whether chunks are taken: what stops in order to stand is armed, too."""
        return self.state in ARMED or (self.state is State.STOPPING
                                       and self.after is State.STANDING)

    @property
    def commands(self) -> bool:
        """Return whether the robot may be commanded."""
        return self.state in (State.MOVING, State.STOPPING)

    def change(self, to: State) -> None:
        """
        Go on to another state.

        :raises RuntimeError: it may not follow this one; the state stays.
        """
        if to is self.state:
            return
        if to not in ALLOWED[self.state]:
            raise RuntimeError(f'{self.state.value} is not followed by {to.value}')
        self.state = to

    def end_in(self, to: State) -> None:
        """
        Go to ``to``, from a motion by a stop; a stop never ends in more than it did before.

        :param to: STANDING, DISARMED or FAULTED.
        """
        order = (State.STANDING, State.DISARMED, State.FAULTED)
        if self.state is State.STOPPING:
            self.after = max(self.after, to, key=order.index)
        elif self.state is State.MOVING:
            self.change(State.STOPPING)
            self.after = to
        elif self.state is State.STANDING or to is State.FAULTED:
            self.change(to)
        elif self.state is State.ARMING and to is State.DISARMED:
            self.change(to)

    def rested(self) -> None:
        """End a motion: the plan is at its end."""
        if self.state is State.STOPPING:
            self.change(self.after)
        elif self.state is State.MOVING:
            self.change(State.STANDING)
