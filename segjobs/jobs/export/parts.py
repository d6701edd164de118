"""The tasks of an export: a part of the manifest in; its images' files and one part of the export out.

A part of the export has a row per image: what was written for it and what that lost, or why nothing was written; and
the texts that it gives to the documents of all images.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial

import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.exporters.base import Exporter, Labelled, Loss, Setting
from segjobs.exporters.file_names import plain_name
from segjobs.exporters.flatten import exported_segments
from segjobs.exporters.table import get_exporter
from segjobs.jobs.engine.standing import publish_same
from segjobs.manifest.parts import PartInfo, Run, part_bytes, publish_part, read_part
from segjobs.manifest.rows import ManifestRow
from segjobs.manifest.schema import Footer
from segjobs.storage import Storage, join

_THREADS = 4  # of one task: PNGs are packed and files are written without the GIL
_COLUMNS = ("image_id", "uri", "width", "height", "status", "error", "segments", "confidence", "model")
EXPORT_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),  # ok, or failed: in the manifest, or because its masks make no sense
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
        ("file", pa.string()),  # relative to the export
        ("segments", pa.int32()),
        (
            "losses",
            pa.list_(
                pa.struct(
                    [("kind", pa.string()), ("category_id", pa.int32()), ("count", pa.int64()), ("pixels", pa.int64())]
                )
            ),
        ),
        ("image", pa.large_string()),  # texts of the documents
        ("records", pa.large_list(pa.large_string())),
    ]
)


@dataclass(frozen=True)
class Span:
    """One task: a part of the manifest, the number of its first image, and what is special about its images.

    ``names``: images whose file is not called by their plain name. ``shared``: those that a reader of stems takes
    for one. ``numbers``: image ids of ``ids_from``.
    """

    index: int
    part: PartInfo
    first: int
    names: dict[str, str]
    shared: list[str]
    numbers: dict[str, int] | None = None


@dataclass(frozen=True)
class Exporting:
    """All that the tasks of one export share; pickles small."""

    storage: Storage
    run: Run
    uri: str
    setting: Setting
    footer: Footer
    known: tuple[int, ...]

    @property
    def exporter(self) -> Exporter:
        return get_exporter(self.setting.config.format)


def export_part(block: pa.Table, *, exporting: Exporting) -> pa.Table:
    """Task: spans (JSON) → the files of their images and their published parts → (ok, failed) of each."""
    counts = []
    for text in block["span"].to_pylist():
        raw = json.loads(text)
        span = Span(**{**raw, "part": PartInfo(**raw["part"])})
        rows = read_part(exporting.storage, exporting.run, span.part, columns=_COLUMNS).to_pylist()
        with ThreadPoolExecutor(_THREADS) as threads:
            written = list(threads.map(partial(_export_row, exporting, span), range(len(rows)), rows))
        table = pa.Table.from_pylist(written, schema=EXPORT_SCHEMA)
        publish_part(
            exporting.storage, exporting.uri, span.index, part_bytes(table, exporting.footer, schema=EXPORT_SCHEMA)
        )
        failed = sum(row["status"] == "failed" for row in written)
        counts.append({"ok": len(rows) - failed, "failed": failed})
    return pa.Table.from_pylist(counts)


def _export_row(exporting: Exporting, span: Span, place: int, row: ManifestRow) -> dict[str, object]:
    """One row of the manifest → one of the export; its file is published."""
    name = span.names.get(row["image_id"]) or plain_name(row["image_id"])
    made, data = written_row(
        row,
        exporting.setting,
        exporting.known,
        name=name,
        number=lambda image_id: _number(span, place, image_id),
        shares_name=row["image_id"] in span.shared,
    )
    return {**made, "file": _publish_file(exporting, name, data)}


def written_row(
    row: ManifestRow,
    setting: Setting,
    known: Sequence[int],
    *,
    name: str,
    number: Callable[[str], int],
    shares_name: bool,
) -> tuple[dict[str, object], bytes | None]:
    """One row of a manifest → one of ``EXPORT_SCHEMA``, and the bytes of its file, if the format has one.

    ``known``: category ids of the manifest. ``number``: image_id → the image's id in documents, or an ItemError.
    ``name``, ``shares_name``: see ``Labelled``.
    """
    base: dict[str, object] = {
        "image_id": row["image_id"],
        "uri": row["uri"],
        "segments": 0,
        "losses": [],
        "records": [],
    }
    if row["status"] != "ok":
        return {**base, "status": "failed", "error": row["error"]}, None
    try:
        own = number(row["image_id"])
        segments, left_out = exported_segments(row, known, setting)
        image = Labelled(
            number=own,
            image_id=row["image_id"],
            uri=row["uri"],
            name=name,
            size_hw=(row["height"], row["width"]),
            segments=segments,
            confidence=row["confidence"],
            model=row["model"],
            shares_name=shares_name,
        )
        written = get_exporter(setting.config.format).write(image, setting)
    except ItemError as error:
        return {**base, "status": "failed", "error": {"code": error.code, "message": error.message}}, None
    made = {
        **base,
        "status": "ok",
        "segments": written.segments,
        "losses": _summed((*left_out, *written.losses)),
        "image": written.image,
        "records": written.records,
    }
    return made, written.data


def _number(span: Span, place: int, image_id: str) -> int:
    if span.numbers is None:
        return span.first + place
    if image_id not in span.numbers:
        raise ItemError("NOT_FOUND", f"{image_id}: ids_from lists no such image")
    return span.numbers[image_id]


def _publish_file(exporting: Exporting, name: str, data: bytes | None) -> str | None:
    exporter = exporting.exporter
    if data is None or exporter.folder is None:
        return None
    path = f"{exporter.folder}/{name}{exporter.suffix}"
    uri = join(exporting.uri, path)
    publish_same(exporting.storage, uri, data, "is there and differs: it belongs to something else")
    return path


def _summed(losses: Iterable[Loss]) -> list[dict[str, object]]:
    sums: dict[tuple[str, int | None], Loss] = {}
    for loss in losses:
        key = (loss.kind, loss.category_id)
        seen = sums.get(key, Loss(loss.kind, loss.category_id, 0))
        sums[key] = replace(seen, count=seen.count + loss.count, pixels=seen.pixels + loss.pixels)
    return [asdict(loss) for loss in sums.values()]
