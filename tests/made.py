"""Manifests made by hand: rows of letters in, a finished run on disk out; and evaluations of two of them."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.config import EvaluateConfig
from segjobs.errors import ExitCode, ItemError
from segjobs.evaluation.entries import open_evaluation
from segjobs.evaluation.output import output_files
from segjobs.evaluation.report import make_report
from segjobs.evaluation.report_types import Report
from segjobs.evaluation.score_range import publish_range
from segjobs.evaluation.scored_parts import inputs_uri
from segjobs.jobs.evaluate.job import evaluate
from segjobs.labels.coco import masks_of, read_coco, without_crowds
from segjobs.manifest.parts import Run, part_bytes, part_uri, publish_part, receipt_of, write_run
from segjobs.manifest.rows import Author, failed_row, ok_row
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category, Footer, Task
from segjobs.manifest.seal import open_json, sealed_text
from segjobs.storage import FileInfo, Storage
from tests.manifests import info_of, segments_of

GREY = (1, 1, 1)
SKY, ROAD, TREE, CAR = (Category(i, n, GREY) for i, n in ((3, "sky"), (7, "road"), (9, "tree"), (11, "car")))
TRUTH = (SKY, ROAD, TREE, CAR)
# Another order, other ids, and no car: names decide.
PREDICTED = (Category(0, "road", GREY), Category(1, "tree", GREY), Category(2, "sky", GREY))
GONE = ItemError("NOT_FOUND", "no such file")

Picture = Sequence[str] | ItemError
"""Rows of letters: s(ky), r(oad), t(ree), c(ar), and . for a pixel that no segment covers."""


def manifest(
    uri: str | Path,
    pictures: dict[str, Picture],
    categories: Sequence[Category] = TRUTH,
    *,
    cut: Sequence[int] = (),
    task: Task = "semantic",
    change: Any = None,
) -> str:
    """Write a finished manifest, its images cut into parts before the given positions."""
    rows = [row_of(name, picture, categories) for name, picture in sorted(pictures.items())]
    if change:
        change(rows)
    return finished(uri, rows, categories, cut=cut, task=task)


def coco_truth(uri: str | Path, document: dict[str, Any], **settings: Any) -> str:
    """The manifest that ``prepare labels.format=coco`` makes of a COCO JSON."""
    index = read_coco(json.dumps(document).encode())
    if settings.get("crowds") == "as_objects":
        index = without_crowds(index)
    rows = [
        ok_row(
            FileInfo(f"/d/{name}", name, 1, 1, ""),
            Author("run"),
            sha256="00",
            size_hw=image.size_hw or (1, 1),
            segments=masks_of(image, image.size_hw or (1, 1), index.categories).segments,
        )
        for name, image in sorted(index.images.items())
    ]
    return finished(uri, rows, index.categories, task="instance", boxes_only=index.boxes_only)


def finished(
    uri: str | Path,
    rows: list[dict[str, Any]],
    categories: Sequence[Category],
    *,
    cut: Sequence[int] = (),
    task: Task,
    boxes_only: bool = False,
) -> str:
    """Write a finished manifest of rows."""
    storage, uri = Storage(), str(uri)
    footer = Footer(task, tuple(categories), "digest", {"label": f"{Path(uri).name}@1"}, boxes_only=boxes_only)
    bounds = [0, *cut, len(rows)]
    receipts = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        if start < stop:
            part = pa.Table.from_pylist(rows[start:stop], schema=MANIFEST_SCHEMA)
            data, _ = publish_part(storage, uri, number, part_bytes(part, footer))
            receipts.append(
                receipt_of(
                    part_uri(uri, number), data, [row["image_id"] for row in rows[start:stop]], run_id=rows[0]["run_id"]
                ).part
            )
    ok = sum(row["status"] == "ok" for row in rows)
    info = info_of(footer, RunCounts(len(rows), ok, len(rows) - ok, 0), run_id=Path(uri).name)
    write_run(storage, Run(uri, tuple(receipts), info))
    return uri


def row_of(name: str, picture: Picture, categories: Sequence[Category]) -> dict[str, Any]:
    item, author = FileInfo(f"/d/{name}", name, 1, 1, ""), Author("run")
    if isinstance(picture, ItemError):
        return failed_row(item, author, picture)
    letters = {category.name[0]: index for index, category in enumerate(categories)}
    ids = np.array([[letters.get(letter, 65535) for letter in line] for line in picture], np.uint16)
    segments = segments_of(ids, categories, void=65535)
    return ok_row(item, author, sha256="00", size_hw=ids.shape, segments=segments)


def evaluated(
    folder: Path,
    truth: str | None,
    predicted: str,
    name: str = "scores",
    *,
    ends: ExitCode = ExitCode.DONE,
    **settings: Any,
) -> dict[str, Any]:
    """The report of the evaluation below ``folder / name``. ``settings``: the config's other sections."""
    assert evaluate(_config(folder / name, truth, predicted, settings)).exit_code == ends
    return open_json((folder / name / "report.json").read_bytes(), "report.json", mend="")


def scored(folder: Path, truth: str | None, predicted: str, name: str = "scores", **settings: Any) -> Report:
    """The same evaluation in this process, without Ray; all its files are below ``folder / name``."""
    storage = Storage()
    evaluation = open_evaluation(_config(folder / name, truth, predicted, settings), storage)
    for entry in evaluation.entries:
        storage.put_if_absent(inputs_uri(entry.uri), sealed_text(entry.inputs.to_json()))
        for number, span in enumerate(entry.spans):
            publish_range(number, span, entry.pairing, entry.uri)
    report = make_report(evaluation)
    for uri, data in output_files(evaluation, report):
        storage.put_if_absent(uri, data)
    return report


def _config(output: Path, truth: str | None, predicted: str, settings: dict[str, Any]) -> EvaluateConfig:
    predictions = {"uri": predicted, **settings.pop("predictions", {})}
    sides = {"predictions": predictions, "truth": {"uri": truth} if truth else None}
    return EvaluateConfig.model_validate({**sides, "output": {"uri": str(output)}, **settings})


def classes_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return report["semantic"]["per_class"]


def class_values(report: dict[str, Any], name: str) -> list[float | None]:
    return [row[name]["value"] for row in classes_of(report)]
