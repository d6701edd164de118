"""Several passes of instance networks as one Segmenter: their objects matched, scores averaged, masks voted.

    image ─→ a tensor a pass ─→ objects of each pass ─→ clusters: one class, masks that overlap ─→ an object each

Weighted boxes fusion (Solovyev et al. 2019, https://arxiv.org/abs/1910.13302) with masks in the boxes' place: objects
come by falling score; each joins the cluster of its class whose first mask it overlaps most, with an IoU of
``MATCH_IOU`` or more, and of which its own pass has no part yet; else it begins one. Of a cluster

    score   the mean over all passes, 0 of those that did not find it
    mask    the mean of its members' mask probabilities: at 0.5 a vote (as Detectron2's GeneralizedRCNNWithTTA)
    box     the mean of its members' boxes, weighted by their scores
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from segjobs.config import LossConfig
from segjobs.manifest import coco_api
from segjobs.manifest.coco_api import Rle
from segjobs.manifest.rle import encode_crop
from segjobs.manifest.schema import ModelCard
from segjobs.models import batching
from segjobs.models.averaging import networks_of, not_trained
from segjobs.models.base import Instances, LazyCrops, Prediction, RawOutput, Target, Views
from segjobs.models.passes import Pass, views_of

MATCH_IOU = 0.5
_MASK_AT = 0.5
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Object:
    """The object at ``place`` of the pass ``of_pass``. ``window``: left, top, right, bottom of its crop in pixels, the
    last two behind the end."""

    of_pass: int
    place: int
    label: int
    score: float
    window: Window
    mask: Rle


@dataclass
class _Cluster:
    """What is taken for one object; its first member is the surest."""

    members: list[_Object] = field(default_factory=list["_Object"])

    def lacks(self, number: int) -> bool:
        return all(one.of_pass != number for one in self.members)


class FusingSegmenter:
    """See ``base.Segmenter``. It is not trained."""

    def __init__(self, passes: Sequence[Pass], card: ModelCard) -> None:
        self.card = card
        self.module = networks_of(passes)
        self.same_size_batches = any(one.segmenter.same_size_batches for one in passes)
        self._passes = passes

    def preprocess(self, image: np.ndarray) -> Views:
        """uint8 (H, W, 3) RGB → a tensor for each pass. Raises ItemError."""
        return views_of(self._passes, image)

    def forward(self, batch: Sequence[Views]) -> list[list[RawOutput]]:
        """Prepared images → of each, every pass's raw output: objects at the network's resolution."""
        found: list[list[RawOutput]] = [[] for _ in batch]
        for number, one in enumerate(self._passes):
            tensors = [views.tensors[number] for views in batch]
            for run in batching.same_size_runs(tensors, len(tensors), same_size=one.segmenter.same_size_batches):
                for outputs, output in zip(found[run], one.segmenter.forward(tensors[run]), strict=True):
                    outputs.append(output)
        return found

    def postprocess(self, output: Sequence[RawOutput], size_hw: tuple[int, int]) -> Instances:
        """Every pass's raw output of one image → its objects, best first. Raises ItemError."""
        given = [one.instances(raw, size_hw) for one, raw in zip(self._passes, output, strict=True)]
        return fused(given, [one.weight for one in self._passes])

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → Instances each, one image to a batch."""
        return batching.predict(self, images, batch_size=1)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """Nothing to choose: see ``loss``."""

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """Raises ConfigError."""
        raise not_trained(self.card)


def fused(given: Sequence[Instances], weights: Sequence[float]) -> Instances:
    """Every pass's objects of one image, with the weights of the passes, which sum up to 1 → one set, best first."""
    size_hw = given[0].size_hw
    clusters = _clusters(given)
    scores = np.array([sum(one.score * weights[one.of_pass] for one in c.members) for c in clusters], np.float32)
    order = np.argsort(-scores, kind="stable")
    chosen = [clusters[place].members for place in order.tolist()]
    windows = [_around(members) for members in chosen]

    def crop(place: int) -> np.ndarray:
        left, top, right, bottom = windows[place]
        total = np.zeros((bottom - top, right - left), np.float32)
        for one in chosen[place]:
            x, y, x_end, y_end = one.window
            total[y - top : y_end - top, x - left : x_end - left] += given[one.of_pass].crops[one.place]
        return total / len(chosen[place])

    return Instances(
        size_hw=size_hw,
        classes=np.array([members[0].label for members in chosen], np.int64),
        scores=np.minimum(scores[order], 1),
        boxes_xyxy=np.array([_box(given, members) for members in chosen], np.float32).reshape(-1, 4),
        crops=LazyCrops(len(chosen), crop),
        corners_xy=np.array([(left, top) for left, top, _, _ in windows], np.int32).reshape(-1, 2),
    )


def _clusters(given: Sequence[Instances]) -> list[_Cluster]:
    found = [_object(one, number, place) for number, one in enumerate(given) for place in range(len(one.scores))]
    clusters: list[_Cluster] = []
    for one in sorted(found, key=lambda one: (-one.score, one.of_pass, one.place)):
        near = [c for c in clusters if c.members[0].label == one.label and c.lacks(one.of_pass)]
        ious = coco_api.mask_ious([one.mask], [c.members[0].mask for c in near], [False] * len(near))
        best = int(ious.argmax()) if near else -1
        if near and ious[0, best] >= MATCH_IOU:
            near[best].members.append(one)
        else:
            clusters.append(_Cluster([one]))
    return clusters


def _object(found: Instances, of_pass: int, place: int) -> _Object:
    left, top = found.corners_xy[place].tolist()
    mask: np.ndarray = found.crops[place] >= _MASK_AT
    height, width = mask.shape
    return _Object(
        of_pass,
        place,
        int(found.classes[place]),
        float(found.scores[place]),
        (left, top, left + width, top + height),
        {"size": list(found.size_hw), "counts": encode_crop(mask, (left, top), found.size_hw).counts},
    )


def _around(members: Sequence[_Object]) -> Window:
    """The window that holds all members' crops."""
    lefts, tops, rights, bottoms = zip(*(one.window for one in members), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _box(given: Sequence[Instances], members: Sequence[_Object]) -> np.ndarray:
    boxes = np.array([given[one.of_pass].boxes_xyxy[one.place] for one in members], np.float64)
    scores = np.array([one.score for one in members])
    return np.average(boxes, axis=0, weights=scores if scores.sum() > 0 else None)
