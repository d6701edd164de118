"""QuPath's GeoJSON: polygons with holes, several parts, classes and none, to literal pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import Policy
from segjobs.labels.drawn import Drawn, DrawnImage, masks_of
from segjobs.labels.qupath import read_qupath
from segjobs.manifest.schema import Category

SIZE_HW = (6, 7)


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(kind: str, coordinates: Any, classification: Any = None) -> dict[str, Any]:
    properties = {"objectType": "annotation", **({"classification": classification} if classification else {})}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def test_holes_parts_and_classes(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    ring = [square(0, 0, 5), square(1, 1, 3)]
    several = [ring, [square(2, 2, 1)], [[*square(5, 0, 2)[:-1], [5, 0, 9]]]]
    features = [
        feature("Polygon", ring, {"name": "Tumor", "color": [200, 0, 0]}),
        feature("MultiPolygon", several, {"names": ["Tumor", "Positive"]}),
        feature("Polygon", [square(0, 0, 1)]),
        feature("Point", [1, 1]),
    ]
    for name in ("a", "alone", "damaged", "none"):
        Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / f"{name}.png")
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (tmp_path / "alone.geojson").write_text(json.dumps(features[2]))
    (tmp_path / "damaged.geojson").write_text('{"features": [7]}')
    labels, found = read_labels(tmp_path, format="qupath", uri=str(tmp_path))
    assert [category.name for category in labels.categories] == ["Tumor", "Tumor: Positive", "Unclassified"]
    shown = ["".join("#" if pixel else "." for pixel in line) for line in found["a.png"].segments[0].mask()]
    assert shown == ["#####..", "#...#..", "#...#..", "#...#..", "#####..", "......."]
    shown = ["".join("#" if pixel else "." for pixel in line) for line in found["a.png"].segments[1].mask()]
    assert shown == ["#######", "#...###", "#.#.#..", "#...#..", "#####..", "......."], "an island in the hole"
    assert [one.area for one in found["a.png"].segments] == [16, 21, 1]
    assert [(one.check, one.count) for one in found["a.png"].findings] == [("without_mask", 1)]
    assert [one.category for one in found["alone.png"].segments] == ["Unclassified"] and found["none.png"] is None
    assert isinstance(found["damaged.png"], ItemError) and "feature 0" in found["damaged.png"].message

    labels, found = read_labels(tmp_path, format="qupath", uri=str(tmp_path), categories=["cell"], unknown="ignore")
    assert [one.category for one in found["a.png"].segments] == ["cell"], "what has no class is of the only one"
    labels, found = read_labels(tmp_path, format="qupath", uri=str(tmp_path), task="semantic", background="glass")
    assert labels.task == "semantic" and {one.category for one in found["alone.png"].segments} == {
        "glass",
        "Unclassified",
    }


def test_files_without_any_class_are_told(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="no object has a class"):
        read_labels(tmp_path, format="qupath", uri=str(tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 10**5, "the file: nested too deeply"),
        (b"null", "expected QuPath's GeoJSON"),
        (json.dumps(feature("Polygon", [[[0, 0], [1, 1], [0, 0]]])).encode(), "a ring of 2 points"),
        (json.dumps(feature("Polygon", [[[10**400, 0]] * 3])).encode(), "feature 0"),
        (json.dumps(feature("Polygon", [square(0, 0, 1)], {"name": 7})).encode(), "expected texts"),
        (json.dumps(feature("GeometryCollection", [])).encode(), "geometry 'GeometryCollection'"),
    ],
)
def test_flaws_of_a_file_are_named(data: bytes, message: str) -> None:
    with pytest.raises(ItemError, match=message):
        read_qupath(data)


def test_a_hole_leaves_what_does_not_lie_in_it() -> None:
    outer, hole = (0, 0, 2, 0, 2, 2, 0, 2), (1, 0, 4, 0, 4, 1, 1, 1)
    image = DrawnImage((Drawn("cell", "rings", ((outer, hole),)),))
    (segment,) = masks_of(image, (2, 4), (Category(0, "cell", (1, 1, 1)),), Policy()).segments
    assert segment.mask().astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
