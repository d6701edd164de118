"""What stands at a run's output: gone on with though the input moved, refused where it is another run's or damaged."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.errors import ConflictError, ManifestError, StorageError
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import Job, shards_of
from segjobs.manifest.seal import sealed_table
from segjobs.storage import FileInfo, Storage
from tests.jobs.engine.test_run import job_of, listing, run
from tests.stages import labelled, stage_of

STORAGE = Storage()
OTHER = {"identity": {"model": "toy@2", "decode": {"max_pixels": 5}}}


def died(uri: Path, tmp_path: Path, *, kept: int = 1) -> Path:
    """A run of seven images in three parts, of which ``kept`` stand."""
    run(job_of(uri, listing(7)), tmp_path / "log")
    (uri / "run.json").unlink()
    for part in sorted((uri / "parts").iterdir())[kept:]:
        part.unlink()
    return uri


MOVED = {
    "added": ([*listing(7), FileInfo("/d/x", "x", 10, 1_000_000, "")], r"1 image\(s\) added \(such as 'x'\)"),
    "gone": (listing(7)[1:], r"1 image\(s\) gone \(such as '00'\)"),
    "touched": (
        [replace(listing(7)[0], mtime_us=5), *listing(7)[1:]],
        r"1 image\(s\) changed \(such as '00'\)",
    ),
    "in front": ([FileInfo("/d/0", "0", 10, 1_000_000, ""), *listing(7)], r"1 image\(s\) added \(such as '0'\)"),
}


@pytest.mark.parametrize("how", MOVED)
def test_a_run_that_died_is_finished_as_it_was_planned(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files, words = MOVED[how]
    out = died(tmp_path / "out", tmp_path)
    first = (out / "parts" / "part-00000.parquet").read_bytes()
    adopted = adopt_run(STORAGE, job_of(out, files))
    assert (adopted.run, set(adopted.done), adopted.planned) == (None, {0}, True)
    summary = run(job_of(out, files), tmp_path / "log")
    assert (summary.images, summary.already_done, summary.run_id) == (7, 3, job_of(out, listing(7)).run_id)
    rows = pq.read_table(out / "parts")
    assert rows["image_id"].to_pylist() == [f"{n:02d}" for n in range(7)]
    assert set(rows["run_id"].to_pylist()) == {summary.run_id}
    assert (out / "parts" / "part-00000.parquet").read_bytes() == first
    told = " ".join(capsys.readouterr().err.split())
    assert "this run is finished as it was planned" in told
    with pytest.raises(
        ConflictError, match=rf"the input differs: {words}\. Choose a new output\.uri to start a new run$"
    ):
        run(job_of(out, files), tmp_path / "log")


def test_labels_stay_with_their_images_where_the_input_moved(tmp_path: Path) -> None:
    out = died(tmp_path / "out", tmp_path)
    files = [FileInfo("/d/0", "0", 10, 1_000_000, ""), *listing(7)[2:]]
    labels = pa.array([f"label {file.path}" for file in files], pa.large_string())
    job = adopt_run(STORAGE, job_of(out, files, labels=labels)).job
    shown = {i: text for _, items in shards_of(job) for i, text in zip(*map(list, _columns(items)), strict=True)}
    assert shown == {f"{n:02d}": f"label {n:02d}" if n > 1 else None for n in range(7)}


def _columns(items: pa.Table) -> tuple[list[str], list[str | None]]:
    return items["image_id"].to_pylist(), items["label"].to_pylist()


@pytest.mark.parametrize("lost", [("plan.parquet",), ("plan.parquet", "run.json")])
def test_parts_of_another_run_are_no_progress(tmp_path: Path, lost: tuple[str, ...]) -> None:
    """The same images, another model: only the plan told the two runs apart."""
    out = tmp_path / "out"
    first = run(job_of(out, listing(7)), tmp_path / "log")
    for name in lost:
        (out / name).unlink()
    with pytest.raises(ConflictError, match=rf"out holds parts of another run \({first.run_id}\), whose plan"):
        run(job_of(out, listing(7), **OTHER), tmp_path / "log")
    assert not (out / "plan.parquet").exists(), "its own command finds its parts"
    again = run(job_of(out, listing(7)), tmp_path / "log")
    assert (again.images, again.already_done) == (7, 7)


def test_a_part_that_came_from_another_run_is_refused(tmp_path: Path) -> None:
    out = died(tmp_path / "out", tmp_path, kept=2)
    other = run(job_of(tmp_path / "other", listing(7), **OTHER), tmp_path / "log")
    shutil.copy(tmp_path / "other/parts/part-00001.parquet", out / "parts")
    with pytest.raises(
        ManifestError, match=rf"part-00001\.parquet was written by run {other.run_id}, .*; choose a new"
    ):
        run(job_of(out, listing(7)), tmp_path / "log")
    shutil.copy(tmp_path / "other/run.json", out)
    with pytest.raises(ManifestError, match=rf"run\.json is of run {other.run_id} and plan\.parquet of run"):
        run(job_of(out, listing(7)), tmp_path / "log")


def test_a_plan_of_other_images_than_its_run_id_says_is_damaged(tmp_path: Path) -> None:
    """As an earlier release's, which has no seal, may be: the items are still those of the run_id, or refused."""
    out = died(tmp_path / "out", tmp_path)
    table = pq.read_table(out / "plan.parquet")
    about = {b"segjobs": table.schema.metadata[b"segjobs"]}
    plans = {
        "its images are not those": table.set_column(1, "image_id", pa.array([f"{n:02d}" for n in range(1, 8)])),
        "its footer names no run": table,
    }
    for (words, changed), metadata in zip(plans.items(), (about, {b"segjobs": b"[1]"}), strict=True):
        (out / "plan.parquet").write_bytes(sealed_table(changed, metadata=metadata))
        with pytest.raises(ManifestError, match=rf"plan\.parquet is damaged: {words}.*; move it away"):
            adopt_run(STORAGE, job_of(out, listing(7)))


class _Elsewhere(Storage):
    """The driver's: of another disk than the one that workers write to."""

    def list_names(self, folder: str) -> set[str]:
        return super().list_names(folder) - {"part-00001.parquet"}

    def walk(self, root: str, **how: Any) -> Iterator[FileInfo]:
        return (file for file in super().walk(root, **how) if file.path != "part-00001.parquet")


def test_a_part_that_the_driver_does_not_see_closes_no_run(tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", listing(7))
    with pytest.raises(StorageError, match=r"part-00001\.parquet: a worker has published it, .* as 1 of 3 parts"):
        run_job(_Elsewhere(), job, [stage_of(labelled)], Progress("label"), executor=InProcess())
    assert not (tmp_path / "out/run.json").exists()


def test_a_run_of_a_release_without_seals_is_gone_on_with(tmp_path: Path) -> None:
    out = died(tmp_path / "out", tmp_path)
    for path in (out / "plan.parquet", out / "parts" / "part-00000.parquet"):
        table = pq.read_table(path)
        metadata = {key: value for key, value in table.schema.metadata.items() if key != b"segjobs_seal"}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    assert run(job_of(out, listing(7)), tmp_path / "log").already_done == 3


def test_settings_are_compared_as_json_has_them(tmp_path: Path) -> None:
    out = died(tmp_path / "out", tmp_path)
    job: Job = replace(job_of(out, listing(7)), identity={"model": "toy@1", "decode": {"max_pixels": 6, "sizes": (1,)}})
    with pytest.raises(ConflictError) as caught:
        adopt_run(STORAGE, job)
    differs = json.dumps([1])
    assert f"; decode.max_pixels was 5, is 6; decode.sizes was null, is {differs}. Choose" in str(caught.value)
    assert str(caught.value).endswith("or delete its folder: it is not finished")
