"""Every model of the table labels real photographs: one row per image, all ok, masks of the image's size."""

from pathlib import Path

import pytest

from segjobs.config import LabelConfig, load_config
from segjobs.manifest.parts import read_rows
from segjobs.manifest.rle import decode
from segjobs.models.table import MODELS
from segjobs.storage import Storage
from tests.in_process import label_in_process

COLLECTIONS = ("coco_mini/train2017", "camvid/images/val")
HEAVY = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(MODELS))
def test_real_photographs(name: str, shared_data: Path, tmp_path: Path) -> None:
    photos = [path for one in COLLECTIONS for path in sorted((shared_data / one).iterdir())[:2]]
    (tmp_path / "photos.txt").write_text("\n".join(map(str, photos)))
    overrides = [
        f"input.uri={tmp_path / 'photos.txt'}",
        f"output.uri={tmp_path / 'out'}",
        f"model.name={name}",
        "model.weights=none",
        f"model.resize={'short:96' if name in HEAVY else '64x64'}",
        "shard.images=2",
    ]
    if name in HEAVY:
        overrides.append("model.options.box_detections_per_img=10")
    assert label_in_process(load_config(LabelConfig, None, overrides)).ok == 4
    rows = list(read_rows(Storage(), str(tmp_path / "out")))
    assert len(rows) == 4
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        size_hw = (row["height"], row["width"])
        masks = [decode(segment["segmentation"]["counts"], size_hw) for segment in row["segments"]]
        assert [int(mask.sum()) for mask in masks] == [segment["area"] for segment in row["segments"]]
        if name not in HEAVY:
            assert sum(segment["area"] for segment in row["segments"]) == row["height"] * row["width"]
