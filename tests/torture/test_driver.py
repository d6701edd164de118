"""A few images through each figure: the recorded ones are ``python -m tests.torture.driver``."""

import json
from pathlib import Path

import pytest

from tests.torture.driver import WHAT


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_each_figure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("files", "objects", "run", "resume", "evaluate"):
        WHAT[what](tmp_path, 1300)
    figures = {one["figure"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert figures["list and plan"]["shards"] == figures["list and plan objects"]["shards"] == 21
    assert figures["run in this process"]["ended"] == "the store is gone"
    assert figures["resume, verify=receipts"]["parts"] == figures["read run.json"]["parts"] == 21
    assert figures["evaluate"]["images"]["ok"] == 1300
