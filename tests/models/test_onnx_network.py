"""Exported networks at work: every form of input and output gives the masks of the same plain arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from segjobs.config import ModelConfig
from segjobs.errors import ItemError, WeightsError
from segjobs.models.batching import forward_in_halves
from segjobs.models.registry import build
from segjobs.storage import Storage
from tests.tiny_onnx import WEIGHTS, save_onnx

STORAGE = Storage()
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PLAIN: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def ours(path: Path, **settings: Any) -> Any:
    return build(ModelConfig(name="onnx", weights=str(path), **settings), STORAGE, device="cpu")


def expected_logits(image: np.ndarray = IMAGE, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    """float (H, W, C) by hand."""
    return ((image / 255 - PLAIN["mean"]) / PLAIN["std"]) @ weights.T


def check(found: Any, logits: np.ndarray, *, atol: float = 1e-4) -> None:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    assert (found.ids == logits.argmax(-1)).mean() > 0.998
    np.testing.assert_allclose(found.confidence, weights.max(-1) / weights.sum(-1), atol=atol)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_logits_and_probabilities(tmp_path: Path, output: str, layout: str) -> None:
    shape = ("n", 3, "h", "w") if layout == "NCHW" else ("n", "h", "w", 3)
    path = save_onnx(tmp_path, output=output, layout=layout, shape=shape, **PLAIN)
    check(ours(path).predict([IMAGE])[0], expected_logits())


def test_a_map_of_labels(tmp_path: Path) -> None:
    found = ours(save_onnx(tmp_path, output="labels", **PLAIN)).predict([IMAGE])[0]
    np.testing.assert_array_equal(found.ids, expected_logits().argmax(-1))
    np.testing.assert_allclose(found.confidence, 1, atol=1e-6)


@pytest.mark.parametrize("output", ["sigmoid", "logits"])
def test_one_channel_is_the_foreground(tmp_path: Path, output: str) -> None:
    one = WEIGHTS[2:]
    found = ours(save_onnx(tmp_path, output=output, weights=one, **PLAIN)).predict([IMAGE])[0]
    foreground = expected_logits(weights=one)[..., 0]
    check(found, np.stack([np.zeros_like(foreground), foreground], -1))


def test_bgr_half_precision_and_one_image_at_a_time(tmp_path: Path) -> None:
    flipped = save_onnx(tmp_path / "bgr", weights=WEIGHTS[:, ::-1], channels="BGR", **PLAIN)
    check(ours(flipped).predict([IMAGE])[0], expected_logits())
    half = save_onnx(tmp_path / "half", kind=TensorProto.FLOAT16, **PLAIN)
    check(ours(half).predict([IMAGE])[0], expected_logits(), atol=0.01)
    single = save_onnx(tmp_path / "single", shape=(1, 3, "h", "w"), **PLAIN)
    for found, image in zip(ours(single).predict([IMAGE, IMAGE[::-1]]), (IMAGE, IMAGE[::-1]), strict=True):
        check(found, expected_logits(image))


def test_sides_are_padded_to_the_divisor_and_cut_off_again(tmp_path: Path) -> None:
    model = ours(save_onnx(tmp_path, divisor=16, **PLAIN))
    assert model.preprocess(IMAGE).shape == (3, 32, 32)
    check(model.predict([IMAGE])[0], expected_logits())


def test_a_network_of_one_size(tmp_path: Path) -> None:
    path = save_onnx(tmp_path, shape=("n", 3, 20, 30), **PLAIN)
    with pytest.raises(WeightsError, match=r"takes images of 20x30 .*resized by 'native'; set model\.resize=20x30"):
        ours(path)
    check(ours(path, resize="20x30").predict([IMAGE])[0], expected_logits())


def test_what_is_no_network_of_images(tmp_path: Path) -> None:
    path = save_onnx(tmp_path)
    path.write_bytes(b"\0" * 50)
    with pytest.raises(WeightsError, match="not readable as ONNX") as caught:
        ours(path)
    assert len(str(caught.value).splitlines()) == 1


def test_an_output_that_does_not_fit_fails_its_images(tmp_path: Path) -> None:
    model = ours(save_onnx(tmp_path, categories=["a", "b", "c", "d"], **PLAIN))
    (found,) = forward_in_halves(model, [model.preprocess(IMAGE)])
    assert isinstance(found, ItemError)
    assert (found.code, found.message) == (
        "MODEL_ERROR",
        "RuntimeError: an output of (1, 3, 20, 30), expected 4 channels as model.json has categories",
    )
    wrong = ours(save_onnx(tmp_path / "labels", output="labels", categories=["a", "b"], **PLAIN))
    (found,) = forward_in_halves(wrong, [wrong.preprocess(IMAGE)])
    assert isinstance(found, ItemError) and "labels (1, 20, 30) of 0 to 2, with 2 classes" in found.message


def test_nan_is_a_failed_image(tmp_path: Path) -> None:
    for output in ("logits", "probabilities"):
        model = ours(save_onnx(tmp_path / output, output=output, weights=np.full((3, 3), np.nan)))
        with pytest.raises(ItemError) as caught:
            model.predict([IMAGE])
        assert caught.value.code == "NON_FINITE"
