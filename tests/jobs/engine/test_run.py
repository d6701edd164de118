"""The run that every job is, with stages of a few lines, in this process: what is published, continued, refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.config import ShardConfig
from segjobs.errors import ConflictError, ManifestError
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.executor import InProcess, Stage, Work
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import Summary, run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.plan import make_plan, read_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage
from tests.stages import labelled, stage_of

STORAGE = Storage()
FOOTER = Footer("semantic", make_categories(["sky"]), "digest")


def listing(count: int, **changes: Any) -> list[FileInfo]:
    files = {"uri": "/d/{}", "size": 10, "mtime_us": 1_000_000, **changes}
    return [FileInfo(files["uri"].format(n), f"{n:02d}", files["size"], files["mtime_us"], "") for n in range(count)]


def job_of(uri: Path, files: list[FileInfo], *, images: int = 3, **changes: Any) -> Job:
    plan = make_plan(files, ShardConfig(images=images))
    settings = {"verb": "label", "identity": {"model": "toy@1", "decode": {"max_pixels": 5}}, **changes}
    return Job(uri=str(uri), plan=plan, footer=FOOTER, config={"any": 1}, **settings)


def labelling(log: Path, change: Work = lambda rows: rows) -> Stage:
    """Labels, and leaves a file in ``log`` for each shard."""
    log.mkdir(exist_ok=True)

    def work(items: pa.Table) -> pa.Table:
        (log / items["image_id"][0].as_py()).touch()
        return change(labelled(items))

    return stage_of(work)


def run(job: Job, log: Path, change: Work = lambda rows: rows) -> Summary:
    return run_job(STORAGE, job, [labelling(log, change)], Progress(job.verb), executor=InProcess())


def files_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_the_run_key_is_of_the_inputs_only(tmp_path: Path) -> None:
    files = listing(7)
    one = job_of(tmp_path / "a", files)
    assert one.run_id == job_of(tmp_path / "b", files[::-1], images=5).run_id, "neither place, order nor cut"
    others = [
        job_of(tmp_path / "a", listing(8)),
        job_of(tmp_path / "a", listing(7, size=11)),
        job_of(tmp_path / "a", files, verb="prepare"),
        job_of(tmp_path / "a", files, identity={"model": "toy@2"}),
    ]
    assert len({one.run_id, *(other.run_id for other in others)}) == 5


def test_a_run_from_nothing_to_run_json(tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", listing(17))
    summary = run(job, tmp_path / "log")
    assert (summary.images, summary.ok, summary.failed, summary.segments) == (17, 15, 2, 0)
    assert summary.failures == {"TRUNCATED": 2}
    assert summary.examples == {"TRUNCATED": ("05", "05 ends early")}
    assert summary.stage_seconds["read"] == 17 * 1.5
    assert summary.stage_seconds["forward"] == 17 * 0.25
    assert (summary.already_done, summary.complete_before) == (0, False)

    assert sorted(files_below(tmp_path / "out")) == sorted(
        ["plan.parquet", "run.json", *(f"parts/part-0000{n}.parquet" for n in range(6))]
    )
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["timings"] == {
        "seconds": round(summary.seconds, 3),
        "stages": summary.stage_seconds,
        "start": summary.start_seconds,
    }
    assert list(summary.start_seconds) == ["workers"]
    assert info["counts"] == {"images": 17, "ok": 15, "failed": 2, "segments": 0}
    assert [(part["first_id"], part["last_id"], part["rows"]) for part in info["parts"]] == [
        ("00", "02", 3),
        ("03", "05", 3),
        ("06", "08", 3),
        ("09", "11", 3),
        ("12", "14", 3),
        ("15", "16", 2),
    ]
    assert (info["run_id"], info["verb"], info["config"]) == (job.run_id, "label", {"any": 1})
    table = pq.read_table(tmp_path / "out" / "parts")
    assert table["image_id"].to_pylist() == [f"{n:02d}" for n in range(17)], "sorted, whatever order a stage gives"
    assert "read_ms" not in table.column_names


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", listing(5))
    first = run(job, tmp_path / "log")
    before = files_below(tmp_path)
    again = run(job, tmp_path / "log")
    assert files_below(tmp_path) == before
    assert (again.images, again.ok, again.failures, again.examples) == (5, 5, {}, {})
    assert (again.complete_before, again.already_done, again.run_id) == (True, 5, first.run_id)


def test_a_stopped_run_does_the_rest_by_the_standing_cut(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(job_of(whole, listing(17)), tmp_path / "log1")
    (stopped / "parts").mkdir(parents=True)
    kept = ["plan.parquet", "parts/part-00001.parquet", "parts/part-00005.parquet"]
    for name in kept:
        (stopped / name).write_bytes((whole / name).read_bytes())
    (stopped / "parts" / ".part-00000.parquet.1234.tmp").write_bytes(b"half")
    before = files_below(stopped)

    adopted = adopt_run(STORAGE, job_of(stopped, listing(17), images=100))
    assert (adopted.run, set(adopted.done), adopted.job.plan.num_shards, adopted.moved) == (None, {1, 5}, 6, "")
    summary = run(job_of(stopped, listing(17), images=100), tmp_path / "log2")
    assert sorted(path.name for path in (tmp_path / "log2").iterdir()) == ["00", "06", "09", "12"]
    assert (summary.images, summary.failed, summary.already_done) == (17, 2, 5)
    assert summary.stage_seconds["read"] == 12 * 1.5, "of this attempt"
    assert list(summary.start_seconds) == ["verifying", "workers"]
    after = files_below(stopped)
    assert {name: after[name] for name in before} == before, "nothing that stood was touched"
    for number in range(6):
        name = f"parts/part-0000{number}.parquet"
        assert after[name][0] == (whole / name).read_bytes()
    parts = [json.loads((folder / "run.json").read_text())["parts"] for folder in (whole, stopped)]
    assert parts[0] == parts[1]


def test_nothing_to_do_gives_an_empty_manifest(tmp_path: Path) -> None:
    summary = run(job_of(tmp_path / "out", []), tmp_path / "log")
    assert (summary.images, summary.failed) == (0, 0)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["parts"] == []


def test_labels_travel_with_their_items(tmp_path: Path) -> None:
    files = listing(7)
    labels = pa.array([f"label {n}" for n in range(7)], pa.large_string())

    seen = tmp_path / "seen"
    seen.mkdir()

    def work(items: pa.Table) -> pa.Table:
        for image_id, label in zip(items["image_id"].to_pylist(), items["label"].to_pylist(), strict=True):
            (seen / image_id).write_text(label)
        return items

    both = [stage_of(work), labelling(tmp_path / "log")]
    job = job_of(tmp_path / "out", files, labels=labels)
    run_job(STORAGE, job, both, Progress("prepare"), executor=InProcess())
    assert {path.name: path.read_text() for path in seen.iterdir()} == {f"{n:02d}": f"label {n}" for n in range(7)}


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"files": listing(6)}, r"the input differs: 1 image\(s\) added \(such as '05'\)\. Choose"),
    ({"files": listing(4)}, r"the input differs: 1 image\(s\) gone \(such as '04'\)\. Choose"),
    ({"files": listing(5, mtime_us=2)}, r"the input differs: 5 image\(s\) changed \(such as '00'\)\. Choose"),
    ({"files": listing(5, uri="/e/{}")}, r"the input differs: 5 image\(s\) changed \(such as '00'\)\. Choose"),
    ({"identity": {"model": "toy@2", "decode": {"max_pixels": 5}}}, r'model was "toy@1", is "toy@2"\. Choose'),
    (
        {"identity": {"model": "toy@1", "decode": {"max_pixels": 6}, "new": 1}},
        r"decode\.max_pixels was 5, is 6; new was null, is 1\. Choose a new output\.uri to start a new run$",
    ),
    ({"verb": "prepare"}, r"it was made by label, not prepare\. Choose a new output\.uri to start a new run"),
]


def test_another_run_at_the_same_place_says_what_differs(tmp_path: Path) -> None:
    first = job_of(tmp_path / "out", listing(5))
    run(first, tmp_path / "log")
    before = files_below(tmp_path)
    for changes, message in CHANGES:
        with pytest.raises(ConflictError, match=rf"out holds another run \({first.run_id}\); {message}"):
            run(job_of(tmp_path / "out", changes.pop("files", listing(5)), **changes), tmp_path / "log")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("kept", [2, 0])
def test_a_stage_that_loses_rows_never_publishes(tmp_path: Path, kept: int) -> None:
    with pytest.raises((AssertionError, IndexError)):  # a bug, with its traceback
        run(job_of(tmp_path / "out", listing(3)), tmp_path / "log", change=lambda rows: rows.slice(0, kept))
    assert sorted(files_below(tmp_path / "out")) == ["plan.parquet"]


def test_damage_is_told_from_progress(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(job_of(out, listing(5)), tmp_path / "log")
    (out / "run.json").unlink()
    part = out / "parts" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-10])
    with pytest.raises(ManifestError, match=r"part-00000\.parquet is damaged: .*; move it away and run the command"):
        run(job_of(out, listing(5)), tmp_path / "log")
    part.write_bytes((out / "parts" / "part-00001.parquet").read_bytes())
    with pytest.raises(ManifestError, match=r"part-00000\.parquet holds 2 images where the plan has 3"):
        run(job_of(out, listing(5)), tmp_path / "log")
    part.unlink()
    assert run(job_of(out, listing(5)), tmp_path / "log").already_done == 2
    assert part.read_bytes() == whole
    (out / "run.json").unlink()
    (out / "plan.parquet").write_bytes(b"PAR1")
    with pytest.raises(ManifestError, match=r"plan\.parquet is damaged"):
        run(job_of(out, listing(5)), tmp_path / "log")


def test_the_plan_names_the_run(tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", listing(2))
    run(job, tmp_path / "log")
    plan, metadata = read_plan((tmp_path / "out" / "plan.parquet").read_bytes())
    assert plan.items.equals(job.plan.items)
    about = json.loads(metadata[b"segjobs"])
    assert (about["run_id"], about["verb"], about["identity"]) == (job.run_id, "label", job.identity)
