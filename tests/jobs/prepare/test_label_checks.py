"""Tallies of shards: added in any order to the same files, duplicates found by their hashes alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.config import ShardConfig
from segjobs.errors import ItemError
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.prepare.label_checks import (
    CHECKS_FILE,
    STATISTICS_FILE,
    Destination,
    Gathered,
    finding_of,
    publish_splits,
    shard_tally,
)
from segjobs.labels.base import CHECKS, Leftover, UnknownId
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category, Footer
from segjobs.storage import FileInfo, Storage

FOOTER = Footer("semantic", (Category(1, "cat", (255, 0, 0)),), "x")


def job_of(uri: Path, names: list[str]) -> Job:
    plan = make_plan([FileInfo(name, name, 1, 0, "") for name in names], ShardConfig(images=2))
    return Job("prepare", str(uri), plan, {}, FOOTER, {})


def rows_of(names: list[str], contents: dict[str, str], findings: dict[str, Any]) -> pa.Table:
    rows = [
        {
            "image_id": name, "uri": name, "run_id": "r", "status": "failed",
            "findings": json.dumps(findings.get(name, [])),
            "source": {"sha256": hashlib.sha256(contents[name].encode()).hexdigest() if contents[name] else None},
        }
        for name in names
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA.append(pa.field("findings", pa.string())))


def gathered_of(job: Job, contents: dict[str, str], findings: dict[str, Any], order: list[int]) -> Gathered:
    gathered = Gathered(Destination(job, Storage(), 0, 10**6), [Leftover("labels_without_image", 7, ("z.png",))])
    shards = dict(job.plan.shards())
    for number in order:
        tally = shard_tally(rows_of(shards[number]["image_id"].to_pylist(), contents, findings), sheet_images=0)
        gathered.add(number, json.loads(json.dumps(tally)))
    return gathered


def test_any_order_of_shards_gives_the_same_files(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(8)]
    contents = dict(zip(names, ["a", "b", "c", "a", "", "b", "", "a"], strict=True))
    findings = {name: [["empty_masks", 2, f"of {name}"]] for name in names[1:]}
    files = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 1, 0, 2])):
        job = job_of(tmp_path / str(number), names)
        gathered_of(job, contents, findings, order).publish()
        files.append([(tmp_path / str(number) / name).read_bytes() for name in (CHECKS_FILE, STATISTICS_FILE)])
    assert files[0] == files[1]
    checks = json.loads(files[0][0])["checks"]
    assert list(checks) == list(CHECKS)
    assert (checks["empty_masks"]["count"], checks["empty_masks"]["images"]) == (14, 7)
    assert checks["empty_masks"]["examples"] == [[f"{n}.jpg", f"of {n}.jpg"] for n in range(1, 6)]
    assert (checks["labels_without_image"]["count"], checks["labels_without_image"]["examples"]) == (7, [["z.png", ""]])
    assert checks["duplicate_images"]["count"] == 2
    assert [name for name, _ in checks["duplicate_images"]["examples"]] == ["0.jpg = 3.jpg = 7.jpg", "1.jpg = 5.jpg"]
    assert checks["in_two_splits"]["count"] == 0


def test_copies_that_stand_in_two_splits(tmp_path: Path) -> None:
    contents = {"a.jpg": "x", "b.jpg": "y", "c.jpg": "x", "d.jpg": "x", "e.jpg": "z", "f.jpg": "z", "g.jpg": ""}
    jobs = {"train": job_of(tmp_path / "train", ["a.jpg", "b.jpg", "c.jpg"]),
            "val": job_of(tmp_path / "val", ["d.jpg", "e.jpg", "f.jpg", "g.jpg", "b.jpg"])}  # fmt: skip
    gathered = {name: gathered_of(job, contents, {}, list(range(job.plan.num_shards))) for name, job in jobs.items()}
    publish_splits(Storage(), str(tmp_path), gathered, [Leftover("in_no_split", 1, ("h.jpg",))])
    found = json.loads((tmp_path / CHECKS_FILE).read_text())
    assert found["splits"] == {"train": 3, "val": 5}
    assert found["checks"]["in_two_splits"]["count"] == 1, "the list of b.jpg in both is counted where lists are read"
    assert found["checks"]["in_two_splits"]["examples"] == [["train: a.jpg = train: c.jpg = val: d.jpg", ""]]
    assert found["checks"]["in_no_split"]["examples"] == [["h.jpg", ""]]


def test_many_hashes_against_a_dictionary(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    names = [f"{number:03d}" for number in range(300)]
    contents = {name: str(rng.integers(0, 200)) for name in names}
    job = job_of(tmp_path, names)
    gathered_of(job, contents, {}, list(rng.permutation(job.plan.num_shards).tolist())).publish()
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(contents[name], []).append(name)
    expected = [group for group in groups.values() if len(group) > 1]
    found = json.loads((tmp_path / CHECKS_FILE).read_text())["checks"]["duplicate_images"]
    assert found["count"] == len(expected)
    assert found["examples"][0][0] == " = ".join(min(expected)[:5])


def test_what_a_failed_row_counts_as() -> None:
    cases = [
        (ItemError("NOT_FOUND", "x"), False, "images_without_label"),
        (ItemError("NOT_FOUND", "x"), True, "unreadable"),
        (ItemError("TRUNCATED", "x"), False, "unreadable"),
        (ItemError("LABEL_SHAPE", "x"), True, "size_mismatch"),
        (ItemError("LABEL_VALUE", "x"), True, "malformed"),
        (UnknownId("LABEL_VALUE", "x"), True, "unknown_ids"),
    ]
    assert [finding_of(error, has_label=label).check for error, label, _ in cases] == [check for _, _, check in cases]
