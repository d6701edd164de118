"""The files of a report, besides its scores: report.json and tables of it.

Report → per_image.parquet, per_class.parquet → report.json, last
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa

from segjobs.evaluation.entries import Entry, Evaluation
from segjobs.evaluation.report_types import ClassScores, Figure, Report
from segjobs.evaluation.scores import Scores
from segjobs.manifest.seal import sealed_table, sealed_tables, sealed_text
from segjobs.metrics.names import RATIOS
from segjobs.storage import join

REPORT, PER_CLASS, PER_IMAGE = "report.json", "per_class.parquet", "per_image.parquet"
PER_CLASS_SCHEMA = pa.schema(
    [
        ("category_id", pa.int32()),
        ("category", pa.string()),
        *((f"{name}{end}", pa.float64()) for name in RATIOS for end in ("", "_low", "_high")),
        *((name, pa.int64()) for name in ("correct_px", "truth_px", "predicted_px", "images")),
    ]
)
_IMAGE_COLUMNS = ("image_id", "uri", "status", "message", "width", "height", "confidence")
_SCORE_COLUMNS = ("labelled_px", "correct_px", "pixel_accuracy", "mean_iou")


def output_files(evaluation: Evaluation, report: Report) -> Iterator[tuple[str, bytes]]:
    """The URI and the bytes of each file of a report, in the order in which they are to appear."""
    entry = evaluation.entries[0]
    per_image = per_image_table(entry)
    if per_image is not None:
        yield join(entry.uri, PER_IMAGE), per_image
    yield join(entry.uri, PER_CLASS), per_class_table(report.semantic.per_class)
    yield join(entry.uri, REPORT), sealed_text(report.to_json())


def per_class_table(rows: Sequence[ClassScores]) -> bytes:
    """A row of ``PER_CLASS_SCHEMA`` for each class; ``iou`` becomes iou, iou_low, iou_high."""
    return sealed_table(pa.Table.from_pylist([dict(_columns(row)) for row in rows], schema=PER_CLASS_SCHEMA))


def _columns(row: ClassScores) -> Iterator[tuple[str, object]]:
    for name, value in row:
        if isinstance(value, Figure):
            yield from ((name, value.value), (f"{name}_low", value.low), (f"{name}_high", value.high))
        else:
            yield name, value


def per_image_table(entry: Entry) -> bytes | None:
    """Every image of either manifest with its own scores; None where there is no image."""
    scores = Scores(entry.pairing.storage, entry.uri, len(entry.spans), entry.pairing.categories)
    tables = scores.whole(*_IMAGE_COLUMNS, *_SCORE_COLUMNS)
    first = next(tables, None)
    if first is None:
        return None
    return sealed_tables(chain([first], tables), first.schema)
