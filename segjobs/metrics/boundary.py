"""How well outlines agree: two partitions of one image in, integer counts per class that add up, scores out.

    label_runs × 2 → boundary_counts → values of BOUNDARY_TYPE → counts.from_rows → boundary_figures

- **Boundary IoU** (Cheng et al., CVPR 2021; boundary_iou_api's ``mask_to_boundary``): the IoU of the two bands
  of pixels that lie in their class's mask within d of its outline, d being a share of the image's diagonal.
  The image's frame is an outline too, as there.
- **Boundary F** (Csurka et al., BMVC 2013; DAVIS' ``f_measure.py``): precision and recall of outline pixels that
  have an outline pixel of their class on the other side within a distance. The frame is no outline, as there.

Both are defined for one binary mask. Here eight classes are done at once, each a bit of an 8-bit pixel, so that
an erosion is a bitwise AND of shifted images and a dilation an OR.

Unlabelled pixels (the truth's void) belong to no mask on either side, whatever was predicted there, and make no
outline: what lies behind them is not known. Labelled pixels without a prediction are no class of their own and
do end the masks beside them.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.manifest.rle import VOID
from segjobs.metrics.bootstrap import divide, mean
from segjobs.metrics.confusion import Runs

BOUNDARY_FIELDS = (
    "truth_px",  # outline pixels of the truth
    "predicted_px",
    "truth_hit_px",  # those of the truth's with one of the prediction's near
    "predicted_hit_px",
    "band_truth_px",  # pixels of the truth's mask near its outline
    "band_predicted_px",
    "band_both_px",
)
BOUNDARY_TYPE = pa.struct([("category_id", pa.int32()), *((name, pa.int64()) for name in BOUNDARY_FIELDS)])
"""What one image adds to the boundary scores of one class."""

_CLASSES = 8  # bits of a uint8: more per pass would need larger pixels, which cost as much more
_ONES = np.uint8(0xFF)


def boundary_counts(
    truth: Runs,
    predicted: Runs,
    size_hw: tuple[int, int],
    *,
    dilation_ratio: float = 0.02,
    tolerance_px: float = 3,
) -> list[dict[str, int]]:
    """Two partitions of one image → per class that is in either, ``index`` and the ``BOUNDARY_FIELDS``, by index.

    ``truth``, ``predicted``: ``label_runs`` of class indices, ``VOID`` where unlabelled and where not
    predicted. ``dilation_ratio``: the band's width as a share of the image's diagonal, at least one
    pixel. ``tolerance_px``: the distance (Euclidean) that still is near. Raises ManifestError where a
    partition is not of this size.
    """
    total = size_hw[0] * size_hw[1]
    for side, (ends, _) in (("truth", truth), ("prediction", predicted)):
        covered = int(ends[-1]) if ends.size else 0
        if covered != total:
            raise ManifestError(f"{side}: {covered} pixels, the image has {size_hw[0]}x{size_hw[1]}")
    if not total:
        return []
    classes = np.union1d(truth[1], predicted[1])
    classes = classes[classes != VOID]
    unknown = _paint(truth, np.where(truth[1] == VOID, _ONES, np.uint8(0)), size_hw)
    width = max(1, round(dilation_ratio * math.hypot(*size_hw)))
    found: list[tuple[int, list[int]]] = []
    for begin in range(0, classes.size, _CLASSES):
        group = classes[begin : begin + _CLASSES]
        masks = [_paint(side, _bits(side[1], group), size_hw) for side in (truth, predicted)]
        images = _images(masks[0], masks[1] & ~unknown, unknown, (width, tolerance_px))
        counts = [[cv2.countNonZero(image & np.uint8(1 << bit)) for image in images] for bit in range(group.size)]
        found += zip(group.tolist(), counts, strict=True)
    return [{"index": index, **dict(zip(BOUNDARY_FIELDS, row, strict=True))} for index, row in found if any(row)]


def boundary_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (…, C, 7) of the ``BOUNDARY_FIELDS`` → scores in [0, 1], NaN for a class in neither side.

    ``class_boundary_iou``, ``class_boundary_f``: (…, C); ``boundary_iou``, ``boundary_f``: their means, (…,).
    F is 2 P R / (P + R), P and R the shares of hits; 0 where only one side has an outline, but NaN where the
    truth's masks have none, since unlabelled pixels surround them all (PASCAL VOC's way of labelling).
    """
    truth, predicted, truth_hits, predicted_hits, band, found, both = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    iou = divide(both, band + found - both)
    precision, recall = np.nan_to_num(divide(predicted_hits, predicted)), np.nan_to_num(divide(truth_hits, truth))
    f = np.nan_to_num(divide(2 * precision * recall, precision + recall))
    f = np.where((truth + predicted > 0) & ~((truth == 0) & (band > 0)), f, np.nan)
    return {"class_boundary_iou": iou, "class_boundary_f": f, "boundary_iou": mean(iou), "boundary_f": mean(f)}


def _bits(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Class of each run → the bit of its place in ``group`` (ascending), uint8; 0 for other classes."""
    place = np.searchsorted(group, values).clip(max=group.size - 1)
    return np.where(group[place] == values, np.uint8(1) << place.astype(np.uint8), np.uint8(0))


def _paint(partition: Runs, values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A value per run → its pixels, (W, H): all that follows is the same for a transposed image."""
    return np.repeat(values, np.diff(partition[0], prepend=0)).reshape(size_hw[::-1])


def _images(
    truth: np.ndarray, predicted: np.ndarray, unknown: np.ndarray, distances: tuple[int, float]
) -> tuple[np.ndarray, ...]:
    """Class bits and, where unlabelled, all ones → an image of bits for each of the ``BOUNDARY_FIELDS``."""
    width, tolerance_px = distances
    bands = [side & ~_eroded(side | unknown, width) for side in (truth, predicted)]
    outlines = [_outline(side, unknown) for side in (truth, predicted)]
    hits = [one & _dilated(other, tolerance_px) for one, other in (outlines, outlines[::-1])]
    return (*outlines, *hits, *bands, bands[0] & bands[1])


def _outline(bits: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Pixels where a mask differs from the pixel to the right, below, or both (DAVIS' ``seg2bmap``), bit by bit.

    At the last column only the one below counts, at the last row only the one to the right.
    """
    outside = ~(bits | unknown)
    inside, other = bits.copy(), outside.copy()
    for image, origin in ((inside, bits), (other, outside)):
        image[:, :-1] |= origin[:, 1:]
        image[:-1] |= origin[1:]
        image[:-1, :-1] |= origin[1:, 1:]
    return inside & other


def _eroded(bits: np.ndarray, width: int) -> np.ndarray:
    """Erosion by a square of 2 · width + 1 pixels, bit by bit, with zeros around the image."""
    rows = _running(np.pad(bits, ((width, width), (0, 0))), 2 * width + 1, np.bitwise_and)
    columns = _running(np.pad(rows, ((0, 0), (width, width))).T, 2 * width + 1, np.bitwise_and)
    return columns.T


def _running(image: np.ndarray, length: int, combine: Callable[..., np.ndarray]) -> np.ndarray:
    """``combine`` (idempotent) over windows of ``length`` rows, (N, M) → (N - length + 1, M), by doubling."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        image = combine(image[:-step], image[step:])
        covered += step
    return image


def _dilated(bits: np.ndarray, radius_px: float) -> np.ndarray:
    """Dilation by a disc, bit by bit: every pixel whose distance to one that has the bit is ≤ ``radius_px``."""
    reach = int(radius_px)
    height, width = bits.shape
    image = np.pad(bits, reach)
    grown = np.zeros_like(bits)
    spread, row = 0, image[:, reach : reach + width].copy()
    # From the disc's top row, its narrowest, to its middle: each row's chord is the last one's and some more.
    for offset in range(reach, -1, -1):
        chord = int(math.sqrt(radius_px**2 - offset**2))
        for shift in range(spread + 1, chord + 1):
            row |= image[:, reach - shift : reach - shift + width]
            row |= image[:, reach + shift : reach + shift + width]
        spread = chord
        for side in {offset, -offset}:
            grown |= row[reach + side : reach + side + height]
    return grown
