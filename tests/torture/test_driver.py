"""A few images through each figure: the recorded ones are ``python -m tests.torture.driver``."""

import json
from pathlib import Path

import pytest

from tests.torture.driver import WHAT


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_each_figure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("files", "objects", "bucket", "run", "resume", "parts", "evaluate"):
        WHAT[what](tmp_path, 1300)
    figures = {one["figure"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    listed = ("list and plan", "list and plan objects", "list and plan real objects")
    assert [figures[name]["shards"] for name in listed] == [21, 21, 21]
    assert figures["run in this process"]["ended"] == "the store is gone"
    assert figures["resume, verify=receipts"]["parts"] == figures["read run.json"]["parts"] == 21
    resumed = figures["resume in a bucket"]
    assert (resumed["already_done"], resumed["LIST"], resumed["PUT"]) == (1240, 3, 2)
    assert figures["score"]["ranges"] == 5
    assert figures["report"]["images"]["ok"] == 1300


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_counts_that_repeat_are_those_that_would_be_scored(tmp_path: Path) -> None:
    for what in ("evaluate", "report"):
        WHAT[what](tmp_path / what, 1300)
    one, two = (json.loads((tmp_path / what / "scores" / "report.json").read_text()) for what in ("evaluate", "report"))
    assert one["semantic"] == two["semantic"]
    assert one["disputes"] == two["disputes"]
