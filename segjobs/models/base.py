"""What a model is to the rest of the project: images in; label maps, instances or panoptic maps out.

A ``Segmenter`` owns its preprocessing and its way back to the original size. Inference is three
steps, so that the pipeline can run them on different threads:

    preprocess (any thread) → forward (the one thread that owns the device) → postprocess (any thread)
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeGuard, TypeVar, Union, overload, runtime_checkable

import numpy as np

from segjobs.config import LossConfig, PostprocessConfig
from segjobs.errors import ItemError
from segjobs.manifest.rle import VOID
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.schema import ModelCard

if TYPE_CHECKING:
    import torch

__all__ = [
    "VOID",
    "GivesLogits",
    "GivesObjectRuns",
    "GivesPlanes",
    "GivesRuns",
    "GivesUncertainty",
    "Instances",
    "LabelMap",
    "LabelRuns",
    "LazyCrops",
    "ObjectRuns",
    "PanopticMap",
    "Prediction",
    "Prepared",
    "Scales",
    "Segmenter",
    "Target",
    "Views",
    "gives_object_runs",
    "gives_runs",
    "tensors_of",
    "with_attributes",
]


@dataclass(frozen=True)
class LabelMap:
    """Semantic prediction or target of one image, at its original size.

    ``ids``: uint16 (H, W), index into the model's categories, ``VOID`` where unlabelled.
    ``confidence``: float32 (H, W) in [0, 1], the winning class's probability at the network's
    output resolution, interpolated bilinearly to the image's pixels; None for a target.
    """

    ids: np.ndarray
    confidence: np.ndarray | None = None


@dataclass(frozen=True)
class LabelRuns:
    """Semantic prediction of one image as the column-major runs of its label map, which cover it.

    ``size_hw``: the image's height and width. ``starts``: int64 (N,), ascending from 0, the pixel x·H + y that each
    run begins at. ``values``: uint16 (N,), index into the model's categories. ``sums``: float64 (N,), the sum of
    ``LabelMap.confidence`` over each run's pixels.
    """

    size_hw: tuple[int, int]
    starts: np.ndarray
    values: np.ndarray
    sums: np.ndarray


@dataclass(frozen=True)
class Instances:
    """Instance prediction or target of one image, at its original size.

    ``size_hw``: the image's height and width. ``classes``: int64 (N,), index into the model's
    categories. ``scores``: float32 (N,) in [0, 1], best first. ``boxes_xyxy``: float32 (N, 4) in
    pixels. ``crops``: N arrays, float32 (h, w) in [0, 1], each object's mask probability inside the
    pixel window whose top left corner is ``corners_xy[n]`` (int32 (N, 2)); outside it is 0.
    """

    size_hw: tuple[int, int]
    classes: np.ndarray
    scores: np.ndarray
    boxes_xyxy: np.ndarray
    crops: Sequence[np.ndarray]
    corners_xy: np.ndarray


@dataclass(frozen=True)
class ObjectRuns:
    """Instance prediction of one image as the column-major runs of its objects' masks at a threshold.

    ``size_hw``, ``classes``, ``scores``, ``boxes_xyxy``: as of ``Instances``. ``starts``, ``ends``: int64 (R,), the
    pixel x·H + y that each run begins at, ascending within an object, and the one behind its last; runs of an object
    do not touch. ``first``: int64 (N + 1,), those of object n are ``first[n]`` up to ``first[n + 1]``.
    """

    size_hw: tuple[int, int]
    classes: np.ndarray
    scores: np.ndarray
    boxes_xyxy: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray


class LazyCrops(Sequence[np.ndarray]):
    """Objects' mask probabilities inside their windows, float32 (h, w), each made when it is asked for."""

    def __init__(self, count: int, make: Callable[[int], np.ndarray]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        places = range(self._count)[index]
        return self._make(places) if isinstance(places, int) else [self._make(place) for place in places]


@dataclass(frozen=True)
class PanopticMap:
    """Panoptic prediction of one image, at its original size: objects and regions that never overlap.

    ``ids``: uint16 (H, W), which segment, ``VOID`` where none. ``classes``: int64 (N,), index of each segment's class
    into the model's categories. ``scores``: float32 (N,) in [0, 1].
    """

    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Views:
    """An image prepared for several passes of networks: the tensor (3, h, w) of each, and its own ``size_hw``."""

    tensors: tuple["torch.Tensor", ...]
    size_hw: tuple[int, int]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Of each tensor: images whose shapes are the same fit one batch."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


Prepared = Union["torch.Tensor", Views]
"""An image as a Segmenter's ``preprocess`` leaves it for its ``forward``."""


def tensors_of(prepared: Prepared) -> tuple["torch.Tensor", ...]:
    """The tensors of a prepared image: one, or one a pass."""
    return prepared.tensors if isinstance(prepared, Views) else (prepared,)


Logits = Union[np.ndarray, "torch.Tensor"]
"""float32 (C, h, w), an array or a tensor of any device."""
Target = LabelMap | Instances
"""What a network is trained towards."""
Prediction = LabelMap | Instances | PanopticMap
RawOutput = Any
"""What a network gives for one image: its Segmenter's own, and nobody else looks into it."""


class Segmenter(Protocol):
    """A segmentation model with its preprocessing. One instance per process, one forward at a time."""

    card: ModelCard
    module: "torch.nn.Module"
    same_size_batches: bool
    """True: ``forward`` takes tensors of one shape only. False: any mix."""

    def preprocess(self, image: np.ndarray) -> Any:
        """uint8 (H, W, 3) RGB → uint8 (3, h, w) at the network's size, on the CPU. Thread-safe.

        A model of the user's own may give another dtype, where it normalises before it resizes; several passes over
        one image are ``Views``.
        """
        ...

    def forward(self, batch: Sequence[Any]) -> Sequence[RawOutput]:
        """Run the network on prepared tensors; one raw output per image, left on the device.

        Raises torch.OutOfMemoryError; the caller halves the batch.
        """
        ...

    def postprocess(self, output: RawOutput, size_hw: tuple[int, int]) -> Prediction:
        """Raw output of one image → its prediction at the original ``size_hw``. Thread-safe.

        Raises ItemError NON_FINITE where the output holds NaN or infinity.
        """
        ...

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """The three steps in one call, for images uint8 (H, W, 3) RGB of any sizes, in batches."""
        ...

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """Choose what ``loss`` computes; cross-entropy at first. Mask R-CNN has losses of its own and takes none.

        ``amounts``: labelled pixels of each category in the data, in order, for balanced weights. Raises ConfigError.
        """
        ...

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> "torch.Tensor":
        """Scalar training loss of one batch at the images' own size; ``VOID`` pixels carry none.

        Per labelled pixel (semantic), or per image (instance). The module must be in train mode.
        """
        ...


@runtime_checkable
class GivesLogits(Protocol):
    """What a semantic Segmenter has besides, for tiles whose logits are blended (``tiles.blend``)."""

    def logits(self, output: RawOutput, size_hw: tuple[int, int]) -> Logits:
        """Raw output of one image → float32 (C, H, W) at the original ``size_hw``. Thread-safe.

        Numbers whose softmax over the C categories are their probabilities; the caller may write over them. Raises
        ItemError NON_FINITE where the output holds NaN or infinity.
        """
        ...


class GivesRuns(Protocol):
    """What a semantic Segmenter has besides, for masks of which nobody asks for pixels: the faster ``postprocess``."""

    def runs(self, outputs: Sequence[RawOutput], sizes_hw: Sequence[tuple[int, int]]) -> list[LabelRuns | ItemError]:
        """Raw outputs of a batch → the runs of each image's label map, in order. Thread-safe.

        ItemError NON_FINITE for an image whose output holds NaN or infinity.
        """
        ...


@runtime_checkable
class GivesUncertainty(Protocol):
    """What a semantic Segmenter has besides, for the columns ``margin`` and ``entropy`` (``uncertainty=true``)."""

    def uncertainty(self, output: RawOutput, size_hw: tuple[int, int]) -> Uncertainty:
        """Raw output of one image of ``size_hw`` pixels, finite → how unsure it is. Thread-safe.

        ``models/uncertainty.py`` computes it of logits (``of_logits``).
        """
        ...


class GivesObjectRuns(Protocol):
    """What an instance Segmenter has besides, for masks of which nobody asks for pixels: the faster ``postprocess``."""

    def object_runs(
        self, outputs: Sequence[RawOutput], sizes_hw: Sequence[tuple[int, int]], config: PostprocessConfig
    ) -> list[ObjectRuns | ItemError]:
        """Raw outputs of a batch → the objects of each image that ``score_threshold`` and ``classes`` keep, best
        first, with the runs of their masks at ``mask_threshold``. Thread-safe.

        ItemError NON_FINITE for an image whose output holds NaN or infinity.
        """
        ...


def gives_runs(segmenter: object) -> TypeGuard[GivesRuns]:
    """Whether ``runs`` says the same as ``postprocess``: not of a subclass that has another ``postprocess`` only."""
    return _beside_postprocess(segmenter, "runs")


def gives_object_runs(segmenter: object) -> TypeGuard[GivesObjectRuns]:
    """As ``gives_runs``, of ``object_runs``."""
    return _beside_postprocess(segmenter, "object_runs")


def _beside_postprocess(segmenter: object, name: str) -> bool:
    if "postprocess" in vars(segmenter):
        return False
    nearest = next((one for one in type(segmenter).__mro__ if {name, "postprocess"} & vars(one).keys()), object)
    return name in vars(nearest)


@runtime_checkable
class GivesPlanes(Protocol):
    """What a semantic Segmenter has besides, whose probabilities are averaged (``model.tta``, ensembles)."""

    def planes(self, output: RawOutput, size_hw: tuple[int, int]) -> "torch.Tensor":
        """As ``GivesLogits.logits``, at the network's own resolution: float32 (C, h, w) that cover the whole image.

        What is not finite stays so. Nothing waits for the device.
        """
        ...


Copied = TypeVar("Copied")


def with_attributes(one: Copied, **attributes: object) -> Copied:
    """A shallow copy with other attributes: another Segmenter of the same network."""
    other = copy(one)
    vars(other).update(attributes)
    return other


@runtime_checkable
class Scales(Protocol):
    """What a Segmenter has besides, whose resizing segjobs does (``model.tta: [scale:1.25]``)."""

    def scaled(self, factor: float) -> Self:
        """The same network, which sees images whose sides are ``factor`` times as long. Raises ConfigError."""
        ...
