"""Label files of strangers: whatever JSON, text or YAML stands in them, masks come out or one of our errors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.config import LabelsConfig, PredictionsConfig
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.evaluation.foreign import Reference, open_coco_results
from segjobs.exporters.label_studio_rle import encode_mask
from segjobs.labels import coco, coco_panoptic, cvat, kaggle, label_studio, labelme, qupath, sa1b, via, yolo
from segjobs.labels.base import Policy
from segjobs.labels.class_tables import named_categories, with_class_names
from segjobs.labels.drawn import Document
from segjobs.labels.drawn import masks_of as masks_of_drawn
from segjobs.manifest.schema import Category
from segjobs.storage import Storage

OURS = (ItemError, ManifestError, ConfigError)
SIZE_HW = (4, 5)
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]
few = settings(max_examples=30, deadline=None)
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


def label_studio_file() -> list[dict[str, Any]]:
    polygon = {"points": [[20, 25], [60, 25], [60, 75]], "polygonlabels": ["cat"]}
    brush = {"format": "rle", "rle": encode_mask(np.eye(4, 5, dtype=bool)), "brushlabels": ["cat"]}
    results = [{"type": "polygonlabels", "value": polygon}, {"type": "brushlabels", "value": brush}]
    return [{"data": {"image": "/data/a.jpg"}, "annotations": [{"result": results, "was_cancelled": False}]}]


def via_file() -> dict[str, Any]:
    shapes = [
        {"name": "polygon", "all_points_x": [1, 3, 3], "all_points_y": [1, 1, 3]},
        {"name": "ellipse", "cx": 2, "cy": 2, "rx": 1, "ry": 1, "theta": 0.5},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "cat"}} for shape in shapes]
    return {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": regions}}


def results_file() -> list[dict[str, Any]]:
    return [
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 1, 2, 2], "segmentation": [SQUARE]},
        {"image_id": 1, "category_id": 1, "score": 1, "segmentation": {"size": [4, 5], "counts": [20]}},
    ]


def read_drawn(document: Document) -> None:
    for image in document.images.values():
        json.dumps(asdict(image)).encode()  # an image's text in the plan
        masks_of_drawn(image, SIZE_HW, (Category(0, "cat", (1, 1, 1)),), Policy(unknown="ignore"))


def read_results(data: bytes) -> None:
    files = {"/results.json": data, "/images.json": json.dumps(coco_file()).encode()}

    class Stored(Storage):
        def read(self, uri: str) -> bytes:
            return files[uri]

    config = PredictionsConfig(format="coco_results", uri="/results.json", images="/images.json")
    foreign = open_coco_results(config, Stored(), Reference((Category(1, "cat", (1, 1, 1)),), "instance", ["a.jpg"]))
    for text in foreign.texts.values():
        foreign.read(text, SIZE_HW)


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
    masks_of_drawn(image, SIZE_HW, (Category(0, "cat", (1, 1, 1)),), Policy("ignore"))


READERS = {
    "sa1b": (sa1b_file, read_sa1b),
    "qupath": (qupath_file, read_qupath),
    "coco": (coco_file, read_coco),
    "panoptic": (panoptic_file, read_panoptic),
    "labelme": (labelme_file, read_labelme),
    "label_studio": (label_studio_file, lambda data: read_drawn(label_studio.read_label_studio(data))),
    "via": (via_file, lambda data: read_drawn(via.read_via(data, LabelsConfig(format="via", uri="x")))),
    "results": (results_file, read_results),
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


@given(text=st.text(alphabet="01 .-e9,;\n\"'<>/=&#x!", max_size=40), at=st.integers(0, 400))
@few
def test_any_cvat_xml_and_kaggle_csv(text: str, at: int) -> None:
    xml = '<annotations><image name="a" width="5" height="4"><polygon label="cat" points="1,1;3,1;3,3"/>'
    xml += '<mask label="cat" rle="0,4" left="1" top="1" width="2" height="2"/>'
    xml += '<ellipse label="cat" cx="2" cy="2" rx="1" ry="1"/></image>'
    csv = "ImageId,EncodedPixels,ClassId\na,1 3 11 3,cat\nb,-1,cat\n"
    for whole, read in ((xml + "</annotations>", cvat.read_cvat), (csv, kaggle.read_kaggle)):
        place = at % len(whole)
        try:
            read_drawn(read((whole[:place] + text + whole[place + len(text) :]).encode()))
        except OURS as error:
            str(error).encode()


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"<a>" * 10**5, b"\0", b'<annotations><image name="a"/>', b"9" * 5000]
)
def test_what_is_hardly_xml_or_csv(data: bytes) -> None:
    for read in (cvat.read_cvat, kaggle.read_kaggle):
        with pytest.raises(OURS):
            read(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('names: ["\\ud800"]', "expected 'names'"),
        ('names: ["\\U00110000"]', "not readable: chr"),
        ('names: ["\\UFFFFFFFF"]', "not readable: "),
        ("names: {0: a, 0: b}", "a key stands there twice"),
        ("names: {0: a, 00: b}", "expected 'names'"),
        ("names: {-1: a}", "expected 'names'"),
        ("names: {1e400: a}", "expected 'names'"),
        ("names: &a [*a]", "recursive node"),
        ("names: [[a]]", "expected 'names'"),
        ("names: [{a: b}]", "expected 'names'"),
        ('names: [""]', "expected 'names'"),
        ("names: {? [a] : b}", "unhashable key"),
        ("names: " + "[" * 2_000, "nested too deeply"),
        ("names: !!python/object:os.system x", "expected 'names'"),
        ("a: b\n---\nnames: [x]", "expected a single document"),
        ("names:\n\t- a", "cannot start any token"),
        ("- a", "expected 'names'"),
        ("names: [a, a]", "named twice"),
        ("", "expected 'names'"),
    ],
)
def test_class_names_that_are_none(text: str, words: str) -> None:
    class Stored(Storage):
        def read(self, uri: str) -> bytes:
            return text.encode()

    labels = LabelsConfig(format="yolo", uri="x", class_file="data.yaml")
    with pytest.raises(ConfigError, match=words) as caught:
        named_categories(with_class_names(labels, Stored()))
    assert len(str(caught.value)) < 400


def test_a_class_name_with_half_a_character(tmp_path: Path) -> None:
    shapes, _ = labelme.shapes_of(b'{"shapes": [{"label": "a\\ud800", "points": [[0, 0]], "shape_type": "point"}]}')
    assert shapes[0].name.encode().startswith(b"a\xef\xbf\xbd")
