"""What a night's run shows: figures, the least confident, and pictures of images that may be gone."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.errors import ItemError
from segjobs.jobs.nightly.look import cards_of, look_at, nothing
from segjobs.manifest.parts import open_run
from segjobs.storage import Storage
from tests.collections_made import CLASSES
from tests.made import manifest


def test_figures_and_rows_to_draw(tmp_path: Path) -> None:
    def unsure(rows: list[dict[str, Any]]) -> None:
        for place, row in enumerate(rows):
            row["confidence"] = 0.5 + place / 10 if row["status"] == "ok" else None

    broken = ItemError("TRUNCATED", "ends early")
    pictures = {"a": ["ss"], "b": ["sr"], "c": broken, "d": ["rr"]}
    run = open_run(Storage(), manifest(tmp_path / "run", pictures, CLASSES, cut=(2,), change=unsure))
    look = look_at(Storage(), run, {"b", "c"})
    assert look.figures["images"] == 4 and look.figures["failed"] == 0.25
    assert look.figures["pixels"] == {"sky": 0.5, "road": 0.5}
    assert look.figures["confidence"] == pytest.approx((0.5 + 0.6 + 0.8) / 3)
    assert [row["image_id"] for row in look.new] == ["b"]
    assert [row["image_id"] for row in look.unsure] == ["a", "b", "d"]
    (card, *_) = cards_of(Storage(), look.unsure, look.categories)
    assert card.picture.startswith("data:image/webp;base64,") and card.note == " · 0.500", "the photo is nowhere"
    assert nothing().figures["images"] == 0
