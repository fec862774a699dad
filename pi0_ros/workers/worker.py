# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The thread that owns the policy and, with it, the GPU."""

from collections.abc import Callable
import threading

from pi0_ros.policy.policy import Policy

ABORT_S = 3.0


class PolicyWorker:
    """Loads a policy in a thread of its own and lets it work there whenever it is woken."""

    def __init__(self, policy: Policy, work: Callable[[Policy], None],
                 failed: Callable[[Exception], None]) -> None:
        """
        Prepare; ``start`` starts.

        :param work: called in the thread after every ``wake``; it observes, infers, delivers.
        :param failed: called in the thread with what ``work`` raised; the thread goes on.
        """
        self._policy, self._work, self._failed = policy, work, failed
        self._awake, self._ready, self._ending = (threading.Event() for _ in range(3))
        self._load_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='policy', daemon=True)

    def start(self) -> None:
        """
        Load the policy and warm it up; return when it is ready.

        :raises Exception: what loading or warming up raised; the thread has ended.
        """
        self._thread.start()
        while not self._ready.wait(0.2):  # wakes up for signals
            pass
        if self._load_error is not None:
            self._thread.join()
            error, self._load_error = self._load_error, None  # it holds what was loaded
            raise error

    def wake(self) -> None:
        """Ask for one more round of work. Asking twice before it begins is asking once."""
        self._awake.set()

    def close(self, timeout_s: float) -> bool:
        """End the thread after the current round; return whether it ended in time."""
        self._ending.set()
        self._awake.set()
        if not self._thread.is_alive():
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._policy.abort()
            self._thread.join(ABORT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._policy.load()
            self._policy.warm_up()
        except Exception as error:
            self._load_error = error
            self._policy.close()
            return
        finally:
            self._ready.set()
        while True:
            self._awake.wait()
            self._awake.clear()
            if self._ending.is_set():
                break
            try:
                self._work(self._policy)
            except BaseException as error:  # a thread that ends without a word looks like a hang
                self._failed(error)
        self._policy.close()
