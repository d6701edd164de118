"""What an evaluation compares: two sides, their classes, the ranges of image_id that are a task each.

Parts of a manifest hold consecutive image_ids, so the join needs no shuffle: some parts of the truth,
with the ids up to the next, are one task, which reads the few parts of the predictions that reach into
its range.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pyarrow as pa

from segjobs.config import BoundaryConfig
from segjobs.errors import ManifestError
from segjobs.evaluation.foreign import ForeignReader
from segjobs.manifest.parts import PartInfo, Run
from segjobs.manifest.schema import Category, Task
from segjobs.metrics.boundary import BOUNDARY_TYPE
from segjobs.metrics.matching import MATCHES_TYPE
from segjobs.metrics.names import KINDS, MatchKind
from segjobs.metrics.panoptic import QUALITY_TYPE
from segjobs.storage import Storage

UNION_COUNTS = ("both_px", "truth_px", "predicted_px")
STATED = ("truth_areas", "truth_boxes", "predicted_boxes")


def _struct(*ids: str, **fields: pa.DataType) -> pa.StructType:
    return pa.struct([*((name, pa.int32()) for name in ids), *fields.items()])


SCORES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        ("uri", pa.string()),
        # ok, missing, failed (prediction), no_truth (truth failed), extra (no truth at all)
        pa.field("status", pa.string(), nullable=False),
        ("message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("confidence", pa.float32()),
        ("labelled_px", pa.int64()),
        ("correct_px", pa.int64()),
        ("pixel_accuracy", pa.float64()),
        ("mean_iou", pa.float64()),
        # Pixels by category_id of the truth, sparse; null stands for unlabelled truth and for not predicted.
        ("confusion", pa.list_(_struct("truth", "predicted", pixels=pa.int64()))),
        (
            "unions",
            pa.list_(_struct("category_id", **dict.fromkeys(UNION_COUNTS, pa.int64()))),
        ),  # instead of confusion, where objects may overlap
        ("boundary", pa.list_(BOUNDARY_TYPE)),
        ("mask_matches", MATCHES_TYPE),
        ("box_matches", MATCHES_TYPE),
        # Objects whose area or box is their own (``Segment.stated_…``), not their mask's.
        ("stated", pa.struct([(name, pa.int32()) for name in STATED])),
        ("number", pa.int64()),  # the image's place among those of the tool that made the predictions
        ("panoptic", pa.list_(QUALITY_TYPE)),
        ("objects", pa.list_(_struct("category_id", truth=pa.int64(), predicted=pa.int64()))),
        # Where a confident prediction says other_id of pixels that the truth gives category_id (null: to nothing).
        (
            "disputes",
            pa.list_(_struct("category_id", "other_id", pixels=pa.int64(), score=pa.float32(), counts=pa.string())),
        ),
    ]
)
_RANGE_IMAGES = 256


@dataclass(frozen=True)
class ScoredSide:
    """One of the two manifests: ``index`` maps its category ids to class indices of the evaluation, None to none.

    ``foreign`` reads what other tools wrote; then ``run`` is None. ``has_masks``: False of boxes alone.
    """

    name: Literal["truth", "predictions"]
    task: Task
    index: Mapping[int, int | None]
    run: Run | None = None
    foreign: ForeignReader | None = None
    has_masks: bool = True


@dataclass(frozen=True)
class Pairing:
    """The two sides of one evaluation, its classes, and what is counted besides pixels."""

    storage: Storage
    truth: ScoredSide
    predictions: ScoredSide
    categories: tuple[Category, ...]
    boundary: BoundaryConfig
    dispute_score: float
    dispute_px: int

    @property
    def ids(self) -> list[int]:
        """The category id of each class index."""
        return [category.id for category in self.categories]

    @property
    def task(self) -> Task:
        """What the evaluation is foremost about."""
        return "instance" if self.has_detections else "panoptic" if self.has_objects else "semantic"

    @property
    def overlapping(self) -> bool:
        """Objects may overlap on a side: classes are compared one by one, not pixel by pixel."""
        return "instance" in (self.truth.task, self.predictions.task)

    @property
    def has_objects(self) -> bool:
        """Both sides know objects, so that these can be matched."""
        return self.has_masks and self.truth.task != "semantic" and self.predictions.task != "semantic"

    @property
    def has_masks(self) -> bool:
        """Both sides are more than boxes, so that pixels can be compared."""
        return self.truth.has_masks and self.predictions.has_masks

    @property
    def kinds(self) -> tuple[MatchKind, ...]:
        """By what detections are compared with objects."""
        return KINDS if self.has_masks else ("box",)

    @property
    def has_detections(self) -> bool:
        """The predictions are objects with scores, which can be ranked."""
        return self.truth.task != "semantic" and self.predictions.task == "instance"


@dataclass(frozen=True)
class Range:
    """One task: the image_ids in [low, high), None being open, and the parts that may hold them.

    ``foreign``: image_id → JSON text of an image's masks, where the predictions are no manifest.
    """

    low: str | None
    high: str | None
    truth: tuple[PartInfo, ...]
    predictions: tuple[PartInfo, ...]
    foreign: Mapping[str, str] | None = None

    def holds(self, image_id: str) -> bool:
        return (self.low is None or image_id >= self.low) and (self.high is None or image_id < self.high)

    @staticmethod
    def from_json(text: str) -> "Range":
        raw = json.loads(text)
        truth, predictions = (tuple(PartInfo(**part) for part in raw[side]) for side in ("truth", "predictions"))
        return Range(raw["low"], raw["high"], truth, predictions, raw["foreign"])


def ranges(truth: Sequence[PartInfo], predictions: Sequence[PartInfo], *, least: int = _RANGE_IMAGES) -> list[Range]:
    """Cut all image_ids into ranges of whole parts of the truth; every id of either side is in exactly one.

    ``least``: images of a range, but for the last; so that small parts do not make many small tasks.
    """
    for name, parts in (("truth", truth), ("predictions", predictions)):
        for one, two in pairwise(parts):
            if one.last_id >= two.first_id:
                raise ManifestError(
                    f"{name}: {one.name} and {two.name} overlap in image_id; a manifest is sorted by it"
                )
    groups: list[list[PartInfo]] = [[]]
    for part in truth:
        if sum(one.rows for one in groups[-1]) >= least:
            groups.append([])
        groups[-1].append(part)
    starts: list[str | None] = [None, *(group[0].first_id for group in groups[1:])]
    stops: list[str | None] = [*starts[1:], None]
    firsts, lasts = [part.first_id for part in predictions], [part.last_id for part in predictions]
    found: list[Range] = []
    for group, low, high in zip(groups, starts, stops, strict=True):
        begin = 0 if low is None else bisect_left(lasts, low)
        end = len(firsts) if high is None else bisect_left(firsts, high)
        found.append(Range(low, high, tuple(group), tuple(predictions[begin:end])))
    return found
