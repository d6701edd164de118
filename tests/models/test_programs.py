"""Exported networks that are programs of their own: refused with the reason, and the reason as it is in torch."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from segjobs.config import ModelConfig
from segjobs.errors import WeightsError
from segjobs.models.registry import resolve
from segjobs.models.weights_file import read_tensors
from segjobs.storage import Storage

PT2 = "torch.export.load runs pickled code and expressions .*: export the network to ONNX"
SCRIPT = r"TorchScript, a program that may write any file .*: export the network to ONNX"


@pytest.mark.parametrize("model", ["unet", "onnx", "tests.toy_model:build"])
@pytest.mark.parametrize(("name", "words"), [("net.pt2", PT2), ("net.torchscript", SCRIPT), ("net.ptl", SCRIPT)])
def test_their_names_say_it(name: str, words: str, model: str, tmp_path: Path) -> None:
    if ":" in model:
        model = f"{__name__}:factory"
    with pytest.raises(WeightsError, match=words) as caught:
        resolve(ModelConfig(name=model, weights=str(tmp_path / name)), Storage())
    assert len(str(caught.value).splitlines()) == 1


def factory(weights: Path) -> None:
    pytest.fail("not called")


@pytest.mark.parametrize(("entry", "words"), [("archive_format", PT2), ("constants.pkl", SCRIPT)])
def test_their_content_says_it_under_another_name(entry: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"net/{entry}", b"pt2")
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(WeightsError, match=words):
        read_tensors(path)


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torch_export_load_runs_what_is_pickled(tmp_path: Path) -> None:
    """As long as this passes, the reason holds."""
    whole, changed, touched = tmp_path / "whole.pt2", tmp_path / "changed.pt2", tmp_path / "touched"
    torch.export.save(torch.export.export(nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 4, 4),)), whole)
    hostile = io.BytesIO()
    torch.save(Touches(touched), hostile)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(changed, "w") as taken:
        for name in given.namelist():
            taken.writestr(name, hostile.getvalue() if "sample_inputs" in name else given.read(name))
    with pytest.raises(AssertionError):
        torch.export.load(changed)
    assert touched.exists()


class Writes(nn.Module):
    path: str

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, self.path)
        return images


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torchscript_writes_files(tmp_path: Path) -> None:
    written = tmp_path / "written"
    torch.jit.script(Writes(str(written))).save(str(tmp_path / "net.pt"))
    torch.jit.load(str(tmp_path / "net.pt"))(torch.zeros(1))
    assert written.exists()
    with pytest.raises(WeightsError, match=SCRIPT):
        read_tensors(tmp_path / "net.pt")
