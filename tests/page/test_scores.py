"""What the page derives from the confusion."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjobs.errors import ManifestError
from segjobs.page.scores import NOT_PREDICTED, OTHERS, Confusion, heat_map, top_confusions


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
        Confusion(truth="road", predicted="sky", pixels=3, share=3 / 4, of_errors=3 / 6),
        Confusion(truth="sky", predicted="road", pixels=2, share=2 / 8, of_errors=2 / 6),
    ]
    assert top_confusions([[5, 0], [0, 0]], ["sky"]) == []


@pytest.mark.parametrize("confusion", [[[1]], [[1, 2, 3]] * 2, [[1, -1], [0, 0]], [["a", 1], [0, 0]], [[1, 2], [1]]])
def test_no_matrix_is_told(confusion: list[list[Any]]) -> None:
    with pytest.raises(ManifestError, match="the report's confusion"):
        heat_map(confusion, ["a"])
