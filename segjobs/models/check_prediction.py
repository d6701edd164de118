"""What a model, a user's own above all, gives for one image: checked before it becomes a row.

an error that the model raises, or a prediction that can be no mask of the image → ItemError MODEL_ERROR, of that image
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from segjobs.errors import ItemError
from segjobs.manifest.schema import ModelCard
from segjobs.models.base import (
    VOID,
    Instances,
    LabelMap,
    LabelRuns,
    Logits,
    ObjectRuns,
    PanopticMap,
    Prediction,
    Prepared,
    Segmenter,
    Views,
)
from segjobs.models.device_errors import of_the_device

if TYPE_CHECKING:
    import torch

_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError)
_FAULTS += (TypeError, ValueError)
_OF_THE_DEVICE = re.compile(r"\b(CUDA|cuDNN|CUBLAS|NCCL|HIP)\b", re.IGNORECASE)
_SLACK = 1e-3  # of a probability: interpolation rounds
_MESSAGE_CHARS = 300


@contextmanager
def of_the_model() -> Iterator[None]:
    """What the model raises inside, with its own words, is the fault of the image: ItemError MODEL_ERROR.

    What an ItemError is already stays it; that memory or the device ends is no image's fault.
    """
    try:
        yield
    except of_the_device():
        raise
    except _FAULTS as error:
        words = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and _OF_THE_DEVICE.search(words):
            raise
        raise ItemError("MODEL_ERROR", f"{type(error).__name__}: {words}"[:_MESSAGE_CHARS]) from error


def checked_prepared(value: object) -> Prepared:
    """What preprocess gave, a tensor (C, h, w), or several. Raises ItemError MODEL_ERROR."""
    if isinstance(value, Views):
        for tensor in value.tensors:
            _checked_tensor(tensor)
        return value
    return _checked_tensor(value)


def _checked_tensor(value: object) -> "torch.Tensor":
    import torch

    if not isinstance(value, torch.Tensor) or value.ndim != 3:
        given = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else _described(value)
        raise _wrong(f"preprocess gave {given}, expected a tensor (3, h, w)")
    return value


def prepared(segmenter: Segmenter, image: np.ndarray) -> Prepared:
    """``segmenter.preprocess``, what it gives checked: a tensor, or several; of an exported network an array, which
    goes to it alone. Raises ItemError MODEL_ERROR, and whatever the model raises."""
    given = segmenter.preprocess(image)
    return given if segmenter.module is None else checked_prepared(given)


def checked_logits(value: object, card: ModelCard, size_hw: tuple[int, int]) -> Logits:
    """What ``GivesLogits.logits`` gave for a tile of ``size_hw``, float32 (C, H, W): a GPU's tensor, or an array.

    Raises ItemError MODEL_ERROR.
    """
    shape = (len(card.categories), *size_hw)
    if isinstance(value, np.ndarray):
        return _array("logits", value, shape, kinds="f").astype(np.float32, copy=False)
    import torch

    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or not value.is_floating_point():
        given = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else _described(value)
        raise _wrong(f"logits gave {given}, expected floats {shape}")
    found = value.detach().float()
    return found if found.is_cuda else found.numpy()


def checked(prediction: object, card: ModelCard, size_hw: tuple[int, int]) -> Prediction:
    """The prediction for an image of ``size_hw``, in the types that ``models.base`` promises.

    Raises ItemError MODEL_ERROR where it is of another size, of unknown classes, or not of numbers that it can be of.
    """
    if card.task == "instance" and isinstance(prediction, Instances):
        return _checked_instances(prediction, len(card.categories), size_hw)
    if card.task == "semantic" and isinstance(prediction, LabelMap):
        return _checked_map(prediction, len(card.categories), size_hw)
    if card.task == "panoptic" and isinstance(prediction, PanopticMap):
        return _checked_segments(prediction, len(card.categories), size_hw)
    expected = {"instance": "Instances", "panoptic": "a PanopticMap", "semantic": "a LabelMap"}[card.task]
    raise _wrong(f"postprocess gave a {type(prediction).__name__}, expected {expected} of a {card.task} model")


def checked_runs(
    given: Sequence[LabelRuns | ItemError], card: ModelCard, sizes_hw: Sequence[tuple[int, int]]
) -> list[LabelRuns | ItemError]:
    """What ``GivesRuns.runs`` gave for images of ``sizes_hw``. Raises ItemError MODEL_ERROR, as ``checked`` does."""
    if len(given) != len(sizes_hw):
        raise _wrong(f"runs gave {len(given)} answers for {len(sizes_hw)} image(s)")
    for one, size_hw in zip(given, sizes_hw, strict=True):
        if not isinstance(one, ItemError):
            _check_runs(one, len(card.categories), size_hw)
    return list(given)


def _check_runs(runs: LabelRuns, classes: int, size_hw: tuple[int, int]) -> None:
    if runs.size_hw != size_hw:
        raise _wrong(f"runs are of an image of {runs.size_hw}, the image's is {size_hw}")
    unknown = runs.values[(runs.values >= classes) & (runs.values != VOID)]
    if unknown.size:
        raise _wrong(
            f"ids holds {unknown[0]}, and the model has {classes} classes (0 to {classes - 1}; {VOID} for none)"
        )
    lengths = np.diff(runs.starts, append=size_hw[0] * size_hw[1])
    if not (runs.starts[0] == 0 and lengths.min() > 0):
        raise _wrong(f"runs begin at {runs.starts[0]} and do not cover the image in order")
    _check_probabilities("confidence", runs.sums / lengths)


def checked_object_runs(
    given: Sequence[ObjectRuns | ItemError], card: ModelCard, sizes_hw: Sequence[tuple[int, int]]
) -> list[ObjectRuns | ItemError]:
    """What ``GivesObjectRuns.object_runs`` gave for images of ``sizes_hw``. Raises ItemError MODEL_ERROR."""
    if len(given) != len(sizes_hw):
        raise _wrong(f"object_runs gave {len(given)} answers for {len(sizes_hw)} image(s)")
    for one, size_hw in zip(given, sizes_hw, strict=True):
        if not isinstance(one, ItemError):
            _check_object_runs(one, len(card.categories), size_hw)
    return list(given)


def _check_object_runs(runs: ObjectRuns, classes: int, size_hw: tuple[int, int]) -> None:
    if runs.size_hw != size_hw:
        raise _wrong(f"object_runs are of an image of {runs.size_hw}, the image's is {size_hw}")
    count = len(runs.scores)
    _check_classes(_array("classes", runs.classes, (count,), kinds="iu"), classes)
    _check_probabilities("scores", _array("scores", runs.scores, (count,), kinds="f"))
    _array("boxes_xyxy", runs.boxes_xyxy, (count, 4), kinds="f")
    first = _array("first", runs.first, (count + 1,), kinds="iu")
    bounds = np.stack([runs.starts, runs.ends], axis=1)
    bounds += np.repeat(np.arange(count), np.diff(first))[:, None] * (
        size_hw[0] * size_hw[1] + 1
    )  # one mask on another
    inside = not bounds.size or (runs.starts.min() >= 0 and runs.ends.max() <= size_hw[0] * size_hw[1])
    if not (inside and (np.diff(bounds.ravel()) > 0).all()):
        raise _wrong("object_runs are not inside the image, or not in order")


def _checked_map(prediction: LabelMap, classes: int, size_hw: tuple[int, int]) -> LabelMap:
    ids = _array("ids", prediction.ids, size_hw, kinds="iu")
    unknown = ids[((ids < 0) | (ids >= classes)) & (ids != VOID)]
    if unknown.size:
        raise _wrong(
            f"ids holds {unknown[0]}, and the model has {classes} classes (0 to {classes - 1}; {VOID} for none)"
        )
    confidence = _array("confidence", prediction.confidence, size_hw, kinds="f")
    _check_probabilities("confidence", confidence)
    return LabelMap(ids.astype(np.uint16, copy=False), confidence.astype(np.float32, copy=False))


def _checked_segments(prediction: PanopticMap, classes: int, size_hw: tuple[int, int]) -> PanopticMap:
    count = len(prediction.scores)
    ids = _array("ids", prediction.ids, size_hw, kinds="iu")
    unknown = ids[((ids < 0) | (ids >= count)) & (ids != VOID)]
    if unknown.size:
        raise _wrong(f"ids holds {unknown[0]}, and there are {count} segments ({VOID} for none)")
    _check_classes(_array("classes", prediction.classes, (count,), kinds="iu"), classes)
    _check_probabilities("scores", _array("scores", prediction.scores, (count,), kinds="f"))
    return PanopticMap(ids.astype(np.uint16, copy=False), prediction.classes, prediction.scores)


def _check_classes(indices: np.ndarray, classes: int) -> None:
    if indices.size and not (indices.min() >= 0 and indices.max() < classes):
        raise _wrong(f"classes holds {indices.min()} to {indices.max()}, and the model has {classes}")


def _checked_instances(prediction: Instances, classes: int, size_hw: tuple[int, int]) -> Instances:
    if tuple(prediction.size_hw) != size_hw:
        raise _wrong(f"size_hw is {tuple(prediction.size_hw)}, the image's is {size_hw}")
    count = len(prediction.crops)
    _check_classes(_array("classes", prediction.classes, (count,), kinds="iu"), classes)
    scores = _array("scores", prediction.scores, (count,), kinds="f")
    _check_probabilities("scores", scores)
    corners = _array("corners_xy", prediction.corners_xy, (count, 2), kinds="iu")
    for number, (crop, (left, top)) in enumerate(zip(prediction.crops, corners.tolist(), strict=True)):
        name = f"crops[{number}]"
        if not isinstance(crop, np.ndarray) or crop.ndim != 2 or crop.dtype.kind != "f":
            raise _wrong(f"{name} is {_described(crop)}, expected floats (h, w)")
        height, width = crop.shape
        if left < 0 or top < 0 or left + width > size_hw[1] or top + height > size_hw[0]:
            raise _wrong(f"{name}, {width}x{height} pixels at {left}, {top}, is not inside the image")
        _check_probabilities(name, crop)
    return prediction


def _array(name: str, value: object, shape: tuple[int, ...], *, kinds: str) -> np.ndarray:
    """``value`` as it is. Raises where it is no array of ``shape``, of one of numpy's ``kinds`` of numbers."""
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in kinds:
        numbers = "floats" if kinds == "f" else "integers"
        raise _wrong(f"{name} is {_described(value)}, expected {numbers} {shape} as the image has it")
    return value


def _described(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _check_probabilities(name: str, values: np.ndarray) -> None:
    """NaN is in no range."""
    if values.size and not (values.min() >= -_SLACK and values.max() <= 1 + _SLACK):
        raise _wrong(f"{name} holds {values.min():g} to {values.max():g}, expected probabilities in [0, 1]")


def _wrong(text: str) -> ItemError:
    return ItemError("MODEL_ERROR", text)
