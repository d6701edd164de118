"""labelme: shapes drawn as labelme draws them, groups, names and flaws; and its own example files."""

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import Masks, UnknownId
from segjobs.labels.labelme import Rules, Shape, masks_of, rasterise, rules_of, shapes_of
from segjobs.manifest.rle import decode, paint


def shape(points: list[list[float]], kind: str = "polygon", name: str = "cat", **keys: Any) -> dict[str, Any]:
    return {"label": name, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **keys}


def labelme(*shapes: dict[str, Any], **keys: Any) -> bytes:
    return json.dumps({"version": "5.5.0", "shapes": shapes, "imageHeight": 20, "imageWidth": 30, **keys}).encode()


def rules(**settings: Any) -> Rules:
    return rules_of(
        LabelsConfig.model_validate({"format": "labelme", "uri": "x", "categories": ["cat", "dog"], **settings})
    )


def read(*shapes: dict[str, Any], **settings: Any) -> Masks:
    return masks_of(shapes_of(labelme(*shapes))[0], (20, 30), rules(**settings))


def mask_of(row: dict[str, Any]) -> np.ndarray:
    height, width = row.size_hw
    return decode(row.counts, (height, width))


def box(x0: int, y0: int, x1: int, y1: int) -> list[list[float]]:
    """A polygon round the pixels x0 to x1, y0 to y1, both inclusive (Pillow fills its outline too)."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def as_labelme_draws(entry: Shape, size_hw: tuple[int, int], line_width_px: int) -> np.ndarray:
    """What labelme 7's shape_to_mask does, on the whole image."""
    image = Image.fromarray(np.zeros(size_hw, np.uint8))
    draw = ImageDraw.Draw(image)
    xy = [tuple(point) for point in entry.points.tolist()]
    if entry.kind == "circle":
        (cx, cy), (px, py) = xy
        d = math.sqrt((cx - px) ** 2 + (cy - py) ** 2)
        draw.ellipse([cx - d, cy - d, cx + d, cy + d], outline=1, fill=1)
    elif entry.kind == "rectangle":
        draw.rectangle([*np.min(xy, axis=0), *np.max(xy, axis=0)], outline=1, fill=1)
    elif entry.kind in ("line", "linestrip"):
        draw.line(xy=xy, fill=1, width=line_width_px, joint="curve" if entry.kind == "linestrip" else None)
    else:
        draw.polygon(xy=xy, outline=1, fill=1)
    return np.array(image, bool)


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "line", "linestrip"])
def test_random_shapes_are_drawn_as_labelme_draws_them(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    differing = 0
    for _ in range(60):
        height, width = (int(edge) for edge in rng.integers(5, 70, 2))
        count = {"polygon": int(rng.integers(3, 12)), "linestrip": 5}.get(kind, 2)
        points = rng.uniform(-0.3, 1.3, (count, 2)) * (width, height)
        if kind == "rectangle":
            points = np.trunc(points)
        entry = Shape(0, "cat", None, kind, points)
        window = rasterise(entry, (height, width), line_width_px=5)
        assert window is not None
        (x, y), mask = window
        whole = np.zeros((height, width), bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        differing += not np.array_equal(whole, as_labelme_draws(entry, (height, width), 5))
    assert differing == 0


def test_a_polygon_by_hand() -> None:
    (row,) = read(shape(box(2, 3, 5, 4))).segments
    assert (row.category, row.category_id, row.area, list(row.bbox)) == ("cat", 0, 8, [2.0, 3.0, 4.0, 2.0])
    assert np.argwhere(mask_of(row)).tolist() == [[y, x] for y in (3, 4) for x in (2, 3, 4, 5)]


def test_a_circle_and_a_rectangle_have_their_areas() -> None:
    circle, rectangle = read(
        shape([[15, 10], [15, 16]], "circle"), shape([[9.7, 8.2], [4.3, 5.9]], "rectangle", "dog")
    ).segments
    assert abs(circle.area - math.pi * 6.5**2) < 8, "a disc of radius 6 with its outline"
    assert list(circle.bbox) == [9.0, 4.0, 13.0, 13.0]
    assert (list(rectangle.bbox), rectangle.area) == ([4.0, 5.0, 6.0, 4.0], 24), "corners in any order"
    corners = box(4, 5, 9, 8)
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [0, 2, 1, 3]):
        (four,) = read(shape([corners[place] for place in order], "rectangle", "dog")).segments
        assert four == rectangle, "of four corners, as X-AnyLabeling writes it"
    assert read(shape(corners, "rotation")).segments[0].area == 24


def test_parts_of_a_group_are_one_object() -> None:
    rows = read(
        shape(box(0, 0, 1, 1), group_id=3),
        shape(box(0, 0, 1, 1), name="dog", group_id=3),
        shape(box(10, 10, 12, 11), group_id=3),
        shape(box(11, 11, 12, 12), group_id=3),
        shape(box(20, 0, 20, 1)),
        shape(box(20, 0, 20, 1)),
    ).segments
    assert [(row.category, row.area, list(row.bbox)) for row in rows] == [
        ("cat", 4 + 6 + 2, [0.0, 0.0, 13.0, 13.0]),
        ("dog", 4, [0.0, 0.0, 2.0, 2.0]),
        ("cat", 2, [20.0, 0.0, 1.0, 2.0]),
        ("cat", 2, [20.0, 0.0, 1.0, 2.0]),
    ]


def test_a_bitmap_is_pasted_and_cut_at_the_frame() -> None:
    bitmap = io.BytesIO()
    Image.fromarray(np.array([[255, 0, 255], [0, 255, 0]], np.uint8)).save(bitmap, "PNG")
    text = base64.b64encode(bitmap.getvalue()).decode()
    inside, cut, moved = read(
        shape([[4, 6], [6, 7]], "mask", mask=text),
        shape([[28, 19], [30, 20]], "mask", mask=text),
        shape([[3.5, 5.6], [6, 7]], "mask", mask=text),
    ).segments
    assert np.argwhere(mask_of(inside)).tolist() == [[6, 4], [6, 6], [7, 5]]
    assert np.array_equal(mask_of(moved), mask_of(inside)), "the corner is rounded, half to even"
    assert np.argwhere(mask_of(cut)).tolist() == [[19, 28]]
    with pytest.raises(ItemError, match=r"shapes\[0\]: a mask without a bitmap"):
        read(shape([[4, 6], [6, 7]], "mask", mask="!"))


def test_lines_and_points_have_no_area_unless_a_width_is_given() -> None:
    entries = [shape([[2, 5], [20, 5]], "line"), shape([[1, 1], [9, 1], [9, 9]], "linestrip"), shape([[3, 3]], "point")]
    masks = read(*entries)
    assert masks.segments == []
    assert [(one.check, one.count, one.detail) for one in masks.findings] == [("without_mask", 3, "shapes[0, 1, 2]")]
    masks = read(*entries, line_width_px=3)
    assert masks.segments[0].area == 3 * 19
    assert [(one.check, one.detail) for one in masks.findings] == [("without_mask", "shapes[2]")]


def test_later_shapes_lie_over_earlier_ones_where_classes_are_read() -> None:
    entries = [shape(box(0, 0, 9, 9)), shape(box(5, 0, 14, 9), name="dog"), shape(box(7, 0, 7, 9), name="__ignore__")]
    masks = read(*entries, task="semantic", background=None)
    assert [(row.category, row.area) for row in masks.segments] == [("cat", 50), ("dog", 90)]
    assert [one.check for one in masks.findings] == ["void"]
    masks = read(*entries, task="semantic", categories=["ground", "cat", "dog"], background="ground")
    assert [(row.category, row.area) for row in masks.segments] == [("ground", 450), ("cat", 50), ("dog", 90)]
    assert [(row.category, row.area) for row in read(*entries).segments] == [("cat", 100), ("dog", 100)]


def test_what_leaves_the_frame_is_cut_and_counted() -> None:
    masks = read(shape(box(-5, -5, 3, 3)), shape(box(100, 100, 110, 110)), shape(box(0, 0, 30, 20)))
    assert [row.area for row in masks.segments] == [16, 600]
    assert {(one.check, one.detail) for one in masks.findings} == {
        ("outside_frame", "shapes[0, 1]"),
        ("empty_masks", "shapes[1]"),
    }


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (shape(box(0, 0, 1, 1), name="emu"), UnknownId, r"names emu \(1 annotations\) are not in the class table"),
        (shape([[0, 0], [1, 1]]), ItemError, r"shapes\[0\]: a polygon of 2 points"),
        (shape([[0, 0]], "circle"), ItemError, r"shapes\[0\]: a circle of 1 points"),
        (shape([[0, 0]] * 3, "circle"), ItemError, "a circle of 3 points; expected 2"),
        (shape([[0, 0]] * 3, "line"), ItemError, "a line of 3 points"),
        (shape([[0, 0]] * 5, "oriented_rectangle"), ItemError, "oriented_rectangle of 5 points; expected 4"),
        (shape(box(0, 0, 4, 4)[:3], "rectangle"), ItemError, "a rectangle of 3 points; expected two opposite corners"),
        (shape([[0, 0], [4, 1], [4, 4], [0, 4]], "rectangle"), ItemError, "a rectangle of 4 points"),
        (shape([[1e7, 0]] * 3), ItemError, "not finite, or beyond 1000000 px"),
        (shape([["0", "0"]] * 3), ItemError, "expected pairs of numbers"),
        (shape([[10**400, 0]] * 3), ItemError, "expected pairs of numbers"),
        (shape([[0, 0]], "spline"), ItemError, r"shapes\[0\]: shape_type 'spline'; known: polygon, "),
        (shape([[0, float("inf")]] * 3), ItemError, "not finite"),
        ({"label": "cat"}, ItemError, "not a labelme JSON: no key 'points'"),
        ({"label": "cat", "points": [[1, 2, 3]]}, ItemError, "not a labelme JSON: cannot reshape"),
    ],
)
def test_flaws_of_a_shape(entry: dict[str, Any], kind: type[ItemError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        read(entry)
    assert caught.value.code == "LABEL_VALUE"


def test_unknown_names_may_be_left_out() -> None:
    masks = read(shape(box(0, 0, 1, 1), name="emu"), shape(box(0, 0, 1, 1)), unknown="ignore")
    assert [row.category for row in masks.segments] == ["cat"]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"shapes": 3}', b"[" * 10**5, b"\xff"])
def test_what_is_no_labelme_file(data: bytes) -> None:
    with pytest.raises(ItemError, match="not a labelme JSON"):
        shapes_of(data)


def test_files_sizes_and_collected_names(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for name, size in {"a": (30, 20), "b": (20, 30), "c": (30, 20)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg")
        data = labelme(shape(box(0, 0, 1, 1), name=f"kind {name}"), shape(box(0, 0, 1, 1), name="__ignore__"))
        (tmp_path / f"{name}.json").write_bytes(data if name != "c" else b"{")
    labels, found = read_labels(tmp_path, format="labelme", uri=str(tmp_path))
    assert [category.name for category in labels.categories] == ["kind a", "kind b"]
    assert [row.category for row in found["a.jpg"].segments] == ["kind a"]
    assert (found["b.jpg"].code, found["c.jpg"].code) == ("LABEL_SHAPE", "LABEL_VALUE")
    assert "EXIF" in found["b.jpg"].message
    with pytest.raises(ConfigError, match=r"labels\.background: 'grund' is no class; did you mean 'ground'"):
        rules(categories=["ground", "cat"], background="grund", task="semantic")


def test_random_overlaps_against_painting() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        entries, canvas = [], np.full((20, 30), 255)
        for _ in range(int(rng.integers(1, 6))):
            x0, y0 = int(rng.integers(0, 25)), int(rng.integers(0, 15))
            x1, y1 = int(rng.integers(x0, 30)), int(rng.integers(y0, 20))
            number = int(rng.integers(0, 2))
            entries.append(shape([[x0, y0], [x1, y1]], "rectangle", ("cat", "dog")[number]))
            canvas[y0 : y1 + 1, x0 : x1 + 1] = number
        rows = read(*entries, task="semantic").segments
        pairs = [(row.category_id, row.counts) for row in rows]
        assert np.array_equal(paint(pairs, (20, 30), 255), canvas)
