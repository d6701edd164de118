"""Segments of a manifest made fit for a format: a row in; checked segments, objects or one segment per pixel out.

| manifest | as objects | as one label per pixel |
|---|---|---|
| semantic | one object per class, or per connected component (8 neighbours) | as it is |
| instance | as it is | the top one of each pixel, by ``segments.stack`` |
| panoptic | as it is | as it is |
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from segjobs.errors import ItemError, ManifestError, MaskSizeError
from segjobs.exporters.base import Labelled, Loss, LossKind, Setting
from segjobs.manifest.rle import Region, encode_label_map
from segjobs.manifest.rows import OkRow, segments_of
from segjobs.manifest.segments import Segment, check_known, stack

Segments = tuple[Segment, ...]
Losses = tuple[Loss, ...]
NOTHING = -1
"""In ``top_segments``: no segment covers this pixel."""
_LABELS_AT_ONCE = 65_000  # of encode_label_map, which takes 16 bits


def checked_segments(row: OkRow, known: Sequence[int]) -> Segments:
    """The segments of an ok row. Raises ItemError LABEL_SHAPE or LABEL_VALUE where one of them makes no sense.

    ``known``: the category ids of the manifest.
    """
    size_hw = (row["height"], row["width"])
    try:
        segments = segments_of(row, empty=True)
        check_known(segments, known)
        areas = [int(segment.runs(size_hw)[1::2].sum()) for segment in segments]
    except MaskSizeError as error:
        raise ItemError("LABEL_SHAPE", str(error)) from None
    except ManifestError as error:
        raise ItemError("LABEL_VALUE", str(error)) from None
    for segment, area in zip(segments, areas, strict=True):
        if area != segment.area:
            raise ItemError("LABEL_VALUE", f"a mask of {area} pixels, where the row says {segment.area}")
    return tuple(segment for segment in segments if segment.area)


def exported_segments(row: OkRow, known: Sequence[int], setting: Setting) -> tuple[Segments, Losses]:
    """The segments of an ok row that an export writes: checked, of its classes, cut into components where asked.

    Beside them what the choice of classes leaves out. Raises ItemError as ``checked_segments``.
    """
    index = setting.index
    segments = checked_segments(row, known)
    kept = [segment for segment in segments if segment.category_id in index]
    left_out = losses_of("excluded", [segment for segment in segments if segment.category_id not in index])
    if setting.config.components:
        kept = [part for segment in kept for part in components(segment)]
    return tuple(kept), left_out


def components(segment: Segment) -> list[Segment]:
    """One segment → one per connected component of it (8 neighbours), in the order of their first rows."""
    count, labels = cv2.connectedComponents(segment.mask().astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    if count == 2:
        return [segment]
    return [segment.with_mask(region, segment.size_hw) for region in regions_of(labels)]


def regions_of(labels: np.ndarray) -> list[Region]:
    """Labels from 1, each of which occurs, int32 (H, W) with 0 for none → the Region of each, by label."""
    regions: list[Region] = []
    for before in range(0, int(labels.max(initial=0)), _LABELS_AT_ONCE):
        inside = (labels > before) & (labels <= before + _LABELS_AT_ONCE)
        regions += encode_label_map(np.where(inside, labels - before, 0).astype(np.uint16), void=0)
    return regions


def top_segments(image: Labelled, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Which segment each pixel shows: int32 (H, W) positions in ``image.segments`` or ``NOTHING``.

    Beside it the visible pixels of each segment, int64 (N,). Raises ItemError LABEL_VALUE where segments of a
    semantic or panoptic manifest overlap.
    """
    height, width = image.size_hw
    flat = np.full(height * width, NOTHING, np.int32)
    for position in stack(image.segments):
        bounds = np.cumsum(image.segments[position].runs(image.size_hw))
        starts, ends = bounds[: bounds.size // 2 * 2 : 2], bounds[1::2]
        flat[_ranges(starts, ends)] = position
    visible = np.bincount(flat[flat != NOTHING], minlength=len(image.segments))
    areas = np.array([segment.area for segment in image.segments], np.int64)
    if setting.task != "instance" and (visible != areas).any():
        names = sorted({image.segments[k].category for k in np.flatnonzero(visible != areas)})
        raise ItemError(
            "LABEL_VALUE",
            f"segments of {', '.join(map(repr, names))} overlap others, which a {setting.task} manifest forbids",
        )
    return np.ascontiguousarray(flat.reshape(width, height).T), visible


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All integers of [start, end) of each pair, int64."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def covering_losses(image: Labelled, visible: np.ndarray) -> Losses:
    """What overlapping segments lose where each pixel shows only the top one."""
    pairs = list(zip(image.segments, visible.tolist(), strict=True))
    hidden = [segment for segment, left in pairs if not left]
    partly = [replace(segment, area=segment.area - left) for segment, left in pairs if 0 < left < segment.area]
    return (*losses_of("hidden", hidden), *losses_of("covered", partly))


def without_crowds(image: Labelled) -> tuple[Segments, Losses]:
    """The objects of an image, for formats that have no crowd regions, and these as losses."""
    crowds = [segment for segment in image.segments if segment.iscrowd]
    return tuple(segment for segment in image.segments if not segment.iscrowd), losses_of("crowd", crowds)


def losses_of(kind: LossKind, segments: Sequence[Segment]) -> Losses:
    """Segments that are lost, counted by class; ``pixels`` are their areas."""
    ids = sorted({segment.category_id for segment in segments})
    areas = {i: [s.area for s in segments if s.category_id == i] for i in ids}
    return tuple(Loss(kind, i, len(areas[i]), sum(areas[i])) for i in ids)
