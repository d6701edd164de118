"""Confusion for people: a report's matrix in, what a page shows of it out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segjobs.errors import ManifestError

OTHERS = "all others"
NOT_PREDICTED = "not predicted"
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class HeatMap:
    """Confusion for people. ``counts``: int64 (rows, columns) of pixels; ``shares``: each row divided by
    its sum, float64, NaN in a row without pixels. ``left_out``: classes summed as ``OTHERS``."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray
    shares: np.ndarray
    left_out: int


def heat_map(confusion: Sequence[Sequence[int]], names: Sequence[str], *, most: int = 40) -> HeatMap | None:
    """A full matrix (C+1, C+1; last row: unlabelled truth, last column: not predicted) as rows and columns to show.

    Of more than ``most`` classes those with the most pixels, of truth or prediction, stay in their
    order and the rest are one. Classes in neither are left out, and so are unlabelled truth, which
    no score counts, and "not predicted" where every labelled pixel is predicted. None without a pixel.
    """
    matrix = _checked(confusion, len(names))[:-1]
    classes = len(names)
    weight = matrix.sum(1) + matrix[:, :-1].sum(0)
    present = np.flatnonzero(weight)
    if not present.size:
        return None
    kept = np.sort(present[np.argsort(-weight[present], kind="stable")[:most]])
    groups = [np.array([index]) for index in kept]
    rest = np.setdiff1d(present, kept)
    row_names = [names[int(index)] for index in kept]
    if rest.size:
        groups.append(rest)
        row_names.append(OTHERS)
    column_names, column_groups = [*row_names], [*groups]
    if matrix[:, classes].any():
        column_names.append(NOT_PREDICTED)
        column_groups.append(np.array([classes]))
    counts = np.array([[matrix[np.ix_(rows, columns)].sum() for columns in column_groups] for rows in groups], np.int64)
    sums = counts.sum(1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, sums, out=shares, where=sums > 0)
    return HeatMap(tuple(row_names), tuple(column_names), counts, shares, int(rest.size))


@dataclass(frozen=True)
class Confusion:
    """One cell off the diagonal. ``share``: of the true class's pixels; ``of_errors``: of all wrong pixels."""

    truth: str
    predicted: str
    pixels: int
    share: float
    of_errors: float


def top_confusions(confusion: Sequence[Sequence[int]], names: Sequence[str], *, most: int = 15) -> list[Confusion]:
    """The largest cells off the diagonal of labelled truth, largest first."""
    matrix = _checked(confusion, len(names))[:-1].copy()
    sums = matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    errors = matrix.sum()
    columns = [*names, NOT_PREDICTED]
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    cells = ((*divmod(int(cell), matrix.shape[1]), int(matrix.flat[cell])) for cell in order)
    return [
        Confusion(names[row], columns[column], pixels, pixels / int(sums[row]), pixels / int(errors))
        for row, column, pixels in cells
        if pixels
    ]


def _checked(confusion: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    try:
        matrix = np.array(confusion, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"the report's confusion is no matrix of whole numbers: {error}") from error
    if matrix.shape != (classes + 1, classes + 1) or (matrix < 0).any():
        raise ManifestError(
            f"the report's confusion has the shape {matrix.shape}, expected {(classes + 1, classes + 1)} "
            "of numbers from 0 for its categories"
        )
    return matrix
