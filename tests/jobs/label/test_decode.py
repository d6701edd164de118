"""Decoding by tasks on any CPU: pixels in blocks, and images that kill their tasks."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segjobs.config import InputConfig, ShardConfig
from segjobs.jobs.engine.executor import Stage, Tasks, Worker
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import TIMES_SCHEMA, Job
from segjobs.jobs.label.decode import Decoding, decoding_tasks, unpack
from segjobs.manifest.parts import read_rows
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import Footer, make_categories
from segjobs.sources.images import list_images
from segjobs.storage import Storage
from tests.deadly_storage import DeadlyStorage
from tests.jobs.label.test_job import picture, save


def rows_of_pixels(items: pa.Table) -> pa.Table:
    """Each image's row; the sum of its pixels stands where the hash of its bytes would."""
    rows = []
    for number, item in enumerate(planned_items(items)):
        loaded = unpack(items, number, item)
        if loaded.image is None:
            assert loaded.error is not None
            row = failed_row(item, Author("r"), loaded.error)
        else:
            total, size = str(loaded.image.sum(dtype=np.int64)), loaded.image.shape[:2]
            row = ok_row(item, Author("r"), sha256=total, size_hw=(size[0], size[1]), segments=[])
        rows.append({**row, **dict.fromkeys(TIMES_SCHEMA.names, 0.0)})
    return rows_table(rows, TIMES_SCHEMA, items)


@pytest.mark.slow
def test_an_image_that_kills_its_decoding_tasks_is_a_row_and_the_rest_is_as_ever(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{n}.png": save(tmp_path / f"in/{n}.png", picture(n)) for n in range(3)}
    save(tmp_path / "in/deadly.png", picture(3))
    (tmp_path / "in/broken.png").write_bytes(b"no image")
    files = list(list_images(Storage(), InputConfig(uri=str(tmp_path / "in"))))
    footer = Footer("semantic", make_categories(["sky"]), "digest")
    job = Job("label", str(tmp_path / "out"), make_plan(files, ShardConfig(images=5)), {}, footer, {})

    decoding = Decoding(DeadlyStorage(), 10**6, 2, 60)
    stages = [
        Stage("decoding", partial(decoding_tasks, decoding), Tasks()),
        Stage("labelling", lambda _: Worker(rows_of_pixels, rows_of_pixels), Tasks(cpus=0.5)),
    ]
    summary = run_job(Storage(), job, stages, Progress("label"), executor=RayExecutor())
    assert (summary.images, summary.ok) == (5, 3)
    rows = {row["image_id"]: row for row in read_rows(Storage(), job.uri)}
    assert rows["deadly.png"]["error"] == {
        "code": "CRASHED",
        "message": "its worker died of SIGSEGV, twice while alone in a process",
    }
    assert rows["broken.png"]["error"]["code"] == "UNREADABLE"
    assert {name: rows[name]["source"]["sha256"] for name in images} == {
        name: str(one.sum()) for name, one in images.items()
    }
    assert "decoding of shard 0: 3 workers died on it" in capsys.readouterr().err
