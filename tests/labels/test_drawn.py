"""Documents of many images' shapes: Label Studio, CVAT, VIA, Kaggle; each from its own file to literal pixels."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.exporters.label_studio_rle import encode_mask
from segjobs.labels.base import Masks, Policy
from segjobs.labels.cvat import read_cvat
from segjobs.labels.drawn import Document, Drawn, DrawnImage, ellipse, masks_of, unix_time
from segjobs.labels.kaggle import read_kaggle
from segjobs.labels.label_studio import read_label_studio
from segjobs.labels.label_studio_rle import decode_mask
from segjobs.labels.via import read_via
from segjobs.manifest.schema import Category

CAT, DOG = Category(0, "cat", (1, 1, 1)), Category(1, "dog", (2, 2, 2))
SIZE_HW = (4, 5)
SQUARE = np.array([[0] * 5, [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0] * 5], bool)
OURS = (ItemError, ManifestError, ConfigError)


def masks(image: DrawnImage, **policy: Any) -> Masks:
    return masks_of(image, SIZE_HW, (CAT, DOG), Policy(**policy))


def one(notation: Any, *values: Any) -> list[list[int]]:
    (segment,) = masks(DrawnImage((Drawn("cat", notation, values),))).segments
    return segment.mask().astype(int).tolist()


# --- the notations -----------------------------------------------------------------------------


def test_every_notation_of_one_square() -> None:
    expected = SQUARE.astype(int).tolist()
    assert one("pixels", (1, 1, 3, 1, 3, 3, 1, 3)) == expected
    assert one("percent", (20, 25, 60, 25, 60, 75, 20, 75)) == expected
    assert one("brush", *encode_mask(SQUARE)) == expected
    assert one("window", 0, 4, 1, 1, 2, 2) == expected
    assert one("window", 4, 2, 1, 2, 1, 0, 0, 3, 4)[1] == [0, 1, 1, 0, 0], "what the runs leave over is background"
    assert one("starts", 10, 2, 6, 2) == expected, "column by column, from 1, in any order"


@pytest.mark.parametrize(
    ("notation", "values", "code"),
    [
        ("pixels", ((1, 1, 3, 1),), "LABEL_VALUE"),
        ("pixels", ((1, 1, 3, 1, 99, 99),), "LABEL_VALUE"),
        ("percent", ((float("nan"), 0, 1, 1, 2, 2),), "LABEL_VALUE"),
        ("brush", encode_mask(SQUARE[:2]), "LABEL_SHAPE"),
        ("brush", encode_mask(SQUARE)[:-4], "LABEL_VALUE"),
        ("brush", [256], "LABEL_VALUE"),
        ("window", [0, 5, 1, 1, 2, 2], "LABEL_VALUE"),
        ("window", [-1, 1, 1, 1, 2, 2], "LABEL_VALUE"),
        ("window", [0, 4, 4, 1, 2, 2], "LABEL_VALUE"),
        ("window", [0, 4, 1, 1, 0, 2], "LABEL_VALUE"),
        ("starts", [0, 1], "LABEL_VALUE"),
        ("starts", [20, 2], "LABEL_VALUE"),
        ("starts", [1, 3, 2, 1], "LABEL_VALUE"),
        ("starts", [1], "LABEL_VALUE"),
        ("starts", [10**30, 1], "LABEL_VALUE"),
        ("window", [0, 10**30, 1, 1, 2, 2], "LABEL_VALUE"),
    ],
)
def test_flaws_of_a_shape_fail_its_image(notation: Any, values: Any, code: str) -> None:
    with pytest.raises(ItemError) as caught:
        masks(DrawnImage((Drawn("cat", notation, tuple(values)),)))
    assert caught.value.code == code


@given(mask=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
@settings(max_examples=40, deadline=None)
def test_brush_masks_come_back(mask: np.ndarray) -> None:
    size_hw = (mask.shape[0], mask.shape[1])
    assert np.array_equal(decode_mask(encode_mask(mask), size_hw), mask)


def test_an_ellipse_has_its_area() -> None:
    points = np.array(ellipse((50, 40), (30, 10), np.pi / 2)).reshape(-1, 2)
    assert np.allclose([points.min(axis=0), points.max(axis=0)], [[40, 10], [60, 70]])


def test_what_is_odd_is_found() -> None:
    objects = (
        Drawn("cat", "pixels", ((-3, 1, 3, 1, 3, 3, -3, 3),)),
        Drawn("dog", "starts", ()),
        Drawn("emu", "starts", ()),
    )
    with pytest.raises(ItemError, match="names emu"):
        masks(DrawnImage(objects))
    found = masks(DrawnImage(objects, None, 2), unknown="ignore")
    assert [segment.area for segment in found.segments] == [6]
    assert {(one.check, one.count) for one in found.findings} == {
        ("unknown_ids", 1),
        ("empty_masks", 1),
        ("outside_frame", 1),
        ("without_mask", 2),
    }


# --- the files ---------------------------------------------------------------------------------


def result(kind: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "original_width": 5, "original_height": 4, "value": value}


POINTS = [[20, 25], [60, 25], [60, 75], [20, 75]]
TASKS = [
    {
        "data": {"image": "/data/local-files/?d=photos/a%20b.jpg"},
        "annotations": [
            {"result": []},
            {"result": [
                result("polygonlabels", points=POINTS, polygonlabels=["cat"]),
                result("brushlabels", format="rle", rle=encode_mask(SQUARE), brushlabels=["dog"]),
                result("rectanglelabels", x=1, y=1, width=2, height=2, rectanglelabels=["cat"]),
            ]},
            {"result": [result("polygon", points=POINTS)], "was_cancelled": True},
        ],
    },
    {"data": {"image": "/data/upload/1/0123abcd-c.jpg"}, "annotations": [{"result": []}]},
    {"data": {"image": "s3://bucket/x/d.jpg"}, "annotations": [], "predictions": [{"result": []}]},
    {"data": {"image": "x", "image_id": "e/f.jpg"}, "annotations": [{"result": []}]},
]  # fmt: skip


def test_label_studio_tasks() -> None:
    document = read_label_studio(json.dumps(TASKS).encode())
    assert list(document.images) == ["photos/a b.jpg", "data/upload/1/c.jpg", "e/f.jpg"]
    found = masks(document.images["photos/a b.jpg"])
    assert [(row.category, row.area, row.bbox) for row in found.segments] == [
        ("cat", 4, (1, 1, 2, 2)),
        ("dog", 4, (1, 1, 2, 2)),
    ]
    assert [(one.check, one.count) for one in found.findings] == [("without_mask", 1)]
    assert [(one.check, one.examples) for one in document.leftovers] == [("other_annotations", ("photos/a b.jpg (1)",))]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
<image id="0" name="sub/a.jpg" width="5" height="4">
  <polygon label="cat" points="1.00,1.00;3.00,1.00;3.00,3.00;1.00,3.00"><attribute name="x">1</attribute></polygon>
  <mask label="dog" rle="0, 4" left="1" top="1" width="2" height="2" z_order="0"></mask>
  <box label="cat" xtl="1" ytl="1" xbr="2" ybr="2"></box>
  <tag label="cat"></tag>
</image>
<image id="1" name="b.jpg" width="5" height="4"><ellipse label="cat" cx="2.5" cy="2" rx="2.5" ry="2"/></image>
</annotations>"""


def test_cvat_images() -> None:
    document = read_cvat(CVAT.encode())
    found = masks(document.images["sub/a.jpg"])
    assert [row.category for row in found.segments] == ["cat", "dog"]
    assert all(row.mask().tolist() == SQUARE.tolist() for row in found.segments)
    assert (document.images["sub/a.jpg"].size_hw, document.images["sub/a.jpg"].without_area) == (SIZE_HW, 2)
    assert masks(document.images["b.jpg"]).segments[0].area >= 14


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ({"completed_by": {"id": 7, "email": "ann@x.org", "first_name": "Ann"}}, "ann@x.org"),
        ({"completed_by": {"id": 7, "email": "", "first_name": "Ann", "last_name": "Lee"}}, "Ann Lee"),
        ({"completed_by": {"id": 7}}, "7"),
        ({"completed_by": 7}, "7"),
        ({}, None),
    ],
)
def test_who_completed_a_label_studio_annotation(who: dict[str, Any], expected: str | None) -> None:
    when = {"created_at": "2026-01-02T03:04:05.600000Z", "updated_at": "2026-01-03T03:04:05Z"}
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": [], **when, **who}]}]
    found = masks(read_label_studio(json.dumps(tasks).encode()).images["a.jpg"]).annotation
    assert found == (expected, datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC))


def test_who_a_cvat_task_is_assigned_to() -> None:
    def of(meta: str, task: str = "") -> Any:
        text = CVAT.replace("<task><name>t</name></task>", meta).replace('id="1"', f'id="1" {task}')
        return masks(read_cvat(text.encode()).images["b.jpg"]).annotation

    owner = "<owner><username>ann</username><email/></owner>"
    when = "<updated>2026-01-03 03:04:05.000000+00:00</updated>"
    moment = datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC)
    assert of(f"<task><id>3</id>{owner}<assignee></assignee>{when}</task>") == ("ann", moment)
    assert of(f"<job>{owner}<assignee><username>bob</username></assignee>{when}</job>") == ("bob", moment)
    tasks = f"<task><id>3</id>{owner}</task><task><id>4</id><owner><email>c@x.org</email></owner></task>"
    assert of(f"<project><tasks>{tasks}</tasks></project>", 'task_id="4"') == ("c@x.org", None)
    assert of(f"<project><tasks>{tasks}</tasks></project>") is None, "it does not say of which task"
    assert of("<task><updated>yesterday</updated></task>") is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1.5, 1.5),
        ("1970-01-01T01:00:01+01:00", 1.0),
        ("0001-01-01T00:00:00+05:00", None),
        (float("nan"), None),
        (1e30, None),
        (True, None),
        (None, None),
    ],
)
def test_moments(given: object, expected: float | None) -> None:
    assert unix_time(given) == expected


def region(kind: str, attributes: dict[str, Any], **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": kind, **shape}, "region_attributes": attributes}


REGIONS = [
    region("polygon", {"kind": "cat"}, all_points_x=[1, 3, 3, 1], all_points_y=[1, 1, 3, 3]),
    region("circle", {"kind": "dog"}, cx=2.5, cy=2, r=1.5),
    region("rect", {"kind": "dog"}, x=1, y=1, width=2, height=2),
]


@pytest.mark.parametrize(
    "regions", [REGIONS, {str(number): one for number, one in enumerate(REGIONS)}], ids=["VIA 2", "VIA 1"]
)
@pytest.mark.parametrize("project", [True, False])
def test_via_projects(regions: Any, project: bool) -> None:
    files = {"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": regions}}
    raw = {"_via_settings": {}, "_via_img_metadata": files} if project else files
    document = read_via(json.dumps(raw).encode(), LabelsConfig(format="via", uri="v.json"))
    found = masks(document.images["a.jpg"])
    assert (found.segments[0].category, found.segments[0].area) == ("cat", 4)
    assert (len(found.segments), found.findings[-1].check) == (2, "without_mask")


def test_the_class_of_a_via_region() -> None:
    def read(attributes: dict[str, Any], **settings: Any) -> Document:
        files = {"a": {"filename": "a.jpg", "regions": [{**REGIONS[0], "region_attributes": attributes}]}}
        return read_via(json.dumps(files).encode(), LabelsConfig(format="via", uri="v.json", **settings))

    def names(document: Document) -> list[str]:
        return [one.name for one in document.images["a.jpg"].objects]

    assert names(read({"kind": "cat", "note": "x"}, attribute="kind")) == ["cat"]
    assert names(read({}, categories=["balloon"])) == ["balloon"]
    for attributes, more, message in (
        ({"kind": "cat", "note": "x"}, {}, r"attributes 'kind', 'note'; .*labels\.attribute"),
        ({}, {}, r"a\.jpg: regions have no attribute"),
        ({"kind": {"cat": True}}, {}, "expected the name of one class"),
    ):
        with pytest.raises(ManifestError, match=message):
            read(attributes, **more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ImageId,EncodedPixels\na,"6 2 10 2"\nb,\nb,nan', {"a": [("object", 4)], "b": []}),
        ('Image_Label,EncodedPixels\na.png_cat,"6 2"\na.png_dog,', {"a.png": [("cat", 2)]}),
        ('image_id,label,rle\na,cat,6 2\na,dog,1 1\n', {"a": [("cat", 2), ("dog", 1)]}),
        ("\ufeffImageId,EncodedPixels,ClassId\r\na,6 2,3\r\n", {"a": [("3", 2)]}),
    ],
)  # fmt: skip
def test_kaggle_rows(text: str, expected: dict[str, Any]) -> None:
    document = read_kaggle(text.encode())
    areas = {}
    for key, image in document.images.items():
        areas[key] = [(one.name, sum(one.values[1::2])) for one in image.objects]
    assert areas == expected


FILES = {
    "label_studio": (json.dumps(TASKS).encode(), read_label_studio),
    "cvat": (CVAT.encode(), read_cvat),
    "via": (
        json.dumps({"a": {"filename": "a.jpg", "regions": REGIONS}}).encode(),
        lambda data: read_via(data, LabelsConfig(format="via", uri="v.json")),
    ),
    "kaggle": (b'ImageId,EncodedPixels\na,"6 2 10 2"\n', read_kaggle),
}


@pytest.mark.parametrize("kind", FILES)
@given(cut=st.integers(0, 10**4), flip=st.integers(0, 10**5), data=st.none() | st.binary(max_size=30))
@settings(max_examples=50, deadline=None)
def test_damage_is_one_of_our_errors(kind: str, cut: int, flip: int, data: bytes | None) -> None:
    whole, read = FILES[kind]
    damaged = bytearray(whole if data is None else data or b"0")
    damaged[flip % len(damaged)] ^= 1 << flip % 8
    try:
        for image in read(bytes(damaged[: len(damaged) - cut % len(damaged)])).images.values():
            masks_of(image, SIZE_HW, (CAT, DOG), Policy("ignore"))
    except OURS as error:
        str(error).encode()


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("label_studio", b"{}", "the file: expected a list of tasks"),
        ("label_studio", json.dumps([TASKS[1]] * 2).encode(), r"task 1: 'data/upload/1/c\.jpg' stands there twice"),
        ("label_studio", b"[" * 10**5, "nested too deeply"),
        ("cvat", b"<annotations><track/></annotations>", "a video's tracks are not read"),
        ("cvat", b'<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "a document type or entities"),
        ("cvat", b'<annotations><image name="a" width="x" height="4"/></annotations>', "image 'a': invalid literal"),
        ("cvat", CVAT.replace('label="dog" ', "").encode(), r"image 'sub/a\.jpg': no attribute 'label'"),
        ("cvat", CVAT.replace("utf-8", "etf-8").encode(), "unknown encoding: etf-8"),
        ("via", b"[]", "expected VIA's JSON"),
        ("kaggle", b"a,b\n", "the columns are 'a', 'b'; expected ImageId and EncodedPixels"),
        ("kaggle", b"ImageId,EncodedPixels\na,1 x", "line 2: invalid literal"),
        ("kaggle", b"ImageId,EncodedPixels\na", "line 2: too few columns"),
    ],
)
def test_flaws_of_a_file_are_named(kind: str, data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        FILES[kind][1](data)


@pytest.mark.parametrize("kind", FILES)
def test_files_meet_their_images(kind: str, tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a b.jpg" if kind == "label_studio" else tmp_path / "a.jpg")
    (tmp_path / "labels").write_bytes(FILES[kind][0])
    labels, found = read_labels(tmp_path, format=kind, uri=str(tmp_path / "labels"))
    assert (labels.task, len(labels.texts)) == ("instance", 1)
    (read,) = found.values()
    assert read.segments[0].mask().tolist() == SQUARE.tolist()
    labels, found = read_labels(
        tmp_path, format=kind, uri=str(tmp_path / "labels"), task="semantic", background="ground"
    )
    (read,) = found.values()
    assert (labels.task, sum(segment.area for segment in read.segments)) == ("semantic", 20)
