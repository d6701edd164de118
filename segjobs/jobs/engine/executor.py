"""Who works on a run's shards: planned items in blocks and the job's stages in; receipts of published parts out.

    run.py ─→ Executor.each:    a task for every block, results as they come
           └→ Executor.attempt: the stages of every shard, and the writer behind them, until all are done or a signal

``ray_executor.py`` works on a cluster. ``InProcess`` works here, on one shard after the other in the order of the plan,
and imports no Ray: an image that kills its process kills the job, and the next one goes on with that shard.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from segjobs.errors import ClusterError
from segjobs.jobs.engine.first_signal import FirstSignal
from segjobs.jobs.engine.gpu_use import GpuLog, Sampler
from segjobs.jobs.engine.logs import logging_about
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.watchdog import OnStuck
from segjobs.manifest.parts import Receipt, part_uri, plan_uri
from segjobs.manifest.run_info import GpuUse
from segjobs.storage import Storage, is_remote

Work = Callable[[pa.Table], pa.Table]
"""What is done with a block: the planned items of one shard, or what the stage before has made of them."""

OnRow = Callable[[Mapping[str, object]], None]
"""Is shown each row of a shard as it is made; from any thread."""

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Worker:
    """What one process does with shards. ``isolated``: the same rows, where images of the shard kill their process.

    ``proven``: it has made good rows before, so that whatever kills it is the images' doing.

    ``shown``: ``work`` that shows each row as it is made, so that images are counted before their shard is published.
    """

    work: Work
    isolated: Work
    shown: Callable[[pa.Table, OnRow], pa.Table] | None = None
    proven: bool = False


@dataclass(frozen=True)
class Tasks:
    """A stage of tasks, of so many CPUs each, on any node."""

    cpus: float = 1.0


@dataclass(frozen=True)
class Actors:
    """A stage of ``least`` to ``most`` actors, which keep what they have made for all their shards.

    Each works on ``at_once`` shards at a time, by threads, and has at most ``in_flight`` of them.
    """

    least: int
    most: int
    cpus: float
    gpus: float = 0.0
    at_once: int = 1
    in_flight: int = 2


@dataclass(frozen=True)
class Stage:
    """One step of every shard. ``name``: as in "reading of shard 3".

    ``make``: called in each process that is to work, with whom to tell of images that hang; pickles small.
    """

    name: str
    make: Callable[[OnStuck], Worker]
    place: Tasks | Actors

    @property
    def gpus(self) -> float:
        """What each of its processes has of them."""
        return self.place.gpus if isinstance(self.place, Actors) else 0.0


class Stopping(Protocol):
    """What became of the signals that came while an attempt was at work."""

    @property
    def asked(self) -> bool:
        """Whether one asked the job to stop."""
        ...

    def leave(self) -> None:
        """Let it have its usual effect, now that nothing is in flight."""
        ...


class Meter(Protocol):
    """Is told how a run goes, for whoever watches it from afar (``metrics.py``)."""

    def begun(self, waiting: int) -> None:
        """So many images of the run have no published row yet."""
        ...

    def published(self, receipt: Receipt, spent_ms: Mapping[str, float], *, ours: bool) -> None:
        """A shard's part stands, by this driver's workers (``ours``) or another's. ``spent_ms``: by stage."""
        ...


class Unmetered:
    """Nobody watches."""

    def begun(self, waiting: int) -> None: ...

    def published(self, receipt: Receipt, spent_ms: Mapping[str, float], *, ours: bool) -> None: ...


class Attempt(Protocol):
    """One attempt at a run."""

    def run(self, blocks: Sequence[pa.Table], stages: Sequence[Stage], write: Work, *, waiting: float) -> Rows:
        """Every block through the stages, in their order, and the writer; its rows as they come, in any order.

        A block that is left undone reaches the writer without a column ``status``. ``waiting``: so many blocks, by
        their bytes, may wait for each one at the writer. Raises the SegjobsError that stopped a worker.
        """
        ...

    def stopping(self, grace_s: float) -> AbstractContextManager[Stopping]:
        """While it is entered, a first signal ends ``run`` once the shards at work are done, or after ``grace_s``."""
        ...

    def gpus(self) -> dict[str, GpuUse]:
        """By UUID, how busy the GPUs were in ``run``; those of which nothing is known are left out."""
        ...


class Executor(Protocol):
    """Where a run's shards are worked on."""

    def each(self, blocks: Sequence[pa.Table], task: Work) -> Rows:
        """``task`` for every block, a few at a time, since it waits for storage; its rows as they come.

        Raises the SegjobsError that stopped a task.
        """
        ...

    def attempt(self, storage: Storage, uri: str, progress: Progress, run_id: str = "") -> Attempt:
        """Begin an attempt at the run at ``uri``."""
        ...

    def meter(self, verb: str) -> Meter:
        """Who is told how a run of that verb goes."""
        ...


def work_on(stage: str, items: pa.Table, work: Work, *, storage: Storage, uri: str) -> pa.Table:
    """``work(items)``; where another run has published the shard's part meanwhile, the items as they came.

    Raises ClusterError where the memory ends, or where this node sees another disk than the driver.
    """
    check_seen(storage, uri)
    number = items["shard"][0].as_py()
    try:
        return items if storage.exists(part_uri(uri, number)) else work(items)
    except MemoryError as error:
        raise ClusterError(
            f"{stage} of shard {number}: out of memory on its node ({error or 'no more to be had'}); "
            "lower shard.bytes, shard.images, compute.batch_size or decode.max_pixels, and run the command again"
        ) from error


def check_seen(storage: Storage, uri: str) -> None:
    """Raise ClusterError where the run's plan, published before any work, is not to be seen at a local ``uri``.

    On a node that joined after all were asked (``shared_disk.py``) its images would be missing, and its parts lost.
    """
    if not is_remote(uri) and not storage.exists(plan_uri(uri)):
        raise unshared("output.uri", uri, socket.gethostname())


def unshared(key: str, uri: str, node: str) -> ClusterError:
    """What is said of a local path that a node does not see. ``key``: of the config."""
    return ClusterError(
        f"{key}: {uri} is a path of the driver's disk, and node {node} does not see the same there; take a place that "
        "all nodes share: s3://bucket/prefix, or a disk that is mounted at one path on each"
    )


class InProcess:
    """One shard after the other, in this process."""

    def each(self, blocks: Iterable[pa.Table], task: Work) -> Rows:
        for block in blocks:
            yield from task(block).to_pylist()

    def attempt(self, storage: Storage, uri: str, progress: Progress, run_id: str = "") -> "_AttemptHere":
        return _AttemptHere(storage, uri, progress, run_id)

    def meter(self, verb: str) -> Unmetered:
        return Unmetered()


class _AttemptHere:
    """A signal ends it between two shards: however long the grace time, the shard at work is done or lost."""

    def __init__(self, storage: Storage, uri: str, progress: Progress, run_id: str) -> None:
        self._storage = storage
        self._uri = uri
        self._run_id = run_id
        self._progress = progress
        self._signal = FirstSignal()
        self._gpus = GpuLog()

    def run(self, blocks: Sequence[pa.Table], stages: Sequence[Stage], write: Work, *, waiting: float) -> Rows:
        workers = [(stage.name, stage.make(self._tell_stuck)) for stage in stages]
        sampler = Sampler(partial(self._gpus.add, at_work=True)) if any(stage.gpus for stage in stages) else None
        if sampler is None:
            yield from self._work(blocks, workers, write)
            return
        sampler.begin()
        try:
            yield from self._work(blocks, workers, write)
        finally:
            sampler.end()

    def _work(self, blocks: Sequence[pa.Table], workers: Sequence[tuple[str, Worker]], write: Work) -> Rows:
        for block in blocks:
            if self._signal.asked:
                return
            for name, worker in workers:
                with logging_about(run=self._run_id, shard=block["shard"][0].as_py(), stage=name):
                    block = work_on(name, block, worker.work, storage=self._storage, uri=self._uri)
            yield from write(block).to_pylist()

    def gpus(self) -> dict[str, GpuUse]:
        return self._gpus.use()

    def stopping(self, grace_s: float) -> AbstractContextManager[Stopping]:
        return self._signal

    def _tell_stuck(self, names: list[str]) -> None:
        self._progress.note(f"the job hung for longer than compute.batch_deadline_s on {names!r}: it is ended")
