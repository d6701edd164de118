"""Images that end their processes are rows; where no image of the run did otherwise, the job stops."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from segjobs.errors import ClusterError, ItemError
from segjobs.jobs.engine.death_blame import check_deaths
from segjobs.jobs.engine.isolation import ALONE
from segjobs.manifest.parts import part_bytes, publish_part
from segjobs.manifest.rows import Author, failed_row, ok_row, rows_table
from segjobs.manifest.schema import Footer, make_categories
from segjobs.storage import FileInfo, Storage

ERRORS: dict[str, ItemError | None] = {
    "dead": ItemError("CRASHED", f"its worker died of SIGKILL{ALONE}"),
    "hung": ItemError("TIMEOUT", f"its worker came to no end{ALONE}"),
    "slow": ItemError("TIMEOUT", "b.png: took longer than storage.deadline_s"),
    "bad": ItemError("TRUNCATED", "ends early"),
    "ok": None,
}


def rows_of(names: Sequence[str]) -> pa.Table:
    rows = []
    for number, name in enumerate(names):
        item, error = FileInfo(f"/d/{number}", f"{number}.png", 1, 0, ""), ERRORS[name]
        author = Author("run")
        done = ok_row(item, author, sha256="00", size_hw=(1, 1), segments=[])
        rows.append(done if error is None else failed_row(item, author, error))
    image_ids = [row["image_id"] for row in rows]
    items = pa.table({"image_id": image_ids, "shard": [0] * len(rows), "shard_key": ["k"] * len(rows)})
    return rows_table(rows, pa.schema([]), items)


def judged(uri: Path, shard: str, *standing: str) -> None:
    footer = Footer("semantic", make_categories(["sky"]), "digest")
    for number, names in enumerate(standing):
        publish_part(Storage(), str(uri), number, part_bytes(rows_of(names.split()), footer))
    check_deaths(rows_of(shard.split()), Storage(), str(uri))


@pytest.mark.parametrize(
    ("shard", "standing"),
    [
        ("dead dead dead", []),  # some odd images
        ("dead", ["dead", "dead"]),
        ("dead dead dead dead ok", []),
        ("dead dead dead dead", ["dead", "bad ok"]),  # an image of whatever part was done
        ("bad bad bad bad slow slow", []),  # failures of the images', and none is asked what stands
        ("bad", ["dead dead dead dead"]),
        ("dead", ["bad bad bad bad slow slow slow"]),
    ],
)
def test_images_may_end_their_processes(tmp_path: Path, shard: str, standing: list[str]) -> None:
    judged(tmp_path, shard, *standing)


@pytest.mark.parametrize(
    ("shard", "standing", "count"),
    [
        ("dead dead dead dead", [], 4),
        ("dead", ["dead", "dead", "dead"], 4),  # shards of one image
        ("dead bad", ["dead hung", "bad dead", "hung dead bad slow"], 6),
        ("bad dead dead slow dead dead", [], 4),
    ],
)
def test_a_process_that_ends_at_every_image_stops_the_job(
    tmp_path: Path, shard: str, standing: list[str], count: int
) -> None:
    with pytest.raises(ClusterError) as caught:
        judged(tmp_path, shard, *standing)
    assert str(caught.value) == (
        f"each of the first {count} images that were worked on ends its process: its worker died of SIGKILL. That is "
        "not the images' fault but the model's, its libraries' or the node's memory; mend that, or raise "
        "compute.batch_deadline_s, and run the command again"
    )
