"""Shards from the plan to their parts: labels in the plan's order, keys that name their images, tallies kept."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.config import ShardConfig
from segjobs.jobs.engine.adopt import publish_plan
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.shards import Job, publish, shard_key, shards_of, verify
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage
from tests.stages import labelled, stage_of

FILES = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(7)]


def job_of(uri: Path) -> Job:
    labels = pa.array([f"label {n}" for n in range(7)], pa.large_string())
    footer = Footer("semantic", make_categories(["sky"]), "digest")
    plan = make_plan(FILES, ShardConfig(images=3))
    return Job("label", str(uri), plan, {}, footer, {}, labels, lambda rows: {"rows": rows.num_rows})


def test_labels_go_with_their_items(tmp_path: Path) -> None:
    shards = dict(shards_of(job_of(tmp_path)))
    assert {number: items["label"].to_pylist() for number, items in shards.items()} == {
        0: ["label 0", "label 1", "label 2"],
        1: ["label 3", "label 4", "label 5"],
        2: ["label 6"],
    }


def test_a_key_names_the_images_in_their_order() -> None:
    assert len({shard_key(ids) for ids in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4


def test_what_is_published_is_what_is_verified(tmp_path: Path) -> None:
    job, storage = job_of(tmp_path), Storage()
    shards = list(shards_of(job))
    publish_plan(storage, job)
    attempt = InProcess().attempt(storage, job.uri, Progress("label"))
    published = list(publish(attempt, storage, job, shards[:2], [stage_of(labelled)]))
    assert [(done.number, done.tally, done.ours) for done in published] == [
        (0, {"rows": 3}, True),
        (1, {"rows": 3}, True),
    ]
    assert [(done.spent["read"], done.receipt.failures) for done in published] == [
        (4500.0, {}),
        (4500.0, {"TRUNCATED": 1}),
    ]
    standing = list(verify(InProcess(), storage, job, shards))
    assert [(done.number, done.receipt, done.tally) for done in standing] == [
        (done.number, done.receipt, done.tally) for done in published
    ], "of the third there is no part"
    assert not any(done.ours for done in standing)
    assert pq.read_table(tmp_path / "parts/part-00001.parquet")["image_id"].to_pylist() == ["03", "04", "05"]
