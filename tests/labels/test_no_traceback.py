"""Label files of strangers: whatever JSON, text or YAML stands in them, masks come out or one of our errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels import coco, coco_panoptic, drawn, labelme, qupath, sa1b, yolo
from segjobs.labels.base import Policy
from segjobs.labels.class_tables import with_class_names
from segjobs.manifest.schema import Category
from segjobs.storage import Storage

OURS = (ItemError, ManifestError, ConfigError)
SIZE_HW = (4, 5)
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]
few = settings(max_examples=60, deadline=None)
ODD = st.sampled_from(
    ["", "0", "\ud800", None, True, -1, 0, 7, 2**31, 10**400, 1e400, float("nan"), 1.5, [], {}, [[]], [None], {"a": 1}]
)
JSON = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def coco_file() -> dict[str, Any]:
    return {
        "categories": [{"id": 1, "name": "cat"}],
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5, "coco_url": "http://x/a.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 2, 2], "area": 4,
             "segmentation": [SQUARE]},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [4, 5], "counts": [20]}},
            {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 5], "counts": "d0"}},
        ],
    }  # fmt: skip


def panoptic_file() -> dict[str, Any]:
    return {
        "categories": [{"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]}],
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1, "iscrowd": 0}]}
        ],
    }


def labelme_file() -> dict[str, Any]:
    kinds = ("polygon", "rectangle", "circle", "line", "linestrip", "mask")
    shapes = [
        {"label": "cat", "shape_type": kind, "group_id": 1, "points": [[1, 1], [3, 3]], "mask": "AAAA"}
        for kind in kinds
    ]
    return {"shapes": shapes, "imageHeight": 4, "imageWidth": 5}


def read_coco(data: bytes) -> None:
    index = coco.read_coco(data)
    for image in index.images.values():
        coco.masks_of(image, SIZE_HW, index.categories)


def read_panoptic(data: bytes) -> None:
    coco_panoptic.read_panoptic(data)


def read_labelme(data: bytes) -> None:
    rules = labelme.rules_of(LabelsConfig(format="labelme", uri="x", categories=["cat"], line_width_px=3))
    shapes, _ = labelme.shapes_of(data)
    labelme.masks_of(shapes, SIZE_HW, rules)


def sa1b_file() -> dict[str, Any]:
    segmentation = {"size": [4, 5], "counts": "d0"}
    return {"image": {"height": 4, "width": 5}, "annotations": [{"id": 1, "segmentation": segmentation, "area": 4}]}


def read_sa1b(data: bytes) -> None:
    category = Category(0, "object", (1, 1, 1))
    coco.masks_of(sa1b.read_sa1b(data, category), SIZE_HW, (category,))


def qupath_file() -> dict[str, Any]:
    ring = [[1, 1], [3, 1], [3, 3], [1, 1]]
    shapes = [{"type": "Polygon", "coordinates": [ring, ring]}, {"type": "MultiPolygon", "coordinates": [[ring]]}]
    return {"features": [{"geometry": one, "properties": {"classification": {"name": "cat"}}} for one in shapes]}


def read_qupath(data: bytes) -> None:
    image = qupath.read_qupath(data)
    drawn.masks_of(image, SIZE_HW, (Category(0, "cat", (1, 1, 1)),), Policy("ignore"))


READERS = {
    "sa1b": (sa1b_file, read_sa1b),
    "qupath": (qupath_file, read_qupath),
    "coco": (coco_file, read_coco),
    "panoptic": (panoptic_file, read_panoptic),
    "labelme": (labelme_file, read_labelme),
}


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places_of(one, (*path, key)))]


def with_value(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = with_value(value[place[0]], place[1:], new)
    return copied


def read_or_refuse(kind: str, data: bytes) -> None:
    try:
        READERS[kind][1](data)
    except OURS as error:
        str(error).encode()  # as it goes into a row


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@few
def test_one_odd_value_anywhere(kind: str, data: st.DataObject) -> None:
    whole = READERS[kind][0]()
    place = data.draw(st.sampled_from(places_of(whole)))
    read_or_refuse(kind, json.dumps(with_value(whole, place, data.draw(JSON))).encode())


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"[" * 10**5, b"9" * 5000, b'{"a":' * 10**5, b"null", b"NaN"])
def test_what_is_hardly_json(kind: str, data: bytes) -> None:
    with pytest.raises(OURS):
        READERS[kind][1](data)


@pytest.mark.parametrize("kind", READERS)
@given(cut=st.integers(0, 400), flip=st.integers(0, 2000))
@few
def test_cut_and_flipped(kind: str, cut: int, flip: int) -> None:
    data = bytearray(json.dumps(READERS[kind][0]()).encode())
    data[flip % len(data)] ^= 1 << flip % 8
    read_or_refuse(kind, bytes(data[: len(data) - cut % len(data)]))


@given(text=st.text(alphabet="01 .-e\n\x85\u2028xinfa", max_size=60))
@few
def test_any_yolo_text(text: str) -> None:
    try:
        yolo.masks_of(text, SIZE_HW, (Category(0, "cat", (1, 1, 1)),))
    except OURS as error:
        str(error).encode()


@given(text=st.text(alphabet="names:[]{}&*!'\"01,- \nyo~?|>%@`\t#", max_size=40))
@few
def test_any_data_yaml(text: str) -> None:
    class Stored(Storage):
        def read(self, uri: str) -> bytes:
            return f"names{text}".encode()

    try:
        with_class_names(LabelsConfig(format="yolo", uri="x", class_file="data.yaml"), Stored())
    except OURS as error:
        str(error).encode()


def test_a_class_name_with_half_a_character(tmp_path: Path) -> None:
    shapes, _ = labelme.shapes_of(b'{"shapes": [{"label": "a\\ud800", "points": [[0, 0]], "shape_type": "point"}]}')
    assert shapes[0].name.encode().startswith(b"a\xef\xbf\xbd")
