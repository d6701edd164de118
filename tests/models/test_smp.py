"""Directories of smp's own ``save_pretrained``: our masks of them, and smp's of the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from segjobs.config import ModelConfig
from segjobs.errors import ConfigError, WeightsError
from segjobs.models.registry import build, resolve
from segjobs.models.smp import ARCHITECTURES
from segjobs.models.table import MODELS
from segjobs.storage import Storage

STORAGE = Storage()
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
SMALL = {"encoder_name": "resnet18", "encoder_weights": None, "encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def save(folder: Path, **settings: Any) -> Any:
    """A random U-Net, saved; in eval mode."""
    torch.manual_seed(0)
    network = smp.Unet(**{**SMALL, "classes": 3, **settings}).eval()
    nn.init.normal_(network.segmentation_head[0].weight, std=0.5)
    network.save_pretrained(folder)
    return network


def ours(folder: Path, **settings: Any) -> Any:
    return build(ModelConfig(name="smp", weights=str(folder), **settings), STORAGE, device="cpu")


def shown() -> torch.Tensor:
    """The image as smp's users show it: normalised, padded to the encoder's stride (8) with the mean colour."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    padded = (mean * 255).round().expand(56, 72, 3).clone()
    padded[:50, :70] = torch.from_numpy(IMAGE)
    return ((padded / 255 - mean) / std).permute(2, 0, 1)[None]


def test_what_smp_gives_of_it(tmp_path: Path) -> None:
    network = save(tmp_path, activation="softmax2d", aux_params={"classes": 2})
    model = ours(tmp_path)
    assert model.preprocess(IMAGE).shape == (3, 56, 72)
    with torch.inference_mode():
        probabilities, _ = network(shown())
    found = model.predict([IMAGE])[0]
    expected = probabilities[0, :, :50, :70].max(0)
    assert len(np.unique(found.ids)) > 1
    assert (found.ids == expected.indices.numpy()).mean() > 0.999
    np.testing.assert_allclose(found.confidence, expected.values.numpy(), atol=1e-4)


def test_one_channel_is_the_foreground(tmp_path: Path) -> None:
    network = save(tmp_path, classes=1)
    with torch.inference_mode():
        probability = network(shown())[0, 0, :50, :70].sigmoid().numpy()
    model = ours(tmp_path)
    assert [one.name for one in model.card.categories] == ["background", "foreground"]
    found = model.predict([IMAGE])[0]
    assert 0 < found.ids.mean() < 1
    assert (found.ids == (probability > 0.5)).mean() > 0.999
    np.testing.assert_allclose(found.confidence, np.maximum(probability, 1 - probability), atol=1e-4)


def test_the_card(tmp_path: Path) -> None:
    save(tmp_path)
    card = resolve(ModelConfig(name="smp", weights=str(tmp_path)), STORAGE)
    assert [one.name for one in card.categories] == ["class 0", "class 1", "class 2"]
    assert (card.task, card.licence, card.preprocessing["resize"]) == ("semantic", "mit", "native")
    named = ModelConfig(name="smp", weights=str(tmp_path), categories=["sky", "road", "tree"], resize="short:32")
    other = resolve(named, STORAGE)
    assert [one.name for one in other.categories] == ["sky", "road", "tree"]
    assert other.preprocessing["resize"] == "short:32" and other.digest != card.digest
    for names, message in (
        (["a"], r"names 1 classes, .* has 3"),
        (["a", "a", "b"], r"a name stands twice among a, a, b"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(named.model_copy(update={"categories": names}), STORAGE)
    with pytest.raises(ConfigError, match=r"model\.options\.encoder: no option of smp; known: none"):
        resolve(named.model_copy(update={"options": {"encoder": "resnet18"}}), STORAGE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_model_class": "Yolo"}, "says _model_class 'Yolo' on encoder_name 'resnet18'; model.name=smp takes Unet"),
        ({"_model_class": None}, r"_model_class None .*a repository of transformers is model\.name=hf"),
        ({"encoder_name": 5}, "encoder_name 5"),
        ({"in_channels": 4}, "says 3 classes and 4 in_channels"),
        ({"classes": 0}, "says 0 classes"),
        ({"encoder_name": "resnet19"}, r"config\.json gives no Unet: .*resnet19"),
        ({"decoder_channels": [8]}, r"config\.json gives no Unet"),
        ({"checkpoint_path": "/etc/passwd"}, r"config\.json: 'checkpoint_path' is no parameter of Unet"),
        ({"encoder_name": "tu-hf-hub:org/repo"}, "encoder_name 'tu-hf-hub:org/repo'"),
        ({"encoder_depth": 4, "decoder_channels": [16, 16, 8, 8]}, "the weights do not fit the model"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(WeightsError, match=message) as caught:
        ours(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_that_bring_no_network_along() -> None:
    with pytest.raises(WeightsError, match="a directory that save_pretrained of segmentation_models_pytorch wrote"):
        resolve(ModelConfig(name="smp", weights="none"), STORAGE)


def test_all_of_smps_architectures_have_a_name() -> None:
    assert sorted(one.lower() for one in ARCHITECTURES) == sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    assert {one.lower() for one in ARCHITECTURES} <= MODELS.keys()
