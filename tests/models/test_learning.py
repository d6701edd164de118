"""Models of every family, some steps of learning, their directory, and what ``label`` and their own library read of it.

Whole trainings: ``tests/jobs/train/test_job.py``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from transformers import SegformerForSemanticSegmentation

from segjobs.config import ModelConfig, TrainModelConfig
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import Category, ModelCard, make_categories
from segjobs.models.base import VOID, LabelMap, Segmenter
from segjobs.models.hf_files import OWN_RESIZE
from segjobs.models.learning import resolve_start, save, shown_by, start, task_to_learn
from segjobs.models.registry import build
from segjobs.models.transfer import Transfer
from segjobs.storage import Storage
from tests.tiny_hf import CLASSES, KINDS, UNIVERSAL, save_tiny

STORAGE = Storage()
TWO = (Category(3, "ground", (9, 8, 7)), Category(7, "square", (1, 2, 3)))


def shown() -> tuple[np.ndarray, LabelMap]:
    """A bright square on dark ground, a stripe of it unlabelled."""
    image = np.full((64, 64, 3), 40, np.uint8)
    image[20:50, 16:44] = 210
    ids = (image[..., 0] > 100).astype(np.uint16)
    ids[:3] = VOID
    return image, LabelMap(ids)


def begun(config: TrainModelConfig, classes: tuple[Category, ...] = TWO) -> tuple[Segmenter, Transfer | None]:
    card, weights = resolve_start(config, classes, STORAGE)
    return start(config, card, weights, STORAGE, device="cpu", precision="fp32")


def learnt(segmenter: Segmenter, *, rate: float = 0.01) -> list[float]:
    """The losses of some steps on one image."""
    segmenter.module.train()
    optimiser, losses = torch.optim.Adam(segmenter.module.parameters(), lr=rate), []
    for _ in range(6):
        image, target = shown()
        loss = segmenter.loss([image, image], [target, target])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    segmenter.module.eval()
    return losses


def read_back(segmenter: Segmenter, config: TrainModelConfig, folder: Path, **options: Any) -> Segmenter:
    """What ``label`` builds of the directory: the same masks, classes and colours."""
    save(segmenter, config, str(folder), STORAGE, extra={"training": {"steps": 6}})
    model = build(ModelConfig(name=config.name, weights=str(folder), **options), STORAGE, device="cpu")
    image, _ = shown()
    (mine,), (found,) = segmenter.predict([image]), model.predict([image])
    assert isinstance(mine, LabelMap) and isinstance(found, LabelMap)
    np.testing.assert_array_equal(found.ids, mine.ids)
    np.testing.assert_allclose(found.confidence, mine.confidence, atol=1e-6)
    assert [(one.name, one.color) for one in model.card.categories] == [(one.name, one.color) for one in TWO]
    return model


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNIVERSAL])
def test_a_repository_of_transformers_learns_other_classes(tmp_path: Path, kind: str) -> None:
    folder = save_tiny(tmp_path / "repository", kind)
    config = TrainModelConfig(name="hf", weights=str(folder), licence="CC0-1.0")
    segmenter, transfer = begun(config)
    assert transfer is not None and any("3 → 2 channels" in why for why in transfer.skipped.values())
    losses = learnt(segmenter)
    assert min(losses[-2:]) < losses[0]
    model = read_back(segmenter, config, tmp_path / "out")
    assert model.card.licence == "CC0-1.0"
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (about["id2label"], about["label2id"]) == ({"0": "ground", "1": "square"}, {"ground": 0, "square": 1})
    if kind == "segformer":
        theirs = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
        own = dict(model.module.named_children())["network"].state_dict()
        assert all(torch.equal(value, own[key]) for key, value in theirs.state_dict().items())


def test_a_head_stays_where_the_classes_are_the_same(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "repository", "segformer")
    config = TrainModelConfig(name="hf", weights=str(folder))
    _, same = begun(config, make_categories(CLASSES))
    _, turned = begun(config, make_categories(CLASSES[::-1]))
    assert same is not None and turned is not None
    assert not same.skipped
    assert set(turned.skipped.values()) == {"the same classes in another order"}
    assert sorted(turned.skipped) == ["decode_head.classifier.bias", "decode_head.classifier.weight"]


def test_the_rule_that_a_training_was_given_is_the_directorys(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "repository", "segformer")
    config = TrainModelConfig(name="hf", weights=str(folder), resize="short:32")
    segmenter, _ = begun(config)
    assert read_back(segmenter, config, tmp_path / "out").card.preprocessing["resize"] == "short:32"


@pytest.mark.parametrize("channels", [1, 5])
def test_a_directory_of_smp_learns_other_classes(tmp_path: Path, channels: int) -> None:
    made = smp.Unet("resnet18", encoder_weights=None, classes=channels, decoder_channels=[8] * 5)
    made.save_pretrained(tmp_path / "saved")
    config = TrainModelConfig(name="smp", weights=str(tmp_path / "saved"), resize="64x64")
    segmenter, transfer = begun(config)
    assert transfer is not None
    assert ("5 → 2 channels" in str(transfer)) is (channels == 5)
    assert "the directory names no classes" in str(transfer)
    losses = learnt(segmenter)
    assert min(losses[-2:]) < losses[0]
    model = read_back(segmenter, config, tmp_path / "out")
    assert model.card.preprocessing["resize"] == "64x64"
    theirs = smp.from_pretrained(tmp_path / "out").eval()
    own = {key.removeprefix("network."): value for key, value in model.module.state_dict().items()}
    assert all(torch.equal(value, own[key]) for key, value in theirs.state_dict().items())

    again = TrainModelConfig(name="smp", weights=str(tmp_path / "out"))
    assert "new" not in str(begun(again)[1])
    other = tuple(Category(one.id, f"other {one.name}", one.color) for one in TWO)
    assert "other classes: 'ground' there, 'other ground' here" in str(begun(again, other)[1])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "hf", "weights": "none"}, "takes a directory that save_pretrained of transformers wrote"),
        ({"name": "tests.toy_model:nothing_to_learn"}, "its module has no parameter that could learn"),
        ({"name": "tests.toy_model:blobs"}, "it has the classes dark"),
    ],
)
def test_what_does_not_learn_says_so(model: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, WeightsError), match=message):
        resolve_start(TrainModelConfig.model_validate(model), TWO, STORAGE)


def test_networks_of_queries_name_what_can_be_trained(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "repository", "maskformer")
    config = TrainModelConfig(name="hf", weights=str(folder), options={"task": "semantic"})
    with pytest.raises(ConfigError, match=r"a maskformer is a network of queries, .*repositories of beit, dpt"):
        resolve_start(config, TWO, STORAGE)


@pytest.mark.parametrize(
    ("preprocessing", "rule"),
    [
        ({}, "native"),
        ({"resize": "short:520"}, "short:520"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 512, "width": 640}}}, "512x640"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"shortest_edge": 800, "longest_edge": 1333}}}, "short:800"),
        ({"resize": OWN_RESIZE, "processor": {"size": 224}}, "224x224"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 512, "width": 512}, "do_resize": False}}, "native"),
        ({"resize": OWN_RESIZE, "processor": {}}, "native"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 10**9, "width": 1}}}, "native"),
    ],
)
def test_images_are_shown_as_they_will_be_in_use(preprocessing: dict[str, Any], rule: str) -> None:
    assert shown_by(ModelCard("m", "semantic", make_categories(["a", "b"]), "", "", {}, preprocessing)) == rule


def test_the_task_is_the_models_own_or_for_a_factory_the_datas() -> None:
    def task(name: str, of_data: Any) -> str:
        return task_to_learn(TrainModelConfig(name=name), of_data)

    assert task("maskrcnn_resnet50_fpn", "semantic") == "instance"
    assert (task("hf", "instance"), task("smp", "panoptic")) == ("semantic", "semantic")
    assert [task("a.b:c", of_data) for of_data in ("semantic", "instance", "panoptic")] == [
        *("semantic", "instance", "semantic")
    ]
    with pytest.raises(ConfigError, match=r"'onnx': an exported network does not learn"):
        task("onnx", "semantic")
    with pytest.raises(ConfigError, match=r"'unett' is no model; did you mean 'unet'"):
        task("unett", "semantic")
