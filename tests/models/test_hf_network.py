"""transformers' own networks and image processors beside ours, on the same repositories and images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from transformers.utils import logging

from segjobs.config import ModelConfig
from segjobs.errors import ItemError, WeightsError
from segjobs.models.registry import build
from segjobs.storage import Storage
from tests.tiny_hf import save_tiny

STORAGE = Storage()
SHORTEST = {"shortest_edge": 48}


def ours(folder: Path, **settings: Any) -> Any:
    return build(ModelConfig(name="hf", weights=str(folder), **settings), STORAGE, device="cpu")


def draw(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def shown(model: Any, image: np.ndarray) -> torch.Tensor:
    """What the network is shown of an image, float32 (1, 3, h, w)."""
    seen = []
    hook = model.module.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    model.forward([model.preprocess(image)])
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("kind", "processor"),
    [
        ("segformer", {}),
        ("segformer", {"size": SHORTEST, "do_reduce_labels": True}),
        ("segformer", {"do_resize": False}),
        ("upernet", {"size": {"height": 40, "width": 56}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}),
        ("upernet", {"do_rescale": False, "do_normalize": False}),
        ("beit", {"rescale_factor": 1 / 127.5}),
        ("dpt", {"ensure_multiple_of": 16}),
    ],
)
@pytest.mark.parametrize("size_hw", [(50, 70), (128, 96)])
def test_what_the_network_is_shown_and_what_it_says(
    tmp_path: Path, kind: str, processor: dict[str, Any], size_hw: tuple[int, int]
) -> None:
    folder = save_tiny(tmp_path, kind, **processor)
    image, model = draw(*size_hw), ours(folder)
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = theirs(image, return_tensors="pt")
    torch.testing.assert_close(shown(model, image), expected["pixel_values"].float(), rtol=1e-5, atol=1e-5)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = network(pixel_values=expected["pixel_values"].float())
    (labels,) = theirs.post_process_semantic_segmentation(outputs, target_sizes=[size_hw])
    found = model.predict([image])[0].ids
    assert len(np.unique(found)) > 1
    assert (found == labels.numpy()).mean() > 0.999  # OpenCV's last bits, where two classes tie


@pytest.mark.parametrize("size_hw", [(50, 70), (128, 96)])
def test_sizes_that_keep_the_aspect(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    folder = save_tiny(tmp_path, "dpt", keep_aspect_ratio=True, ensure_multiple_of=16)
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = theirs(draw(*size_hw), do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours(folder).preprocess(draw(*size_hw)), expected[0])


def test_a_size_of_ones_own(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "segformer")
    assert ours(folder, resize="short:32").preprocess(draw(64, 96)).shape == (3, 32, 48)
    assert ours(folder, resize="native").preprocess(draw(64, 96)).shape == (3, 64, 96)


@pytest.mark.parametrize("size_hw", [(1, 3000), (3000, 1), (10, 30_000)])
def test_a_strip_that_no_memory_holds_is_a_failed_image(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    model = ours(save_tiny(tmp_path, "segformer", size=SHORTEST))
    with pytest.raises(ItemError, match="pixels is too long a strip for the image processor's size") as caught:
        model.preprocess(np.zeros((*size_hw, 3), np.uint8))
    assert caught.value.code == "TOO_LARGE"
    square = ours(save_tiny(tmp_path / "square", "segformer"))
    assert square.preprocess(np.zeros((*size_hw, 3), np.uint8)).shape == (3, 64, 64)


def test_names_of_image_processors_over_the_years(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "segformer")
    path = folder / "preprocessor_config.json"
    about = json.loads(path.read_text())
    del about["image_processor_type"]
    image, expected = draw(50, 70), shown(ours(folder), draw(50, 70))
    old = {"feature_extractor_type": "SegformerFeatureExtractor", "reduce_labels": True, "size": 64}
    for other in ({}, {"image_processor_type": "SegformerImageProcessorFast"}, old):
        path.write_text(json.dumps({**about, **other}))
        torch.testing.assert_close(shown(ours(folder), image), expected)
    for name in ("Segformer", "NoSuchImageProcessor"):
        path.write_text(json.dumps({**about, "image_processor_type": name}))
        with pytest.raises(WeightsError, match=f"image_processor_type '{name}' is none of transformers'"):
            ours(folder)


def test_half_precision_and_files_of_torch(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "segformer")
    expected = ours(folder).predict([draw(50, 70)])[0]
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    path.unlink()
    torch.save({key: value.half() for key, value in tensors.items()}, folder / "pytorch_model.bin")
    model = ours(folder)
    assert {value.dtype for value in model.module.parameters()} == {torch.float32}
    found = model.predict([draw(50, 70)])[0]
    assert (found.ids == expected.ids).mean() > 0.97


def test_weights_of_another_network(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "segformer")
    path, level = folder / "model.safetensors", logging.get_verbosity()
    tensors = safetensors.torch.load_file(path)
    first, second, *_ = (key for key, value in tensors.items() if value.ndim > 1)
    safetensors.torch.save_file({key: value for key, value in tensors.items() if key != first}, path)
    with pytest.raises(
        WeightsError, match=f"the weights lack 1 of SegformerForSemanticSegmentation's tensors: {first}"
    ):
        ours(folder)
    safetensors.torch.save_file({**tensors, second: torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"the weights have another shape for 1 of .*; config\.json and"):
        ours(folder)
    safetensors.torch.save_file({**tensors, "head.of.a.training": torch.zeros(3)}, path)
    ours(folder)
    assert logging.get_verbosity() == level


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_sizes": "x"}, {"depths": []}, {"hidden_act": "none"}],
)
def test_a_config_that_gives_no_network_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder = save_tiny(tmp_path, "segformer")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(
        WeightsError, match=r"config\.json gives no SegformerForSemanticSegmentation of transformers"
    ) as e:
        ours(folder)
    assert len(str(e.value).splitlines()) == 1
