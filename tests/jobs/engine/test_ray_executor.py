"""Runs on Ray: the files that this process alone would publish, errors as themselves, and few shards that wait."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from segjobs.config import ShardConfig
from segjobs.errors import StorageError
from segjobs.jobs.engine.executor import Actors, Executor, InProcess, Stage
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor, storage_workers
from segjobs.jobs.engine.run import Summary, run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage
from tests.stages import labelled, stage_of

import ray  # isort: skip  # after segjobs.jobs, which sets its environment
from ray.data._internal.block_batching import iter_batches  # isort: skip


def run(uri: Path, *stages: Stage, images: int, executor: Executor | None = None, **settings: Any) -> Summary:
    """A job of ``images``, one a shard."""
    files = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(images)]
    footer = Footer("semantic", make_categories(["sky"]), "digest")
    job = Job("label", str(uri), make_plan(files, ShardConfig(images=1)), {}, footer, {}, **settings)
    return run_job(Storage(), job, stages, Progress("label"), executor=executor or RayExecutor())


def test_ray_and_this_process_publish_the_same_bytes(ray_session: None, tmp_path: Path) -> None:
    def reading(items: pa.Table) -> pa.Table:
        return items.append_column("read", pa.array([True] * items.num_rows))

    def labelling(items: pa.Table) -> pa.Table:
        return labelled(items.filter(items["read"]))

    stages = stage_of(reading, "reading"), stage_of(labelling, place=Actors(least=1, most=1, cpus=0.75, at_once=2))
    published = {}
    for executor in (InProcess(), RayExecutor()):
        uri = tmp_path / type(executor).__name__
        summary = run(uri, *stages, images=7, executor=executor)
        assert (summary.images, summary.ok, summary.failures) == (7, 6, {"TRUNCATED": 1})
        published[uri.name] = {path.name: path.read_bytes() for path in uri.rglob("*.parquet")}
    assert sorted(published["InProcess"]) == [*(f"part-0000{n}.parquet" for n in range(7)), "plan.parquet"]
    assert published["RayExecutor"] == published["InProcess"]


def test_statistics_of_every_shard_are_not_sent_with_every_few(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a minute went by between two shards: Ray Data sends them every five seconds of its clock."""
    minutes = itertools.count()
    sent: list[object] = []
    clock = SimpleNamespace(time=lambda: 60.0 * next(minutes), perf_counter=time.perf_counter)
    monkeypatch.setattr(iter_batches, "time", clock)
    monkeypatch.setattr(iter_batches._StatsManager, "update_iteration_metrics", lambda *given: sent.append(given))
    assert run(tmp_path / "out", stage_of(labelled), images=6).images == 6
    assert len(sent) <= 2, "at the beginning and at the end, whatever the number of shards"


def test_a_worker_s_error_stops_the_job_as_itself(ray_session: None, tmp_path: Path) -> None:
    def full(items: pa.Table) -> pa.Table:
        raise StorageError("the disk is full; free some space")

    with pytest.raises(StorageError) as caught:
        run(tmp_path / "out", stage_of(full), images=3)
    assert str(caught.value) == "the disk is full; free some space"
    assert type(caught.value) is StorageError, "not Ray's double of it"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["plan.parquet"]


def test_parts_are_published_while_another_driver_holds_all_cpus(ray_session: None, tmp_path: Path) -> None:
    """As after a kill: the dead driver's claim stands in Ray Data's coordinator until it expires."""
    from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator

    def slow(items: pa.Table) -> pa.Table:
        time.sleep(0.3)
        (tmp_path / "last").touch()
        return labelled(items)

    coordinator = get_or_create_autoscaling_coordinator()
    claim = {"resources": [{"CPU": 1}] * 100, "expire_after_s": 600, "request_remaining": None}
    ray.get(coordinator.request_resources.remote("dead", **claim))
    try:
        actor = stage_of(slow, place=Actors(least=1, most=1, cpus=0.5))
        assert run(tmp_path / "out", actor, images=20).images == 20
    finally:
        ray.get(coordinator.cancel_request.remote("dead"))
    first = min(path.stat().st_mtime_ns for path in (tmp_path / "out/parts").iterdir())
    assert first < (tmp_path / "last").stat().st_mtime_ns, "none waited for the last shard"


def test_few_shards_wait_for_a_slow_store(ray_session: None, tmp_path: Path) -> None:
    """What is labelled and not yet published is lost with the driver."""
    log = tmp_path / "log"
    log.mkdir()

    def logged(items: pa.Table) -> pa.Table:
        (log / items["image_id"][0].as_py()).touch()
        return labelled(items)

    def slow(rows: pa.Table) -> dict[str, Any]:
        time.sleep(0.4)
        return {}

    run(tmp_path / "out", stage_of(logged), images=40, tally=slow, waiting=1.0)
    done, published = (
        sorted(path.stat().st_mtime_ns for path in folder.iterdir()) for folder in (log, tmp_path / "out/parts")
    )
    assert len(published) == 40
    waiting = [1 + n - sum(one <= now for one in published) for n, now in enumerate(done)]
    assert max(waiting) <= 12, "four at work, two being published, the others ready"


@pytest.mark.parametrize(("cpus", "workers"), [(1, 2), (2, 2), (11, 2), (12, 3), (64, 16)])
def test_a_few_workers_write(cpus: int, workers: int) -> None:
    assert storage_workers(cpus) == workers
