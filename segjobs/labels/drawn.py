"""One document of many images' shapes (Label Studio, CVAT, VIA, Kaggle): its objects by image in, masks out.

    a format's file → its own parser → Document: per image its size, if it says one, and its objects by class name
    Document + the request → labels_of → Labels, a text (JSON) an image
    a text + the image's size → masks_of → one segment per object, in the file's order

A polygon is rasterised as COCO's are; its parts are united.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import numpy as np

from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Leftover,
    Masks,
    Policy,
    check_size,
    leftover,
    policy_of,
    resolve,
)
from segjobs.labels.class_tables import named_categories
from segjobs.labels.label_studio_rle import decode_mask
from segjobs.labels.match_files import match_paths
from segjobs.labels.paint import as_task
from segjobs.labels.polygons import outside
from segjobs.manifest.rle import counts_from_runs, decode, encode_crop, encode_polygons
from segjobs.manifest.rows import Annotation
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.text import first_few

Notation = Literal["pixels", "percent", "brush", "window", "starts", "rings"]
_ELLIPSE_POINTS = 96


@dataclass(frozen=True)
class Drawn:
    """One object. ``values`` by ``notation``:

    pixels, percent   polygons, each x, y, x, y, … in pixels or in hundredths of width and height
    brush             Label Studio's integers of its RGBA image
    window            CVAT's mask: run lengths row by row, background first, then left, top, width, height
    starts            Kaggle's: start, length, …, from 1, column by column
    rings             GeoJSON's: polygons, each an outer ring and its holes, in pixels
    """

    name: str
    notation: Notation
    values: tuple[Any, ...]


@dataclass(frozen=True)
class DrawnImage:
    """One image's objects. ``without_area``: how many boxes, points and lines it has besides.

    ``by``, ``at``: who drew them, and when (Unix time in seconds), where the file says it.
    """

    objects: tuple[Drawn, ...]
    size_hw: tuple[int, int] | None = None
    without_area: int = 0
    by: str | None = None
    at: float | None = None


@dataclass(frozen=True)
class Document:
    """A parsed file. ``images``: by the path or name by which the file calls them."""

    images: Mapping[str, DrawnImage]
    digest: str
    leftovers: tuple[Leftover, ...] = ()


def labels_of(request: LabelRequest, document: Document) -> Labels:
    """What a document holds of the request's images. Classes are the config's, else all names in it, sorted."""
    config = request.config
    found = sorted({one.name for image in document.images.values() for one in image.objects})
    if config.categories is None and not found:
        raise ConfigError(f"labels.uri: {config.uri}: no object has a class; name them: labels.categories")
    named = config.model_copy(update={"categories": found if config.categories is None else config.categories})
    categories = named_categories(named, first_color=1)
    matches = match_paths(request.image_ids, list(document.images), image_key=str, label_key=str)
    texts = [
        json.dumps(asdict(document.images[name])) if (name := matches.label_of.get(image_id)) is not None else None
        for image_id in request.image_ids
    ]
    read = partial(
        _read,
        categories=categories,
        policy=policy_of(named, categories),
        own_size=config.frame != "mixed",
    )
    leftovers = (*leftover("labels_without_image", matches.unused), *document.leftovers)
    return as_task(Labels("instance", categories, texts, read, document.digest, leftovers), config)


def ellipse(center: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> list[float]:
    """A polygon of points on an ellipse: centre and radii x, y in pixels, turned clockwise by radians."""
    angles = np.linspace(0, 2 * math.pi, _ELLIPSE_POINTS, endpoint=False)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    across, down = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return np.stack([center[0] + across, center[1] + down], axis=1).ravel().tolist()


def _read(
    text: str, size_hw: tuple[int, int], *, categories: tuple[Category, ...], policy: Policy, own_size: bool
) -> Masks:
    raw = json.loads(text)
    objects = tuple(Drawn(one["name"], one["notation"], tuple(one["values"])) for one in raw["objects"])
    own_hw = tuple(raw["size_hw"]) if raw["size_hw"] else None
    image = DrawnImage(objects, own_hw, raw["without_area"], raw["by"], raw["at"])
    if image.size_hw is not None and own_size:
        check_size(image.size_hw, size_hw)
    return masks_of(image, size_hw, categories, policy)


def masks_of(image: DrawnImage, size_hw: tuple[int, int], categories: Sequence[Category], policy: Policy) -> Masks:
    """One segment per object, on an image of ``size_hw`` pixels.

    Raises ItemError LABEL_VALUE where a shape is malformed or a class is unknown (and ``policy`` fails it), LABEL_SHAPE
    where a mask is of another size.
    """
    known = {category.name: category for category in categories}
    resolved, findings = resolve([one.name for one in image.objects], known, policy, what="names")
    segments: list[Segment] = []
    empty, cut = [], []
    for number, (one, category) in enumerate(zip(image.objects, resolved, strict=True)):
        if category is None:
            continue
        try:
            polygons = _polygons(one, size_hw)
            whole = polygons and not _has_holes(one)
            counts = encode_polygons(polygons, size_hw) if whole else _counts(one, size_hw)
            segment = Segment.from_counts(category, counts, size_hw)
        except ManifestError as error:
            raise ItemError("LABEL_VALUE", f"object {number} ({one.name}): {error}") from None
        if segment is None:
            empty.append(str(number))
        else:
            segments.append(segment)
        if any(outside(part, size_hw) for part in polygons):
            cut.append(str(number))
    for check, numbers in (("empty_masks", empty), ("outside_frame", cut)):
        if numbers:
            findings += (Finding(check, len(numbers), f"objects {', '.join(first_few(numbers))}"),)
    if image.without_area:
        findings += (Finding("without_mask", image.without_area, "boxes, points or lines"),)
    return Masks(segments, findings, _annotation(image))


def _annotation(image: DrawnImage) -> Annotation | None:
    at = None if image.at is None else datetime.fromtimestamp(image.at, UTC)
    return Annotation(image.by, at) if image.by or at else None


def unix_time(value: object) -> float | None:
    """A moment as label files have it, ISO 8601 (UTC where it names no zone) or Unix time, in seconds; else None."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _polygons(one: Drawn, size_hw: tuple[int, int]) -> list[list[float]]:
    """The polygons in pixels, of rings the outer ones; none of a mask."""
    if one.notation == "rings":
        return [list(rings[0]) for rings in one.values]
    if one.notation == "pixels":
        return [list(part) for part in one.values]
    if one.notation == "percent":
        scale = [size_hw[1] / 100, size_hw[0] / 100]
        return [[value * scale[place % 2] for place, value in enumerate(part)] for part in one.values]
    return []


def _has_holes(one: Drawn) -> bool:
    return one.notation == "rings" and any(len(rings) > 1 for rings in one.values)


def _counts(one: Drawn, size_hw: tuple[int, int]) -> str:
    """COCO's counts of a mask. Raises ManifestError where it makes no sense, ItemError where it is of another size."""
    height, width = size_hw
    if one.notation == "brush":
        mask = decode_mask(one.values, size_hw)
    elif one.notation == "rings":
        mask = np.zeros(size_hw, bool)
        for rings in one.values:
            outer, *holes = (decode(encode_polygons([list(ring)], size_hw), size_hw).astype(bool) for ring in rings)
            mask |= outer & ~np.logical_or.reduce([np.zeros(size_hw, bool), *holes])
    elif one.notation == "window":
        *runs, left, top, across, down = one.values
        if across < 1 or down < 1 or sum(runs) > across * down or min(runs, default=0) < 0:
            raise ManifestError(f"a mask of {sum(runs)} pixels in a window of {across}x{down}")
        if left < 0 or top < 0 or left + across > width or top + down > height:
            raise ManifestError(f"a window of {across}x{down} at x={left}, y={top} leaves the image")
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        flat = np.pad(flat, (0, across * down - flat.size))
        mask = np.zeros(size_hw, bool)
        mask[top : top + down, left : left + across] = flat.reshape(down, across)
    else:
        return _from_starts(one.values, height * width)
    return encode_crop(mask, (0, 0), size_hw).counts


def _from_starts(values: Sequence[int], total: int) -> str:
    if len(values) % 2 or not all(0 < value <= total for value in values):
        raise ManifestError(f"run lengths that do not fit an image of {total} pixels: expected start, length, … from 1")
    starts, lengths = np.array(values[0::2], np.int64) - 1, np.array(values[1::2], np.int64)
    ends = starts + lengths
    if (ends > total).any():
        raise ManifestError(f"run lengths that do not fit an image of {total} pixels: expected start, length, … from 1")
    order = np.argsort(starts)
    starts, ends = starts[order], ends[order]
    if (starts[1:] < ends[:-1]).any():
        raise ManifestError("runs that overlap")
    bounds = np.append(np.stack([starts, ends], axis=1).ravel(), total)
    return counts_from_runs(np.diff(bounds, prepend=0))
