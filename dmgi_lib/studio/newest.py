"""Slow work in the background, of which only the newest is worth doing."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Newest:
    """Runs one job at a time in a thread; of jobs that wait, the newest of each lane is kept.

    Args:
        lanes: names of lanes, the most urgent first.

    The thread ends with the last job, so an unused one costs nothing.
    """

    def __init__(self, *lanes: str) -> None:
        self._waiting: dict[str, Callable[[], None] | None] = dict.fromkeys(lanes)
        self._changed = threading.Condition()
        self._works = False

    def put(self, lane: str, job: Callable[[], None]) -> None:
        """Returns at once. A job of the same lane that has not begun is dropped."""
        with self._changed:
            self._waiting[lane] = job
            if not self._works:
                self._works = True
                threading.Thread(target=self._work, name="dmgi studio", daemon=True).start()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._works, timeout)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            for lane, job in self._waiting.items():
                if job is not None:
                    self._waiting[lane] = None
                    return job
            self._works = False
            self._changed.notify_all()
            return None
