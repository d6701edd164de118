"""Predictions → the ``segments`` of a manifest row, and the image's confidence.

Semantic, in this order:
    1. mask_threshold   models of two classes: class 1 where its probability reaches it (0.5 is the argmax)
    2. min_confidence   pixels below it become unlabelled
    3. min_area_px      regions (8-connected pixels of one class) that are smaller become unlabelled
    4. fill_holes       unlabelled regions (4-connected) that touch one class only, and not the frame, become that class
    5. one segment for each class present; its score is the mean confidence over its pixels
    6. classes, score_threshold, top_k: which segments stay; pixels of the others are unlabelled
Instance, in this order: score_threshold, classes, mask_threshold, fill_holes, min_area_px, empty masks dropped, top_k.
Panoptic, in this order: score_threshold, classes, min_area_px, top_k (pixels of segments that go become unlabelled),
fill_holes (as semantic).

Boxes are those of the masks; a box head's own is kept beside them (``Segment.stated_bbox``).
The image's confidence is the mean over all pixels of the winning class's probability
(after step 1), or the mean score of the instances, or of the panoptic segments, that stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from segjobs.config import PostprocessConfig
from segjobs.manifest.bands import LabelBands
from segjobs.manifest.coco_api import Box
from segjobs.manifest.rle import Region, encode_label_map, encode_label_runs, encode_masks
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.models.base import VOID, Instances, LabelMap, LabelRuns, ObjectRuns, PanopticMap, Prediction
from segjobs.models.run_finder import runs_of

_ROWS_AT_ONCE = 64  # numpy's bincount makes 16 bytes of each pixel


def to_segments(
    prediction: Prediction, categories: Sequence[Category], config: PostprocessConfig
) -> tuple[list[Segment], float | None]:
    """One image's segments, and its ``confidence``.

    Semantic segments come in the order of ``categories``, instances by descending score, panoptic ones as the
    prediction numbers them. The confidence is None where there is no instance or panoptic segment. ``config`` has
    passed ``check_postprocess``.
    """
    if isinstance(prediction, Instances):
        return _instance_segments(prediction, categories, config)
    if isinstance(prediction, PanopticMap):
        return _panoptic_segments(prediction, categories, config)
    return _semantic_segments(prediction, categories, config)


def _semantic_segments(
    prediction: LabelMap, categories: Sequence[Category], config: PostprocessConfig
) -> tuple[list[Segment], float]:
    ids, confidence = _sure(prediction, len(categories), config)
    mean = float(confidence.mean(dtype=np.float64))
    ids = _unsure_as_void(ids, confidence, config)
    if config.min_area_px > 1:
        ids = drop_small_regions(ids, config.min_area_px)
    if config.fill_holes:
        ids = fill_void_holes(ids)
    ((segments, _),) = segments_of_runs([runs_of(ids, confidence)], categories, config)
    return segments, mean


def needs_pixels(categories: Sequence[Category], config: PostprocessConfig) -> bool:
    """Whether a semantic model's label map is looked at pixel by pixel, so that its runs do not do."""
    return (
        config.min_confidence > 0 or config.min_area_px > 1 or (len(categories) == 2 and config.mask_threshold != 0.5)
    )


def segments_of_runs(
    images: Sequence[LabelRuns], categories: Sequence[Category], config: PostprocessConfig
) -> list[tuple[list[Segment], float]]:
    """``to_segments`` of a batch of semantic predictions as runs, for a ``config`` that does not ``needs_pixels``."""
    found: list[tuple[list[Segment], float]] = []
    encoded = encode_label_runs([(one.starts, one.values, one.size_hw) for one in images])
    for one, regions in zip(images, encoded, strict=True):
        classes = np.minimum(one.values, len(categories))  # the last: unlabelled
        sums = np.bincount(classes, weights=one.sums, minlength=len(categories) + 1)
        segments = _chosen(regions, sums, one.size_hw, categories, config)
        found.append((segments, float(sums.sum() / (one.size_hw[0] * one.size_hw[1]))))
    return found


class BandedSegments:
    """The segments of a semantic image whose label map comes piece by piece; the same as of the whole.

    ``config`` has passed ``check_tiles``: what must see the whole label map at once is not asked for.
    """

    def __init__(self, size_hw: tuple[int, int], categories: Sequence[Category], config: PostprocessConfig) -> None:
        self._size_hw = size_hw
        self._categories = categories
        self._config = config
        self._bands = LabelBands(size_hw)
        self._sums = np.zeros(len(categories))
        self._total = 0.0

    def add(self, band: LabelMap, *, top: int, left: int) -> None:
        """The pixels of a rectangle, with its corner at ``top`` and ``left``."""
        ids, confidence = _sure(band, len(self._categories), self._config)
        self._total += float(confidence.sum(dtype=np.float64))
        ids = _unsure_as_void(ids, confidence, self._config)
        for rows in range(0, len(ids), _ROWS_AT_ONCE):
            some, sure = ids[rows : rows + _ROWS_AT_ONCE].ravel(), confidence[rows : rows + _ROWS_AT_ONCE].ravel()
            self._sums += np.bincount(some, weights=sure, minlength=len(self._sums))[: len(self._sums)]
        self._bands.add(ids, top=top, left=left)

    def finish(self) -> tuple[list[Segment], float]:
        """All pixels were added: see ``to_segments``."""
        regions = self._bands.regions()
        segments = _chosen(regions, self._sums, self._size_hw, self._categories, self._config)
        return segments, self._total / (self._size_hw[0] * self._size_hw[1])


def _sure(prediction: LabelMap, classes: int, config: PostprocessConfig) -> tuple[np.ndarray, np.ndarray]:
    """Label map and confidence after step 1."""
    ids, confidence = prediction.ids, prediction.confidence
    if confidence is None:
        raise ValueError("expected a prediction; a label map without confidence is a target")
    if classes == 2 and config.mask_threshold != 0.5:
        return _threshold(ids, confidence, config.mask_threshold)
    return ids, confidence


def _unsure_as_void(ids: np.ndarray, confidence: np.ndarray, config: PostprocessConfig) -> np.ndarray:
    """The label map after step 2."""
    return np.where(confidence >= config.min_confidence, ids, np.uint16(VOID)) if config.min_confidence > 0 else ids


def _chosen(
    regions: Sequence[Region],
    sums: np.ndarray,
    size_hw: tuple[int, int],
    categories: Sequence[Category],
    config: PostprocessConfig,
) -> list[Segment]:
    """Steps 5 and 6. ``sums``: of each class's confidence over its pixels."""
    found = [(float(sums[region.index] / region.area), region) for region in regions]
    if config.classes is not None:
        found = [(score, region) for score, region in found if categories[region.index].name in config.classes]
    found = [(score, region) for score, region in found if score >= config.score_threshold]
    if config.top_k is not None and len(found) > config.top_k:
        best = sorted(range(len(found)), key=lambda place: -found[place][0])[: config.top_k]
        found = [found[place] for place in sorted(best)]
    return [Segment.from_region(categories[one.index], one, size_hw, score=score) for score, one in found]


@dataclass(frozen=True)
class InstanceMask:
    """One object of a prediction: bool (h, w) with its top left corner at ``corner_xy``, and its box head's box."""

    category: Category
    score: float
    mask: np.ndarray
    corner_xy: tuple[int, int]
    box_xywh: Box


def kept_objects(
    scores: np.ndarray, classes: np.ndarray, categories: Sequence[Category], config: PostprocessConfig
) -> list[int]:
    """Which objects ``score_threshold`` and ``classes`` keep, best first. Floats (N,), class indices int64 (N,)."""
    kept = scores >= np.float64(config.score_threshold)
    if config.classes is not None:
        named = [number for number, category in enumerate(categories) if category.name in config.classes]
        kept = kept & np.isin(classes, named)
    order = np.argsort(-scores, kind="stable")
    return order[kept[order]].tolist()


def instance_masks(
    prediction: Instances, categories: Sequence[Category], config: PostprocessConfig
) -> Iterator[InstanceMask]:
    """Best first, after score_threshold, classes, mask_threshold and fill_holes; made when they are asked for."""
    for index in kept_objects(prediction.scores, prediction.classes, categories, config):
        category, score = categories[int(prediction.classes[index])], float(prediction.scores[index])
        mask: np.ndarray = prediction.crops[index] >= config.mask_threshold
        if config.fill_holes:
            mask = fill_mask_holes(mask)
        left, top = prediction.corners_xy[index].tolist()
        yield InstanceMask(category, score, mask, (left, top), _box_xywh(prediction.boxes_xyxy[index]))


def segment_of(one: InstanceMask, size_hw: tuple[int, int]) -> Segment | None:
    """On an image of ``size_hw``, with the box head's box beside; None where no pixel is set."""
    segment = Segment.from_mask(one.category, one.mask, corner_xy=one.corner_xy, size_hw=size_hw, score=one.score)
    return None if segment is None else replace(segment, stated_bbox=one.box_xywh)


def _instance_segments(
    prediction: Instances, categories: Sequence[Category], config: PostprocessConfig
) -> tuple[list[Segment], float | None]:
    segments: list[Segment] = []
    for one in instance_masks(prediction, categories, config):
        if len(segments) == config.top_k:
            break
        if np.count_nonzero(one.mask) >= config.min_area_px and (segment := segment_of(one, prediction.size_hw)):
            segments.append(segment)
    return segments, _mean_score(segments)


def segments_of_objects(
    images: Sequence[ObjectRuns], categories: Sequence[Category], config: PostprocessConfig
) -> list[tuple[list[Segment], float | None]]:
    """``to_segments`` of a batch of instance predictions as runs, which ``score_threshold``, ``classes`` and
    ``mask_threshold`` were applied to; for a ``config`` without ``fill_holes``, which looks at pixels."""
    first = np.concatenate([[0], *(np.diff(one.first) for one in images)]).cumsum()
    sizes_hw = [one.size_hw for one in images for _ in one.scores]
    starts = np.concatenate([first[:0], *(one.starts for one in images)])
    ends = np.concatenate([first[:0], *(one.ends for one in images)])
    codes = iter(encode_masks(starts, ends, first, sizes_hw))
    found: list[tuple[list[Segment], float | None]] = []
    for one in images:
        segments: list[Segment] = []
        objects = zip(one.classes.tolist(), one.scores.tolist(), one.boxes_xyxy, strict=True)
        for (label, score, box), code in zip(objects, islice(codes, len(one.scores)), strict=True):
            if code.area >= max(config.min_area_px, 1):
                segment = Segment.from_region(categories[label], code, one.size_hw, score=score)
                segments.append(replace(segment, stated_bbox=_box_xywh(box)))
        segments = segments[: config.top_k]
        found.append((segments, _mean_score(segments)))
    return found


def _mean_score(segments: Sequence[Segment]) -> float | None:
    scores = [segment.score or 0.0 for segment in segments]
    return sum(scores) / len(scores) if scores else None


def _panoptic_segments(
    prediction: PanopticMap, categories: Sequence[Category], config: PostprocessConfig
) -> tuple[list[Segment], float | None]:
    ids, scores = prediction.ids, prediction.scores
    areas = np.bincount(ids.ravel(), minlength=VOID + 1)[: len(scores)]
    named = [categories[index].name for index in prediction.classes.tolist()]
    kept = (scores >= config.score_threshold) & (areas >= max(config.min_area_px, 1))
    if config.classes is not None:
        kept &= np.isin(named, config.classes)
    if config.top_k is not None:
        best = np.argsort(np.where(kept, -scores, np.inf), kind="stable")[: config.top_k]
        kept &= np.isin(np.arange(len(kept)), best)
    if not kept.all():
        table = np.full(VOID + 1, VOID, np.uint16)
        table[np.flatnonzero(kept)] = np.flatnonzero(kept)
        ids = table[ids]
    if config.fill_holes:
        ids = fill_void_holes(ids)
    size_hw = (ids.shape[0], ids.shape[1])
    segments = [
        Segment.from_region(
            categories[int(prediction.classes[region.index])], region, size_hw, score=float(scores[region.index])
        )
        for region in encode_label_map(ids)
    ]
    return segments, float(scores[kept].mean(dtype=np.float64)) if kept.any() else None


def _box_xywh(box_xyxy: np.ndarray) -> Box:
    """float32 (4,) x, y, x, y → x, y, w, h, the sides rounded to float32 as torchvision's own evaluation has them."""
    left, top = box_xyxy[:2]
    width, height = box_xyxy[2:] - box_xyxy[:2]
    return float(left), float(top), float(width), float(height)


def _threshold(ids: np.ndarray, confidence: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Label map and confidence of two classes, where class 1 needs ``threshold`` instead of 0.5.

    Interpolated logits and interpolated probabilities may disagree by a hair which side of 0.5 a pixel is; so a lower
    threshold only adds to the argmax and a higher one only takes from it.
    """
    foreground = np.where(ids == 1, confidence, 1 - confidence)
    above = foreground >= threshold
    won = above | (ids == 1) if threshold < 0.5 else above & (ids == 1)
    return won.astype(np.uint16), np.where(won, foreground, 1 - foreground)


def drop_small_regions(ids: np.ndarray, min_area_px: int) -> np.ndarray:
    """Label map uint16 (H, W) with 8-connected regions of fewer than ``min_area_px`` pixels set to VOID."""
    kept = ids.copy()
    for index in np.flatnonzero(np.bincount(ids.ravel(), minlength=VOID + 1)[:VOID]).tolist():
        _, regions, stats, _ = cv2.connectedComponentsWithStats((ids == index).view(np.uint8), connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] < min_area_px
        small[0] = False  # region 0 is all that is not of this class
        if small.any():
            kept[small[regions]] = VOID
    return kept


def fill_void_holes(ids: np.ndarray) -> np.ndarray:
    """Label map uint16 (H, W) with each 4-connected VOID region inside one class set to that class.

    A region at the frame, or with neighbours of two classes, stays.
    """
    void = ids == VOID
    count, holes = cv2.connectedComponents(void.view(np.uint8), connectivity=4)
    if count == 1:
        return ids
    lowest = np.full(count, VOID, np.uint16)
    highest = np.zeros(count, np.uint16)
    neighbours = (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    )
    for near, far in neighbours:
        edge = void[near] & ~void[far]
        np.minimum.at(lowest, holes[near][edge], ids[far][edge])
        np.maximum.at(highest, holes[near][edge], ids[far][edge])
    fills = lowest == highest
    fills[0] = False  # region 0 is all that is labelled
    fills[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = False
    return np.where(fills[holes], lowest[holes], ids)


def fill_mask_holes(mask: np.ndarray) -> np.ndarray:
    """bool (h, w) with every hole (4-connected background that does not reach the window's frame) filled."""
    outside = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, np.zeros((outside.shape[0] + 2, outside.shape[1] + 2), np.uint8), (0, 0), (2,))
    return outside[1:-1, 1:-1] != 2
