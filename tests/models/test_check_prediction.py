"""What a model gives for an image: what can be its masks passes as promised, all else is an error of that image."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segjobs.errors import ItemError
from segjobs.manifest.schema import ModelCard, Task, make_categories
from segjobs.models.base import VOID, Instances, LabelMap, PanopticMap
from segjobs.models.batching import forward_in_halves
from segjobs.models.check_prediction import checked, checked_prepared, of_the_model

SIZE_HW = (2, 3)
OBJECTS = Instances(
    SIZE_HW,
    classes=np.array([1, 0]),
    scores=np.array([0.9, 0.1], np.float32),
    boxes_xyxy=np.zeros((2, 4), np.float32),
    crops=[np.ones((1, 2), np.float32), np.full((2, 1), 0.5, np.float32)],
    corners_xy=np.array([[1, 1], [0, 0]], np.int32),
)


def card(task: Task) -> ModelCard:
    return ModelCard("any", task, make_categories(["a", "b"]), digest="0" * 64, weights="none")


def test_what_is_right_passes_in_the_types_that_are_promised() -> None:
    ids = np.array([[0, 1, VOID], [1, 1, 0]], np.int64)
    given = checked(LabelMap(ids, np.full(SIZE_HW, 1.0000001)), card("semantic"), SIZE_HW)
    assert isinstance(given, LabelMap) and given.confidence is not None
    assert (given.ids.dtype, given.confidence.dtype) == (np.uint16, np.float32)
    assert np.array_equal(given.ids, ids)
    assert checked(OBJECTS, card("instance"), SIZE_HW) is OBJECTS
    none = np.zeros(0, np.float32)
    empty = Instances(SIZE_HW, np.zeros(0, np.int64), none, none.reshape(0, 4), [], np.zeros((0, 2), np.int32))
    assert checked(empty, card("instance"), SIZE_HW) is empty


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"size_hw": (3, 2)}, r"size_hw is \(3, 2\), the image's is \(2, 3\)"),
    ({"classes": np.array([1])}, r"classes is int64 \(1,\), expected integers \(2,\)"),
    ({"classes": np.array([1, 2])}, "classes holds 1 to 2, and the model has 2"),
    ({"classes": np.array([1.0, 0.0])}, "classes is float64"),
    ({"scores": np.array([0.9, np.nan])}, "scores holds nan to nan, expected probabilities"),
    ({"scores": np.array([90.0, 1.0])}, "scores holds 1 to 90, expected probabilities"),
    ({"corners_xy": np.array([[2, 1], [0, 0]])}, r"crops\[0\], 2x1 pixels at 2, 1, is not inside the image"),
    ({"corners_xy": np.array([[1, 1], [0, -1]])}, r"crops\[1\], 1x2 pixels at 0, -1, is not inside the image"),
    ({"crops": [np.ones((1, 2), bool), OBJECTS.crops[1]]}, r"crops\[0\] is bool \(1, 2\), expected floats"),
    ({"crops": [OBJECTS.crops[0] * np.inf, OBJECTS.crops[1]]}, r"crops\[0\] holds inf to inf"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_objects_that_cannot_be_the_image_s(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ItemError, match=rf"^MODEL_ERROR: {message}"):
        checked(replace(OBJECTS, **changes), card("instance"), SIZE_HW)


def test_a_prediction_of_another_task_and_a_target_are_refused() -> None:
    with pytest.raises(ItemError, match="gave a Instances, expected a LabelMap of a semantic model"):
        checked(OBJECTS, card("semantic"), SIZE_HW)
    with pytest.raises(ItemError, match="confidence is a NoneType, expected floats"):
        checked(LabelMap(np.zeros(SIZE_HW, np.uint16)), card("semantic"), SIZE_HW)
    for value in (np.zeros((3, 2, 2)), torch.zeros(2, 2), None):
        with pytest.raises(ItemError, match="preprocess gave"):
            checked_prepared(value)


def test_the_device_s_faults_are_no_image_s() -> None:
    for error in (RuntimeError("CUDA error: an illegal memory access"), torch.OutOfMemoryError("9 GiB"), MemoryError()):
        with pytest.raises(type(error)), of_the_model():
            raise error
    with pytest.raises(ItemError, match=r"^MODEL_ERROR: RuntimeError: sizes 3 and 4$"), of_the_model():
        raise RuntimeError("sizes 3\nand 4")


class _Picky:
    """Fails for a batch that holds a 7; loses the last output where there is an 8."""

    module = torch.nn.Identity()
    same_size_batches = True

    def forward(self, batch: list[torch.Tensor]) -> list[float]:
        numbers = [float(tensor.flatten()[0]) for tensor in batch]
        if 7 in numbers:
            raise IndexError("7 is too many")
        return numbers[:-1] if 8 in numbers else numbers


def test_the_others_of_a_batch_are_computed_without_the_one_that_fails() -> None:
    model: Any = _Picky()
    outputs = forward_in_halves(model, [torch.full((3, 1, 1), number) for number in (1, 7, 3, 8, 5)])
    assert [str(one) for one in outputs] == [
        *("1.0", "MODEL_ERROR: IndexError: 7 is too many", "3.0"),
        *("MODEL_ERROR: forward gave 0 outputs for 1 image(s)", "5.0"),
    ]


SEGMENTS = PanopticMap(
    np.array([[0, 1, VOID], [1, 1, 0]], np.int64), np.array([1, 0]), np.array([0.9, 0.1], np.float32)
)


def test_panoptic_segments() -> None:
    given = checked(SEGMENTS, card("panoptic"), SIZE_HW)
    assert isinstance(given, PanopticMap) and given.ids.dtype == np.uint16
    assert np.array_equal(given.ids, SEGMENTS.ids)
    for changes, message in (
        ({"ids": np.zeros((3, 2), np.int64)}, r"ids is int64 \(3, 2\), expected integers \(2, 3\)"),
        ({"ids": np.full(SIZE_HW, 2)}, "ids holds 2, and there are 2 segments"),
        ({"classes": np.array([1, 2])}, "classes holds 1 to 2, and the model has 2"),
        ({"classes": np.array([1])}, r"classes is int64 \(1,\)"),
        ({"scores": np.array([0.9, 1.1])}, r"scores holds 0\.9 to 1\.1, expected probabilities"),
    ):
        with pytest.raises(ItemError, match=rf"^MODEL_ERROR: {message}"):
            checked(replace(SEGMENTS, **changes), card("panoptic"), SIZE_HW)
    with pytest.raises(ItemError, match="gave a Instances, expected a PanopticMap of a panoptic model"):
        checked(OBJECTS, card("panoptic"), SIZE_HW)
