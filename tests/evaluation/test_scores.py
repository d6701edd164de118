"""Counts read back: which images take part, and what they add up to, by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segjobs.evaluation.scores import (
    Scores,
    class_counts,
    column_of,
    confusion_matrix,
    flatten,
    keep,
    take_census,
)
from segjobs.manifest.rle import VOID
from segjobs.storage import Storage
from tests.made import GONE, TRUTH, manifest, scored

PICTURES = {"a": ["ssr"], "b": ["tt."], "c": ["sss"], "d": GONE}
PREDICTED = {"a": ["srr"], "c": GONE, "e": ["s"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    truth = manifest(folder / "truth", PICTURES)
    scored(folder, truth, manifest(folder / "predicted", PREDICTED), bootstrap={"resamples": 0})
    return folder


def opened(folder: Path, *, skip: bool = False, ignored: frozenset[int] = frozenset()) -> Scores:
    scores = Scores(Storage(), str(folder / "scores"), 1, TRUTH, ignored)
    keep([scores], skip=skip)
    return scores


def test_images_that_take_part(folder: Path) -> None:
    assert column_of(opened(folder), ("image_id",))["image_id"].to_pylist() == ["a", "b", "c"]
    assert column_of(opened(folder, skip=True), ("image_id",))["image_id"].to_pylist() == ["a"]


def test_the_confusion_adds_up(folder: Path) -> None:
    assert confusion_matrix(opened(folder)).tolist() == [
        [1, 1, 0, 0, 3],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 2],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert confusion_matrix(opened(folder, skip=True)).sum() == 3


def test_counts_by_image_and_class(folder: Path) -> None:
    (block,) = class_counts(opened(folder), overlapping=False)
    assert block.units == 3
    assert block.total().tolist() == [[1, 5, 1], [1, 1, 2], [0, 2, 0], [0, 0, 0]]
    (block,) = class_counts(opened(folder, ignored=frozenset({0})), overlapping=False)
    assert block.total()[0].tolist() == [0, 0, 0]


def test_the_census_counts_every_image(folder: Path) -> None:
    census = take_census(opened(folder), examples=1)
    assert dict(census.statuses) == {"ok": 1, "missing": 1, "failed": 1, "no_truth": 1, "extra": 1}
    assert census.examples == {"missing": ["b"], "failed": ["c"], "no_truth": ["d"], "extra": ["e"]}
    assert census.images.tolist() == [[2, 1], [1, 1], [1, 0], [0, 0]]


def test_ids_become_class_indices(folder: Path) -> None:
    found = opened(folder, ignored=frozenset({1})).index_of(pa.array([9, 3, None, 7, 11]))
    np.testing.assert_array_equal(found, [2, 0, VOID, VOID, 3])


def test_lists_are_flattened_with_their_rows() -> None:
    column = pa.chunked_array([[[{"n": 1}], None], [[{"n": 2}, {"n": 3}]]])
    rows, entries = flatten(column)
    assert (rows.tolist(), entries.to_pylist()) == ([0, 2, 2], [{"n": 1}, {"n": 2}, {"n": 3}])
