"""report.json of both schemas, and what the page derives from the confusion."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjobs.errors import ManifestError
from segjobs.page.scores import NOT_PREDICTED, OTHERS, categories_of, heat_map, read_report, top_confusions
from tests.page.sample import make_report

FIRST: dict[str, Any] = {
    "convention": "dataset",
    "missing": "worst",
    "truth": {"uri": "t"},
    "predictions": {"uri": "p"},
    "version": "0.1.0",
    "images": {"ok": 2},
    "examples": {},
    "categories": [{"id": 3, "name": "sky", "color": [1, 2, 3]}, {"id": 7, "name": "road", "color": [4, 5, 6]}],
    "scores": {
        "truth_px": [4, 0],
        "predicted_px": [3, 0],
        "correct_px": [3, 0],
        **{name: [0.75, None] for name in ("iou", "dice", "precision", "recall")},
        **dict.fromkeys(("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"), 0.75),
    },
    "confusion": [[3, 0, 1], [0, 0, 0]],
}


def read(raw: object) -> dict[str, Any]:
    return read_report(json.dumps(raw).encode(), where="out/report.json")


def test_the_first_schema_becomes_the_second() -> None:
    report = read(FIRST)
    assert report["semantic"]["headline"]["mean_iou"] == {"value": 0.75, "low": None, "high": None}
    sky, road = report["semantic"]["per_class"]
    assert (sky["category"], sky["iou"]["value"], sky["truth_px"]) == ("sky", 0.75, 4)
    assert road["iou"]["value"] is None
    assert report["semantic"]["confusion"] == [[3, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert (report["task"], report["instance"], report["slices"], report["comparison"]) == ("semantic", None, [], None)
    assert [category.id for category in categories_of(report)] == [3, 7]


def test_what_is_absent_or_null_is_empty() -> None:
    full = make_report(images=20)
    report = read(full)
    assert report["semantic"]["conventions"].keys() >= {"dataset", "per_image"}
    bare = read({"schema": 2, "semantic": {"headline": {}, "confusion": None}, "slices": None, "instance": None})
    assert bare["semantic"] == {
        "headline": {},
        "per_class": [],
        "conventions": {},
        "confusion": None,
        "calibration": None,
        "per_image_histogram": None,
    }
    assert read({"schema": 2, "semantic": None})["semantic"] is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "expected the report of an evaluation, found a list"),
        ({"schema": 3, "version": "9.1"}, "schema is 3, this release reads 1 and 2: draw its page with segjobs 9.1"),
        ({"hello": 1}, "not the report of an evaluation .KeyError: 'scores'"),
        ({"schema": 2, "slices": {}}, "slices is no list"),
        ({"schema": 2, "truth": []}, "truth is no object"),
        ({"schema": 2, "categories": [{"id": 1}]}, "KeyError"),
        ({"schema": 2, "semantic": [1]}, "AttributeError"),
    ],
)
def test_what_is_no_report_is_told(raw: object, message: str) -> None:
    with pytest.raises(ManifestError, match=f"^out/report.json.*{message}"):
        read(raw)


def test_damaged_json_is_told() -> None:
    with pytest.raises(ManifestError, match=r"^x is damaged"):
        read_report(b'{"schema": 2', where="x")


def test_heat_map_by_hand() -> None:
    confusion = [[6, 2, 0, 2], [0, 5, 0, 0], [0, 0, 0, 0], [9, 9, 0, 0]]
    heat = heat_map(confusion, ["sky", "road", "tree"])
    assert heat is not None
    assert (heat.rows, heat.columns) == (("sky", "road"), ("sky", "road", NOT_PREDICTED)), "the tree is nowhere"
    np.testing.assert_array_equal(heat.counts, [[6, 2, 2], [0, 5, 0]])
    np.testing.assert_allclose(heat.shares, [[0.6, 0.2, 0.2], [0, 1, 0]])
    assert heat_map(np.zeros((3, 3), int).tolist(), ["a", "b"]) is None
    predicted_only = heat_map([[3, 1, 0], [0, 0, 0], [0, 0, 0]], ["a", "b"])
    assert predicted_only is not None and np.isnan(predicted_only.shares[1]).all()


def test_many_classes_are_summed_as_others() -> None:
    confusion = [[8, 1, 1, 0], [1, 4, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]
    heat = heat_map(confusion, ["a", "b", "c"], most=1)
    assert heat is not None
    assert (heat.rows, heat.columns, heat.left_out) == (("a", OTHERS), ("a", OTHERS, NOT_PREDICTED), 2)
    np.testing.assert_array_equal(heat.counts, [[8, 2, 0], [2, 6, 1]])


@given(hnp.arrays(np.int64, (5, 5), elements=st.integers(0, 50)), st.integers(1, 5))
def test_heat_maps_lose_no_pixel(matrix: np.ndarray, most: int) -> None:
    heat = heat_map(matrix.tolist(), list("abcd"), most=most)
    assert (0 if heat is None else heat.counts.sum()) == matrix[:-1].sum()
    if heat is not None:
        sums = heat.shares.sum(1)
        np.testing.assert_allclose(sums[~np.isnan(sums)], 1)


def test_top_confusions_by_hand() -> None:
    found = top_confusions([[6, 2, 0], [3, 0, 1], [50, 0, 0]], ["sky", "road"], most=2)
    assert found == [
        {"truth": "road", "predicted": "sky", "pixels": 3, "share": 3 / 4, "of_errors": 3 / 6},
        {"truth": "sky", "predicted": "road", "pixels": 2, "share": 2 / 8, "of_errors": 2 / 6},
    ]
    assert top_confusions([[5, 0], [0, 0]], ["sky"]) == []


@pytest.mark.parametrize("confusion", [[[1]], [[1, 2, 3]] * 2, [[1, -1], [0, 0]], [["a", 1], [0, 0]], [[1, 2], [1]]])
def test_no_matrix_is_told(confusion: list[list[Any]]) -> None:
    with pytest.raises(ManifestError, match="the report's confusion"):
        heat_map(confusion, ["a"])
