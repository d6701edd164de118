"""Thirty nights, on real photographs; on an S3 server fewer ones; and four of them that are the same each time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import StorageConfig
from tests.torture.nights import Nights, live


@pytest.mark.torture
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_nights_end_as_a_fresh_run(tmp_path: Path, shared_data: Path, seed: int) -> None:
    photographs = sorted([*shared_data.glob("coco_mini/train2017/*.jpg"), *shared_data.glob("camvid/**/*.png")])
    lived = live(Nights(tmp_path, photographs, seed=seed))
    assert lived.wrong == []
    assert lived.killed.total() >= 3 and lived.counts["stale"] and lived.counts["held"] and lived.counts["gone"]


@pytest.mark.torture
@pytest.mark.timeout(3000)
def test_twelve_nights_in_a_bucket_end_as_a_fresh_run(
    tmp_path: Path, shared_data: Path, s3_server: StorageConfig
) -> None:
    photographs = sorted(shared_data.glob("coco_mini/train2017/*.jpg"))
    root = f"s3://segjobs/{tmp_path.name}"
    lived = live(Nights(tmp_path, photographs, seed=3, nights=12, root=root, storage=s3_server))
    assert lived.wrong == []
    assert lived.killed.total() >= 2 and lived.counts["stale"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_nights_that_die_end_as_a_fresh_run(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> None:
    """Of few drawn images; killed while a shard is at work, and with the commit's file written and nothing after it."""
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(noise)
    about: dict[str, Any] = {"nights": 4, "begin_with": 10, "seed": 2, "kills": {1: "part-0:before", 3: "commit:after"}}
    if where == "bucket":
        about |= {"root": f"s3://segjobs/{tmp_path.name}", "storage": request.getfixturevalue("s3_server")}
    lived = live(Nights(tmp_path, [noise], **about))
    assert lived.wrong == []
    assert set(lived.killed) == {"part-0:before", "commit:after"} and lived.counts["stale"]
