"""A job that dies between any two steps of plan, parts and run.json, and the next one: the same manifest.

The jobs run in processes of their own, which work on the shards themselves: no Ray between the test and the storage.
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

import pytest

from segjobs.config import ShardConfig, StorageConfig
from segjobs.errors import StorageError
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage, join
from tests.stages import labelled, stage_of

FILES = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(8)]
SHARDS = 3
POINTS = [
    f"{file}:{side}" for file in ("plan", *(f"part-{n}" for n in range(SHARDS)), "run") for side in ("before", "after")
]

# Forked from a process that has imported all this and runs no threads. PyArrow imports pandas at its first conversion:
# a hundred deaths would cost seconds each.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "pandas", "segjobs.storage.s3"])


class Heard(Progress):
    """Keeps the lines that a person is told."""

    def __init__(self, verb: str) -> None:
        super().__init__(verb)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def write(config: StorageConfig, uri: str) -> bool:
    """Begin or continue the run at ``uri``, to its end; whether this call wrote run.json."""
    plan = make_plan(FILES, ShardConfig(images=3))
    job = Job(
        "label", uri, plan, {"model": "toy@1"}, Footer("semantic", make_categories(["sky"]), "digest"), {"any": 1}
    )
    heard = Heard("label")
    summary = run_job(Storage(config), job, [stage_of(labelled)], heard, executor=InProcess())
    assert (summary.images, summary.ok, summary.failures) == (8, 7, {"TRUNCATED": 1})
    late = f"label: another run of the same job finished {uri} first; its run.json stands"
    return not summary.complete_before and late not in heard.lines


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
        for key in ("finished", "timings", "segjobs_seal"):
            del found["run.json"][key]
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


@pytest.mark.slow  # it mounts a disk
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
