"""A manifest as whoever looks at it from Python has it: rows, masks, tables; by hand and against pycocotools."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.manifest import Manifest
from segjobs.manifest.rle import counts_from_runs
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category
from segjobs.page.pictures import draw_row
from segjobs.storage import Storage
from tests.manifests import segment_of, write_manifest

SKY, CAR, TREE = Category(0, "sky", (0, 0, 255)), Category(3, "car", (255, 0, 0)), Category(4, "tree", (0, 128, 0))
LEFT = np.array([[1, 0, 0], [1, 0, 0]], bool)
MIDDLE = np.array([[0, 1, 0], [0, 1, 0]], bool)


@pytest.fixture
def cars(tmp_path: Path) -> Manifest:
    rows = {
        "a.jpg": ((2, 3), [segment_of(LEFT, SKY), segment_of(MIDDLE, CAR)]),
        "b.jpg": ((2, 3), ItemError("TRUNCATED", "ends early")),
        "c.jpg": ((2, 3), []),
    }
    write_manifest(str(tmp_path / "run"), rows, (SKY, CAR, TREE), task="semantic", shard=2)
    return Manifest(Storage(), str(tmp_path / "run"))


def test_rows_and_their_masks(cars: Manifest) -> None:
    assert (len(cars), cars.task, cars.categories) == (3, "semantic", (SKY, CAR, TREE))
    assert cars.counts == {"images": 3, "ok": 2, "failed": 1, "segments": 2}
    first, failed, empty = cars
    assert (first.image_id, first["uri"], first.ok, first.size_hw) == ("a.jpg", "/photos/a.jpg", True, (2, 3))
    assert list(first) == MANIFEST_SCHEMA.names
    assert first.segments == [segment_of(LEFT, SKY), segment_of(MIDDLE, CAR)]
    np.testing.assert_array_equal(first.mask("car"), MIDDLE)
    np.testing.assert_array_equal(first.mask("tree"), np.zeros((2, 3), bool))
    np.testing.assert_array_equal(first.label_map(), np.array([[0, 3, 65535], [0, 3, 65535]], np.uint16))
    assert first.mask("car").dtype == bool and first.label_map().dtype == np.uint16
    with pytest.raises(ManifestError, match=r"'carr' is no class of the manifest; did you mean 'car'\?"):
        first.mask("carr")
    assert (failed.ok, failed["error"]["code"]) == (False, "TRUNCATED")
    for asked in (failed.label_map, lambda: failed.mask("car"), lambda: failed.size_hw, lambda: failed.segments):
        with pytest.raises(ManifestError, match=r"'b\.jpg' has no masks: TRUNCATED: ends early"):
            asked()
    assert (empty.label_map() == 65535).all()
    picture = draw_row(first, cars.categories, image=Image.new("RGB", (3, 2)))
    assert picture.size == (3, 2)


def test_objects_of_a_class_are_one_mask_and_no_label_map(tmp_path: Path) -> None:
    objects = [segment_of(LEFT, CAR), segment_of(LEFT | MIDDLE, CAR), segment_of(MIDDLE, TREE)]
    write_manifest(str(tmp_path / "run"), {"a.jpg": ((2, 3), objects)}, (CAR, TREE))
    (row,) = Manifest(Storage(), str(tmp_path / "run"))
    np.testing.assert_array_equal(row.mask("car"), LEFT | MIDDLE)
    with pytest.raises(ManifestError, match=r"'a\.jpg': instances may overlap, and have no label map; take row\.mask"):
        row.label_map()


def test_an_object_without_a_pixel_is_for_scores_alone(tmp_path: Path) -> None:
    thin = replace(segment_of(LEFT, CAR), area=0, counts=counts_from_runs([6]), stated_bbox=(0.0, 0.0, 0.2, 2.0))
    write_manifest(str(tmp_path / "run"), {"a.jpg": ((2, 3), [segment_of(LEFT, TREE), thin])}, (CAR, TREE))
    (row,) = Manifest(Storage(), str(tmp_path / "run"))
    assert [segment.category for segment in row.segments] == ["tree"]
    assert len(row["segments"]) == 2


def test_the_whole_as_tables(cars: Manifest) -> None:
    table = cars.to_arrow()
    assert table.schema.names == MANIFEST_SCHEMA.names
    assert table["image_id"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg"]
    frame = cars.to_pandas(["image_id", "status"])
    assert frame.to_dict("list") == {"image_id": ["a.jpg", "b.jpg", "c.jpg"], "status": ["ok", "failed", "ok"]}
    with pytest.raises(ManifestError, match=r"'segment' is no column; did you mean 'segments'\?"):
        cars.to_arrow(["segment"])


def test_a_manifest_of_nothing(tmp_path: Path) -> None:
    write_manifest(str(tmp_path / "run"), {}, (CAR,))
    nothing = Manifest(Storage(), str(tmp_path / "run"))
    assert (len(nothing), list(nothing), nothing.to_arrow().num_rows) == (0, [], 0)
    with pytest.raises(ManifestError, match=r"none: no manifest here; expected a folder with run\.json and parts/"):
        Manifest(Storage(), str(tmp_path / "none"))
