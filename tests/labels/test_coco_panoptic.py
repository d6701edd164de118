"""COCO panoptic: segment ids in colours against the JSON, on made images and on COCO's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import Masks, Policy, UnknownId
from segjobs.labels.coco_panoptic import masks_of, read_panoptic
from segjobs.manifest.rle import decode
from segjobs.manifest.schema import Category

CATEGORIES = (Category(1, "person", (220, 20, 60), True), Category(9, "sky", (70, 130, 180), False))


def panoptic(**sections: Any) -> bytes:
    whole = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]},
            {"id": 9, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
        ],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1}]}],
    }
    return json.dumps(whole | sections).encode()


def colors_of(ids: list[list[int]]) -> np.ndarray:
    """Segment ids → panopticapi's colours: r + 256 g + 65536 b."""
    values = np.array(ids)
    return np.stack([values % 256, values // 256 % 256, values // 65536], axis=-1).astype(np.uint8)


def test_ids_are_read_from_all_three_channels() -> None:
    big = 3 + 256 * 2 + 65536
    entries = [
        {"id": big, "category_id": 9, "iscrowd": False},
        {"id": 300, "category_id": 1, "iscrowd": True},
    ]
    masks = masks_of(colors_of([[big, big, 300], [0, big, 300]]), entries, CATEGORIES)
    assert masks.findings == ()
    sky, crowd = masks.segments
    assert (sky.category, sky.area, list(sky.bbox), sky.iscrowd) == ("sky", 3, [0.0, 0.0, 2.0, 2.0], False)
    assert (crowd.category, crowd.area, list(crowd.bbox), crowd.iscrowd) == (
        "person",
        2,
        [2.0, 0.0, 1.0, 2.0],
        True,
    )
    assert decode(sky.counts, (2, 3)).tolist() == [[True, True, False], [False, True, False]]


def test_photographs_of_cityscapes_are_found_by_what_the_names_share(
    tmp_path: Path, read_labels: Callable[..., Any]
) -> None:
    name = "aachen_000000_000019"
    for folder in ("leftImg8bit/aachen", "panoptic"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (2, 1)).save(tmp_path / f"leftImg8bit/aachen/{name}_leftImg8bit.png")
    Image.fromarray(colors_of([[7, 0]])).save(tmp_path / f"panoptic/{name}_gtFine_panoptic.png")
    entry = {"image_id": "5", "file_name": f"{name}_gtFine_panoptic.png"}
    data = panoptic(
        images=[{"id": 5, "file_name": f"{name}_gtFine_leftImg8bit.png"}],
        annotations=[{**entry, "segments_info": [{"id": 7, "category_id": 1, "iscrowd": 1}]}],
    )
    (tmp_path / "panoptic.json").write_bytes(data)
    _, found = read_labels(tmp_path / "leftImg8bit", format="coco_panoptic", uri=str(tmp_path / "panoptic.json"))
    (masks,) = found.values()
    assert [(one.category, one.area, one.iscrowd) for one in masks.segments] == [("person", 1, True)]


@pytest.mark.parametrize(
    "sections",
    [
        {"categories": [{"id": 1, "name": "a", "isthing": "0"}]},
        {"categories": [{"id": "1", "name": "a"}]},
        {"categories": [{"id": 2**31, "name": "a"}]},
        {"categories": [{"id": 1, "name": "a", "color": [0, 0, 256]}]},
        {"annotations": [{"image_id": 5, "file_name": "a", "segments_info": [{"id": "7", "category_id": 1}]}]},
        {"annotations": [{"image_id": 5, "file_name": "a", "segments_info": [{"id": 7.5, "category_id": 1}]}]},
        {"annotations": [
            {"image_id": 5, "file_name": "a", "segments_info": [{"id": 7, "category_id": 1, "iscrowd": "0"}]}
        ]},
    ],
)  # fmt: skip
def test_texts_are_no_numbers(sections: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match=r"COCO panoptic JSON: .*expected"):
        read_panoptic(panoptic(**sections))


def test_ids_that_the_json_does_not_list() -> None:
    colors, entries = colors_of([[7, 8], [8, 7]]), [{"id": 7, "category_id": 1, "iscrowd": False}]
    with pytest.raises(UnknownId, match=r"segment ids 8 \(2 px\) of the PNG are not in segments_info"):
        masks_of(colors, entries, CATEGORIES)
    masks = masks_of(colors, entries, CATEGORIES, Policy("ignore"))
    assert [row.area for row in masks.segments] == [2]
    assert [(one.check, one.count) for one in masks.findings] == [("unknown_ids", 1)]


def test_segments_without_pixels_and_odd_ids() -> None:
    entries = [{"id": number, "category_id": 1, "iscrowd": False} for number in (7, 9)]
    masks = masks_of(colors_of([[7, 7]]), entries, CATEGORIES)
    assert [(one.check, one.count) for one in masks.findings] == [("empty_masks", 1)]
    for wrong in ([7, 7], [0], [2**24]):
        with pytest.raises(ItemError, match="ids that repeat, are 0 or less"):
            masks_of(colors_of([[7]]), [{"id": n, "category_id": 1, "iscrowd": False} for n in wrong], CATEGORIES)
    with pytest.raises(UnknownId, match=r"category ids 4 \(1 annotations\)"):
        masks_of(colors_of([[7]]), [{"id": 7, "category_id": 4, "iscrowd": False}], CATEGORIES)


def test_random_maps_against_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        count = int(rng.integers(1, 9))
        ids = rng.choice(2**24 - 1, count, replace=False) + 1
        values = rng.choice([0, *ids.tolist()], (int(rng.integers(1, 9)), int(rng.integers(1, 9))))
        entries = [{"id": int(one), "category_id": 1 + 8 * (n % 2), "iscrowd": False} for n, one in enumerate(ids)]
        expected = {int(one): {(y, x) for y, x in np.ndindex(values.shape) if values[y, x] == one} for one in ids}
        rows = masks_of(colors_of(values.tolist()), entries, CATEGORIES).segments
        shown = [int(one) for one in ids if expected[int(one)]]
        assert len(rows) == len(shown)
        for row, one in zip(rows, shown, strict=True):
            mask = decode(row.counts, values.shape)
            assert set(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True)) == expected[one]


def test_the_file_keeps_colours_and_kinds() -> None:
    categories, images = read_panoptic(panoptic())
    assert categories == CATEGORIES
    assert images["a.jpg"].segments == ({"id": 7, "category_id": 1, "iscrowd": False},)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "x.json: .*expected images, categories and annotations"),
        (b"[]", "x.json: .*expected images"),
        (panoptic(annotations=[{"image_id": 5}]), "no key 'file_name'"),
        (panoptic(annotations=[{"image_id": 6, "file_name": "a", "segments_info": []}]), "image_id '6' is not among"),
        (panoptic(annotations=[{"image_id": 5, "file_name": "a", "segments_info": []}] * 2), "image '5' stands"),
        (panoptic(categories=[{"id": 1, "name": "a"}] * 2), "category 1 stands there twice; category 'a' stands"),
        (panoptic(categories=[{"id": 1, "name": "a", "color": [1]}]), "expected three numbers"),
    ],
)  # fmt: skip
def test_flaws_of_the_file_are_named(data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_panoptic(data, name="x.json")


def test_the_pngs_lie_beside_the_json_or_where_the_config_says(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for folder in ("images", "p"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (2, 1)).save(tmp_path / "images/a.jpg")
    Image.new("RGB", (2, 2)).save(tmp_path / "images/b.jpg")
    Image.fromarray(colors_of([[7, 0]])).save(tmp_path / "p/a.png")
    Image.fromarray(colors_of([[7, 0]])).save(tmp_path / "p/b.png")
    raw = json.loads(panoptic())
    raw["images"] += [{"id": 6, "file_name": "b.jpg"}, {"id": 7, "file_name": "gone.jpg"}]
    raw["annotations"] += [{**raw["annotations"][0], "image_id": 6, "file_name": "b.png"}]
    raw["annotations"] += [{**raw["annotations"][0], "image_id": 7, "file_name": "gone.png"}]
    (tmp_path / "p.json").write_text(json.dumps(raw))
    labels, found = read_labels(tmp_path / "images", format="coco_panoptic", uri=str(tmp_path / "p.json"))
    assert labels.task == "panoptic"
    assert [(one.check, one.examples) for one in labels.leftovers] == [("labels_without_image", ("gone.jpg",))]
    assert isinstance(found["a.jpg"], Masks) and found["a.jpg"].segments[0].area == 1
    assert isinstance(found["b.jpg"], ItemError) and found["b.jpg"].code == "LABEL_SHAPE"
    (tmp_path / "p").rename(tmp_path / "q")
    settings = {"format": "coco_panoptic", "uri": str(tmp_path / "p.json"), "masks": str(tmp_path / "q")}
    assert isinstance(read_labels(tmp_path / "images", **settings)[1]["a.jpg"], Masks)
    for name in ("a.png", "b.png"):
        (tmp_path / "q" / name).rename(tmp_path / "q" / f"x_{name}")
    with pytest.raises(ConfigError, match=r"labels\.masks: 2 PNGs that the JSON names are not there, such as 'a\.png'"):
        read_labels(tmp_path / "images", **settings)


def test_coco_sample_has_the_areas_and_boxes_of_its_json(shared_data: Path, read_labels: Callable[..., Any]) -> None:
    folder = shared_data / "panoptic_sample"
    raw = json.loads((folder / "panoptic_examples.json").read_text())
    labels, found = read_labels(
        folder / "input_images", format="coco_panoptic", uri=str(folder / "panoptic_examples.json")
    )
    assert (len(labels.categories), len(found), labels.leftovers) == (133, 2, ())
    assert sum(category.isthing is True for category in labels.categories) == 80
    names = {entry["id"]: entry["file_name"] for entry in raw["images"]}
    for entry in raw["annotations"]:
        masks = found[names[entry["image_id"]]]
        assert isinstance(masks, Masks) and masks.findings == ()
        keys = ("category_id", "area", "bbox", "iscrowd")
        rows = [{key: row.to_row()[key] for key in keys} for row in masks.segments]
        assert rows == [{key: info[key] for key in keys} for info in entry["segments_info"]]
