"""A shard that kills its workers, worked on in isolation: planned items in, the same rows out, each killer a failure.

    whole shard in a child process ── lives ──→ rows
          │ dies
          └→ halves, and halves of these … → images that die alone → CRASHED, TIMEOUT
                                             all others once more, together → rows

Delta debugging by bisection (Zeller & Hildebrandt 2002, the part that finds independent culprits). The
last step gives the others the batches, and so to the last bit the masks, that they would have beside
an image that cannot be read. A child that lives is used again, so only deaths cost a start.
"""

import ctypes
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal

import psutil
import pyarrow as pa

from segjobs.errors import ClusterError, ItemCode, ItemError
from segjobs.jobs.engine.executor import Work
from segjobs.jobs.engine.watchdog import HUNG_STATUS, OnStuck

ALONE = ", twice while alone in a process"
"""How the message of each killer's row ends, after what its process died of."""

Maker = Callable[[OnStuck], Work]
"""Run in the child, once: makes its work. The report is for the work's own watchdog."""

_PROCESSES = multiprocessing.get_context("forkserver")
_STARTS = 3  # of a child that dies before it has seen an image
_LOOK_S = 0.2
_MEMORY_SHARE = 0.8  # of what was free at a child's start: Ray would kill the parent, not the child, at 95%
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Death:
    """How a child ended. ``held``: image_ids that its watchdog found stuck, if it was that."""

    code: ItemCode
    what: str
    held: tuple[str, ...] = ()


def work_isolated(
    items: pa.Table, make: Maker, fail: Callable[[pa.Table, ItemError], pa.Table], *, imports: Sequence[str] = ()
) -> pa.Table:
    """Rows of all ``items``, in their order, whichever of them kill the process that works on them.

    ``fail(item, error)``: the row of one item (a table of one) that failed. ``imports``: modules that the
    work needs, imported once and forked from: seconds for each death, with torch. Raises what the
    work raised, or ClusterError where no child can be started.
    """
    _PROCESSES.set_forkserver_preload([__name__, *imports])
    child = _Child(make)
    try:
        rows, dead = _bisect(items, child)
        if dead and len(rows) > 1:
            together = child.run(_among(items, dead, False))
            if isinstance(together, pa.Table):
                rows = [together]
    finally:
        child.end()
    failed = [fail(item, _error_of(death)) for item, death in dead.values()]
    return pa.concat_tables([*rows, *failed]).sort_by("image_id")


Dead = dict[str, tuple[pa.Table, Death]]
Reply = tuple[Literal["ready"], None] | tuple[Literal["rows"], pa.Table] | tuple[Literal["error"], Exception]
"""What a child says; ``ready`` once, before anything is asked of it."""


def _bisect(items: pa.Table, child: "_Child") -> tuple[list[pa.Table], Dead]:
    """Tables of rows of the items that live in some company, and the others by image_id."""
    outcome = child.run(items)
    if items.num_rows == 1 and isinstance(outcome, Death):
        outcome = child.run(items)  # a child may also be killed from outside: a verdict takes two deaths
    if isinstance(outcome, pa.Table):
        return [outcome], {}
    if items.num_rows == 1:
        return [], {items["image_id"][0].as_py(): (items, outcome)}
    rows: list[pa.Table] = []
    dead: Dead = {}
    for part in _halves(items, outcome.held):
        more_rows, more_dead = _bisect(part, child)
        rows += more_rows
        dead |= more_dead
    return rows, dead


def _halves(items: pa.Table, held: tuple[str, ...]) -> Iterator[pa.Table]:
    """Those that were not stuck and those that were; where that tells nothing, two halves."""
    suspects = _among(items, held, True)
    if 0 < suspects.num_rows < items.num_rows:
        yield _among(items, held, False)
        yield suspects
    else:
        middle = items.num_rows // 2
        yield items.slice(0, middle)
        yield items.slice(middle)


def _among(items: pa.Table, names: Collection[str], wanted: bool) -> pa.Table:
    return items.filter(pa.array([(name in names) is wanted for name in items["image_id"].to_pylist()], pa.bool_()))


def _error_of(death: Death) -> ItemError:
    return ItemError(death.code, f"{death.what}{ALONE}")


# --- the child ---------------------------------------------------------------------------------


class _Child:
    """One child process at a time, started when needed; it is asked for rows of items."""

    def __init__(self, make: Maker) -> None:
        # Here, since a job that is worked on in this process needs no Ray.
        from segjobs.jobs.engine.ray_private import pickled

        self._make = pickled(make)
        self._process: ForkServerProcess | None = None
        self._deaths_at_start = 0

    def run(self, items: pa.Table) -> "pa.Table | Death":
        """The rows of ``items``, or how the child died on them."""
        process, connection = self._ready()
        limit_bytes = _used_bytes(process) + _MEMORY_SHARE * _free_bytes()
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(items)
        reply = self._reply(process, connection, limit_bytes)
        if isinstance(reply, Death):
            self.end()
            return reply
        if reply[0] == "error":
            raise reply[1]
        return reply[1]

    def _ready(self) -> tuple[ForkServerProcess, Connection]:
        """A child that has its work made. Raises ClusterError where children die before that."""
        while self._process is None:
            self._connection, theirs = _PROCESSES.Pipe()
            self._process = _PROCESSES.Process(target=_serve, args=(theirs, self._make), daemon=True)
            self._process.start()
            theirs.close()
            reply = self._reply(self._process, self._connection, float("inf"))
            if isinstance(reply, Death):
                self.end()
                self._deaths_at_start += 1
                if self._deaths_at_start == _STARTS:
                    raise ClusterError(f"a child process for images that kill workers cannot start: {reply.what}")
            elif reply[0] == "error":
                raise reply[1]
        return self._process, self._connection

    def _reply(self, process: ForkServerProcess, connection: Connection, limit_bytes: float) -> "Reply | Death":
        """The child's next message, or its death; one that takes too much memory is killed."""
        held: tuple[str, ...] = ()
        while True:
            try:
                if connection.poll(_LOOK_S):
                    kind, value = connection.recv()
                    if kind != "hung":
                        return kind, value
                    held = tuple(value)
            except (EOFError, ConnectionResetError):
                process.join()
                return _death(process.exitcode or 0, held)
            if _used_bytes(process) > limit_bytes:
                process.kill()
                return Death("CRASHED", f"it takes more memory than {limit_bytes / 2**30:.1f} GiB")

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _death(status: int, held: tuple[str, ...]) -> Death:
    if status in (HUNG_STATUS, -signal.SIGALRM):
        return Death("TIMEOUT", "its worker came to no end within compute.batch_deadline_s", held)
    if status < 0:
        return Death("CRASHED", f"its worker died of {signal.Signals(-status).name}")
    return Death("CRASHED", f"its worker ended with status {status}")


def _serve(connection: Connection, maker: bytes) -> None:
    """The child: make the work, then answer tables of items with ("rows", table) or ("error", exception)."""
    if sys.platform == "linux":
        # Stuck in an image, it would not notice that its parent is gone; and it goes first where memory ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        make: Maker = pickle.loads(maker)  # noqa: S301  # the parent's own
        work = make(lambda names: connection.send(("hung", names)))
        connection.send(("ready", None))
        while True:
            connection.send(("rows", work(connection.recv())))
    except EOFError:
        return
    except MemoryError:
        sys.exit("out of memory")  # the images' doing, as any other death
    except Exception as error:  # whatever it is, it stops the job as it would have done in the parent
        connection.send(("error", error))


def _used_bytes(process: ForkServerProcess) -> int:
    try:
        return psutil.Process(process.pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _free_bytes() -> int:
    """What this machine, or the container's limit (cgroup v2), leaves."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no limit ("max"), or no such file
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free
