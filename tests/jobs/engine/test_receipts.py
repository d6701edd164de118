"""Receipts of an attempt that ended early: which parts the next one takes by them, and which it reads.

A ``Reading`` storage counts what is read; parts are touched, replaced and damaged by hand.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest

from segjobs.config import S3Config, StorageConfig
from segjobs.errors import ManifestError, StorageError
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.receipts import FOLDER, Receipts, as_published, recall
from segjobs.jobs.engine.run import Summary, run_job
from segjobs.jobs.engine.shards import Done, Job, shards_of, verify
from segjobs.manifest.parts import list_part_files, open_run, read_part
from segjobs.storage import FileInfo, OnTrouble, Storage, refuse
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.jobs.engine.test_run import STORAGE, job_of, labelling, listing, run

IMAGES, PARTS = 17, 6


class Reading(Storage):
    """Notes which parts are read, and counts how often they are listed."""

    def _start(self) -> None:
        super()._start()
        self.read_parts: list[str] = []
        self.listings = 0

    def read(self, uri: str) -> bytes:
        if "/parts/" in uri:
            self.read_parts.append(uri.removesuffix(".parquet").rpartition("-")[2])
        return super().read(uri)

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        self.listings += root.endswith("/parts")
        return super().walk(root, on_trouble=on_trouble, levels=levels)

    def list_names(self, folder: str) -> set[str]:
        self.listings += folder.endswith("/parts")
        return super().list_names(folder)


def stopped(out: Path, *, after: int = 4, kept: bool = True) -> Path:
    """A run that ended with an error behind ``after`` parts; ``kept``: its receipts are."""
    out.parent.mkdir(exist_ok=True)
    count = iter(range(100))

    def change(rows: pa.Table) -> pa.Table:
        if next(count) == after:
            raise StorageError("the store is gone")
        return rows

    with pytest.raises(StorageError, match="the store is gone"):
        run(job_of(out, listing(IMAGES)), out.parent / "log", change)
    files = list((out / FOLDER).iterdir())
    assert len(files) == 1
    if not kept:
        files[0].unlink()
    return out


def again(out: Path, **changes: Any) -> tuple[Summary, list[str]]:
    """The same command; which parts it read."""
    storage = Reading()
    job = job_of(out, listing(IMAGES), **changes)
    summary = run_job(storage, job, [labelling(out.parent / "log")], Progress("label"), executor=InProcess())
    return summary, sorted(storage.read_parts)


def test_parts_with_receipts_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(job_of(tmp_path / "whole", listing(IMAGES)), tmp_path / "log")
    out = stopped(tmp_path / "out")
    summary, read = again(out)
    assert read == []
    assert "4 by their receipts, 0 read whole" in capsys.readouterr().err
    assert (summary.images, summary.failed, summary.already_done) == (IMAGES, 2, 12)
    whole, continued = (open_run(STORAGE, str(tmp_path / name)) for name in ("whole", "out"))
    assert whole.parts == continued.parts
    assert whole.info.counts == continued.info.counts
    assert (whole.info.failures, whole.info.examples) == (continued.info.failures, continued.info.examples)


def test_parts_are_listed_once_at_the_start_of_a_run_and_once_at_its_end(tmp_path: Path) -> None:
    """A listing of a bucket is a request for a thousand parts."""
    out = stopped(tmp_path / "out")
    for listings in (2, 1):  # gone on with, and finished
        storage = Reading()
        job = job_of(out, listing(IMAGES))
        run_job(storage, job, [labelling(tmp_path / "log")], Progress("label"), executor=InProcess())
        assert storage.listings == listings


def requests(proxy: FaultProxy) -> Counter[str]:
    """How many there were of each kind since the last time, by what lies below ``out``."""
    found: Counter[str] = Counter()
    for method, path, _ in proxy.seen:
        prefix = parse_qs(urlsplit(path).query).get("prefix", [""])[0]
        found[f"{'LIST' if prefix else method} {(prefix or path).partition('/out/')[2].partition('/')[0]}"] += 1
    proxy.seen.clear()
    return found


@pytest.mark.slow
def test_a_resume_on_s3_asks_for_no_part_that_stands(s3_server: StorageConfig, tmp_path: Path) -> None:
    """They are taken by their etags. Whatever the run has, what grows with it are the pages of two listings."""
    with fault_proxy(s3_server.s3.endpoint_url or "") as proxy:
        storage = Storage(StorageConfig(s3=S3Config(endpoint_url=proxy.url)))
        job = replace(job_of(tmp_path, listing(IMAGES)), uri=f"s3://segjobs/{tmp_path.name}/out")
        count = iter(range(100))

        def change(rows: pa.Table) -> pa.Table:
            if next(count) == 4:
                raise StorageError("the store is gone")
            return rows

        stage = labelling(tmp_path / "log", change)
        with pytest.raises(StorageError, match="the store is gone"):
            run_job(storage, job, [stage], Progress("label"), executor=InProcess())
        requests(proxy)
        summary = run_job(storage, job, [stage], Progress("label"), executor=InProcess())
        assert summary.already_done == 12
        assert requests(proxy) == {
            "LIST parts": 2,
            "LIST receipts": 1,
            "GET receipts": 1,
            "GET plan.parquet": 1,
            "GET run.json": 1,
            "PUT parts": 2,  # of the two that are made
            "HEAD parts": 4,  # … before they are made, and behind it
            "PUT run.json": 1,
        }


def test_full_reads_each_part(tmp_path: Path) -> None:
    _, read = again(stopped(tmp_path / "out"), verify="full")
    assert read == ["00000", "00001", "00002", "00003"]


def test_a_part_of_another_time_or_size_or_without_receipt_is_read(tmp_path: Path) -> None:
    out = stopped(tmp_path / "out")
    part = out / "parts" / "part-00002.parquet"
    os.utime(part, ns=(1, 1_000_000_000))
    _, read = again(out)
    assert read == ["00002"]
    bare = stopped(tmp_path / "bare" / "out", kept=False)
    _, read = again(bare)
    assert read == ["00000", "00001", "00002", "00003"]


def test_what_was_read_has_its_receipt_from_then_on(tmp_path: Path) -> None:
    out = stopped(tmp_path / "out", kept=False)
    job = job_of(out, listing(IMAGES))
    receipts = Receipts(STORAGE, job)
    for done in verify(InProcess(), STORAGE, job, shards_of(job)):
        receipts.add(done)
    receipts.save()
    _, read = again(out)
    assert read == []


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_part_is_found_at_once_where_its_listing_tells(tmp_path: Path, damage: str) -> None:
    out = stopped(tmp_path / "out")
    spoil(out / "parts" / "part-00001.parquet", damage)
    with pytest.raises(ManifestError, match=r"part-00001\.parquet is damaged: .*; move it away and run the command"):
        again(out)


def test_bits_that_turn_behind_the_listing_are_found_by_full_and_by_readers(tmp_path: Path) -> None:
    """A disk's own fault: size and time stay."""
    out = stopped(tmp_path / "out")
    part = out / "parts" / "part-00001.parquet"
    times = part.stat()
    spoil(part, "flipped")
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ManifestError, match=r"part-00001\.parquet is damaged"):
        again(out, verify="full")
    again(out)  # takes it, with the sha256 of what was published
    finished = open_run(STORAGE, str(out))
    with pytest.raises(ManifestError, match=r"part-00001\.parquet: its sha256 is not the one in run\.json"):
        read_part(STORAGE, finished, finished.parts[1])
    with pytest.raises(ManifestError, match=r"part-00001\.parquet: its sha256 is not the one in run\.json"):
        again(out, verify="full")
    spoil(part, "flipped")
    summary, read = again(out, verify="full")
    assert (summary.complete_before, len(read)) == (True, PARTS)


def test_a_part_that_is_replaced_while_the_run_is_at_work_closes_no_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    count = iter(range(100))

    def change(rows: pa.Table) -> pa.Table:
        if next(count) == 3:
            spoil(out / "parts" / "part-00001.parquet", "flipped")
        return rows

    with pytest.raises(ManifestError, match=r"part-00001\.parquet is damaged"):
        run(job_of(out, listing(IMAGES)), tmp_path / "log", change)
    assert not (out / "run.json").exists()


def spoil(part: Path, damage: str) -> None:
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data if damage == "flipped" else data[:-1])


def test_receipts_that_do_not_fit_count_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stopped(tmp_path / "out")
    (file,) = (out / FOLDER).iterdir()
    other = stopped(tmp_path / "other" / "out")
    (theirs,) = (other / FOLDER).iterdir()
    foreign = job_of(tmp_path / "foreign", listing(IMAGES), identity={"model": "toy@2"})
    assert recall_by(foreign, out) == {}, "of another run"
    recut = job_of(out, listing(IMAGES), images=4)
    assert recall_of(recut) == {}, "of shards of other images"
    (out / FOLDER / "receipts-0.json").write_bytes(
        theirs.read_bytes()
    )  # of the same run, whose parts are of other times
    assert sorted(recall_by(job_of(out, listing(IMAGES)), out)) == [0, 1, 2, 3]
    file.write_bytes(file.read_bytes().replace(b'"shard": 1', b'"shard": 2'))
    (out / FOLDER / "receipts-0.json").unlink()
    assert recall_by(job_of(out, listing(IMAGES)), out) == {}
    (out / FOLDER / "receipts-1.json").write_text(
        f'{{"run_id": "{job_of(out, listing(IMAGES)).run_id}", "parts": [7]}}'
    )
    assert recall_by(job_of(out, listing(IMAGES)), out) == {}
    err = capsys.readouterr().err
    assert f"{file.name} is damaged: " in err and "receipts-1.json is damaged: no receipts: " in err
    _, read = again(out)
    assert read == ["00000", "00001", "00002", "00003"]


def recall_by(job: Job, out: Path) -> dict[int, Done]:
    job = replace(job, uri=str(out))
    return recall_of(job)


def recall_of(job: Job) -> dict[int, Done]:
    return recall(STORAGE, job, list(shards_of(job)), list_part_files(STORAGE, job.uri), Progress("label"))


def info(size: int, mtime_us: int, etag: str = "") -> FileInfo:
    return FileInfo("part", "part", size, mtime_us, etag)


@pytest.mark.parametrize(
    ("published", "listed", "same"),
    [
        (info(9, 7), info(9, 7), True),
        (info(9, 7), info(9, 8), False),
        (info(9, 7), info(8, 7), False),
        (info(9, 7, "e"), info(9, 8, "e"), True),  # a store's time is when its copy was made
        (info(9, 7, "e"), info(9, 7, "f"), False),
        (info(9, 7, "e"), info(9, 7), False),
        (info(9, 0), info(9, 0), False),  # a store that tells neither proves nothing
        (info(9, 7), None, False),
        (None, info(9, 7), False),
    ],
)
def test_a_listing_proves_a_part_by_etag_or_time(
    tmp_path: Path, published: FileInfo | None, listed: FileInfo | None, same: bool
) -> None:
    (done, *_) = finished(tmp_path)
    assert as_published(replace(done, file=published), listed) is same


def finished(folder: Path) -> Iterator[Done]:
    job = job_of(folder / "out", listing(3))
    run(job, folder / "log")
    return verify(InProcess(), STORAGE, job, shards_of(job))


def test_a_file_of_receipts_is_published_every_so_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segjobs.jobs.engine.receipts._AT_ONCE", 2)
    out = tmp_path / "out"
    run(job_of(out, listing(IMAGES)), tmp_path / "log")
    assert len(list((out / FOLDER).iterdir())) == 3, "six parts"
    (out / "run.json").unlink()
    _, read = again(out)
    assert read == []
