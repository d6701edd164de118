"""A run's shards on Ray: a block each on Ray Data, stages of tasks and actors, attempts on the record.

blocks ─→ [tasks] ─→ [actors] ─→ writers ─→ rows on the driver
             └─ attempts.py: begin, end ─┘
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.jobs.engine.attempts import Attempts, open_attempts
from segjobs.jobs.engine.executor import Rows, Stage, Stopping, Tasks, Work
from segjobs.jobs.engine.gpu_use import Sampler
from segjobs.jobs.engine.graceful_stop import GracefulStop
from segjobs.jobs.engine.layout import Share
from segjobs.jobs.engine.logs import log_in_worker
from segjobs.jobs.engine.metrics import RayMeter
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_calls import is_answered, total_resources
from segjobs.jobs.engine.ray_data import dataset_of, map_blocks, map_in_actors, rows_of
from segjobs.jobs.engine.waits import Need, Waits
from segjobs.manifest.run_info import GpuUse
from segjobs.storage import Storage

if TYPE_CHECKING:
    from ray.data import Dataset

_CPUS_PER_WORKER = 4  # that writes or verifies parts
_ASK_S = 10.0


class RayExecutor:
    """On the cluster that this process is connected to."""

    def each(self, blocks: Sequence[pa.Table], task: Work) -> Rows:
        return rows_of(_by_storage(dataset_of(blocks), task, len(blocks)))

    def attempt(self, storage: Storage, uri: str, progress: Progress, run_id: str = "") -> "RayAttempt":
        return RayAttempt(open_attempts(storage, uri, run_id), progress)

    def meter(self, verb: str) -> RayMeter:
        return RayMeter(verb)


@dataclass(frozen=True)
class RayAttempt:
    """An attempt whose workers may die: a shard that kills them is worked on in isolation."""

    attempts: Attempts
    progress: Progress

    def run(self, blocks: Sequence[pa.Table], stages: Sequence[Stage], write: Work, *, waiting: float) -> Rows:
        data = dataset_of(blocks)
        for stage in stages:
            data = _through(data, stage, self.attempts)
        with Waits(self.progress, [_need(stage) for stage in stages]):
            yield from rows_of(_by_storage(data, partial(_logged, write), len(blocks), waiting=waiting))

    def stopping(self, grace_s: float) -> AbstractContextManager[Stopping]:
        return GracefulStop(self.attempts, self.progress, grace_s)

    def gpus(self) -> dict[str, GpuUse]:
        """Of a record that cannot be asked: none, since no job shall fail for a figure."""
        try:
            answer = self.attempts.record.gpu_use.remote()
            return ray.get(answer) if is_answered(answer, _ASK_S) else {}
        except RayError:
            return {}


def storage_workers(cpus: float) -> int:
    """How many workers write or verify parts at a time on a cluster of so many CPUs."""
    return max(2, int(cpus) // _CPUS_PER_WORKER)


def _by_storage(data: "Dataset", task: Work, count: int, *, waiting: float | None = None) -> "Dataset":
    """``task`` for each of ``count`` blocks, by a few workers: it waits for storage more than it computes.

    It takes no CPU of Ray's books: a driver that was killed, or another at work, can hold them all there, and shards
    that are labelled would wait for minutes, for the next kill to lose them.
    """
    workers = storage_workers(total_resources().get("CPU", 0))
    return map_blocks(data, task, num_cpus=0, at_once=min(workers, count), waiting=waiting)


def _through(data: "Dataset", stage: Stage, attempts: Attempts) -> "Dataset":
    if isinstance(stage.place, Tasks):
        return map_blocks(data, partial(_task, stage=stage, attempts=attempts), num_cpus=stage.place.cpus)
    return map_in_actors(data, StageActor, (stage, attempts), stage.place)


def _logged(work: Work, block: pa.Table) -> pa.Table:
    log_in_worker()
    return work(block)


def _task(items: pa.Table, *, stage: Stage, attempts: Attempts) -> pa.Table:
    return StageActor(stage, attempts)(items)


def _need(stage: Stage) -> Need:
    place = stage.place
    if isinstance(place, Tasks):
        return Need(f"a task ({stage.name})", Share(place.cpus))
    return Need(f"an actor ({stage.name})", Share(place.cpus, place.gpus))


class StageActor:
    """A stage's worker in its process; called with shards, by several threads at a time where its stage says so."""

    def __init__(self, stage: Stage, attempts: Attempts) -> None:
        log_in_worker()
        self._name = stage.name
        self._attempts = attempts
        self._worker = stage.make(attempts.tell_stuck)
        self._sampler = Sampler(attempts.tell_gpus) if stage.gpus else None

    def __call__(self, items: pa.Table) -> pa.Table:
        if self._sampler is not None:
            self._sampler.begin()
        return self._attempts.run(self._name, items, self._worker)
