"""A run's shards worked on in this process: in order, without Ray, left to others, ended by a signal."""

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.config import ShardConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.executor import InProcess, Stage, Tasks, Work, Worker
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import Summary, run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage
from tests.stages import labelled, stage_of

FILES = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(5)]
FOOTER = Footer("semantic", make_categories(["sky"]), "digest")


def run(uri: Path, *stages: Stage) -> Summary:
    """Shards of two images."""
    job = Job("label", str(uri), make_plan(FILES, ShardConfig(images=2)), {}, FOOTER, {})
    return run_job(Storage(), job, stages, Progress("label"), executor=InProcess())


def test_every_shard_goes_through_all_stages_before_the_next_one_begins(tmp_path: Path) -> None:
    told: list[str] = []

    def telling(name: str, work: Work) -> Stage:
        def tell(items: pa.Table) -> pa.Table:
            told.append(f"{name} {items['image_id'].to_pylist()}")
            return work(items)

        return stage_of(tell, name)

    summary = run(tmp_path, telling("decoding", lambda items: items), telling("labelling", labelled))
    assert told == [
        "decoding ['00', '01']",
        "labelling ['00', '01']",
        "decoding ['02', '03']",
        "labelling ['02', '03']",
        "decoding ['04']",
        "labelling ['04']",
    ]
    assert (summary.images, summary.ok, summary.stage_seconds["forward"]) == (5, 5, 5 * 0.25)
    assert pq.read_table(tmp_path / "parts")["image_id"].to_pylist() == ["00", "01", "02", "03", "04"]


@pytest.mark.parametrize("step", ["stage", "writer"])
def test_what_a_node_with_a_disk_of_its_own_would_do_is_refused(tmp_path: Path, step: str) -> None:
    """As on a node that joined late, the plan is not there: before a shard is worked on, or before it is published."""

    def work(items: pa.Table) -> pa.Table:
        if step == "writer" or items["shard"][0].as_py() == 0:
            (tmp_path / "plan.parquet").rename(tmp_path / "elsewhere")
        return labelled(items)

    def last(rows: pa.Table) -> pa.Table:
        raise AssertionError(f"a shard of {rows.num_rows} images was worked on")

    stages = [stage_of(work)] if step == "writer" else [stage_of(work), stage_of(last)]
    with pytest.raises(ClusterError, match=r"output.uri: .* is a path of the driver's disk, and node .* does not see"):
        run(tmp_path, *stages)
    assert not (tmp_path / "parts").exists()


def test_a_worker_is_made_once_for_all_shards(tmp_path: Path) -> None:
    made: list[str] = []

    def make(_: object) -> Worker:
        made.append("a model")
        return Worker(labelled, labelled)

    run(tmp_path, Stage("labelling", make, Tasks()))
    assert made == ["a model"]


def test_a_part_that_another_run_published_meanwhile_is_taken(tmp_path: Path) -> None:
    """The first run works on its first shard when a second one publishes the last."""
    one, other = tmp_path / "one", tmp_path / "other"
    run(other, stage_of(labelled))
    worked_on: list[str] = []

    def work(items: pa.Table) -> pa.Table:
        worked_on.append(items["image_id"][0].as_py())
        (one / "parts").mkdir(exist_ok=True)
        (one / "parts" / "part-00002.parquet").write_bytes((other / "parts" / "part-00002.parquet").read_bytes())
        return labelled(items)

    assert run(one, stage_of(work)).ok == 5
    assert worked_on == ["00", "02"]


def test_no_memory_is_told_with_what_to_lower(tmp_path: Path) -> None:
    def hungry(items: pa.Table) -> pa.Table:
        raise MemoryError("Unable to allocate 9 GiB")

    with pytest.raises(
        ClusterError, match=r"^labelling of shard 0: out of memory on its node \(Unable to allocate 9 GiB"
    ):
        run(tmp_path, stage_of(hungry))


def test_a_signal_ends_the_job_behind_the_shard_at_work(default_signals: None, tmp_path: Path) -> None:
    def interrupted(items: pa.Table) -> pa.Table:
        signal.raise_signal(signal.SIGINT)
        return labelled(items)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stage_of(interrupted))
    names = sorted(path.name for path in tmp_path.rglob("*.*"))
    assert names[:2] == ["part-00000.parquet", "plan.parquet"] and [name[:9] for name in names[2:]] == ["receipts-"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(tmp_path, stage_of(labelled)).already_done == 2


def test_no_ray_is_imported_for_it() -> None:
    script = (
        "import sys, segjobs.jobs.engine.run, segjobs.jobs.engine.executor, segjobs.jobs.engine.isolation\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'ray', 'torch'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
