"""A writer that dies between any two steps of plan, parts and run.json, and the next one: the same manifest.

The writers are the job's own functions in processes of their own, without Ray between them.
"""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segjobs.config import ShardConfig, StorageConfig
from segjobs.errors import ItemError, StorageError
from segjobs.jobs.engine import shards
from segjobs.jobs.engine.run import Summary, _close, _publish_plan, adopt_run
from segjobs.jobs.engine.shards import TIMES_SCHEMA, Job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage, join

FILES = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(8)]
SHARDS = 3
POINTS = [
    f"{file}:{side}" for file in ("plan", *(f"part-{n}" for n in range(SHARDS)), "run") for side in ("before", "after")
]

# Forked from a process that has imported all this and runs no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "s3fs"])


def write(config: StorageConfig, uri: str) -> bool:
    """Begin or continue the run at ``uri``, to its end; whether this call wrote run.json."""
    storage = Storage(config)
    plan = make_plan(FILES, ShardConfig(images=3))
    job = Job(
        "label", uri, plan, {"model": "toy@1"}, Footer("semantic", make_categories(["sky"]), "digest"), {"any": 1}
    )
    _publish_plan(storage, job)
    job, run, done = adopt_run(storage, job)
    if run is not None:
        return False
    summary = Summary(uri, job.run_id)
    parts = []
    for number, items in job.plan.shards():
        stage = shards._verify_part if number in done else shards._write_part
        settings: dict[str, Any] = {"storage": storage, "uri": uri}
        if number not in done:
            items, settings = rows_of(items), {**settings, "footer": job.footer, "tally": None}
        (row,) = stage(items, **settings).to_pylist()
        receipt = json.loads(row["receipt"])
        parts.append(shards.PartInfo(**receipt.pop("part")))
        summary.add(shards.Receipt(parts[-1], **receipt))
    return _close(storage, job, summary, parts)


def rows_of(items: pa.Table) -> pa.Table:
    rows = []
    for item in planned_items(items):
        row = ok_row(item, Author("run"), sha256="00", size_hw=(1, 2), segments=[])
        if item.path.endswith("5"):
            row = failed_row(item, Author("run"), ItemError("TRUNCATED", "ends early"))
        rows.append({**row, **dict.fromkeys(TIMES_SCHEMA.names, 0.0)})
    key = shards.shard_key(items["image_id"].to_pylist())
    return rows_table(rows, TIMES_SCHEMA, items.append_column("shard_key", pa.array([key] * items.num_rows)))


def write_until(point: str, config: StorageConfig, uri: str) -> None:
    os.environ["SEGJOBS_CRASH_AT"] = point
    write(config, uri)


def write_until_link(number: int, side: str, config: StorageConfig, uri: str) -> None:
    """Dies at the ``number``-th file's new name: its bytes are on the disk, under another one."""
    link, calls = os.link, iter(range(99))

    def dying(*arguments: Any) -> None:
        dies = next(calls) == number
        if dies and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        link(*arguments)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    os.link = dying
    write(config, uri)


def status_of(function: Callable[..., Any], *arguments: Any) -> int | None:
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def contents(storage: Storage, uri: str) -> dict[str, Any]:
    """What is published, without what the clock says."""
    found: dict[str, Any] = {file.path: storage.read(file.uri) for file in storage.walk(uri)}
    if "run.json" in found:
        found["run.json"] = json.loads(found["run.json"])
        del found["run.json"]["finished"], found["run.json"]["timings"]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    uri = str(tmp_path_factory.mktemp("undisturbed") / "run")
    assert write(StorageConfig(), uri)
    found = contents(Storage(), uri)
    assert sorted(found) == sorted(
        ["plan.parquet", "run.json", *(f"parts/part-0000{n}.parquet" for n in range(SHARDS))]
    )
    assert found["run.json"]["counts"] == {"images": 8, "ok": 7, "failed": 1, "segments": 0}
    return found


def test_death_at_every_step_and_the_same_manifest(
    shared_store: tuple[Storage, str], undisturbed: dict[str, Any]
) -> None:
    storage, root = shared_store
    for number, point in enumerate(POINTS):
        uri = join(root, point)
        assert status_of(write_until, point, storage.config, uri) == -signal.SIGKILL
        standing = contents(storage, uri) if number else {}
        assert len(standing) == (number + 1) // 2, "what was published before the point, and no more"
        assert standing.items() <= undisturbed.items(), "nothing half-written"
        assert write(storage.config, uri) is (point != "run:after")
        assert contents(storage, uri) == undisturbed


def test_death_between_a_file_s_bytes_and_its_name(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    for number in range(SHARDS + 2):
        for side in ("before", "after"):
            uri = str(tmp_path / f"{number}-{side}")
            assert status_of(write_until_link, number, side, StorageConfig(), uri) == -signal.SIGKILL
            standing = contents(Storage(), uri)
            assert len(standing) == number + (side == "after")
            assert standing.items() <= undisturbed.items()
            write(StorageConfig(), uri)
            assert contents(Storage(), uri) == undisturbed, "the temporary file of the dead is no part of it"


def test_a_run_that_dies_at_every_step_in_turn_gets_on(
    shared_store: tuple[Storage, str], undisturbed: dict[str, Any]
) -> None:
    storage, root = shared_store
    for point in POINTS:
        assert status_of(write_until, point, storage.config, root) in (-signal.SIGKILL, 0)
    assert contents(storage, root) == undisturbed


def race(start: Any, results: Any, config: StorageConfig, uri: str) -> None:
    start.wait()
    results.put(write(config, uri))


def test_two_at_once_end_with_one_manifest(shared_store: tuple[Storage, str], undisturbed: dict[str, Any]) -> None:
    storage, root = shared_store
    for number in range(20):
        uri = join(root, str(number))
        start, results = PROCESSES.Barrier(2), PROCESSES.SimpleQueue()
        runs = [PROCESSES.Process(target=race, args=(start, results, storage.config, uri)) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [run.exitcode for run in runs] == [0, 0]
        assert sorted([results.get(), results.get()]) == [False, True], "one of them wrote run.json, the other knows"
        assert contents(storage, uri) == undisturbed


def write_with_limit(limit_bytes: int, results: Any, config: StorageConfig, uri: str) -> None:
    """No file may grow beyond the limit, as if the disk were full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    try:
        write(config, uri)
    except StorageError as error:
        results.put(str(error))


def test_a_file_that_does_not_fit_leaves_nothing_half_written(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    plan_bytes, part_bytes = (len(undisturbed[name]) for name in ("plan.parquet", "parts/part-00000.parquet"))
    assert plan_bytes < part_bytes
    results = PROCESSES.SimpleQueue()
    for limit_bytes, file, standing in ((plan_bytes - 1, "plan", 0), (plan_bytes, "parts/part-00000", 1)):
        uri = str(tmp_path / file)
        assert status_of(write_with_limit, limit_bytes, results, StorageConfig(), uri) == 0
        assert results.get() == f"{uri}/{file}.parquet: cannot write: File too large"
        assert len([path for path in Path(uri).rglob("*") if path.is_file()]) == standing
        write(StorageConfig(), uri)
        assert contents(Storage(), uri) == undisturbed


def test_a_full_disk_says_so_and_the_run_goes_on_when_it_has_space(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        room = 2 * len(undisturbed["plan.parquet"]) + len(undisturbed["parts/part-00000.parquet"])
        (disk / "filler").write_bytes(b"x" * (free - room))
        uri = f"{disk}/run"
        with pytest.raises(StorageError, match=r"part-0000\d\.parquet: the disk is full; free some space and run the"):
            write(StorageConfig(), uri)
        standing = contents(Storage(), uri)
        assert 0 < len(standing) < len(undisturbed)
        assert standing.items() <= undisturbed.items()
        assert not list(Path(uri).rglob("*.tmp")), "what did not fit is taken away"
        (disk / "filler").unlink()
        write(StorageConfig(), uri)
        assert contents(Storage(), uri) == undisturbed
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607
