"""The README's first command, as a new user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_reaches_its_score_and_draws_its_picture(tmp_path: Path) -> None:
    command = [sys.executable, "flows/demo.py", f"output.uri={tmp_path / 'demo'}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mean_iou"] >= 0.75  # 0.787 on one machine, above 0.80 on others
    with Image.open(result["contact_sheet"]) as sheet:
        assert min(sheet.size) > 500
    assert "pixel accuracy" in done.stderr
    assert f"model.weights={tmp_path / 'demo' / 'model'}" in done.stderr, "the next command to try"

    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout.splitlines()[-1]) == result
    assert not any(line.startswith("train: step") for line in again.stderr.splitlines())
