"""What every Segmenter must hold, a user's own too, tried on drawn images: a Segmenter in, a Finding a check out.

Each check is a function of ``Subject`` that raises, in the model's own words or in ``Broken``'s, where the model does
not hold it, and gives a note where it does not apply. They are in ``CHECKS``, in the order of what builds on what.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from segjobs.errors import ConfigError, ItemError
from segjobs.models.base import (
    GivesLogits,
    Instances,
    LabelMap,
    PanopticMap,
    Prediction,
    Prepared,
    RawOutput,
    Segmenter,
    tensors_of,
)
from segjobs.models.check_prediction import checked, checked_logits, checked_prepared
from segjobs.models.factories import own_words
from segjobs.models.tiling import label_map_of

SIZES_HW = ((50, 70), (97, 33))
HOSTILE_HW = ((1, 1), (3000, 10), (10, 3000))
_CELL_PX = 12  # of the drawn images
_ALIKE = 0.99  # of the pixels: convolutions of another batch size sum in another order, and near ties fall otherwise
_CLOSE = 1e-2  # of a probability, for the same reason


class Broken(Exception):
    """A check that does not hold; its text says what was found and what was expected."""


@dataclass(frozen=True)
class Subject:
    """What is checked. ``again`` builds it a second time, as another process would."""

    segmenter: Segmenter
    device: str
    again: Callable[[], Segmenter]


@dataclass(frozen=True)
class Finding:
    """Of one check. ``fault``: why it does not hold, None where it does. ``note``: why it does not apply.

    ``cause``: the error that the model raised, if it was one.
    """

    check: str
    fault: str | None = None
    note: str | None = None
    cause: BaseException | None = None


def check_device(device: str) -> None:
    """Raise ConfigError where this machine has no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no GPU here; drop it")


def run_contract(subject: Subject) -> Iterator[Finding]:
    """Every check of ``CHECKS``, one after the other, whatever became of those before it."""
    for name, check in CHECKS.items():
        try:
            yield Finding(name, note=check(subject))
        except (Broken, ItemError) as error:
            yield Finding(name, fault=error.message if isinstance(error, ItemError) else str(error))
        except Exception as error:  # somebody's code may raise anything
            yield Finding(name, fault=own_words(error), cause=error)


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured cells with soft edges, uint8 (height, width, 3) RGB."""
    cells = (max(1, height // _CELL_PX), max(1, width // _CELL_PX), 3)
    colours = np.random.default_rng(seed).integers(0, 256, cells, np.uint8)
    return cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)


def _prepared_tensors(subject: Subject) -> None:
    image = draw(50, 70)
    before = image.copy()
    tensors = tensors_of(checked_prepared(subject.segmenter.preprocess(image)))
    if not np.array_equal(image, before):
        raise Broken("preprocess writes into the image; expected a copy, for others read it too")
    if away := [tensor.device for tensor in tensors if tensor.device.type != "cpu"]:
        raise Broken(f"preprocess gave a tensor on {away[0]}, expected the CPU: forward moves it")


def _original_size(subject: Subject) -> None:
    for size_hw in SIZES_HW:
        _predict(subject, draw(*size_hw))


def _hostile_sizes(subject: Subject) -> str | None:
    """A model may refuse an image, with an ItemError that says why: it becomes that image's row."""
    refusals = []
    for height, width in HOSTILE_HW:
        try:
            _predict(subject, draw(height, width))
        except Broken as error:
            reason = error.__cause__
            if not isinstance(reason, ItemError) or reason.code in ("MODEL_ERROR", "NON_FINITE"):
                raise
            refusals.append(f"{error} ({reason.code})")
    return "refused: " + "; ".join(refusals) if refusals else None


def _batches(subject: Subject) -> None:
    size_hw = SIZES_HW[0]
    tensors = [subject.segmenter.preprocess(draw(*size_hw, seed)) for seed in range(3)]
    together = _forward(subject, tensors)
    for number, (tensor, output) in enumerate(zip(tensors, together, strict=True)):
        (alone,) = _forward(subject, [tensor])
        one, many = (_postprocess(subject, given, size_hw) for given in (alone, output))
        if fault := _difference(one, many, exact=False):
            raise Broken(f"image {number} of 3 alone is another than in the batch: {fault}")


def _determinism(subject: Subject) -> None:
    image = draw(*SIZES_HW[0])
    first, second = _predict(subject, image), _predict(subject, image)
    if fault := _difference(first, second, exact=subject.device == "cpu"):
        raise Broken(f"the same image twice: {fault}; is the module in eval mode, without random numbers?")


def _threads(subject: Subject) -> None:
    """preprocess and postprocess run on several threads at once."""
    size_hw = SIZES_HW[0]
    images = [draw(*size_hw, seed) for seed in range(8)]
    expected = [subject.segmenter.preprocess(image) for image in images]
    outputs = [_forward(subject, [tensor])[0] for tensor in expected]
    serial = [_postprocess(subject, output, size_hw) for output in outputs]
    with ThreadPoolExecutor(4) as pool:
        tensors = list(pool.map(subject.segmenter.preprocess, images))
        parallel = list(pool.map(lambda output: _postprocess(subject, output, size_hw), outputs))
    if not all(_equal(one, other) for one, other in zip(expected, tensors, strict=True)):
        raise Broken("preprocess gives another tensor when several threads call it at once")
    for one, other in zip(serial, parallel, strict=True):
        if fault := _difference(one, other, exact=subject.device == "cpu"):
            raise Broken(f"postprocess gives something else when several threads call it at once: {fault}")


def _same_again(subject: Subject) -> None:
    again = subject.again()
    if again.card != subject.segmenter.card:
        raise Broken("built again, its card is another: the driver and its workers would not agree")
    image = draw(*SIZES_HW[0])
    one, other = _predict(subject, image), _predict(Subject(again, subject.device, subject.again), image)
    if fault := _difference(one, other, exact=subject.device == "cpu"):
        raise Broken(f"built again, it is another network under the same digest: {fault}; seed its random weights")


def _not_finite(subject: Subject) -> str | None:
    parameters = [one for one in subject.segmenter.module.parameters() if one.is_floating_point()]
    if not parameters:
        return "its module has no parameters to spoil"
    tensor = subject.segmenter.preprocess(draw(*SIZES_HW[0]))
    with _spoilt(parameters):
        (output,) = _forward(subject, [tensor])
        try:
            subject.segmenter.postprocess(output, SIZES_HW[0])
        except ItemError as error:
            if error.code == "NON_FINITE":
                return None
            raise Broken(f"of a network of NaN, postprocess raised {error}; expected NON_FINITE") from error
    raise Broken(
        "of a network of NaN, postprocess gave a prediction; expected ItemError('NON_FINITE', …), else such images are "
        "published as ok"
    )


def _logits(subject: Subject) -> str | None:
    segmenter = subject.segmenter
    if segmenter.card.task != "semantic":
        return f"{segmenter.card.task} models have none"
    if not isinstance(segmenter, GivesLogits):
        return "it has no method logits: tiles.blend=none alone"
    size_hw = SIZES_HW[0]
    (output,) = _forward(subject, [segmenter.preprocess(draw(*size_hw))])
    ids = label_map_of(checked_logits(segmenter.logits(output, size_hw), segmenter.card, size_hw)).ids
    (again,) = _forward(subject, [segmenter.preprocess(draw(*size_hw))])  # logits may write over the first one
    prediction = _postprocess(subject, again, size_hw)
    assert isinstance(prediction, LabelMap)  # noqa: S101
    if (share := float((ids == prediction.ids).mean())) < _ALIKE:
        raise Broken(f"the largest logit is the label map's class at {share:.1%} of the pixels, expected all")
    return None


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "prepared tensors": _prepared_tensors,
    "way back to the original size": _original_size,
    "hostile sizes": _hostile_sizes,
    "batch of 1 equals batch of N": _batches,
    "same image, same answer": _determinism,
    "threads": _threads,
    "built again, the same model": _same_again,
    "non-finite output": _not_finite,
    "logits for tiles": _logits,
}
"""Name → the check."""


def _equal(one: Prepared, other: Prepared) -> bool:
    return all(torch.equal(*pair) for pair in zip(tensors_of(one), tensors_of(other), strict=True))


def _forward(subject: Subject, tensors: Sequence[Prepared]) -> list[RawOutput]:
    outputs = list(subject.segmenter.forward(tensors))
    if len(outputs) != len(tensors):
        raise Broken(f"forward gave {len(outputs)} outputs for {len(tensors)} image(s)")
    return outputs


def _postprocess(subject: Subject, output: RawOutput, size_hw: tuple[int, int]) -> Prediction:
    return checked(subject.segmenter.postprocess(output, size_hw), subject.segmenter.card, size_hw)


def _predict(subject: Subject, image: np.ndarray) -> Prediction:
    height, width = image.shape[:2]
    try:
        predictions = list(subject.segmenter.predict([image]))
        if len(predictions) != 1:
            raise Broken(f"predict gave {len(predictions)} predictions for 1 image")
        return checked(predictions[0], subject.segmenter.card, (height, width))
    except (Broken, ItemError) as error:
        words = error.message if isinstance(error, ItemError) else str(error)
        raise Broken(f"{height}x{width} pixels (h x w): {words}") from error
    except Exception as error:
        error.add_note(f"at an image of {height}x{width} pixels (h x w)")
        raise


def _difference(one: Prediction, other: Prediction, *, exact: bool) -> str | None:
    """What is another in two predictions of one image; None where they are the same, or but for rounding."""
    alike, close = (1.0, 0.0) if exact else (_ALIKE, _CLOSE)
    if not isinstance(one, Instances) and not isinstance(other, Instances):
        share = float((one.ids == other.ids).mean())
        if share < alike:
            return f"{1 - share:.1%} of the pixels are of another class"
    if isinstance(one, LabelMap) and isinstance(other, LabelMap):
        if one.confidence is None or other.confidence is None:
            return None
        return _apart("confidences", one.confidence, other.confidence, close)
    assert isinstance(one, Instances | PanopticMap)  # noqa: S101
    assert isinstance(other, Instances | PanopticMap)  # noqa: S101
    if len(one.scores) != len(other.scores):
        return f"{len(one.scores)} and {len(other.scores)} objects"
    return _apart("scores", one.scores, other.scores, close)


def _apart(name: str, one: np.ndarray, other: np.ndarray, close: float) -> str | None:
    apart = float(np.abs(one.astype(np.float64) - other).mean()) if one.size else 0.0
    return f"{name} are {apart:.2g} apart on average" if apart > close else None


@contextmanager
def _spoilt(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Every parameter is NaN inside."""
    kept = [one.detach().cpu().clone() for one in parameters]
    try:
        with torch.no_grad():
            for one in parameters:
                one.fill_(float("nan"))
        yield
    finally:
        with torch.no_grad():
            for one, numbers in zip(parameters, kept, strict=True):
                one.copy_(numbers)
