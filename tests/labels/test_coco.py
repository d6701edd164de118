"""COCO instances: every notation against pycocotools' own reading, every flaw named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import Policy
from segjobs.labels.coco import CocoIndex, masks_of, match_images, read_coco
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment

DATA = Path(__file__).parents[3] / "shared" / "data"
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]  # x, y, … of the pixels 1 and 2 in both directions


def coco(**sections: Any) -> bytes:
    whole = {
        "categories": [{"id": 0, "name": "date"}, {"id": 7, "name": "fig"}],
        "images": [{"id": 0, "file_name": "a.jpg", "height": 4, "width": 5}],
        "annotations": [],
    }
    return json.dumps(whole | sections).encode()


def annotation(segmentation: Any, **keys: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 0, "category_id": 7, "iscrowd": 0, "segmentation": segmentation, "area": 99} | keys


def segments(*annotations: dict[str, Any], size_hw: tuple[int, int] = (4, 5)) -> list[Segment]:
    return segments_of(read_coco(coco(annotations=list(annotations))), size_hw)


def segments_of(index: CocoIndex, size_hw: tuple[int, int], name: str = "a.jpg") -> list[Segment]:
    return masks_of(index.images[name], size_hw, index.categories).segments


# Reading -------------------------------------------------------------------------------------------


def test_categories_keep_their_ids_and_get_colours():
    assert read_coco(coco()).categories == (Category(0, "date", (128, 0, 0)), Category(7, "fig", (0, 128, 0)))


def test_images_without_annotations_are_rows_without_segments():
    assert segments() == []


def test_orphans_and_annotations_without_mask_are_listed():
    index = read_coco(
        coco(
            annotations=[
                annotation([SQUARE], id=5, image_id=9),
                annotation([], id=6),
                {"image_id": 0, "category_id": 7},
            ]
        )
    )
    assert (index.orphans, index.without_mask) == ((5,), (6, "annotations[2]"))
    assert segments_of(index, (4, 5)) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "truth.json: not readable as JSON"),
        (b"\xff", "truth.json: not readable as JSON"),
        (b"[]", "truth.json: a list, as COCO results are"),
        (b"3", "no list 'categories'"),
        (coco(images=None), "no list 'images'"),
        (coco(categories=[{"id": 1}]), r"categories\[0\].name: None, expected str"),
        (coco(categories=[{"id": True, "name": "a"}]), r"categories\[0\].id: True, expected int"),
        (coco(categories=[{"id": -1, "name": "a"}]), "category ids -1: expected 0 to 2147483647"),
        (
            coco(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            r"categories\[1\].id: 1 is categories\[0\]'s",
        ),
        (coco(images=[{"id": 1, "file_name": 3}]), r"images\[0\].file_name: 3, expected str"),
        (
            coco(images=[{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]),
            r"images\[1\].id: '1' is images\[0\]'s too",
        ),
        (
            coco(images=[{"id": 1, "file_name": "a", "height": 1, "width": 2}, {"id": 2, "file_name": "a"}]),
            "'a' is listed with two sizes",
        ),
        (
            coco(
                categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}],
                annotations=[{"image_id": 0, "category_id": 1}, {"image_id": 0, "category_id": 2}],
            ),
            r"categories\[1\].name: 'a' is categories\[0\]'s too",
        ),
        (coco(annotations=[{"image_id": 0}]), r"annotations\[0\].category_id: None, expected int"),
        (coco(images=[{"id": 1, "coco_url": 3}]), r"images\[0\].file_name: None, expected str"),
        (
            coco(annotations=[{"image_id": 0, "category_id": 7, "iscrowd": "0", "segmentation": [SQUARE]}]),
            r"truth.json: annotations\[0\].iscrowd: '0', expected 0 or 1",
        ),
        (b"[" * 10**5, "nested too deeply"),
        (coco(annotations=["x"]), r"annotations\[0\].image_id: None, expected int or str"),
        (coco(annotations=[{}] * 4), "and 3 more"),
    ],
)
def test_flaws_of_the_file_are_named(data, message):
    with pytest.raises(ManifestError, match=message):
        read_coco(data, name="truth.json")


def test_ids_of_two_types_are_the_same_ids():
    index = read_coco(coco(annotations=[annotation([SQUARE], image_id="0", iscrowd=None)]))
    assert (len(index.images["a.jpg"].annotations), index.orphans) == (1, ())
    assert not index.images["a.jpg"].annotations[0].iscrowd


def test_an_image_without_name_has_that_of_its_url():
    index = read_coco(coco(images=[{"id": 0, "coco_url": "http://images.cocodataset.org/val2017/7.jpg?x=1"}]))
    assert list(index.images) == ["7.jpg"]


def test_an_image_that_is_listed_twice_has_the_objects_of_both_entries():
    entries = [{"id": number, "file_name": name} for number, name in enumerate(["a.jpg", "b.jpg", "a.jpg"])]
    index = read_coco(coco(images=entries, annotations=[annotation([SQUARE], id=n, image_id=n) for n in range(3)]))
    assert [one.id for one in index.images["a.jpg"].annotations] == [0, 2]
    assert index.listed_twice == ("a.jpg",)


def test_of_two_classes_of_one_name_the_unused_one_is_left_out():
    names = [{"id": number, "name": name} for number, name in enumerate(["fish", "fish", "trap", "trap"])]
    index = read_coco(coco(categories=names, annotations=[annotation([SQUARE], category_id=1)]))
    assert [(one.id, one.name) for one in index.categories] == [(1, "fish"), (3, "trap")]
    assert index.namesakes == ("fish (id 0)", "trap (id 2)")


# Matching ------------------------------------------------------------------------------------------


def index_of(*names: str) -> CocoIndex:
    return read_coco(coco(images=[{"id": number, "file_name": name} for number, name in enumerate(names)]))


def test_whole_paths_decide():
    matches = match_images(index_of("a/1.jpg", "./b/1.jpg", "b\\2.jpg"), ["b/1.jpg", "b/2.jpg", "c.jpg"])
    assert matches.label_of == {"b/1.jpg": "./b/1.jpg", "b/2.jpg": "b\\2.jpg"}
    assert (matches.unlabelled, matches.unused) == (("c.jpg",), ("a/1.jpg",))


@pytest.mark.parametrize(("name", "image_id"), [("1.jpg", "train/1.jpg"), ("images/1.jpg", "1.jpg")])
def test_bare_names_decide_where_no_path_agrees(name, image_id):
    assert match_images(index_of(name), [image_id]).label_of == {image_id: name}


def test_a_name_that_leads_out_of_the_root_is_met_by_its_last_part():
    images = ["1.jpg", "2.jpg", "a/3.jpg", "b/3.jpg"]
    matches = match_images(index_of("1.jpg", "..\\label\\2.jpg", "C:\\x\\3.jpg", "other/2.jpg"), images)
    assert matches.label_of == {"1.jpg": "1.jpg", "2.jpg": "..\\label\\2.jpg"}
    assert matches.unused == ("C:\\x\\3.jpg", "other/2.jpg"), "two images are called 3.jpg"


def test_bare_names_that_are_not_unique_are_named():
    with pytest.raises(ConfigError, match=r"'x/1.jpg' and 'y/1.jpg' matches label '1.jpg'"):
        match_images(index_of("1.jpg"), ["x/1.jpg", "y/1.jpg"])


# Segments ------------------------------------------------------------------------------------------


def test_polygon_becomes_a_row_with_area_and_box_of_its_raster():
    (row,) = segments(annotation([SQUARE]))
    assert row == Segment(7, "fig", 1.0, (1.0, 1.0, 2.0, 2.0), 4, False, (4, 5), row.counts)
    assert (row.stated_bbox, row.stated_area) == (None, 99.0), "what the JSON says of it"
    assert row.mask().astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_parts_are_united_and_degenerate_parts_left_out():
    corner = [3, 2, 5, 2, 5, 4, 3, 4]
    (row,) = segments(annotation([SQUARE, corner, corner, [0, 0, 4, 4], []]))
    assert (row.area, list(row.bbox)) == (8, [1.0, 1.0, 4.0, 3.0])


def test_a_part_inside_another_cuts_no_hole_as_pycocotools_has_it():
    """A polygon cannot say a hole in COCO: annToMask unites the parts; uncompressed RLE can say it."""
    outer, inner = [0, 0, 5, 0, 5, 4, 0, 4], [1, 1, 3, 1, 3, 3, 1, 3]
    (row,) = segments(annotation([outer, inner]))
    assert row.area == 20
    (ring,) = segments(annotation({"size": [4, 5], "counts": [0, 5, 2, 2, 2, 9]}))
    assert ring.mask().astype(int).tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]]


def test_what_is_left_out_or_cut_is_found():
    image = read_coco(
        coco(annotations=[annotation([[-3, 1, 3, 1, 3, 3, -3, 3]], id=4), annotation([[1, 1, 1.2, 1, 1.2, 1.2]])])
    )
    masks = masks_of(image.images["a.jpg"], (4, 5), image.categories)
    assert [(row.area, list(row.bbox)) for row in masks.segments] == [(6, [0.0, 1.0, 3.0, 2.0])]
    assert [(one.check, one.detail) for one in masks.findings] == [
        ("empty_masks", "annotation 1"),
        ("outside_frame", "annotation 4"),
    ]
    odd = read_coco(coco(annotations=[annotation([SQUARE], category_id=3), annotation([SQUARE])]))
    masks = masks_of(odd.images["a.jpg"], (4, 5), odd.categories, Policy("ignore"))
    assert [row.category_id for row in masks.segments] == [7]
    masks = masks_of(odd.images["a.jpg"], (4, 5), odd.categories, Policy("map", odd.categories[0]))
    assert [row.category for row in masks.segments] == ["date", "fig"]


def test_the_three_notations_give_the_same_mask():
    """A column-major 4 x 5 mask of rows 1-2, columns 1-2: five zeros, two ones, two zeros, two ones, nine zeros."""
    counts = [5, 2, 2, 2, 9]
    (polygon,) = segments(annotation([SQUARE]))
    (listed,) = segments(annotation({"size": [4, 5], "counts": counts}, iscrowd=1))
    (packed,) = segments(annotation({"size": [4, 5], "counts": polygon.counts}))
    assert listed.iscrowd is True
    assert polygon.segmentation == listed.segmentation == packed.segmentation


def test_masks_without_pixels_are_no_segments():
    assert segments(annotation([[1, 1, 2, 2]]), annotation({"size": [4, 5], "counts": [20]})) == []


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        (annotation([SQUARE], category_id=3), "LABEL_VALUE", r"category ids 3 \(1 annotations\) are not in"),
        (annotation([[1, 1, 3, 1, 3, 3, 1]]), "LABEL_VALUE", "annotation 1: polygon"),
        (annotation([[1, 1, 3, 1, 3, "x"]]), "LABEL_VALUE", "annotation 1: polygon"),
        (annotation([1, 1, 3, 1, 3, 3]), "LABEL_VALUE", "annotation 1: polygon"),
        (annotation([[1, 1, 3, 1, 3e9, 3]]), "LABEL_VALUE", "annotation 1: polygon"),
        (annotation("abc"), "LABEL_VALUE", "annotation 1: expected a list of polygons"),
        (annotation({"size": [4, 5]}), "LABEL_VALUE", "annotation 1: expected a list of polygons"),
        (annotation({"size": [4, 5], "counts": "\u00ff"}), "LABEL_VALUE", "annotation 1: counts"),
        (annotation({"size": [4, 5], "counts": [20.5]}), "LABEL_VALUE", "annotation 1: counts"),
        (annotation({"size": [5, 4], "counts": [20]}), "LABEL_SHAPE", r"annotation 1: mask of size \[5, 4\]"),
        (annotation({"size": [4, 5], "counts": [19]}), "LABEL_SHAPE", "annotation 1: a mask of 19 pixels"),
    ],
)
def test_flaws_of_an_annotation_fail_its_image(entry, code, message):
    with pytest.raises(ItemError, match=message) as caught:
        segments(entry)
    assert caught.value.code == code


@pytest.mark.parametrize(("size_hw", "hint"), [((4, 6), ""), ((5, 4), "EXIF")])
def test_other_size_than_the_image_names_both(size_hw, hint):
    with pytest.raises(
        ItemError, match=rf"JSON says 5x4, the image has {size_hw[1]}x{size_hw[0]} pixels.*{hint}"
    ) as caught:
        segments(size_hw=size_hw)
    assert caught.value.code == "LABEL_SHAPE"


def test_entry_without_size_takes_the_images():
    index = read_coco(coco(images=[{"id": 0, "file_name": "a.jpg"}], annotations=[annotation([SQUARE])]))
    assert segments_of(index, (9, 9))[0].size_hw == (9, 9)


# Real files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "file", "images", "count"),
    [
        ("coco_mini", "instances_train2017.json", "train2017", 739),
        ("nuts_coco", "trainval.json", "images", 165),
        ("labelme_examples/instance_segmentation/data_dataset_coco", "annotations.json", "JPEGImages", 12),
    ],
)
def test_real_masks_equal_pycocotools(folder, file, images, count, capsys):
    path = DATA / folder / file
    if not path.is_file():
        pytest.skip(f"no real data at {path}")
    index, theirs = read_coco(path.read_bytes(), name=file), COCO(str(path))
    capsys.readouterr()  # pycocotools prints
    files = [found.relative_to(path.parent).as_posix() for found in (path.parent / images).iterdir()]
    matches = match_images(index, files)
    assert (matches.unlabelled, matches.unused) == ((), ())
    ids_of = {entry["file_name"]: entry["id"] for entry in theirs.dataset["images"]}
    compared = 0
    for image_id, file_name in matches.label_of.items():
        with Image.open(path.parent / image_id) as image:
            size_hw = (image.height, image.width)
        rows = segments_of(index, size_hw, file_name)
        expected = theirs.imgToAnns[ids_of[file_name]]
        assert [row.category_id for row in rows] == [entry["category_id"] for entry in expected]
        for row, entry in zip(rows, expected, strict=True):
            mask = theirs.annToMask(entry).astype(bool)
            ys, xs = np.nonzero(mask)
            assert np.array_equal(row.mask(), mask)
            assert row.area == mask.sum()
            assert list(row.bbox) == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert row.iscrowd == bool(entry["iscrowd"])
            compared += 1
    assert compared == count
