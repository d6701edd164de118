"""Figures of a bench: what each round gave in; median, extremes and whether the machine was too noisy out."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

NOISY = 0.25
"""Rounds that differ by more than this share of their median tell of the machine, not of the code."""


def spread_of(runs: Iterable[float]) -> dict[str, Any]:
    """``median``, ``min``, ``max``, ``noisy`` and the ``runs`` themselves, in their order."""
    values = [round(value, 3) for value in runs]
    middle = median(values)
    noisy = max(values) - min(values) > NOISY * abs(middle)
    return {"median": round(middle, 3), "min": min(values), "max": max(values), "noisy": noisy, "runs": values}


def cells(spread: Mapping[str, Any], digits: int = 1) -> tuple[str, str]:
    """A figure and its extremes, for a person."""
    return f"{spread['median']:.{digits}f}", f"{spread['min']:.{digits}f} – {spread['max']:.{digits}f}"
