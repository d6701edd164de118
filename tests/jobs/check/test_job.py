"""``segjobs check``: a line a check, and each fault that a model can have found by the check that is for it."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from segjobs.cli import run_verb
from segjobs.config import CheckConfig
from segjobs.errors import ConfigError, ExitCode, ItemError
from segjobs.jobs.check.job import check
from segjobs.models.base import LabelMap
from segjobs.models.contract import CHECKS
from segjobs.models.tiling import label_map_of
from tests.toy_model import Field5

CARDS = iter(range(1000))


class Faulty(Field5):
    """A network of one convolution, with a fault."""

    def __init__(self, fault: str | None) -> None:
        super().__init__(classes=3)
        self._fault = fault
        with torch.random.fork_rng():
            torch.manual_seed(next(CARDS) if fault == "unseeded" else 1)
            self.module = torch.nn.Conv2d(3, 3, 3, padding=1)

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        if self._fault == "refuses" and image.shape[0] == 1:
            raise ItemError("TOO_LARGE", "no pixel is left")
        if self._fault == "small" and image.shape[0] == 1:
            raise ZeroDivisionError("no pixel to divide by")
        if self._fault == "threads" and threading.current_thread() is not threading.main_thread():
            return torch.zeros(3, *image.shape[:2])
        tensor = super().preprocess(image)
        if self._fault == "writes":
            image[0] = 0
        return tensor

    @torch.inference_mode()
    def forward(self, batch):
        stacked = torch.stack(list(batch)) / 255.0
        if self._fault == "batch":
            stacked = stacked - stacked.mean(dim=0)
        outputs = list(self.module(stacked))
        if self._fault == "random":
            outputs = [output + torch.randn_like(output) for output in outputs]
        return outputs[::-1] if self._fault == "order" else outputs

    @torch.inference_mode()
    def logits(self, output, size_hw):
        return -output if self._fault == "logits" else output

    @torch.inference_mode()
    def postprocess(self, output, size_hw):
        if self._fault == "NaN":
            output = output.nan_to_num()
        if not output.isfinite().all():
            raise ItemError("NON_FINITE", "faulty gave NaN")
        found = label_map_of(output)
        if self._fault == "shape":
            return LabelMap(found.ids.T, found.confidence)
        return found


def faulty(fault: str | None = None) -> Faulty:
    return Faulty(fault)


def config_of(fault: str | None) -> CheckConfig:
    return CheckConfig.model_validate({"model": {"name": f"{__name__}:faulty", "options": {"fault": fault}}})


def test_a_model_without_fault(capsys: pytest.CaptureFixture[str]) -> None:
    result = check(config_of(None))
    assert (dict(result.faults), result.exit_code) == (dict.fromkeys(CHECKS), ExitCode.DONE)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [f"ok      {name}" for name in CHECKS]


@pytest.mark.parametrize(
    ("fault", "name", "words"),
    [
        ("writes", "prepared tensors", "preprocess writes into the image"),
        ("shape", "way back to the original size", "50x70 pixels (h x w): ids is uint16 (70, 50)"),
        ("small", "hostile sizes", "ZeroDivisionError: no pixel to divide by"),
        ("batch", "batch of 1 equals batch of N", "image 0 of 3 alone is another than in the batch: "),
        ("order", "batch of 1 equals batch of N", "image 0 of 3 alone is another than in the batch: "),
        ("random", "same image, same answer", "the same image twice: "),
        ("threads", "threads", "preprocess gives another tensor"),
        ("unseeded", "built again, the same model", "built again, it is another network under the same digest"),
        ("NaN", "non-finite output", "of a network of NaN, postprocess gave a prediction"),
        ("logits", "logits for tiles", "the largest logit is the label map's class at "),
    ],
)
def test_each_fault_is_found(fault: str, name: str, words: str) -> None:
    result = check(config_of(fault))
    assert (result.faults[name] or "").startswith(words)
    assert result.exit_code == ExitCode.GATE_MISSED
    others = {one for one, why in result.faults.items() if why} - {name}
    assert not others or fault in ("writes", "shape", "random"), "which no check overlooks"


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = run_verb("check", [f"model.name={__name__}:faulty", "model.options.fault=small"])
    shown = capsys.readouterr()
    (file,) = tmp_path.glob("segjobs-*.traceback.txt")
    assert code == 4
    assert "FAILED  hostile sizes: ZeroDivisionError: no pixel to divide by\n" in shown.err
    assert f"        traceback: {file}\n" in shown.err
    text = file.read_text()
    assert "in preprocess" in text
    assert "at an image of 1x1 pixels (h x w)" in text
    assert json.loads(shown.out)["faults"]["hostile sizes"] == "ZeroDivisionError: no pixel to divide by"


def test_what_does_not_apply_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    result = check(CheckConfig.model_validate({"model": {"name": "tests.toy_model:blobs"}}))
    assert result.exit_code == ExitCode.DONE
    lines = capsys.readouterr().err.splitlines()
    assert "–       non-finite output: its module has no parameters to spoil" in lines
    assert "–       logits for tiles: instance models have none" in lines
    assert check(config_of("refuses")).exit_code == ExitCode.DONE
    told = "–       hostile sizes: refused: 1x1 pixels (h x w): no pixel is left (TOO_LARGE)"
    assert told in capsys.readouterr().err.splitlines()


def moody(kept: dict[str, int] = {"calls": 0}) -> Field5:  # noqa: B006
    kept["calls"] += 1
    return Field5(2 + kept["calls"])


def test_another_card_each_time() -> None:
    with pytest.raises(ConfigError, match="its card is another each time"):
        check(CheckConfig.model_validate({"model": {"name": f"{__name__}:moody"}}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    config = CheckConfig.model_validate({"model": {"name": "unet"}, "device": "cuda"})
    with pytest.raises(ConfigError, match="device=cuda: torch sees no GPU here"):
        check(config)
