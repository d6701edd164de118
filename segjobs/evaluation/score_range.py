"""One range of an evaluation: its parts of both manifests in, one part of counts out, published whole.

    Range → read the two sides, join by image_id → score_image → scores/part-00012.parquet

Only the rows of the range are held. What is published are counts, from which every score, convention, slice and
interval follows without another look at a mask.
"""

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from segjobs.evaluation.pairing import SCORES_SCHEMA, Pairing, Range
from segjobs.evaluation.score_image import Predicted, foreign_row, score_image
from segjobs.evaluation.scored_parts import OF_KEY, part_of, scored_digest
from segjobs.manifest.parts import PartInfo, Run, part_uri, read_part
from segjobs.manifest.rows import ManifestRow
from segjobs.manifest.seal import sealed_table
from segjobs.storage import Storage

_COLUMNS = ("image_id", "uri", "width", "height", "status", "error", "segments", "confidence")


def publish_range(number: int, span: Range, pairing: Pairing, uri: str) -> tuple[int, int]:
    """Publish the range's part of ``SCORES_SCHEMA`` below ``uri``, sorted by image_id.

    Gives how many images of the truth are scored, and how many others it has. Raises the SegjobsError that stops
    the evaluation.
    """
    rows = pa.Table.from_pylist(score_rows(span, pairing), schema=SCORES_SCHEMA)
    metadata = {OF_KEY: part_of(scored_digest(pairing.storage, uri), number)}
    data = sealed_table(rows, metadata=metadata, options={"row_group_size": 1000})
    pairing.storage.put_if_absent(part_uri(uri, number, "scores"), data)
    statuses: list[str] = rows["status"].to_pylist()
    ok, extra = statuses.count("ok"), statuses.count("extra")
    return ok, len(statuses) - ok - extra


def score_rows(span: Range, pairing: Pairing) -> list[Mapping[str, object]]:
    """The rows of one range, of every image that either side has."""
    truth = dict(_rows_in(pairing.storage, pairing.truth.run, span.truth, span))
    if span.foreign is None:
        predicted: dict[str, Predicted] = dict(
            _rows_in(pairing.storage, pairing.predictions.run, span.predictions, span)
        )
    else:
        predicted = {
            image_id: foreign_row(text, truth.get(image_id), pairing) for image_id, text in span.foreign.items()
        }
    return [score_image(key, truth.get(key), predicted.get(key), pairing) for key in sorted({*truth, *predicted})]


def _rows_in(
    storage: Storage, run: Run | None, parts: Iterable[PartInfo], span: Range
) -> Iterator[tuple[str, ManifestRow]]:
    assert run is not None  # noqa: S101
    for part in parts:
        for row in read_part(storage, run, part, columns=_COLUMNS).to_pylist():
            if span.holds(row["image_id"]):
                yield row["image_id"], row
