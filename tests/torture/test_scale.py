"""The measured table, small: nights find what was changed and commit it once; the recorded one is a million rows."""

from pathlib import Path

import pytest

from tests.torture.scale import CHANGED, MASKS, NEW, Scale, measure


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_nights_of_a_large_table(tmp_path: Path) -> None:
    rows = 400_000  # of fewer ones less come together
    report = measure(Scale(tmp_path, rows))
    for name in ("together", "spread"):
        counts = report[name]["counts"]
        assert (counts["new"], counts["changed"]) == (NEW, CHANGED)
    assert report["together"]["files_rewritten"] < report["spread"]["files_rewritten"] <= report["files"]
    assert report["status"]["images"] == {"ok": rows + 2 * NEW} and report["open"]["segments"] == MASKS * (
        rows + 2 * NEW
    )
    assert max(report[name]["peak_mb"] for name in ("together", "spread")) < 2000
