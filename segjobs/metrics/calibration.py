"""Whether confidence can be trusted: each image's confidence and how right it was in, reliability bins out.

A manifest's ``confidence`` is the mean probability of the winning class over an image's pixels; had the
model known itself, that share of its pixels would be right. Images are sorted into bins by confidence, and
the expected calibration error (Naeini et al., AAAI 2015) is the mean gap between a bin's mean confidence and
its mean accuracy, weighted by images. It is calibration of images, not of pixels: gaps that cancel out
within an image are not seen.
"""

import math
from typing import TypedDict

import numpy as np

_ROUNDING = 1e-5  # a mean of float32 probabilities may end a little above 1


class Bin(TypedDict):
    """Images of confidence above ``low`` up to ``high``, and their two means, None in an empty bin."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class BinnedCalibration(TypedDict):
    """``ece``: the expected calibration error, in [0, 1]."""

    bins: list[Bin]
    ece: float


def calibrate(
    confidence: np.ndarray, correct_px: np.ndarray, labelled_px: np.ndarray, *, bins: int = 10
) -> BinnedCalibration | None:
    """Per image: confidence in [0, 1] (NaN: it has none), correct and labelled pixels, all (N,) → calibration.

    Gives ``bins``, a list of ``low``, ``high``, ``images``, ``confidence``, ``accuracy`` (the two means, None
    in an empty bin), and ``ece``. A bin holds what is above ``low``, up to and with ``high``; the first holds
    0 too. Images without a confidence or a labelled pixel are left out; None where none is left. Sums are
    rounded once, whatever the order of the images. Raises ValueError for a confidence outside [0, 1].
    """
    confidence = np.asarray(confidence, np.float64)
    used = ~np.isnan(confidence) & (np.asarray(labelled_px) > 0)
    confidence, accuracy = confidence[used], np.asarray(correct_px)[used] / np.asarray(labelled_px)[used]
    if not confidence.size:
        return None
    if confidence.min() < -_ROUNDING or confidence.max() > 1 + _ROUNDING:
        raise ValueError(f"confidence from {confidence.min()} to {confidence.max()}: expected 0 to 1")
    confidence = confidence.clip(0, 1)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    found: list[Bin] = []
    for number in range(bins):
        inside = place == number
        images = int(inside.sum())
        means = [math.fsum(side[inside].tolist()) / images if images else None for side in (confidence, accuracy)]
        found.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "images": images,
                "confidence": means[0],
                "accuracy": means[1],
            }
        )
    gaps = [
        one["images"] * abs(one["confidence"] - one["accuracy"])
        for one in found
        if one["confidence"] is not None and one["accuracy"] is not None
    ]
    return {"bins": found, "ece": math.fsum(gaps) / confidence.size}
