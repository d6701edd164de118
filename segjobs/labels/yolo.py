"""YOLO segmentation labels: a text file an image, ``class x y x y …`` a line, in manifest segments out.

Coordinates are shares of the image's width and height (0 to 1); classes count from 0 in the order of the
names. Source: https://docs.ultralytics.com/datasets/segment.

| line | becomes |
|---|---|
| class (a whole number, 7 or 7.0) and three points or more | one object, rasterised as COCO's polygons are |
| class and four numbers (a box), or fewer points | no segment: it has no mask; counted as ``without_mask`` |
| empty file | zero segments: nothing is in the image |
| no file | a row NOT_FOUND, or zero segments with ``labels.missing=empty``, as YOLO means it |

An object of several parts is one polygon here, its parts joined by bridges without width.
"""

from functools import partial

import numpy as np

from segjobs.errors import ItemError, ManifestError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    Policy,
    match_files,
    policy_of,
    read_label,
    resolve,
)
from segjobs.labels.class_tables import named_categories
from segjobs.labels.polygons import outside
from segjobs.manifest.rle import encode_polygons
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.storage import Storage
from segjobs.text import first_few


def yolo_labels(request: LabelRequest) -> Labels:
    """Adapter of ``yolo``: the text of an image is the URI of its .txt."""
    categories = named_categories(request.config, first_color=1)
    files = match_files(request, (".txt",))
    policy = policy_of(request.config, categories)
    read = partial(_read, storage=request.storage, categories=categories, policy=policy)
    return Labels("instance", categories, files.uris, read, files.digest, files.leftovers)


def _read(
    uri: str, size_hw: tuple[int, int], *, storage: Storage, categories: tuple[Category, ...], policy: Policy
) -> Masks:
    try:
        text = read_label(storage, uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ItemError("UNREADABLE", f"{uri}: not UTF-8 text: {error}") from None
    return masks_of(text, size_hw, categories, policy)


def masks_of(
    text: str, size_hw: tuple[int, int], categories: tuple[Category, ...], policy: Policy | None = None
) -> Masks:
    """Lines of YOLO → segments, in their order, on an image of ``size_hw`` pixels.

    Raises ItemError LABEL_VALUE where a line is not numbers or a class is unknown (and ``policy`` fails it).
    """
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    keys, shapes = [], []
    for number, words in lines:
        try:
            keys.append(_class(words[0]))
            shapes.append(np.array([float(word) for word in words[1:]]))
        except ValueError:
            raise ItemError(
                "LABEL_VALUE", f"line {number}: {' '.join(words)[:60]!r}: expected a class number and coordinates"
            ) from None
    resolved, findings = resolve(keys, dict(enumerate(categories)), policy or Policy(), what="classes")
    segments, odd = [], {"without_mask": [], "empty_masks": [], "outside_frame": []}
    for (number, _), shape, category in zip(lines, shapes, resolved, strict=True):
        if category is None:
            continue
        if shape.size < 6:
            odd["without_mask"].append(number)
            continue
        part = _in_pixels(shape, size_hw, number)
        try:
            segment = Segment.from_counts(category, encode_polygons([part], size_hw), size_hw)
        except ManifestError as error:
            raise ItemError("LABEL_VALUE", f"line {number}: {error}") from None
        if segment is None:
            odd["empty_masks"].append(number)
        else:
            segments.append(segment)
        if outside(part, size_hw):
            odd["outside_frame"].append(number)
    findings += tuple(
        Finding(check, len(numbers), f"line {', '.join(first_few([str(one) for one in numbers]))}")
        for check, numbers in odd.items()
        if numbers
    )
    return Masks(segments, findings)


def _class(word: str) -> int:
    """``7``, or ``7.0`` and ``7.000000``, as numpy and pandas write it. Raises ValueError."""
    value = float(word)
    if not value.is_integer():
        raise ValueError(word)
    return int(value)


def _in_pixels(shares: np.ndarray, size_hw: tuple[int, int], number: int) -> list[float]:
    """Shares x, y, x, y, … → pixels."""
    if shares.size % 2:
        raise ItemError("LABEL_VALUE", f"line {number}: {shares.size} coordinates; expected pairs x y")
    height, width = size_hw
    points = shares.copy()
    points[0::2] *= width
    points[1::2] *= height
    return points.tolist()
