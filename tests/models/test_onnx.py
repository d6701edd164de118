"""The card of an exported network: what model.json says, and what is said of one that does not fit."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import ModelConfig
from segjobs.config.examples import example
from segjobs.errors import ConfigError, WeightsError
from segjobs.models.registry import build, resolve
from segjobs.storage import Storage
from tests.tiny_onnx import save_onnx

STORAGE = Storage()


def card(path: Path, **settings: Any) -> Any:
    return resolve(ModelConfig(name="onnx", weights=str(path), **settings), STORAGE)


def test_what_model_json_says(tmp_path: Path) -> None:
    found = card(save_onnx(tmp_path, resize="short:32", mean=[1, 2, 3], std=[4, 5, 6], scale=1, licence="mit"))
    assert [(one.id, one.name) for one in found.categories] == [(0, "background"), (1, "left"), (2, "right")]
    assert (found.task, found.licence) == ("semantic", "mit")
    assert found.preprocessing == {"resize": "short:32", "mean": [1, 2, 3], "std": [4, 5, 6], "scale": 1}
    named = card(tmp_path / "net.onnx", categories=["a", "b", "c"], resize="8x8")
    assert ([one.name for one in named.categories], named.preprocessing["resize"]) == (["a", "b", "c"], "8x8")
    defaults = card(save_onnx(tmp_path / "b")).preprocessing
    assert (defaults["resize"], defaults["mean"][0], defaults["scale"]) == ("native", 0.485, pytest.approx(1 / 255))


def test_the_digest_is_of_all_that_makes_masks(tmp_path: Path) -> None:
    path = save_onnx(tmp_path)
    digests = [card(path).digest]
    for changes in ({"channels": "BGR"}, {"layout": "NHWC"}, {"output": "probabilities"}, {"divisor": 8}, {"scale": 1}):
        save_onnx(tmp_path, **changes)
        digests.append(card(path).digest)
    assert len(set(digests)) == len(digests)
    save_onnx(tmp_path)
    assert card(path).digest == digests[0]


def test_the_template_is_one(tmp_path: Path) -> None:
    path = save_onnx(tmp_path)
    (tmp_path / "model.json").write_text(example("onnx"))
    assert [one.name for one in card(path).categories] == ["background", "cat", "dog"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": None}, "model.json beside .*net.onnx is no description .*: output: Input should be 'logits'"),
        ({"output": "masks"}, "output: Input should be 'logits', 'probabilities', 'labels' or 'sigmoid'.*init onnx"),
        ({"categories": ["one"]}, "categories: "),
        ({"categories": ["a", "a", "b"]}, "categories: 'a' stands there twice"),
        ({"output": "sigmoid"}, "output sigmoid is of one class: expected two categories, .* not 3"),
        ({"resize": "big"}, "resize: .*expected 'native'"),
        ({"std": [0, 1, 1]}, "std.0: Input should be greater"),
        ({"layuot": "NHWC"}, "layuot: Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save_onnx(tmp_path)
    about = tmp_path / "model.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **changes}))
    with pytest.raises(WeightsError, match=message) as caught:
        card(path)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_missing_or_others(tmp_path: Path) -> None:
    path = save_onnx(tmp_path)
    with pytest.raises(WeightsError, match=r"takes a file ending in \.onnx, with model\.json beside it"):
        card(tmp_path)
    with pytest.raises(WeightsError, match=r"the SHA-256 of .* model\.sha256 says 0{64}"):
        card(path, sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"names 2 different classes, .* has 3"):
        card(path, categories=["a", "b"])
    with pytest.raises(ConfigError, match="an exported network has its own; drop it"):
        build(ModelConfig(name="onnx", weights=str(path)), STORAGE, device="cpu", precision="bf16")
    (tmp_path / "model.json").unlink()
    with pytest.raises(WeightsError, match=r"model\.json: no such file; expected it beside net\.onnx"):
        card(path)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, find_spec = save_onnx(tmp_path), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *given: None if name == "onnxruntime" else find_spec(name, *given)
    )
    with pytest.raises(ConfigError, match=r"model\.name=onnx needs ONNX Runtime: pip install 'segjobs\[onnx\]'"):
        card(path)
