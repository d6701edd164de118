"""What a person sees while a job runs: a live bar on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output holds only results.
"""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_LINE_EVERY_S = 10.0


class Progress:
    """Counts of one job's items as they end. Single-threaded; ``start`` and ``stop`` pair up."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._total = self._before = self._ok = self._failed = 0
        self._began = self._printed = time.monotonic()
        self._bar: Bar | None = None

    def note(self, text: str) -> None:
        """One plain line."""
        self._console.print(text, markup=False)

    def start(self, *, total: int, done: int) -> None:
        """``total`` items of the whole run, ``done`` of them by earlier attempts."""
        self._total, self._before = total, done
        self._ok = self._failed = 0
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._verb, total=total, completed=done, rate="starting workers")

    def begin(self) -> None:
        """The rate counts from here."""
        self._began = self._printed = time.monotonic()

    def advance(self, *, ok: int, failed: int) -> None:
        """So many more items have been published."""
        self._ok += ok
        self._failed += failed
        done = self._ok + self._failed
        seconds = time.monotonic() - self._began
        rate = done / seconds if seconds else 0.0
        left = self._total - self._before - done
        text = f"{self._failed} failed · {rate:.1f}/s · ETA {clock(left / rate if rate else 0)}"
        self.show(self._before + done, text)

    def show(self, done: int, text: str) -> None:
        """So many of all items are done, with what there is to say about it."""
        if self._bar:
            self._bar.update(self._task, completed=done, rate=text)
        elif time.monotonic() - self._printed >= _LINE_EVERY_S or done == self._total:
            self._printed = time.monotonic()
            self.note(f"{self._verb}: {done} of {self._total} · {text}")

    def stop(self) -> None:
        """Take the bar away; what comes next is the summary."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
