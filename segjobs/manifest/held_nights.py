"""Nights that their gate holds: which they are, the rows that wait in their runs, and how one is given up.

ended, in no version ─┬→ rows_waiting: what the next night need not label again
                      ├→ publish (``nights.commit_night``): rows and marks join the table
                      └→ discard ─→ nights/<night>/discarded.json: its images are new again to the next night
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.manifest.collection import Collection, processing_of
from segjobs.manifest.nights import Night, open_night, read_end, version_with
from segjobs.manifest.parts import open_run, read_part
from segjobs.manifest.schema import SOURCE_TYPE
from segjobs.manifest.seal import sealed_json
from segjobs.storage import Storage, join

WAITING_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        ("source", SOURCE_TYPE),
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("night", pa.string(), nullable=False),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""Rows of held nights' runs, without their masks."""


def version_of(now: Collection | None, record: Mapping[str, Any]) -> int | None:
    """The version in which an ended night was published, by itself or after a look; None where it was not.

    ``record``: how the night ended (``nights.read_end``).
    """
    if record["published"] is not None:
        return int(record["published"])
    return version_with(now, record["night"])


def is_discarded(storage: Storage, uri: str, name: str) -> bool:
    return storage.exists(_discarded(uri, name))


def held_nights(storage: Storage, uri: str, now: Collection | None, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Those of the ended nights that are in no version, and not discarded.

    ``now``: the newest version; ``records``: how the nights ended (``nights.read_end``).
    """
    return [
        record["night"]
        for record in records
        if version_of(now, record) is None and not is_discarded(storage, uri, record["night"])
    ]


def how_to_end(uri: str, run_uri: str) -> str:
    """What a person does about a held night, in words."""
    return (
        f"segjobs collection publish {run_uri} collection.uri={uri} publishes it, and discard in its place gives it up"
    )


def discard(storage: Storage, night: Night) -> bool:
    """Give a held night up: its run stays where it is, and its images are new again; False where it was before.

    Raises ManifestError where the night is not ended.
    """
    try:
        read_end(storage, night.uri, night.name)
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestError(
            f"{night.folder}: the night is begun and not ended; segjobs nightly ends it, and then it can be discarded"
        ) from None
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record = sealed_json({"night": night.name, "discarded": at})
    return storage.put_if_absent(_discarded(night.uri, night.name), record)


def _discarded(uri: str, name: str) -> str:
    return join(uri, "nights", name, "discarded.json")


def rows_waiting(storage: Storage, uri: str, held: Iterable[str], *, model: str, processing: str) -> pa.Table:
    """The rows of held nights' runs of this model and processing, by image_id and night (``WAITING_SCHEMA``).

    Of another model or processing they are nothing to wait for: their images are labelled as if they were not there.
    """
    tables = [WAITING_SCHEMA.empty_table()]
    for name in held:
        tables += _rows(storage, open_night(storage, uri, name), model, processing)
    return pa.concat_tables(tables).sort_by([("image_id", "ascending"), ("night", "ascending")])


def _rows(storage: Storage, night: Night, model: str, processing: str) -> Iterator[pa.Table]:
    if night.run_uri is None:
        return
    run = open_run(storage, night.run_uri)
    if (run.info.model_label, processing_of(run.info.identity)) != (model, processing):
        return
    finished = datetime.fromisoformat(run.info.finished)
    for part in run.parts:
        rows = read_part(storage, run, part, columns=["image_id", "uri", "source", "error", "run_id"])
        rows = rows.replace_schema_metadata()
        rows = rows.append_column("night", pa.array([night.name] * rows.num_rows, pa.string()))
        moments = pa.array([finished] * rows.num_rows, WAITING_SCHEMA.field("labelled_at").type)
        yield rows.append_column("labelled_at", moments).cast(WAITING_SCHEMA)
