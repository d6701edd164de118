"""Models of the user's own: what a factory is handed, what becomes part of the model, what its errors look like."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segjobs.config import ModelConfig, digest
from segjobs.errors import ConfigError, WeightsError
from segjobs.models.factories import call_factory
from segjobs.models.registry import build, resolve
from segjobs.models.weights import digest_of
from segjobs.storage import Storage
from tests.toy_model import Field5

STORAGE = Storage()
HANDED: list[dict[str, object]] = []


def asks(weights: Path | None, categories=("a", "b"), resize=None, device="?", precision="?", seed=0) -> Field5:
    HANDED.append({"weights": weights, "categories": categories, "resize": resize, "device": device})
    HANDED[-1] |= {"precision": precision, "seed": seed}
    return Field5(len(categories))


def asks_for_nothing() -> Field5:
    return Field5(2)


def takes_all(**options: object) -> Field5:
    HANDED.append(options)
    return Field5(2)


def fails(how: str) -> Field5:
    if how == "weights":
        raise WeightsError("models/x.safetensors: no layer of it fits")
    raise {"type": TypeError, "key": KeyError}[how]("s3://me:secret@store/x")


def named(name: str, **settings: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": f"{__name__}:{name}", **settings})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    return path


def test_a_factory_is_handed_what_its_signature_names(weights: Path) -> None:
    config = named("asks", weights=str(weights), categories=["u", "v", "w"], resize="8x8", options={"seed": 3})
    model = build(config, STORAGE, device="cpu", precision="bf16")
    expected = {"weights": weights, "categories": ["u", "v", "w"], "resize": "8x8", "device": "cpu"}
    assert HANDED[-1] == {**expected, "precision": "bf16", "seed": 3}
    assert model.card == resolve(config, STORAGE)
    assert HANDED[-1]["precision"] == "fp32"
    assert (model.card.weights, model.card.options) == (str(weights), {"seed": 3})
    call_factory(named("asks", weights="none"), STORAGE)
    assert HANDED[-1] == {
        "weights": None, "categories": ("a", "b"), "resize": None, "device": "cpu", "precision": "fp32", "seed": 0
    }  # fmt: skip


def test_no_parameter_of_a_name_is_asked_for_by_kwargs() -> None:
    call_factory(named("takes_all", options={"x": 1}), STORAGE)
    assert HANDED[-1] == {"x": 1}


def test_other_weights_names_or_sizes_are_another_model_and_options_alone_stay_the_one_they_were(weights: Path) -> None:
    card = resolve(named("asks", weights="none"), STORAGE)
    digests = {card.digest, resolve(named("asks", weights=str(weights)), STORAGE).digest}
    save_file({"x": torch.ones(2)}, weights)
    digests.add(resolve(named("asks", weights=str(weights)), STORAGE).digest)
    digests.add(resolve(named("asks", weights=str(weights), categories=["c", "d"]), STORAGE).digest)
    digests.add(resolve(named("asks", weights=str(weights), resize="8x8"), STORAGE).digest)
    assert len(digests) == 5
    toy = resolve(ModelConfig(name="tests.toy_model:build", options={"seed": 7}), STORAGE)
    assert toy.digest == digest(f"{7:064d}", "tests.toy_model:build", {"seed": 7})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("asks", {}, r"model\.weights: .*:asks needs it; give model\.weights=…"),
        ("asks", {"sha256": "0" * 64, "options": {"weights": 1}}, r"model\.sha256: given as model\.options\.weights"),
        ("asks", {"sha256": "0" * 64}, r"model\.sha256: of which weights\?"),
        ("asks", {"weights": "none", "resize": "8x8", "options": {"resize": 2}}, r"model\.resize: given as model\.opt"),
        ("asks_for_nothing", {"resize": "8x8"}, r"model\.resize: not passed on; .* has no parameter resize"),
        ("asks_for_nothing", {"sha256": "0" * 64}, r"model\.sha256: not passed on; .* has no parameter weights"),
        ("asks_for_nothing", {"options": {"x": 1}}, r"cannot be called with model\.options: .*'x'"),
        ("fails", {"options": {"how": "weights"}}, "no layer of it fits"),
    ],
)
def test_what_does_not_fit_is_said_before_the_factory_runs(name: str, settings: dict, message: str) -> None:
    with pytest.raises(WeightsError if name == "fails" else ConfigError, match=message):
        call_factory(named(name, **settings), STORAGE)


def test_weights_of_another_digest_are_refused(weights: Path) -> None:
    call_factory(named("asks", weights=str(weights), sha256=digest_of(weights)), STORAGE)
    with pytest.raises(WeightsError, match=r"but model\.sha256 says 0000"):
        call_factory(named("asks", weights=str(weights), sha256="0" * 64), STORAGE)


@pytest.mark.parametrize(("how", "words"), [("type", "TypeError: s3://"), ("key", "KeyError: 's3://")])
def test_what_a_factory_raises_is_one_line_and_a_file(
    how: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=f"its factory failed: {words}") as caught:
        call_factory(named("fails", options={"how": how}), STORAGE)
    (file,) = tmp_path.glob("segjobs-*.traceback.txt")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    text = file.read_text()
    assert 'raise {"type": TypeError, "key": KeyError}[how]' in text
    assert "secret" not in text + str(caught.value)


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_found_here.py").write_text("from tests.toy_model import blobs\n")
    (tmp_path / "model_broken_here.py").write_text("def f(:\n")
    assert call_factory(ModelConfig(name="model_found_here:blobs"), STORAGE).card.name == "blobs"
    assert sys.path[-1] == str(tmp_path), "behind all that is installed"
    with pytest.raises(ConfigError, match=r"'model_broken_here:f' cannot be imported: SyntaxError: .*traceback: "):
        call_factory(ModelConfig(name="model_broken_here:f"), STORAGE)
    sys.modules.pop("model_found_here")
