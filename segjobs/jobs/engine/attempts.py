"""Attempts at shards, on the record: an actor of one run that counts deaths, and what workers ask it.

    worker: begin(shard) → do the work, counting its images │ do it in isolation │ leave it;  end(shard)
            once a second, what its GPUs do
    driver: what the workers have to say;  no more shards from now on;  how busy the GPUs were

Ray starts a worker that died anew and gives it the same shard again, without end. A shard that was
begun and never ended was the death of its worker (or was on a node that went away): after three of
them it is worked on in child processes, where an image can only kill the child. The record lives in
memory beside the driver; should it be lost, the count begins again.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segjobs.errors import SegjobsError
from segjobs.jobs.engine.death_blame import check_deaths
from segjobs.jobs.engine.executor import OnRow, Work, Worker, work_on
from segjobs.jobs.engine.gpu_use import GpuLog, GpuReading
from segjobs.jobs.engine.logs import LOGGER, logging_about
from segjobs.jobs.engine.ray_calls import Asked, own_address
from segjobs.manifest.run_info import GpuUse
from segjobs.storage import Storage

DEATHS = 3
"""So many workers may die on a shard; then it is worked on in isolation."""
_COUNT_EVERY_S = 1.0


@dataclass(frozen=True)
class Begun:
    """What an attempt is told when it begins: ``deaths`` of earlier ones, and whether to leave the shard."""

    deaths: int
    stopping: bool


@dataclass(frozen=True)
class News:
    """What the driver has not heard yet: lines for a person, and (ok, failed) images of shards that are at work."""

    lines: list[str]
    counts: dict[int, tuple[int, int]]


class AttemptLog:
    """The actor's state; one thread, calls of microseconds."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._lines: list[str] = []
        self._counts: dict[int, tuple[int, int]] = {}
        self._stopping = False
        self._begun = 0
        self._gpus = GpuLog()

    def begin(self, shard: str) -> Begun:
        deaths = self._open[shard]
        if not self._stopping:
            self._open[shard] += 1
            self._begun += 1
            self._gpus.count()
        if deaths == DEATHS:
            self.tell(f"{shard}: {deaths} workers died on it; its images are tried in child processes")
        return Begun(deaths, self._stopping)

    def end(self, shard: str) -> None:
        del self._open[shard]

    def tell(self, line: str) -> None:
        """A line for the person at the driver."""
        self._lines.append(line)

    def count(self, number: int, ok: int, failed: int) -> None:
        """So many images of a shard have their rows, in the attempt that is at it."""
        self._counts[number] = (ok, failed)

    def read(self, gpus: list[GpuReading]) -> None:
        """What an actor read of its GPUs."""
        self._gpus.add(gpus, at_work=bool(self._open))

    def gpu_use(self) -> dict[str, GpuUse]:
        """By UUID, until now."""
        return self._gpus.use()

    def news(self) -> News:
        """What came since the last call."""
        news = News(self._lines, self._counts)
        self._lines, self._counts = [], {}
        return news

    def stop(self) -> int:
        """From now on shards are left as they are; how many attempts were begun before."""
        self._stopping = True
        return self._begun


class AttemptLogHandle(Protocol):
    """The actor as other processes have it."""

    begin: Asked[[str], Begun]
    end: Asked[[str], None]
    tell: Asked[[str], None]
    count: Asked[[int, int, int], None]
    read: Asked[[list[GpuReading]], None]
    gpu_use: Asked[[], dict[str, GpuUse]]
    news: Asked[[], News]
    stop: Asked[[], int]


@dataclass(frozen=True)
class Attempts:
    """The way of a run's stages to their record, and to the parts that stand; pickles small.

    ``run_id``: what lines of the workers' logs carry.
    """

    storage: Storage
    uri: str
    record: AttemptLogHandle
    run_id: str = ""

    def run(self, stage: str, items: pa.Table, worker: Worker) -> pa.Table:
        """One attempt of ``stage`` at a shard, which the worker shows its rows of, or in isolation after many deaths.

        Where the run is being stopped, or another run has published the shard's part meanwhile, the
        items come back as they are, without a column ``status``: the writer sees that nothing was done.
        """
        with logging_about(run=self.run_id, shard=items["shard"][0].as_py(), stage=stage):
            return self._run(stage, items, worker)

    def _run(self, stage: str, items: pa.Table, worker: Worker) -> pa.Table:
        shard = f"{stage} of shard {items['shard'][0].as_py()}"
        begun = ray.get(self.record.begin.remote(shard))
        if begun.stopping:
            return items
        LOGGER.info("%d images begun%s", items.num_rows, f", after {begun.deaths} deaths" if begun.deaths else "")
        try:
            work = worker.isolated if begun.deaths >= DEATHS else self._shown(worker)
            rows = work_on(stage, items, work, storage=self.storage, uri=self.uri)
            if "status" in rows.column_names and not worker.proven:
                check_deaths(rows, self.storage, self.uri)
            return rows
        except SegjobsError as error:
            LOGGER.error("%s", error)
            raise
        finally:
            self.record.end.remote(shard)  # an exception of ours is no death

    def _shown(self, worker: Worker) -> Work:
        shown = worker.shown
        return worker.work if shown is None else lambda items: shown(items, self.counting(items))

    def counting(self, items: pa.Table) -> OnRow:
        """Counts the rows of one attempt at a shard, for the person at the driver."""
        return _RowCount(self.record, items["shard"][0].as_py(), items.num_rows)

    def tell_stuck(self, names: list[str]) -> None:
        """Tell the person at the driver which images a watchdog ends this process for."""
        self.tell(
            f"a worker on {own_address()} hung for longer than compute.batch_deadline_s on {names!r}: it is ended"
        )

    def tell_gpus(self, readings: list[GpuReading]) -> None:
        """Put on the record what this process's GPUs do; a call without an answer."""
        self.record.read.remote(readings)

    def tell(self, line: str) -> None:
        """A line for the person at the driver; waits until it is on the record."""
        ray.get(self.record.tell.remote(line))


class _RowCount:
    """Tells the record at the beginning and at the end, and between them once a second: a call without an answer."""

    def __init__(self, record: AttemptLogHandle, number: int, total: int) -> None:
        self._record = record
        self._number = number
        self._total = total
        self._ok = self._failed = 0
        self._lock = threading.Lock()
        self._tell()

    def __call__(self, row: Mapping[str, object]) -> None:
        with self._lock:
            if row["status"] == "ok":
                self._ok += 1
            else:
                self._failed += 1
            if self._ok + self._failed == self._total or time.monotonic() >= self._next_s:
                self._tell()

    def _tell(self) -> None:
        self._next_s = time.monotonic() + _COUNT_EVERY_S
        self._record.count.remote(self._number, self._ok, self._failed)


def open_attempts(storage: Storage, uri: str, run_id: str = "") -> Attempts:
    """Start the record of a run on the driver's own node: it takes no CPU and ends with the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(AttemptLog).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return Attempts(storage, uri, cast("AttemptLogHandle", actor.remote()), run_id)
