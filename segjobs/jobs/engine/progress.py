"""What a person sees while a job runs: the phases of its start with their seconds, then its items as they are done.

    importing ─→ phase("listing") ─→ phase("ray") ─→ … ─→ start ─→ begin ─→ counted, advance … ─→ stop

A live line on a terminal; elsewhere plain lines, at the end of each phase and every ten seconds.
Everything goes to standard error, so that standard output holds only results.
"""

import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from segjobs.jobs.engine.terminal import Terminal
from segjobs.text import visible

_FIRST_LINE_S, _LINE_EVERY_S = 1.0, 10.0  # where there is no terminal
_BAR_CHARS = 40

Item = TypeVar("Item")

_imports_s: dict[str, float] = {}
"""Seconds that ``importing`` took, until the job's Progress takes them over."""


@contextmanager
def importing(verb: str) -> Generator[None]:
    """While a job's modules are imported, which takes seconds: the first phase of the ``Progress`` that comes next."""
    progress = Progress(verb)
    with progress.phase("imports", "importing Ray"):
        yield
    _imports_s.update(progress.take_seconds())


@dataclass
class Phase:
    """A part of a job's start. ``doing``: in words; ``outcome``: what came of it, told with its seconds at its end."""

    name: str
    doing: str
    outcome: str = ""
    began: float = field(default_factory=time.monotonic)
    _counted: int | None = None
    _what: str = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def counting(self, items: Iterable[Item], what: str) -> Iterator[Item]:
        """The same items; a person sees how many there are so far. ``what``: they are, in words."""
        self._counted, self._what = 0, what
        for item in items:
            self._counted += 1
            yield item

    def so_far(self) -> str:
        counted = "" if self._counted is None else f" {self._counted} {self._what},"
        return f"{self.doing}:{counted} {self.seconds:.0f} s so far"

    def ended(self) -> str:
        outcome = f" {self.outcome}," if self.outcome else ""
        return f"{self.doing}:{outcome} {self.seconds:.1f} s"


class Progress:
    """Phases and items of one job; ``counted`` may come from another thread. ``start`` and ``stop`` pair up."""

    def __init__(self, verb: str) -> None:
        self._seconds = dict(_imports_s)
        _imports_s.clear()
        self.verb = verb
        self._heard_s = time.monotonic()
        self._console = Terminal()
        self._display: _LiveLine | _PlainLines | None = None
        self._spinner = Spinner("dots")
        self._lock = threading.RLock()
        self._phase: Phase | None = None
        self._items: _Items | None = None

    def note(self, text: str) -> None:
        """One plain line."""
        self._console.print(text)

    def hear(self) -> None:
        """Something came of what the job waits for."""
        self._heard_s = time.monotonic()

    def quiet_s(self) -> float:
        """Seconds since a phase began or something of the items was heard; 0 while a shard is at work."""
        with self._lock:
            at_work = self._items is not None and self._items.at_work
            return 0.0 if at_work else time.monotonic() - self._heard_s

    # --- the start -----------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str, doing: str) -> Generator[Phase]:
        """A phase of the start while it is entered; its seconds are told and kept, unless it raises."""
        self._phase = Phase(name, doing)
        self.hear()
        self._show()
        try:
            yield self._phase
        except BaseException:
            self._phase = None
            raise
        finally:
            self._hide()
        self._tell(self._end_phase())

    def take_seconds(self) -> dict[str, float]:
        """Those of the phases that have ended since the last call, by name, in their order."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _end_phase(self) -> Phase | None:
        """The phase that ends now, with its seconds kept."""
        ended, self._phase = self._phase, None
        if ended is not None:
            self._seconds[ended.name] = self._seconds.get(ended.name, 0.0) + ended.seconds
        return ended

    def _tell(self, ended: Phase | None) -> None:
        # Never while the lock is held: what is printed above a live line waits for the line, which waits for the lock.
        if ended is not None:
            self.note(f"{self.verb}: {ended.ended()}")

    # --- items ---------------------------------------------------------------------------------

    def start(self, *, total: int, done: int, unit: str = "images") -> None:
        """``total`` items of the whole run, ``done`` of them by earlier attempts."""
        self._items = _Items(total, done, unit)
        self._show()

    def begin(self) -> None:
        """Workers are asked for. The rate counts from here, or from the first that says that it works."""
        assert self._items is not None  # noqa: S101
        self._items.began = time.monotonic()
        self._phase = Phase("workers", "starting workers")
        self.hear()

    def counted(self, shard: int, *, ok: int, failed: int) -> None:
        """So many items of a shard that is at work are done; none of either where an attempt at it begins."""
        self.hear()
        with self._lock:
            assert self._items is not None  # noqa: S101
            ended = None
            if self._phase is not None and self._phase.name == "workers":
                ended = self._end_phase()
                self._phase = Phase("first image", f"the first {self._items.unit.removesuffix('s')}")
                self._items.began = time.monotonic()
            self._items.count(shard, ok, failed)
        self._tell(ended)
        self._arrived(ok + failed)

    def advance(self, *, ok: int, failed: int, shard: int | None = None) -> None:
        """So many more items have been published: those of ``shard``, where its items are counted."""
        self.hear()
        with self._lock:
            assert self._items is not None  # noqa: S101
            self._items.publish(shard, ok, failed)
        self._arrived(ok + failed)

    def _arrived(self, items: int) -> None:
        """The first of all items ends what was waited for."""
        with self._lock:
            ended = self._end_phase() if items else None
        self._tell(ended)

    def show(self, done: int, text: str) -> None:
        """So many of all items are done, with what there is to say about it. The first ends what was waited for."""
        self.hear()
        with self._lock:
            assert self._items is not None  # noqa: S101
            self._items.shown = (done, text)
            ended = self._end_phase()
        self._tell(ended)

    def stop(self) -> None:
        """Take the live line away; what comes next is the summary."""
        self._hide()
        items, self._items = self._items, None
        if items is not None and items.done == items.total and not self._console.is_terminal:
            self.note(f"{self.verb}: {items.text()}")
        self._phase = None
        sys.stderr.flush()

    # --- on the terminal -----------------------------------------------------------------------

    def _show(self) -> None:
        # What is imported in a phase may keep a handler of logging on the stream that it finds: the real one.
        live = self._console.is_terminal
        self._display = _LiveLine(self, redirect=self._items is not None) if live else _PlainLines(self)

    def _hide(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def line(self) -> str:
        """What is being done, in a line."""
        with self._lock:
            waiting = self._phase.so_far() if self._phase else ""
            if self._items is None:
                return f"{self.verb}: {waiting}"
            return f"{self.verb}: {self._items.text(waiting)}"

    def live(self) -> RenderableType:
        """The same with something that moves."""
        with self._lock:
            if self._items is None:
                self._spinner.update(text=Text(visible(self.line())))
                return self._spinner
            bar = ProgressBar(total=max(1, self._items.total), completed=self._items.done, width=_BAR_CHARS)
            row = Table.grid(padding=(0, 1))
            row.add_row(bar, Text(visible(self.line())))
            return row

    @property
    def console(self) -> Console:
        return self._console


@dataclass
class _Items:
    """How many items there are and are done. ``shown``: instead of what is counted, where a job counts by itself."""

    total: int
    before: int
    unit: str
    began: float = 0.0
    ok: int = 0
    failed: int = 0
    at_work: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    published: set[int] = field(default_factory=set[int])
    shown: tuple[int, str] | None = None

    def count(self, shard: int, ok: int, failed: int) -> None:
        if shard not in self.published:  # a worker's word may come after its shard
            self.at_work[shard] = (ok, failed)

    def publish(self, shard: int | None, ok: int, failed: int) -> None:
        self.ok += ok
        self.failed += failed
        if shard is not None:
            self.published.add(shard)
            self.at_work.pop(shard, None)

    @property
    def all_failed(self) -> int:
        return self.failed + sum(failed for _, failed in self.at_work.values())

    @property
    def done_here(self) -> int:
        return self.ok + self.all_failed + sum(ok for ok, _ in self.at_work.values())

    @property
    def done(self) -> int:
        return self.shown[0] if self.shown else self.before + self.done_here

    def text(self, waiting: str = "") -> str:
        amount = f"{self.done} of {self.total} {self.unit}"
        if self.shown:
            return f"{amount} · {self.shown[1]}"
        if not self.done_here:
            return f"{amount} · {waiting}" if waiting else amount
        seconds = time.monotonic() - self.began
        rate = self.done_here / seconds if seconds else 0.0
        left = clock((self.total - self.done) / rate if rate else 0)
        return f"{amount} · {self.all_failed} failed · {rate:.1f}/s · ETA {left}"


class _LiveLine:
    """A line that is drawn again and again, on a terminal. ``redirect``: what others print goes above it."""

    def __init__(self, progress: Progress, *, redirect: bool) -> None:
        self._live = Live(
            get_renderable=progress.live,
            console=progress.console,
            transient=True,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )
        self._live.start()

    def stop(self) -> None:
        self._live.stop()


class _PlainLines:
    """A line now and then, from a thread of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print, name="progress", daemon=True)
        self._thread.start()

    def _print(self) -> None:
        wait_s = _FIRST_LINE_S
        while not self._ended.wait(wait_s):
            self._progress.note(self._progress.line())
            wait_s = _LINE_EVERY_S

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
