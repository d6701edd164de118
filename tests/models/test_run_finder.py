"""Runs without a label map: against the label map of the same logits, which is upsampled and encoded."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segjobs.models import run_finder
from segjobs.models.run_finder import find_runs, runs_of
from segjobs.models.upsample import upsample_on_cpu

KINDS = ("noise", "smooth", "ties", "one class", "checkerboard", "columns", "rows", "spots")


def drawn_logits(seed, kind, channels, size_hw):
    """float32 (C, h, w): what makes a mask easy or awkward to encode."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(channels, *size_hw)).astype(np.float32)
    rows, columns = np.indices(size_hw)
    lead = {"checkerboard": (rows + columns) % channels, "columns": columns % channels, "rows": rows % channels}
    if kind == "smooth":
        logits = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in logits]) * 30
    elif kind == "ties":
        logits = np.round(logits)
    elif kind == "one class":
        logits[seed % channels] += 20
    elif kind == "spots":
        logits[0] += 10 * (generator.random(size_hw) < 0.9)
    elif kind in lead:
        np.put_along_axis(logits, lead[kind][None], 8, axis=0)
    return np.ascontiguousarray(logits, np.float32)


def painted(runs):
    height, width = runs.size_hw
    lengths = np.diff(runs.starts, append=height * width)
    assert runs.starts[0] == 0
    assert (lengths > 0).all()
    assert (runs.values[1:] != runs.values[:-1]).all(), "neighbours are two runs"
    return np.repeat(runs.values, lengths).reshape(width, height).T


def of_class(runs, channels):
    return np.bincount(runs.values, weights=runs.sums, minlength=channels)


@settings(max_examples=250, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(1, 25),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.none() | st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_runs_are_those_of_the_label_map(seed, kind, channels, small_hw, size_hw, by_way_of):
    assume(by_way_of is None or size_hw != small_hw)  # there, the label map's confidence is the largest probability
    logits = drawn_logits(seed, kind, channels, small_hw)
    ids, confidence = upsample_on_cpu(logits, size_hw, by_way_of=by_way_of)
    found = find_runs(logits, size_hw, by_way_of=by_way_of)
    other = np.argwhere(painted(found) != ids)
    if kind != "ties":  # there, rounding decides at every crossing
        assert len(other) <= 1 + ids.size // 2000, "but for pixels where two classes are equal up to rounding"
    planes = np.stack([_upsampled(plane, size_hw, by_way_of) for plane in logits])
    for y, x in other:
        best = planes[ids[y, x], y, x]
        assert best - planes[painted(found)[y, x], y, x] <= 1e-5 * np.abs(logits).max()
    expected = np.bincount(ids.ravel(), weights=confidence.ravel(), minlength=channels)
    np.testing.assert_allclose(of_class(found, channels), expected, rtol=1e-4, atol=1e-3 + len(other))


def _upsampled(plane, size_hw, by_way_of):
    for step in (by_way_of, size_hw):
        if step is not None:
            plane = cv2.resize(plane, step[::-1], interpolation=cv2.INTER_LINEAR)
    return plane


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_way_of", [None, (256, 341)])
def test_photographs_of_a_common_size(kind, by_way_of):
    logits = drawn_logits(5, kind, 21, (32, 43))
    ids, confidence = upsample_on_cpu(logits, (480, 640), by_way_of=by_way_of)
    found = find_runs(logits, (480, 640), by_way_of=by_way_of)
    assert (painted(found) != ids).mean() <= (1e-2 if kind == "ties" else 1e-4)
    assert found.sums.sum() / ids.size == pytest.approx(
        confidence.mean(dtype=np.float64), abs=1e-4 if kind == "ties" else 1e-6
    )


def test_noise_goes_by_the_label_map(monkeypatch):
    asked = []

    def pixel_by_pixel(planes, cells, gaps, begin):
        asked.append(len(cells))
        return given(planes, cells, gaps, begin)

    given = run_finder._pixel_by_pixel
    monkeypatch.setattr(run_finder, "_pixel_by_pixel", pixel_by_pixel)
    noise, calm = (drawn_logits(5, kind, 21, (32, 43)) for kind in ("noise", "smooth"))
    found = find_runs(noise, (480, 640))
    assert asked == [], "where a third class leads in most pieces"
    np.testing.assert_array_equal(painted(found), upsample_on_cpu(noise, (480, 640))[0])
    find_runs(calm, (480, 640))
    assert len(asked) == 1, "a third class leads in few pieces"


def test_one_class_alone_has_its_whole_confidence():
    logits = drawn_logits(5, "one class", 21, (32, 43)) + 0
    logits[5] += 100
    found = find_runs(logits, (480, 640))
    assert (found.starts.tolist(), found.values.tolist()) == ([0], [5])
    assert found.sums.tolist() == pytest.approx([480 * 640])


def test_a_class_that_leads_between_two_others_only():
    # At the nodes classes 0 and 1 lead; halfway they give 0, and class 2 has 1 all over.
    logits = np.array([[[4], [-4]], [[-4], [4]], [[1], [1]]], np.float32)
    found = find_runs(logits, (16, 1))
    assert found.starts.tolist() == [0, 7, 9]
    assert found.values.tolist() == [0, 2, 1]


def test_equal_classes_are_the_lowest_and_their_confidence_a_share():
    found = find_runs(np.zeros((5, 2, 2), np.float32), (9, 9))
    assert (found.starts.tolist(), found.values.tolist()) == ([0], [0])
    assert found.sums.tolist() == pytest.approx([81 / 5])


def test_a_run_goes_on_in_the_next_column():
    ids = np.array([[0, 1, 1], [1, 1, 0]], np.uint16)
    found = runs_of(ids, np.array([[0.5, 0.25, 0.75], [1, 0.5, 0.5]], np.float32))
    assert found.starts.tolist() == [0, 1, 5]
    assert found.values.tolist() == [0, 1, 0]
    assert found.sums.tolist() == [0.5, 2.5, 0.5]
