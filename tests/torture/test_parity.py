"""Two drawn photographs through each figure: the recorded ones are ``python -m tests.torture.parity``."""

import json
from pathlib import Path

import numpy as np
import pytest

from segjobs.sources.synthetic import draw_scene
from tests.torture.parity import RUNTIMES, parity, speed

NAME = "lraspp_mobilenet_v3_large"


@pytest.mark.torture
def test_each_figure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos: list[np.ndarray] = [draw_scene(3, size_hw, index=0)[0] for size_hw in ((96, 140), (150, 110))]
    parity(NAME, "none", photos, tmp_path)
    speed(NAME, photos, tmp_path)
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    shares = {one["runtime"]: one for one in lines if one["figure"] == "parity"}
    assert shares.keys() == RUNTIMES.keys()
    for runtime in ("onnxruntime", "openvino"):
        assert shares[runtime]["worst"] >= 0.999 and shares[runtime]["below_999"] == 0
    assert shares["openvino bf16"]["worst"] < 0.999, "masks that 8 bits do not tell apart"
    ratios = {one["runtime"]: one["ratio"] for one in lines if one["figure"] == "forward"}
    assert ratios.pop("torch") == 1 and all(ratio > 0 for ratio in ratios.values())
