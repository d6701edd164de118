"""Boundary counts by hand, and against the published algorithms, one binary mask at a time."""

import math

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.errors import ManifestError
from segjobs.manifest.rle import VOID, encode_label_map, label_runs
from segjobs.metrics.boundary import BOUNDARY_FIELDS, BOUNDARY_TYPE, boundary_counts, boundary_figures
from segjobs.metrics.confusion import Runs


def runs_of(ids: np.ndarray) -> Runs:
    regions = encode_label_map(ids.astype(np.uint16))
    return label_runs([(region.index, region.counts) for region in regions], ids.shape)


def counts_of(truth: np.ndarray, predicted: np.ndarray, **distances: float) -> dict[int, list[int]]:
    rows = boundary_counts(runs_of(truth), runs_of(predicted), truth.shape, **distances)
    return {row["index"]: [row[name] for name in BOUNDARY_FIELDS] for row in rows}


def test_a_case_by_hand():
    """Two halves of a 4x8 image, the prediction's border one pixel to the right; band and tolerance of one pixel."""
    truth = np.zeros((4, 8), int)
    truth[:, 4:] = 1
    predicted = np.zeros((4, 8), int)
    predicted[:, 5:] = 1
    found = counts_of(truth, predicted, tolerance_px=1)
    # Outlines: the column left of the border, whose right neighbours differ. Bands: 4x4 less its inside of 2x2
    # against 4x5 less 2x3; both: the columns 0 and the rows 0 and 3 of the truth's half, but not its column 3.
    assert found[0] == [4, 4, 4, 4, 12, 14, 4 + 6]
    assert found[1] == [4, 4, 4, 4, 12, 10, 10 - 2]
    assert counts_of(truth, predicted, tolerance_px=0.9)[0][2:4] == [0, 0]


def test_figures_by_hand():
    sums = np.array([[4, 8, 3, 4, 10, 12, 6], [0, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 5, 0, 0], [0, 0, 0, 0, 2, 2, 2]])
    figures = boundary_figures(sums)
    np.testing.assert_allclose(figures["class_boundary_iou"], [6 / 16, np.nan, 0, 1])
    np.testing.assert_allclose(figures["class_boundary_f"], [2 * 0.5 * 0.75 / 1.25, np.nan, 0, np.nan])
    assert figures["boundary_iou"] == pytest.approx((6 / 16 + 0 + 1) / 3)
    assert figures["boundary_f"] == pytest.approx(0.6 / 2)


def test_a_perfect_prediction_scores_one():
    ids = (np.arange(30) % 12).reshape(5, 6).repeat(9, axis=0).repeat(7, axis=1)
    ids[:9] = VOID
    counts = counts_of(ids, np.where(ids == VOID, 3, ids))
    figures = boundary_figures(np.array(list(counts.values())))
    assert set(counts) == set(range(12))
    assert (figures["class_boundary_iou"] == 1).all()
    assert (figures["class_boundary_f"] == 1).all()


def test_unlabelled_pixels_make_no_outline_and_hold_no_prediction():
    truth = np.full((20, 30), 0)
    truth[:, 10:20] = VOID
    truth[:, 20:] = 1
    predicted = np.zeros((20, 30), int)
    predicted[:, 15:] = 1  # the true border is somewhere in the void
    found = counts_of(truth, predicted)
    assert all(row[:4] == [0, 0, 0, 0] for row in found.values())
    # The frame alone: 10x20 pixels at it, three sides of which are the image's.
    assert found[0][4:] == found[1][4:] == [10 + 10 + 18] * 3
    assert 2 not in counts_of(truth, np.where(truth == VOID, 2, predicted))


def test_labelled_pixels_without_a_prediction_end_the_masks():
    truth = np.zeros((9, 9), int)
    predicted = truth.copy()
    predicted[:, 5:] = VOID
    found = counts_of(truth, predicted, tolerance_px=2)
    assert list(found) == [0]
    assert found[0][:4] == [0, 9, 0, 0]
    assert found[0][4:6] == [32, 9 + 9 + 5 + 5 - 4]


def test_empty_images_and_other_sizes():
    empty = label_runs([], (0, 4))
    assert boundary_counts(empty, empty, (0, 4)) == []
    assert counts_of(np.full((3, 4), VOID), np.zeros((3, 4), int)) == {}
    with pytest.raises(ManifestError, match="prediction: 12 pixels, the image has 4x4"):
        boundary_counts(runs_of(np.zeros((4, 4), int)), runs_of(np.zeros((3, 4), int)), (4, 4))


def test_rows_are_values_of_their_type():
    (row,) = boundary_counts(runs_of(np.zeros((3, 3), int)), runs_of(np.zeros((3, 3), int)), (3, 3))
    value = {"category_id": 7, **{name: row[name] for name in BOUNDARY_FIELDS}}
    assert pa.array([value], BOUNDARY_TYPE).to_pylist() == [value]


# --- the published algorithms ------------------------------------------------------------------


def mask_to_boundary(mask: np.ndarray, ratio: float) -> np.ndarray:
    """boundary_iou_api, ``boundary_iou/utils/boundary_utils.py``."""
    height, width = mask.shape
    dilation = max(1, round(ratio * math.sqrt(height**2 + width**2)))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
    return mask & (eroded[1 : height + 1, 1 : width + 1] == 0)


def seg2bmap(mask: np.ndarray) -> np.ndarray:
    """DAVIS, ``davis/measures/f_boundary.py``, at the mask's own size."""
    e, s, se = (np.zeros_like(mask) for _ in range(3))
    e[:, :-1], s[:-1, :], se[:-1, :-1] = mask[:, 1:], mask[1:, :], mask[1:, 1:]
    outline = mask ^ e | mask ^ s | mask ^ se
    outline[-1, :] = mask[-1, :] ^ e[-1, :]
    outline[:, -1] = mask[:, -1] ^ s[:, -1]
    outline[-1, -1] = False
    return outline


def near(outline: np.ndarray, radius: float) -> np.ndarray:
    """Pixels within ``radius`` of an outline: all distances, one by one."""
    points = np.argwhere(outline)
    if not len(points):
        return np.zeros_like(outline)
    grid = np.stack(np.indices(outline.shape), axis=-1)[:, :, None]
    return (((grid - points) ** 2).sum(axis=-1) <= radius**2).any(axis=-1)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 1.5, 3, 4.3]), st.sampled_from([0.02, 0.06, 0.2]))
def test_each_class_is_that_of_its_binary_mask(seed, tolerance, ratio):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 20))  # more than eight take more than one pass
    scale = int(rng.integers(1, 6))
    truth = rng.integers(0, classes, rng.integers(1, 7, 2)).repeat(scale, axis=0).repeat(scale + 1, axis=1)
    predicted = np.roll(truth, rng.integers(-2, 3, 2), axis=(0, 1))
    predicted = np.where(rng.random(truth.shape) < 0.02, rng.integers(0, classes, truth.shape), predicted)
    found = counts_of(truth, predicted, dilation_ratio=ratio, tolerance_px=tolerance)
    for index in range(classes):
        masks = [side == index for side in (truth, predicted)]
        outlines = [seg2bmap(mask) for mask in masks]
        bands = [mask_to_boundary(mask, ratio) for mask in masks]
        hits = [one & near(other, tolerance) for one, other in (outlines, outlines[::-1])]
        expected = [int(image.sum()) for image in (*outlines, *hits, *bands, bands[0] & bands[1])]
        assert found.get(index, [0] * 7) == expected


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_transposing_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = (rng.choice([0, 1, 2, VOID], (9, 5)).repeat(2, axis=1) for _ in range(2))
    assert counts_of(truth, predicted) == counts_of(truth.T, predicted.T)


def test_outlines_that_unlabelled_pixels_surround_have_no_score() -> None:
    """As VOC labels: a line of unlabelled pixels between all classes leaves no outline to find."""
    sums = np.zeros((2, 7), np.int64)
    sums[:, 4:] = (30, 30, 28)  # bands there are
    sums[:, 1] = 5  # and outlines of the prediction, off the unlabelled line
    figures = boundary_figures(sums)
    assert np.isnan(figures["class_boundary_f"]).all() and np.isnan(figures["boundary_f"])
    np.testing.assert_allclose(figures["class_boundary_iou"], 28 / 32)
