"""The card of a repository: classes, preprocessing, licence and digest, and what is said of those that do not fit."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import ModelConfig
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import palette_color
from segjobs.models.registry import resolve
from segjobs.storage import Storage
from tests.tiny_hf import save_tiny

STORAGE = Storage()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path, "segformer")


def change(folder: Path, name: str, **content: Any) -> None:
    """Values of a JSON file replaced; None takes them out."""
    found = {**json.loads((folder / name).read_text()), **content}
    (folder / name).write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def card(folder: Path, **settings: Any) -> Any:
    return resolve(ModelConfig(name="hf", weights=str(folder), **settings), STORAGE)


def test_classes_colours_and_preprocessing_are_the_repositorys(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    change(folder, "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], image_std=0.5, do_reduce_labels=True)
    found = card(folder)
    assert [(one.id, one.name, one.color) for one in found.categories] == [
        (number, name, palette_color(number)) for number, name in enumerate(["background", "left", "right"])
    ]
    assert (found.task, found.licence, found.weights) == ("semantic", "cc-by-nc-4.0", str(folder))
    about = found.preprocessing
    assert (about["resize"], about["mean"], about["std"]) == ("processor", [0.1, 0.2, 0.3], [0.5] * 3)
    assert about["scale"] == pytest.approx(1 / 255)
    assert about["processor"]["size"] == {"height": 64, "width": 64}
    assert about["processor"]["do_reduce_labels"] is True


def test_values_that_are_not_scaled_or_normalised(folder: Path) -> None:
    change(folder, "preprocessor_config.json", do_rescale=False, do_normalize=False)
    about = card(folder).preprocessing
    assert (about["scale"], about["mean"], about["std"]) == (1.0, [0.0] * 3, [1.0] * 3)


def test_names_of_classes(folder: Path) -> None:
    change(folder, "config.json", id2label={"0": "screen", "2": "screen", "1": " "})
    assert [one.name for one in card(folder).categories] == ["screen", "LABEL_1", "screen (2)"]
    assert [one.name for one in card(folder, categories=["a", "b", "c"]).categories] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"names 2 classes, .* has 3"):
        card(folder, categories=["a", "b"])
    with pytest.raises(ConfigError, match=r"model\.categories: a: named twice"):
        card(folder, categories=["a", "a", "b"])
    change(folder, "config.json", id2label=None, num_labels=3)
    assert [one.name for one in card(folder).categories] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for wrong in ({"0": "a"}, {"0": "a", "2": "b"}, ["a", "b"]):
        change(folder, "config.json", id2label=wrong)
        with pytest.raises(WeightsError, match=r"id2label of config\.json numbers . classes; expected two or more"):
            card(folder)


def test_the_digest_is_of_all_that_makes_masks(folder: Path, tmp_path: Path) -> None:
    first = card(folder).digest
    assert card(folder).digest == first
    others = [card(folder, resize="32x32").digest, card(save_tiny(tmp_path / "b", "segformer", seed=1)).digest]
    for name, content in (
        ("config.json", {"num_attention_heads": [2, 2, 2, 2]}),
        ("preprocessor_config.json", {"resample": 3}),
        ("preprocessor_config.json", {"image_mean": [0, 0, 0]}),
        ("config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}}),
    ):
        change(folder, name, **content)
        others.append(card(folder).digest)
    assert len({first, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"model_type": "vit"}, r"says model_type 'vit'; model\.name=hf takes beit, dpt"),
        ("config.json", {"model_type": None}, "says model_type None"),
        ("preprocessor_config.json", {"do_center_crop": True}, "do_center_crop=True, which shows the network another"),
        ("preprocessor_config.json", {"do_pad": True}, "do_pad=True, .*give model.resize, such as 512x512"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, r"its image_std \[1.0, 0.0, 1.0\]; expected"),
        ("preprocessor_config.json", {"image_mean": None}, "image_mean of the image processor is None, expected three"),
        ("preprocessor_config.json", {"image_mean": [1, "x", 2]}, "expected three numbers"),
        ("preprocessor_config.json", {"rescale_factor": "x"}, "rescale_factor is 'x'"),
    ],
)
def test_what_does_not_fit(folder: Path, name: str, content: dict[str, Any], message: str) -> None:
    change(folder, name, **content)
    with pytest.raises((ConfigError, WeightsError), match=message):
        card(folder)


def test_a_size_of_ones_own_leaves_crops_and_padding_out(folder: Path) -> None:
    change(folder, "preprocessor_config.json", do_center_crop=True, do_pad=True)
    assert card(folder, resize="32x48").preprocessing == {
        **{"resize": "32x48", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "scale": pytest.approx(1 / 255),
    }


@pytest.fixture
def universal(tmp_path: Path) -> Path:
    return save_tiny(tmp_path, "mask2former")


def test_a_universal_network_is_told_what_it_was_trained_for(universal: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"options\.task: Mask2FormerForUniversalSegmentation gives semantic, instance"
    ):
        card(universal)
    with pytest.raises(ConfigError, match=r"options\.task: 'panoptics' is none; "):
        card(universal, options={"task": "panoptics"})
    found = {task: card(universal, options={"task": task}) for task in ("semantic", "instance", "panoptic")}
    assert {task: one.task for task, one in found.items()} == {task: task for task in found}
    assert len({one.digest for one in found.values()}) == 3
    assert found["semantic"].options == {"task": "semantic"}
    assert found["instance"].options == {"task": "instance", "threshold": 0.5}
    assert found["panoptic"].options == {
        **{"task": "panoptic", "threshold": 0.5, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.8, "stuff": []}
    }
    assert {one.isthing for one in found["panoptic"].categories} == {None}


def test_options_of_universal_networks(universal: Path, tmp_path: Path) -> None:
    stuff = card(universal, options={"task": "panoptic", "stuff": ["background"]}).categories
    assert [one.isthing for one in stuff] == [False, True, True]
    for options, message in (
        ({"task": "panoptic", "stuff": ["rigth"]}, r"options\.stuff: 'rigth' is no class; did you mean 'right'\?"),
        (
            {"task": "semantic", "threshold": 0.3},
            r"options\.threshold: no option of hf with task=semantic; known: task",
        ),
        (
            {"task": "instance", "stuff": []},
            r"options\.stuff: no option of hf with task=instance; known: task, threshold",
        ),
        ({"task": "instance", "threshold": 1.5}, r"options\.threshold: 1\.5: expected 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            card(universal, options=options)
    assert card(save_tiny(tmp_path, "eomt"), options={"task": "instance"}).options["threshold"] == 0.8
    shared_out = card(save_tiny(tmp_path, "oneformer"), options={"task": "instance"}).options
    assert shared_out == {
        "task": "instance",
        "threshold": 0.5,
        "mask_threshold": 0.5,
        "overlap_mask_area_threshold": 0.8,
    }


def test_colours_and_things_of_a_class_file(universal: Path) -> None:
    change(universal, "preprocessor_config.json", class_info_file="classes.json")
    about = {str(n): {"name": "x", "isthing": n // 2, "color": [n, 2 * n, 255]} for n in range(3)}
    (universal / "classes.json").write_text(json.dumps(about))
    found = card(universal, options={"task": "panoptic"}).categories
    assert [(one.name, one.color, one.isthing) for one in found] == [
        ("background", (0, 0, 255), False),
        ("left", (1, 2, 255), False),
        ("right", (2, 4, 255), True),
    ]
    for wrong in ({}, {**about, "2": {"isthing": 1, "color": [256, 0, 0]}}, []):
        (universal / "classes.json").write_text(json.dumps(wrong))
        with pytest.raises(WeightsError, match=r"classes\.json: expected name, color and isthing of each class"):
            card(universal, options={"task": "panoptic"})


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *given: None if name == "transformers" else find_spec(name, *given)
    )
    with pytest.raises(ConfigError, match=r"model\.name=hf needs transformers: pip install 'segjobs\[hf\]'"):
        card(folder)


def test_an_option_that_is_none(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.encoder: no option of hf"):
        card(folder, options={"encoder": "resnet18"})
