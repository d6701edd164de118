"""A small torture: the recorded one is ``python -m tests.torture``."""

from pathlib import Path

import pytest

from tests.torture.run import Torture, torture


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_a_few_kills_of_every_kind(tmp_path: Path) -> None:
    report = torture(Torture(seed=7, images=120, kills=4, shard_images=4, sleep_s=0.5, folder=tmp_path))
    assert report["wrong"] == []
    assert (report["rows"], report["ok"], report["finished"]) == (120, 120, True)
    assert len(report["kills"]) == 4
