"""Repositories of transformers on disk and in the hub's cache: what is found, and what is said of the rest."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from fsspec.registry import _registry

from segjobs.config import ModelConfig, StorageConfig
from segjobs.errors import WeightsError
from segjobs.models.base import LabelMap
from segjobs.models.hf_files import open_repository
from segjobs.models.registry import build, resolve
from segjobs.storage import Storage
from tests.fake_bucket import FakeBucket
from tests.tiny_hf import save_tiny

STORAGE = Storage()
TENSORS = {"a": torch.zeros(2), "b": torch.ones(3)}


def write(folder: Path, **files: Any) -> Path:
    """JSON objects by name, ``__`` for a dot, beside one weights file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config__json": {}, "preprocessor_config__json": {}, **files}.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name.replace("__", ".")).write_text(text)
    safetensors.torch.save_file(TENSORS, folder / "model.safetensors")
    return folder


def opened(uri: str | Path, **settings: Any) -> Any:
    return open_repository(ModelConfig(name="hf", weights=str(uri), **settings), STORAGE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", config__json={"model_type": "x"}, preprocessor_config__json={"size": 512})
    found = opened(folder)
    assert (found.config, found.processor, found.licence) == ({"model_type": "x"}, {"size": 512}, None)
    assert found.weights == (folder / "model.safetensors",)
    assert found.sha256 == sha256(folder / "model.safetensors")
    assert opened(folder, sha256=found.sha256) == found
    with pytest.raises(WeightsError, match=r"SHA-256 of the weights is [0-9a-f]{64}, but model.sha256 says 0{64}"):
        opened(folder, sha256="0" * 64)


def test_weights_in_several_files(tmp_path: Path) -> None:
    folder = write(tmp_path)
    shutil.move(folder / "model.safetensors", folder / "model-1.safetensors")
    safetensors.torch.save_file(TENSORS, folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = opened(folder)
    assert [path.name for path in found.weights] == ["model-1.safetensors", "model-2.safetensors"]
    lines = "".join(f"{path.name} {sha256(path)}\n" for path in found.weights)
    assert found.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"index\.json names a file that is not there: .*model-2"):
        opened(folder)
    for bad in ({}, {"weight_map": {"a": "../x.safetensors"}}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(bad))
        with pytest.raises(WeightsError, match="names no files beside it under weight_map"):
            opened(folder)


def test_what_is_missing_or_damaged(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights there; expected one of model\.safetensors"):
        opened(folder)
    with pytest.raises(WeightsError, match=r"no preprocessor_config\.json there"):
        opened(write(tmp_path / "n", preprocessor_config__json=None))
    with pytest.raises(WeightsError, match=r"no config\.json there .*save_pretrained wrote"):
        opened(tmp_path / "none")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read as JSON"):
        opened(write(tmp_path / "o", config__json="{"))
    with pytest.raises(WeightsError, match=r"config\.json holds a list, expected a JSON object"):
        opened(write(tmp_path / "p", config__json="[]"))


def test_an_image_processor_inside_a_processor(tmp_path: Path) -> None:
    processor = {"processor_class": "OneFormerProcessor", "image_processor": {"size": 3}}
    folder = write(tmp_path, preprocessor_config__json=None, processor_config__json=processor)
    assert opened(folder).processor == {"size": 3}


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Text", "apache-2.0"),
        (
            "---\nlicense: other\nlicense_name: nvidia\nlicense_link: https://x/LICENSE\n---\n",
            "other (nvidia, https://x/LICENSE)",
        ),
        ("---\nlicense: [mit, cc-by-nc-4.0]\n---\n", "mit cc-by-nc-4.0"),
        ("---\nlicense: [\n---\n", None),
        ("---\n- a\n---\n", None),
        ("# Text", None),
    ],
)
def test_the_licence_is_the_readmes(tmp_path: Path, head: str, licence: str | None) -> None:
    assert opened(write(tmp_path, README__md=head)).licence == licence


def test_weights_that_bring_no_network_along() -> None:
    for uri in ("none", "default", "torchvision:COCO_V1"):
        with pytest.raises(
            WeightsError, match=r"model\.name=hf takes a directory that save_pretrained of transformers"
        ):
            opened(uri)


def test_a_repository_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = "a" * 40
    write(tmp_path / "models--org--repo" / "snapshots" / revision, README__md="---\nlicense: mit\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = opened(f"hf://org/repo@{revision}")
    assert (found.licence, found.sha256) == ("mit", sha256(found.weights[0]))
    with pytest.raises(WeightsError, match="the repository as a whole"):
        opened(f"hf://org/repo@{revision}/model.safetensors")
    with pytest.raises(WeightsError, match=r"hf://org/other@main: no config\.json there"):
        opened("hf://org/other@main")


@pytest.mark.parametrize("kind", ["segformer", "oneformer"])
def test_a_repository_in_a_bucket_is_the_folder(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "gs", FakeBucket)
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path / "cache"))
    folder = save_tiny(tmp_path, kind)
    storage, there = Storage(StorageConfig(schemes=["gs"])), f"gs://bucket/{kind}"
    for file in folder.iterdir():
        storage.put_if_absent(f"{there}/{file.name}", file.read_bytes())
    options = {"task": "semantic"} if kind == "oneformer" else {}
    about = {"name": "hf", "options": options}
    far = ModelConfig.model_validate({**about, "weights": there}, context={"schemes": ["gs"]})
    near = ModelConfig.model_validate({**about, "weights": str(folder)})
    assert resolve(far, storage).digest == resolve(near, storage).digest
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    one, other = (build(config, storage, device="cpu").predict([image])[0] for config in (far, near))
    assert isinstance(one, LabelMap) and isinstance(other, LabelMap)
    assert np.array_equal(one.ids, other.ids)
    tokenizer = {"tokenizer.json", "vocab.json", "merges.txt"} & {file.name for file in folder.iterdir()}
    assert bool(tokenizer) is (kind == "oneformer")
