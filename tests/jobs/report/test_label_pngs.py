"""Label PNGs of another tool on the page: the very masks that were scored, by their own values, or none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import ReportConfig
from segjobs.jobs.report.job import _categories, open_sources
from segjobs.jobs.report.label_pngs import open_scored_pngs
from segjobs.jobs.report.tasks import Drawing, draw_image
from segjobs.manifest.parts import read_rows
from segjobs.manifest.schema import make_categories
from segjobs.storage import Storage
from tests.made import scored
from tests.page.sample import write_run_of

SIZE_HW = (24, 40)
STORAGE = Storage()


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Sky over road, of which the other tool says 10 and 20, and 7 where it does not know; one mask is broken."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    ids = np.zeros(SIZE_HW, np.uint8)
    ids[12:] = 1
    found = np.choose(ids, [10, 20]).astype(np.uint8)
    found[:, :5] = 7
    paths = [tmp_path / "images" / f"{name}.png" for name in ("a", "b", "c")]
    for path in paths:
        Image.fromarray(np.full((*SIZE_HW, 3), 90, np.uint8)).save(path)
    Image.fromarray(found).save(tmp_path / "masks" / "a_pred.png")
    (tmp_path / "masks" / "b_pred.png").write_bytes(b"no mask")
    write_run_of(tmp_path / "truth", dict.fromkeys(paths, ids), make_categories(["sky", "road"]))
    predictions = {"format": "png", "ids": [10, 20], "void_ids": [7], "suffix": "_pred"}
    settings = {"predictions": predictions, "rename": {"sky": "road"}, "bootstrap": {"resamples": 0}}
    scored(tmp_path, str(tmp_path / "truth"), str(tmp_path / "masks"), **settings)
    return tmp_path


def config_of(folder: Path) -> ReportConfig:
    return ReportConfig.model_validate(
        {"evaluation": {"uri": str(folder / "scores")}, "output": {"uri": str(folder / "page")}}
    )


def test_they_are_drawn_beside_the_truth(evaluation: Path) -> None:
    sources = open_sources(config_of(evaluation), STORAGE)
    assert sources.pngs is not None
    assert (sources.predictions, sources.notes) == (None, ())
    assert sources.about["predictions"] == sources.pngs.digest
    categories, mapping, task = _categories(sources)
    assert (mapping, task) == ({10: 0, 20: 1}, "semantic"), "by their values, whatever rename says"
    reader = sources.pngs.read
    drawing = Drawing(STORAGE, sources.truth, None, categories, mapping, task, 40, 10**6, reader)
    rows: dict[str, Any] = {row["image_id"]: row for row in read_rows(STORAGE, str(evaluation / "truth"))}

    texts = sources.pngs.texts

    def card(name: str) -> dict[str, Any]:
        return draw_image(name, rows[name], None, drawing=drawing, text=texts.get(name))

    whole = card("a.png")
    assert {key for key, _ in whole["pictures"]} == {"image", "truth", "prediction", "difference"}
    assert (whole["absent"], whole["classes"]) == ([], [0, 1])
    (broken,) = card("b.png")["absent"]
    assert broken[0] == "prediction" and broken[1].startswith("UNREADABLE: ")
    assert card("c.png")["absent"] == [("prediction", "no prediction for this image")]


def test_masks_that_are_others_now_are_not_drawn(evaluation: Path) -> None:
    sources = open_sources(config_of(evaluation), STORAGE)
    assert sources.report is not None and sources.truth is not None
    (evaluation / "masks" / "c_pred.png").write_bytes((evaluation / "masks" / "a_pred.png").read_bytes())
    again = open_sources(config_of(evaluation), STORAGE)
    assert again.pngs is None
    (note,) = again.notes
    assert note == f"{evaluation}/masks: no label PNGs, or not those that were scored: the predictions are not shown."
    for nowhere in (evaluation / "images", evaluation / "none"):
        assert open_scored_pngs(STORAGE, sources.report, str(nowhere), sources.truth) is None
