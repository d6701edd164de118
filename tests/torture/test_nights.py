"""Thirty nights, on real photographs where they are at hand."""

from pathlib import Path

import pytest

from tests.torture.nights import Nights, live


@pytest.mark.torture
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_nights_end_as_a_fresh_run(tmp_path: Path, shared_data: Path, seed: int) -> None:
    photographs = sorted(shared_data.glob("coco_mini/train2017/*.jpg"))
    lived = live(Nights(tmp_path, photographs, seed=seed))
    assert lived.wrong == []
    assert lived.killed.total() >= 3 and lived.counts["stale"] and lived.counts["held"] and lived.counts["gone"]
