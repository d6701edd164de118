"""Huge scenes from their labels to their page, none of them within ``decode.max_pixels``: exact at each step.

The same at 20,000 x 20,000 pixels, with the memory of each command: ``tests/torture/huge.py``.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelConfig, PrepareConfig, ReportConfig, SourceConfig
from segjobs.errors import ExitCode
from segjobs.jobs.label import decode as label_decode
from segjobs.jobs.prepare import job as prepare_job
from segjobs.jobs.report import job as report_job
from segjobs.jobs.report.tasks import Drawing, draw_image
from segjobs.labels import base
from segjobs.manifest.manifest import Manifest
from segjobs.manifest.parts import footer_of, open_run, read_part
from segjobs.manifest.rle import paint
from segjobs.storage import Storage
from segjobs.training.examples import ExampleReader, ExampleSource, window_of
from tests import huge_scene
from tests.in_process import label_in_process, prepare_in_process
from tests.made import scored

SIZE_HW = (1500, 2100)
LIMITS = {"decode": {"max_pixels": 1_200_000}}
STORAGE = Storage()
BANDS: dict[int, Mapping[str, Any]] = {3: {}, 6: {"bands": [4, 5, 6], "range": [0, 255]}}


def row_of(run_uri: Path) -> dict[str, Any]:
    run = open_run(STORAGE, str(run_uri))
    (row,) = read_part(STORAGE, run, run.parts[0]).to_pylist()
    return row


@pytest.mark.parametrize("large", [False, True], ids=["files in memory", "files by slices"])
@pytest.mark.parametrize("bands", BANDS)
def test_prepare_label_evaluate_and_draw(
    tmp_path: Path, bands: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        for module in (base, prepare_job, label_decode):
            monkeypatch.setattr(module, "LARGE_BYTES", 1000)
    huge_scene.draw(tmp_path, SIZE_HW, bands=bands)
    photographs = {"uri": str(tmp_path / "images"), **BANDS[bands]}
    labels = {"uri": str(tmp_path / "labels"), "format": "png", "categories": list(huge_scene.CLASSES)}
    truth, predictions = tmp_path / "truth", tmp_path / "predictions"
    settings = {"input": photographs, "labels": labels, "output": {"uri": str(truth)}, **LIMITS}
    prepare_in_process(PrepareConfig.model_validate(settings))
    expected = huge_scene.truth_at(*map(np.arange, SIZE_HW), SIZE_HW)
    (row,) = Manifest(STORAGE, str(truth))
    assert np.array_equal(row.label_map(), expected)
    with Image.open(truth / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 500

    model, tiles = {"name": "tests.toy_model:nearest"}, {"size": 256}
    settings = {"input": photographs, "model": model, "tiles": tiles, "output": {"uri": str(predictions)}, **LIMITS}
    assert label_in_process(LabelConfig.model_validate(settings)).exit_code == ExitCode.DONE
    report = scored(tmp_path, str(truth), str(predictions)).semantic
    assert report.headline["mean_iou"].value == 1.0 == report.headline["pixel_accuracy"].value

    train = SourceConfig.model_validate({"uri": str(truth)})
    source = ExampleSource("data.uri", train, open_run(STORAGE, str(truth)), {n: n for n in range(5)})
    reader = ExampleReader([source], STORAGE, max_pixels=1_200_000, part_px=300)
    for seed in (1, 2):  # crops that a training sees, by windows
        example = reader.read((0, 0, 0), seed=seed)
        place = window_of(SIZE_HW, 300, seed=seed)
        assert place is not None
        rows, columns = np.arange(place.top, place.top + 300), np.arange(place.left, place.left + 300)
        ids = paint([(index, one.counts) for index, one in example.segments], (300, 300))
        assert np.array_equal(ids, huge_scene.truth_at(rows, columns, SIZE_HW))
        off = np.abs(example.image.astype(int) - huge_scene.COLORS[ids].astype(int))
        assert off.max() <= 8  # the grain

    drawing = page_drawing(tmp_path, predictions)
    about = draw_image("scene.tif", row_of(truth), row_of(predictions), drawing=drawing)
    pictures = dict(about["pictures"])
    assert (about["absent"], about["remarks"]) == ([], [])
    whole, window = (np.asarray(Image.open(io.BytesIO(pictures[name]))) for name in ("image", "image at full size"))
    assert whole.shape[:2] == (round(200 * 1500 / 2100), 200) and window.shape[:2] == (200, 200)
    near = np.abs(window.reshape(-1, 1, 3).astype(int) - huge_scene.COLORS.astype(int)).max(axis=2).min(axis=1)
    assert np.median(near) < 16  # colours of the scene, by way of WebP: the bands that were asked for


def page_drawing(folder: Path, predictions: Path) -> Drawing:
    """What the page's job hands its tasks."""
    settings = {"predictions": {"uri": str(predictions)}, "output": {"uri": str(folder / "page")}, **LIMITS}
    sources = report_job.open_sources(ReportConfig.model_validate(settings), STORAGE)
    categories = footer_of(open_run(STORAGE, str(predictions))).categories
    mapping = {one.id: one.id for one in categories}
    made = Drawing(STORAGE, sources.predictions, sources.predictions, categories, mapping, "semantic", 200, 1_200_000)
    return replace(made, bands=report_job._bands(sources))
