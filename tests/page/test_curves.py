"""Training curves: the arithmetic by hand, and that the lines are where their numbers are."""

import math

import numpy as np
import pytest

from segjobs.page.curves import draw_curves, moving_mean, ticks
from segjobs.page.overlay import PALETTE

ORANGE, BLUE = PALETTE[0], PALETTE[1]
STEPS = [{"step": 10 * n, "epoch": n / 2, "loss": 3 - n / 2, "lr": 1e-3, "images_per_s": 9.1} for n in range(1, 5)]
SCORES = [
    {"step": 20 * n, "epoch": n, "validation": {"score": 0.5, "mean_iou": n / 4, "iou": {"cat": 0.1}, "seconds": 3.0}}
    for n in (1, 2)
]


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.31, 0.66, False, [0.4, 0.5, 0.6]),
        (0, 20, False, [0, 5, 10, 15, 20]),
        (-3, 8, False, [0, 5]),
        (0.2, 2.6, True, [0.2, 0.5, 1, 2]),
        (0.05, 50, True, [0.1, 0.3, 1, 3, 10, 30]),
        (1e-6, 1, True, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),
    ],
)
def test_ticks(low, high, logarithmic, expected):
    assert ticks(low, high, logarithmic=logarithmic) == pytest.approx(expected)


def test_ticks_are_few_whatever_the_range():
    for exponent in range(1, 200):
        assert 1 <= len(ticks(1e-100, 10.0 ** (exponent - 100), logarithmic=True)) <= 7


def test_moving_mean():
    points = [(0.5, 4.0), (1.0, 2.0), (1.5, 6.0), (2.0, 1.0)]
    assert moving_mean(points, 2) == [(0.5, 4.0), (1.0, 3.0), (1.5, 4.0), (2.0, 3.5)]
    assert moving_mean(points, 1) == points


def columns_of(picture, color):
    """Mean row of the pixels of (nearly) a colour, by column."""
    pixels = np.asarray(picture).astype(int)[30:]  # without the first title and its legend
    rows, columns = np.nonzero(np.abs(pixels - color).max(axis=2) < 12)
    return {x: rows[columns == x].mean() + 30 for x in np.unique(columns)}


def test_the_lines_are_where_the_numbers_are():
    picture = draw_curves(STEPS)
    assert (picture.mode, picture.width) == ("RGB", 900)
    line = columns_of(picture, BLUE)
    # Epochs 0 to 2 lie at 64 to 876 pixels; the loss falls from 2.5 to 1 evenly.
    left, right = min(line), max(line)
    assert left == pytest.approx(64 + 812 / 4, abs=2)
    assert right == pytest.approx(876, abs=2)
    middle = (left + right) // 2
    assert line[middle] == pytest.approx((line[left + 1] + line[right - 1]) / 2, abs=2)
    assert line[right - 1] - line[left + 1] > 150, "down the panel"
    assert not columns_of(picture, ORANGE)


def test_panels_without_numbers_are_left_out():
    whole = draw_curves([*STEPS, *SCORES])
    rates, scores = draw_curves(STEPS).height, draw_curves(SCORES).height
    assert whole.height > rates > scores
    assert columns_of(draw_curves(SCORES), ORANGE)
    nothing = draw_curves([])
    assert nothing.width == 900
    assert nothing.height < scores
    # What is no number is no point: NaN as JSON's reader gives it, null, and a validation without a score.
    odd = [{"epoch": 1, "loss": math.nan, "lr": None}, {"epoch": 1, "validation": {"mean_iou": None}}]
    assert draw_curves(odd).tobytes() == nothing.tobytes()
    assert draw_curves([*odd, *STEPS]).tobytes() == draw_curves(STEPS).tobytes()


def test_a_single_point_and_a_flat_line_are_seen():
    assert columns_of(draw_curves(STEPS[:1]), BLUE)
    assert len(columns_of(draw_curves([{**line, "loss": 0.0} for line in STEPS]), BLUE)) > 500
