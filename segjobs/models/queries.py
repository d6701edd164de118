"""Masks by queries (MaskFormer, Mask2Former, OneFormer, EoMT): a network's low-resolution masks in, a prediction out.

    class logits (Q, C + 1) + mask logits (Q, h, w) → one query after the other at the image's size → LabelMap,
                                                      Instances or PanopticMap

What comes out is what transformers' ``post_process_…_segmentation`` give. Those interpolate all queries to the image's
size at once (100 queries of 12 megapixels are 5 GB); here no more than a few planes of that size are held at a time,
and whatever there is of all queries or classes is as large as the network's input.

Papers: Cheng et al. 2021 (https://arxiv.org/abs/2107.06278) and 2022 (https://arxiv.org/abs/2112.01527), Jain et al.
2023 (https://arxiv.org/abs/2211.06220), Kerssies et al. 2025 (https://arxiv.org/abs/2503.19108).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from segjobs.models.base import VOID, Instances, LabelMap, LazyCrops, PanopticMap
from segjobs.models.upsample import upsample_on_cpu
from segjobs.models.upsample_device import upsampled

_LEAST = 0.01  # of a mask's probability: outside the window of those above it, it counts as 0
_TINY = 1e-6  # keeps transformers' mean over an empty mask finite
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)  # of scores whose logarithm is taken; they may all be 0

SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """How an architecture's masks are read.

    ``grid_hw``: the size that they are interpolated to first; None: their own. ``antialias``: where they shrink.
    ``at_image``: an instance's score is its mean over the mask at the image's size, and a panoptic segment ends at
    ``mask_threshold`` (EoMT). ``exclusive``: instances share out the pixels among them (OneFormer).
    """

    grid_hw: SizeHW | None = None
    antialias: bool = False
    at_image: bool = False
    exclusive: bool = False


@dataclass(frozen=True)
class Thresholds:
    """``score``: queries that are surer stay. ``mask``: a pixel's probability. ``stuff``: classes of one segment each.

    ``overlap``: a segment that keeps this share of its mask or less, where others are surer, is dropped.
    """

    score: float
    mask: float
    overlap: float
    stuff: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Patch:
    """A network's output for an image or a part of it, float32 on the CPU: class logits (Q, C + 1), the last of no
    object, and mask logits (Q, h, w), which lie over ``inner_hw`` of the input's ``input_hw`` pixels, from its top left
    corner on; ``start`` is that corner on the longer side of the resized image."""

    classes: torch.Tensor
    masks: torch.Tensor
    input_hw: SizeHW
    inner_hw: SizeHW
    start: int = 0


def semantic_scores(patches: Sequence[Patch], reading: Reading, resized_hw: SizeHW, size_hw: SizeHW) -> torch.Tensor:
    """Each class's score, the sum over queries of class probability times mask probability: float32 (C, h, w).

    Patches of an image of ``resized_hw`` pixels are averaged where they overlap (EoMT).
    """
    if len(patches) == 1:
        return _class_scores(patches[0], reading)
    along_height = size_hw[0] > size_hw[1]
    scores = torch.zeros((patches[0].classes.shape[1] - 1, *resized_hw))
    counts = torch.zeros(resized_hw)
    for patch in patches:
        length = patch.input_hw[0] if along_height else patch.input_hw[1]
        part = np.s_[patch.start : patch.start + length]
        place = (part, np.s_[:]) if along_height else (np.s_[:], part)
        scores[:, *place] += _class_scores(patch, reading)
        counts[*place] += 1
    return scores.div_(counts.clamp(min=1))


def semantic_map(patches: Sequence[Patch], reading: Reading, resized_hw: SizeHW, size_hw: SizeHW) -> LabelMap:
    """The class of the largest ``semantic_scores``. The confidence is its share of all classes' scores."""
    scores = _scores_to_interpolate(patches, reading, resized_hw, size_hw)
    return LabelMap(*upsample_on_cpu(scores.contiguous().numpy(), size_hw, scores=True))


def semantic_logits(patches: Sequence[Patch], reading: Reading, resized_hw: SizeHW, size_hw: SizeHW) -> torch.Tensor:
    """What ``semantic_map`` compares, float32 (C, H, W): logarithms of the scores, whose softmax are their shares."""
    scores = _scores_to_interpolate(patches, reading, resized_hw, size_hw)
    return upsampled(scores, size_hw).clamp_(min=_SMALLEST).log_()


def _scores_to_interpolate(
    patches: Sequence[Patch], reading: Reading, resized_hw: SizeHW, size_hw: SizeHW
) -> torch.Tensor:
    scores = semantic_scores(patches, reading, resized_hw, size_hw)
    if reading.antialias and _shrinks((scores.shape[1], scores.shape[2]), size_hw):
        return F.interpolate(scores[None], size_hw, mode="bilinear", antialias=True)[0]
    return scores


def panoptic_map(patch: Patch, reading: Reading, thresholds: Thresholds, size_hw: SizeHW) -> PanopticMap:
    """Each pixel goes to the query whose class score times mask probability is the largest.

    A segment that keeps ``overlap`` of its mask or less is dropped. Where stuff and objects alternate, transformers
    gives two segments one number (``compute_segments`` counts on from the number that a fused segment has); here each
    has its own.
    """
    scores, classes = patch.classes.softmax(-1).max(-1)
    kept = torch.nonzero((classes < patch.classes.shape[1] - 1) & (scores > thresholds.score)).flatten()
    planes = _grid_planes(patch, reading)

    def plane(position: int) -> np.ndarray:
        mask = planes(int(kept[position]))
        if reading.at_image:
            return _sigmoid(_at_image(mask, size_hw))
        return _at_image(mask.sigmoid(), size_hw, antialias=reading.antialias)

    return _shared_out(plane, scores[kept].numpy(), classes[kept].numpy(), thresholds, reading, size_hw)


def instances(patch: Patch, reading: Reading, thresholds: Thresholds, size_hw: SizeHW) -> Instances:
    """Objects whose score, class probability times mean probability over the mask, reaches the threshold."""
    probabilities = patch.classes.softmax(-1)[:, :-1]
    if reading.exclusive:
        return _exclusive_instances(patch, probabilities, reading, thresholds, size_hw)
    if reading.at_image:
        scores, classes = probabilities.max(-1)
        queries = torch.arange(len(scores))
    else:
        scores, classes, queries = _best_pairs(probabilities)
    planes = _grid_planes(patch, reading)
    found: list[_Object] = []
    for score, label, query in zip(scores.tolist(), classes.tolist(), queries.tolist(), strict=True):
        if score < thresholds.score:  # the mean over a mask is 1 at most
            continue
        mask = planes(query)
        pixels = _at_image(mask, size_hw) if reading.at_image else mask.numpy()
        inside = pixels > 0
        mean = _sigmoid(pixels[inside]).sum(dtype=np.float64) / (np.count_nonzero(inside) + _TINY)
        total = score * float(mean)
        if not inside.any() or total < thresholds.score:
            continue
        found.append(_Object(label, total, mask if reading.at_image else mask.sigmoid()))
    return _as_instances(found, size_hw, interpolated=reading.at_image)


@dataclass(frozen=True)
class _Object:
    """``mask``: float32 (h, w) at the network's resolution: logits that are interpolated, or probabilities."""

    label: int
    score: float
    mask: torch.Tensor


def _class_scores(patch: Patch, reading: Reading) -> torch.Tensor:
    """float32 (C, h, w), of the patch's inside."""
    masks = patch.masks if reading.grid_hw is None else _interpolated(patch.masks, reading.grid_hw)
    weights = patch.classes.softmax(-1)[:, :-1]
    return torch.einsum("qc, qhw -> chw", weights, masks.sigmoid())


def _grid_planes(patch: Patch, reading: Reading) -> Callable[[int], torch.Tensor]:
    """Query → its mask logits, float32 (h, w), at the size that the architecture reads them at."""

    def plane(query: int) -> torch.Tensor:
        if reading.grid_hw is None:
            return patch.masks[query]
        grid = _interpolated(patch.masks[query][None], reading.grid_hw)[0]
        return grid[: patch.inner_hw[0], : patch.inner_hw[1]] if reading.at_image else grid

    return plane


def _interpolated(masks: torch.Tensor, size_hw: SizeHW) -> torch.Tensor:
    """float32 (N, h, w) → (N, *size_hw), bilinear."""
    return F.interpolate(masks[None], size_hw, mode="bilinear", align_corners=False)[0]


def _at_image(plane: torch.Tensor, size_hw: SizeHW, *, antialias: bool = False) -> np.ndarray:
    """float32 (h, w) → (H, W), bilinear; by OpenCV, which differs from torch in the last bits and is faster."""
    if antialias and _shrinks((plane.shape[0], plane.shape[1]), size_hw):
        return F.interpolate(plane[None, None], size_hw, mode="bilinear", antialias=True)[0, 0].numpy()
    return cv2.resize(plane.contiguous().numpy(), size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _shrinks(from_hw: SizeHW, to_hw: SizeHW) -> bool:
    return to_hw[0] < from_hw[0] or to_hw[1] < from_hw[1]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().numpy()


def _best_pairs(probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of all pairs of a query and a class the Q best: their scores, classes and queries, (Q,) each."""
    count, classes = probabilities.shape
    scores, pairs = probabilities.flatten().topk(count, sorted=False)
    return scores, pairs % classes, pairs // classes


def _shared_out(
    plane: Callable[[int], np.ndarray],
    scores: np.ndarray,
    classes: np.ndarray,
    thresholds: Thresholds,
    reading: Reading,
    size_hw: SizeHW,
) -> PanopticMap:
    """Planes (H, W) by position, one after the other → who has each pixel, of those that keep enough of theirs."""
    owner = np.full(size_hw, VOID, np.uint16)
    best = np.full(size_hw, -np.inf, np.float32)
    inside = np.zeros(size_hw, bool)  # the winner's own mask
    areas = np.zeros(len(scores), np.int64)
    for position, score in enumerate(scores):
        values = plane(position)
        weighted = values * score
        masked = (values if reading.at_image else weighted) >= thresholds.mask
        areas[position] = np.count_nonzero(masked)
        won = weighted > best
        best[won], owner[won], inside[won] = weighted[won], position, masked[won]
    left = np.bincount(owner.ravel(), minlength=VOID + 1)[: len(scores)]
    shown = np.bincount(owner[inside], minlength=len(scores)) if reading.at_image else left
    numbers: dict[int, int] = {}  # of a stuff class
    table = np.full(VOID + 1, VOID, np.uint16)
    first: list[int] = []
    for position, label in enumerate(classes.tolist()):
        if not (shown[position] and areas[position]):
            continue
        # In float32, as transformers divides.
        if not float(np.float32(left[position]) / np.float32(areas[position])) > thresholds.overlap:
            continue
        if label not in numbers:
            first.append(position)
        table[position] = numbers.get(label, len(first) - 1)
        if label in thresholds.stuff:
            numbers[label] = int(table[position])
    ids = table[owner]
    if reading.at_image:
        ids[~inside] = VOID
    return PanopticMap(ids, classes[first].astype(np.int64), scores[first].astype(np.float32))


def _exclusive_instances(
    patch: Patch, probabilities: torch.Tensor, reading: Reading, thresholds: Thresholds, size_hw: SizeHW
) -> Instances:
    """OneFormer's: pairs of query and class share out the pixels by their mask logits times their score."""
    scores, classes, queries = (one.numpy() for one in _best_pairs(probabilities))
    kept = np.flatnonzero(scores > thresholds.score)
    planes = _grid_planes(patch, reading)
    shared = _shared_out(
        lambda position: _at_image(planes(int(queries[kept[position]])), size_hw, antialias=reading.antialias),
        scores[kept],
        classes[kept],
        Thresholds(thresholds.score, thresholds.mask, thresholds.overlap),
        reading,
        size_hw,
    )
    order = np.argsort(-shared.scores, kind="stable")
    windows = [_window(shared.ids == number, size_hw) for number in order.tolist()]

    def crop(place: int) -> np.ndarray:
        top, bottom, left, right = windows[place]
        return (shared.ids[top:bottom, left:right] == order[place]).astype(np.float32)

    return _of_windows(size_hw, shared.classes[order], shared.scores[order], windows, windows, crop)


def _as_instances(found: Sequence[_Object], size_hw: SizeHW, *, interpolated: bool) -> Instances:
    """Objects at the network's resolution → at the image's: interpolated logits, or the probability of the nearest."""
    best_first = sorted(found, key=lambda one: -one.score)
    windows, boxes = [], []
    for one in best_first:
        mask = _sigmoid(_at_image(one.mask, size_hw)) if interpolated else one.mask.numpy()
        windows.append(_window(mask > _LEAST, size_hw))
        boxes.append(_window(mask >= 0.5, size_hw))

    def crop(place: int) -> np.ndarray:
        top, bottom, left, right = windows[place]
        mask = best_first[place].mask
        if interpolated:
            return _sigmoid(_at_image(mask, size_hw)[top:bottom, left:right])
        rows, columns = (_nearest(*sides) for sides in zip(mask.shape, size_hw, strict=True))
        return mask.numpy()[rows[top:bottom, None], columns[left:right]]

    classes = np.array([one.label for one in best_first], np.int64)
    scores = np.array([one.score for one in best_first], np.float32)
    return _of_windows(size_hw, classes, scores, windows, boxes, crop)


def _nearest(given: int, wanted: int) -> np.ndarray:
    """For each of ``wanted`` places the one of ``given`` that torch's ``nearest`` takes, int64."""
    places = torch.arange(given, dtype=torch.float32)[None, None]
    return F.interpolate(places, wanted, mode="nearest")[0, 0].long().numpy()


Window = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels, the second and the last behind the end."""


def _window(mask: np.ndarray, size_hw: SizeHW) -> Window:
    """Around all of a bool (h, w), of whose pixels the image's show the nearest; empty where there is none."""
    ends: list[int] = []
    for axis, side in enumerate(size_hw):
        shown = np.asarray(mask.any(axis=1 - axis))
        places = np.flatnonzero(shown[_nearest(mask.shape[axis], side)])
        ends += [int(places[0]), int(places[-1]) + 1] if places.size else [0, 0]
    top, bottom, left, right = ends
    return top, bottom, left, right


def _of_windows(
    size_hw: SizeHW,
    classes: np.ndarray,
    scores: np.ndarray,
    windows: Sequence[Window],
    boxes: Sequence[Window],
    crop: Callable[[int], np.ndarray],
) -> Instances:
    return Instances(
        size_hw=size_hw,
        classes=classes,
        scores=scores,
        boxes_xyxy=np.array([(left, top, right, bottom) for top, bottom, left, right in boxes], np.float32).reshape(
            -1, 4
        ),
        crops=LazyCrops(len(windows), crop),
        corners_xy=np.array([(left, top) for top, _, left, _ in windows], np.int32).reshape(-1, 2),
    )
