"""A watchdog for one process: image names held by its threads in, a report and the process's end out.

A decoder or a network that never comes back would hold its shard for ever. Whoever works on images
says which; what is held for longer than the deadline is named, and the process ends, so that its
shard is tried again.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

HUNG_STATUS = 86
"""Exit status of a process that its watchdog ended."""

OnStuck = Callable[[list[str]], None]
"""Is told which images the process is ended for."""

_TICKS = 20  # looks per deadline
_LONGEST_TICK_S = 1.0
_REPORT_S = 10.0  # in which the report must be made
_BACKSTOP_S = 30.0  # beyond the deadline, for code that never lets this thread run


@dataclass
class _Held:
    names: tuple[str, ...]
    held_s: float = 0.0


class Watchdog:
    """Ends this process with ``HUNG_STATUS`` once something is held for ``deadline_s``, after ``report(names)``.

    Time in which the whole process stood still (a paused machine) does not count. Code that holds
    Python's lock for ever keeps the watchdog's thread from running: for that the kernel's own alarm
    clock is wound up anew at each look, and ends the process with SIGALRM, without a report.
    """

    def __init__(self, deadline_s: float, report: OnStuck) -> None:
        self._deadline_s = deadline_s
        self._report = report
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The process may live on unwatched."""
        self._ended.set()
        self._thread.join()

    @contextmanager
    def holding(self, names: Sequence[str]) -> Generator[None]:
        """The images ``names`` are being worked on inside the ``with``."""
        held = _Held(tuple(names))
        with self._lock:
            self._held[id(held)] = held
        try:
            yield
        finally:
            with self._lock:
                del self._held[id(held)]

    def _watch(self) -> None:
        tick_s = min(_LONGEST_TICK_S, self._deadline_s / _TICKS)
        before = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, self._deadline_s + _BACKSTOP_S)
        while not self._ended.wait(tick_s):
            signal.setitimer(signal.ITIMER_REAL, self._deadline_s + _BACKSTOP_S)
            now = time.monotonic()
            passed_s, before = min(now - before, 2 * tick_s), now
            if names := self._overdue(passed_s):
                # The report may hang as well, on a cluster that is in trouble.
                reporting = threading.Thread(target=self._report, args=[names], daemon=True)
                reporting.start()
                reporting.join(_REPORT_S)
                os._exit(HUNG_STATUS)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _overdue(self, passed_s: float) -> list[str]:
        names: list[str] = []
        with self._lock:
            for held in self._held.values():
                held.held_s += passed_s
                if held.held_s > self._deadline_s:
                    names += held.names
        return names
