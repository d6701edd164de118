"""COCO average precision: what the matching of each image left in, the twelve numbers of the set out.

    column of MATCHES_TYPE (matching.py) → Matches.from_column → accumulate → AveragePrecision

Source: pycocotools' ``cocoeval.py`` (``accumulate``, ``summarize``), whose results these are. No mask is
needed any more: 100,000 images with 2,000,000 detections are 80 MB.

Equal scores are ranked by the order of the images (``DetectionMatches.ranked_by``) and, within one, of the segments,
as pycocotools does in the order of its image ids.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.metrics.matching import AREAS, BITS, MATCHES_TYPE
from segjobs.metrics.names import AVERAGE_PRECISION

RECALLS = np.linspace(0.0, 1.0, 101)
FIGURES = tuple(AVERAGE_PRECISION)
LIMITS = (1, 10)  # of detections, for AR1 and AR10
_A, _T = BITS.shape
_OF_DETECTIONS = ("image", "category", "score", "matched", "ignored")


@dataclass(frozen=True)
class DetectionMatches:
    """Detections and objects of many images as columns; ``image`` and ``category`` are indices.

    ``image``, ``category``, ``score``, ``matched``, ``ignored``: (D,), the detections of an image together, best first,
    and images in the order in which equal scores are ranked. ``truth_image``,
    ``truth_category`` (G,), ``objects`` int64 (G, 4): by area range.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_image: np.ndarray
    truth_category: np.ndarray
    objects: np.ndarray
    images: int
    classes: int

    @staticmethod
    def from_column(column: pa.Array | pa.ChunkedArray, category_ids: Sequence[int]) -> "DetectionMatches":
        """A column of ``MATCHES_TYPE``, a row per image; a null row is an image that does not take part.

        Raises ManifestError for a category that is not in ``category_ids``.
        """
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        array = pa.concat_arrays(chunks) if chunks else pa.array([], MATCHES_TYPE)
        image, found = _flat(array, "detections")
        truth_image, truth = _flat(array, "truth")
        return DetectionMatches(
            image=image,
            category=_index(found["category_id"], category_ids),
            score=found["score"],
            matched=found["matched"],
            ignored=found["ignored"],
            truth_image=truth_image,
            truth_category=_index(truth["category_id"], category_ids),
            objects=np.stack([truth[name] for name in AREAS], axis=1).astype(np.int64),
            images=len(array),
            classes=len(category_ids),
        )

    def ranked_by(self, numbers: np.ndarray) -> "DetectionMatches":
        """With the detections in the order of their images' ``numbers``, int64 (images,): that of equal scores."""
        order = np.argsort(numbers[self.image], kind="stable")
        return replace(self, **{name: getattr(self, name)[order] for name in _OF_DETECTIONS})

    def select(self, kept: np.ndarray) -> "DetectionMatches":
        """The images where ``kept``, bool (images,), is True, numbered anew in their order."""
        rows, truths, number = kept[self.image], kept[self.truth_image], np.cumsum(kept) - 1
        return DetectionMatches(
            image=number[self.image[rows]],
            category=self.category[rows],
            score=self.score[rows],
            matched=self.matched[rows],
            ignored=self.ignored[rows],
            truth_image=number[self.truth_image[truths]],
            truth_category=self.truth_category[truths],
            objects=self.objects[truths],
            images=int(kept.sum()),
            classes=self.classes,
        )


def join(blocks: Sequence[DetectionMatches]) -> DetectionMatches:
    """Blocks of images behind each other. Raises ValueError where there is none, or their classes differ."""
    classes = {block.classes for block in blocks}
    if len(classes) != 1:
        raise ValueError(f"expected blocks of one number of classes, got {sorted(classes)}")
    offsets = np.cumsum([0, *(block.images for block in blocks)])

    def column(name: str, *, numbered: bool = False) -> np.ndarray:
        return np.concatenate(
            [getattr(block, name) + (offset if numbered else 0) for block, offset in zip(blocks, offsets, strict=False)]
        )

    return DetectionMatches(
        image=column("image", numbered=True),
        category=column("category"),
        score=column("score"),
        matched=column("matched"),
        ignored=column("ignored"),
        truth_image=column("truth_image", numbered=True),
        truth_category=column("truth_category"),
        objects=column("objects"),
        images=int(offsets[-1]),
        classes=classes.pop(),
    )


@dataclass(frozen=True)
class Ranked:
    """The detections of one class, best first: ``image`` (N,), ``right`` and ``wrong`` bool (A, T, N), the rank
    of each in its image (N,). What is neither right nor wrong is ignored.
    """

    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    rank: np.ndarray


def ranked_classes(matches: DetectionMatches) -> Iterator[Ranked]:
    """Each class's detections, in the order of the classes."""
    order = np.lexsort((-matches.score, matches.image, matches.category))
    rank = np.empty(order.size, np.int64)
    group = matches.category[order] * max(1, matches.images) + matches.image[order]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    rank[order] = np.arange(order.size) - np.repeat(first, np.diff(first, append=order.size))
    order = np.argsort(-matches.score, kind="stable")
    order = order[np.argsort(_short(matches.category[order], matches.classes), kind="stable")]
    cuts = np.searchsorted(matches.category[order], np.arange(matches.classes + 1))
    for begin, end in pairwise(cuts):
        rows = order[begin:end]
        matched, ignored = (_unpack(bits[rows]) for bits in (matches.matched, matches.ignored))
        yield Ranked(matches.image[rows], matched & ~ignored, ~matched & ~ignored, rank[rows])


def interpolated(right: np.ndarray, wrong: np.ndarray, objects: int) -> np.ndarray:
    """Precision averaged over 101 recalls, (R,), of R rankings of the same detections.

    ``right`` and ``wrong``: bool (R, N), what each detection is, best first; ``objects``: how many there are to find.
    Where it is 0 the result is NaN. Precision is best at a right detection, so only those places are looked at; the
    k-th of them reaches the same recall in every ranking.
    """
    if not objects:
        return np.full(len(right), np.nan)
    hits = right.sum(axis=1)
    most: int = hits.max(initial=0).item()
    count = np.arange(1, most + 1)
    # How many of the 101 recalls the k-th right detection reaches first; each takes the best precision from there on.
    reached = np.diff(np.searchsorted(RECALLS, count / objects, side="right"), prepend=0)
    mean = np.zeros(len(right))
    for row in np.flatnonzero(hits):
        places = np.flatnonzero(right[row])
        found = count[: places.size]
        precision = found / (found + np.cumsum(wrong[row])[places] + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        mean[row] = (best * reached[: places.size]).sum() / RECALLS.size
    return mean


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's numbers in [0, 1] by name (``FIGURES``), of the set and as tuples by class; None without objects.

    ``objects``: by class, crowds not counted; ``detections``: by class, at most 100 an image.
    """

    figures: dict[str, float | None]
    per_class: dict[str, tuple[float | None, ...]]
    objects: tuple[int, ...]
    detections: tuple[int, ...]


def accumulate(matches: DetectionMatches) -> AveragePrecision:
    """The average precision of all images, as pycocotools' ``accumulate`` and ``summarize`` give it."""
    objects = np.zeros((matches.classes, _A), np.int64)
    np.add.at(objects, matches.truth_category, matches.objects)
    precision = np.full((matches.classes, _A, _T), np.nan)
    recall = np.full((matches.classes, _A + len(LIMITS), _T), np.nan)
    for number, found in enumerate(ranked_classes(matches)):
        for area, total in enumerate(objects[number]):
            if total:
                precision[number, area] = interpolated(found.right[area], found.wrong[area], int(total))
                recall[number, area] = found.right[area].sum(axis=1) / total
        for place, limit in enumerate(LIMITS):
            if objects[number, 0]:
                recall[number, _A + place] = found.right[0][:, found.rank < limit].sum(axis=1) / objects[number, 0]
    figures = coco_figures(precision, recall)
    return AveragePrecision(
        figures={name: _defined(float(means(values, axis=(0, 1)))) for name, values in figures.items()},
        per_class={name: tuple(map(_defined, means(values, axis=1))) for name, values in figures.items()},
        objects=tuple(objects[:, 0].tolist()),
        detections=tuple(np.bincount(matches.category, minlength=matches.classes).tolist()),
    )


def coco_figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, np.ndarray]:
    """(…, A, T) precision and (…, A + 2, T) recall (the last two of 1 and of 10 detections) → (…, T) by name.

    The mean over T and over classes is the figure; AP50 and AP75 have one threshold each.
    """
    values = (
        precision[..., 0, :],
        precision[..., 0, :1],
        precision[..., 0, 5:6],
        *(precision[..., area, :] for area in (1, 2, 3)),
        *(recall[..., row, :] for row in (_A, _A + 1, 0, 1, 2, 3)),
    )
    return dict(zip(FIGURES, values, strict=True))


def means(values: np.ndarray, *, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of what is not NaN; NaN of nothing."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=axis) / defined.sum(axis=axis)


def _flat(array: pa.StructArray, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A list field of every row → the row of each entry, and the entries' fields."""
    lists = _fields(array)[name]
    entries = _fields(lists.flatten())
    rows = lists.value_parent_indices().to_numpy(zero_copy_only=False).astype(np.int64)
    return rows, {field: values.to_numpy(zero_copy_only=False) for field, values in entries.items()}


def _fields(array: pa.StructArray) -> dict[str, pa.Array]:
    """A StructArray's fields, null where the struct is."""
    return {array.type.field(n).name: values for n, values in enumerate(array.flatten())}


def _index(found: np.ndarray, category_ids: Sequence[int]) -> np.ndarray:
    ids = np.asarray(category_ids, np.int64)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], found).clip(max=max(0, ids.size - 1))
    unknown = np.setdiff1d(found, ids)
    if unknown.size:
        raise ManifestError(f"category ids {unknown[:5].tolist()} are not in the truth's categories")
    return order[place] if ids.size else np.zeros(0, np.int64)


def _short(index: np.ndarray, count: int) -> np.ndarray:
    """Indices below ``count`` in two bytes where they fit, which numpy sorts in linear time."""
    return index.astype(np.uint16) if count <= 2**16 else index


def _unpack(bits: np.ndarray) -> np.ndarray:
    """int64 (N,) → bool (A, T, N)."""
    return (bits & BITS[..., None]) != 0


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
