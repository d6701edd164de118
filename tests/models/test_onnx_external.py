"""Networks whose numbers lie beside their file: fetched, hashed and held to their place together; and hostile ones."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fsspec.registry import _registry

from segjobs.config import ModelConfig, StorageConfig
from segjobs.errors import WeightsError
from segjobs.models.onnx_external import external_files
from segjobs.models.registry import build, resolve
from segjobs.models.weights import digest_of_files
from segjobs.storage import Storage
from tests.fake_bucket import FakeBucket
from tests.tiny_onnx import WEIGHTS, save_onnx

STORAGE = Storage()
DATA = "net.onnx.data"
LENGTH = WEIGHTS.nbytes


def config_of(path: Path | str, **settings: Any) -> ModelConfig:
    return ModelConfig(name="onnx", weights=str(path), **settings)


def save_beside(folder: Path, name: str = DATA, weights: np.ndarray = WEIGHTS) -> Path:
    path = save_onnx(folder, external={"location": name, "offset": 8, "length": LENGTH})
    (folder / name).write_bytes(b"8 bytes:" + weights.tobytes())
    return path


def draw() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def label_map(path: Path) -> Any:
    return build(config_of(path), STORAGE, device="cpu").predict([draw()])[0]


def test_numbers_beside_the_file_are_the_networks(tmp_path: Path) -> None:
    one, other = label_map(save_onnx(tmp_path / "a")), label_map(save_beside(tmp_path / "b"))
    assert np.array_equal(one.ids, other.ids) and np.array_equal(one.confidence, other.confidence)


def test_the_digest_is_of_both_files(tmp_path: Path) -> None:
    path = save_beside(tmp_path)
    both = digest_of_files({"net.onnx": path, DATA: tmp_path / DATA})
    digest = resolve(config_of(path, sha256=both), STORAGE).digest
    save_beside(tmp_path, weights=WEIGHTS[::-1].copy())
    assert resolve(config_of(path), STORAGE).digest != digest
    with pytest.raises(WeightsError, match=f"the SHA-256 of the weights is .* model.sha256 says {both}"):
        resolve(config_of(path, sha256=both), STORAGE)


def test_what_torch_exports_in_two_files(tmp_path: Path) -> None:
    """onnx's own writer of such files, as torch.onnx.export uses it."""
    path = save_onnx(tmp_path / "whole")
    expected = label_map(path)
    (tmp_path / "two").mkdir()
    onnx.save_model(
        onnx.load_model(path),
        tmp_path / "two" / "net.onnx",
        save_as_external_data=True,
        location="net.onnx_data",
        size_threshold=0,
    )
    (tmp_path / "two" / "model.json").write_bytes((tmp_path / "whole" / "model.json").read_bytes())
    assert external_files(tmp_path / "two" / "net.onnx", "net.onnx") == {"net.onnx_data": LENGTH}
    assert np.array_equal(label_map(tmp_path / "two" / "net.onnx").ids, expected.ids)


def test_both_are_fetched_from_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_beside(tmp_path / "local")
    expected = label_map(path)
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(_registry, "gs", FakeBucket)
    storage, there = Storage(StorageConfig(schemes=["gs"])), "gs://bucket/external"
    for file in path.parent.iterdir():
        storage.put_if_absent(f"{there}/{file.name}", file.read_bytes())
    about = {"name": "onnx", "weights": f"{there}/net.onnx"}
    config = ModelConfig.model_validate(about, context={"schemes": ["gs"]})
    assert np.array_equal(build(config, storage, device="cpu").predict([draw()])[0].ids, expected.ids)
    assert resolve(config, storage).digest == resolve(config_of(path), STORAGE).digest


@pytest.mark.parametrize(
    "location", ["../../etc/passwd", "/etc/passwd", "a/b.data", "..", ".", "", "a\\b", "C:\\x", "a\0b", "s3://b/k"]
)
def test_a_name_that_leads_elsewhere_is_not_read(tmp_path: Path, location: str) -> None:
    path = save_onnx(tmp_path, external={"location": location})
    with pytest.raises(WeightsError, match="expected a file of the same folder: not read") as caught:
        resolve(config_of(path), STORAGE)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("nested", ["attribute", "subgraph", "function"])
def test_names_are_looked_for_wherever_numbers_may_stand(tmp_path: Path, nested: str) -> None:
    path = save_onnx(tmp_path)
    model = onnx.load_model(path)
    hidden = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../up")
    node = onnx.helper.make_node("Constant", [], ["c"], value=hidden)
    if nested == "attribute":
        model.graph.node.append(node)
    elif nested == "subgraph":
        inner = onnx.GraphProto(name="inner", node=[node])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    else:
        model.functions.append(onnx.helper.make_function("local", "f", [], ["c"], [node], []))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"lie in '\.\./up'"):
        external_files(path, "net.onnx")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"offset": -1}, "no place in a file"),
        ({"length": -5, "offset": -1}, "no place in a file"),
        ({"offset": "much"}, "no place in a file"),
        ({"offset": 2**70}, "no place in a file"),
        ({"offset": 10**6}, f"{DATA} beside it has 44 bytes, and the network reads {10**6 + LENGTH}: cut off"),
        ({"length": 45}, "has 44 bytes, and the network reads 45"),
    ],
)
def test_places_that_are_none(tmp_path: Path, about: dict[str, Any], message: str) -> None:
    save_beside(tmp_path)
    path = save_onnx(tmp_path, external={"location": DATA, **about})
    with pytest.raises(WeightsError, match=message):
        resolve(config_of(path), STORAGE)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = save_beside(tmp_path)
    (tmp_path / DATA).unlink()
    with pytest.raises(WeightsError, match=f"{DATA}: no such weights file"):
        resolve(config_of(path), STORAGE)
    path.write_bytes(path.read_bytes()[:-7] + b"garbage")
    with pytest.raises(WeightsError):
        resolve(config_of(path), STORAGE)
