"""Which images could be sent to people: a version of a collection and what was sent, in; each with its measures out.

table, a file at a time → Candidates: model's masks, there, not sent yet ─→ rank → their places, the best first
places → details → uri, digest and classes of each ─→ full_rows → the rows themselves
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segjobs.config import ReviewConfig
from segjobs.errors import ConfigError
from segjobs.manifest.collection import Collection
from segjobs.manifest.nights import nights_of, read_end
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.storage import Storage

MEASURES = ("entropy", "entropy_worst", "margin", "margin_worst", "confidence")
_SURE_IS_HIGH = ("margin", "margin_worst", "confidence")
_SCAN = ("image_id", "status", "gone_at", "origin", "run_id", "source.sha256", *MEASURES)
_DETAILS = (
    *("image_id", "uri", "source.sha256", "width", "height"),
    *("segments.list.element.category", "segments.list.element.area"),
)


@dataclass(frozen=True)
class Sent:
    """What reviews have sent: (image_id, SHA-256 of its bytes), and the hashes of their pictures, uint64 (N,)."""

    images: frozenset[tuple[str, str | None]] = frozenset()
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))


@dataclass(frozen=True)
class Candidates:
    """``files``: int (N,), which file of the table has the image. ``measures``: name → float (N,), NaN for null.

    ``left_out``: reason → images.
    """

    image_ids: list[str]
    files: np.ndarray
    run_ids: list[str]
    measures: Mapping[str, np.ndarray]
    left_out: Counter[str]


@dataclass(frozen=True)
class Detail:
    """What is known of a candidate before it is read. ``shares``: class → share of the image's pixels."""

    image_id: str
    uri: str
    sha256: str | None
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Ranked:
    """``places``: int (N,) of candidates, the best first; ``scores``: float (N,), NaN where by lot; ``note``: what a
    person should know."""

    places: np.ndarray
    scores: np.ndarray
    note: str = ""


def candidates_of(now: Collection, sent: Sent) -> Candidates:
    """Images with a model's masks that are there and were not sent, as they are now, before; by image_id."""
    ids: list[str] = []
    run_ids: list[str] = []
    files: list[np.ndarray] = []
    measures: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    left_out: Counter[str] = Counter()
    for number, file in enumerate(now.files):
        rows = now.columns(file, _SCAN)
        rows = rows.filter(pc.is_null(rows["gone_at"]))
        failed = pc.not_equal(rows["status"], "ok")
        human = pc.and_(pc.equal(rows["origin"], "human"), pc.invert(failed))
        left_out.update(failed=pc.sum(failed).as_py() or 0, human=pc.sum(human).as_py() or 0)
        rows = rows.filter(pc.invert(pc.or_(failed, human)))
        was_sent = _was_sent(rows, sent)
        left_out["sent"] += int(was_sent.sum())
        rows = rows.filter(pa.array(~was_sent))
        ids += rows["image_id"].to_pylist()
        run_ids += map(sys.intern, rows["run_id"].to_pylist())  # a few, of very many rows
        files.append(np.full(rows.num_rows, number))
        for name, found in measures.items():
            found.append(rows[name].to_numpy().astype(np.float64))
    return Candidates(
        ids,
        np.concatenate(files) if files else np.zeros(0, int),
        run_ids,
        {name: np.concatenate(found) if found else np.zeros(0) for name, found in measures.items()},
        left_out,
    )


def _was_sent(rows: pa.Table, sent: Sent) -> np.ndarray:
    """bool (N,): images that were sent with the bytes that they have now."""
    found = pc.is_in(
        rows["image_id"], value_set=pa.array(sorted({image_id for image_id, _ in sent.images}), pa.string())
    )
    was = found.to_numpy().astype(bool)
    for place in np.flatnonzero(was).tolist():
        source = rows["source"][place].as_py()
        was[place] = (rows["image_id"][place].as_py(), source["sha256"] if source else None) in sent.images
    return was


def rank(config: ReviewConfig, storage: Storage, found: Candidates) -> Ranked:
    """The candidates in the order of a strategy but ``disagree``. Raises ConfigError where no row has the measure."""
    if config.strategy == "uncertain":
        return _by_uncertainty(config, found)
    places = _by_lot(found.image_ids, config.seed)
    note = ""
    if config.strategy == "new":
        nights, runs = _last_runs(storage, config.collection.uri, config.nights)
        places = places[np.array([found.run_ids[place] in runs for place in places.tolist()], bool)]
        note = f"of {', '.join(nights)}" if nights else "no night has labelled anything yet"
    return Ranked(places, np.full(len(places), np.nan), note)


def _by_uncertainty(config: ReviewConfig, found: Candidates) -> Ranked:
    measure = "entropy" if config.measure == "auto" else config.measure
    values = found.measures[measure]
    known = ~np.isnan(values)
    if config.measure != "auto" and len(values) and not known.any():
        raise ConfigError(
            f"measure={measure}: no image of {config.collection.uri} has it; uncertainty=true of nightly and label "
            "writes it; measure=confidence is always there"
        )
    second = found.measures["confidence"]
    scores = 1 - values if measure in _SURE_IS_HIGH else values
    # Of two measures no order is right: those without the first come behind, by the second.
    order = np.lexsort((np.nan_to_num(second, nan=2.0), -np.nan_to_num(scores, nan=-1.0), ~known))
    scores = np.where(known, scores, 1 - second)
    without = int((~known).sum())
    note = f"{without} image(s) have no {measure}, and come last, by confidence" if without else ""
    return Ranked(order, scores[order], note)


def _by_lot(image_ids: Sequence[str], seed: int) -> np.ndarray:
    """Places in an order that the seed and each id's own hash decide, whatever others there are."""
    key = seed.to_bytes(8, "little")
    lots = [int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8, key=key).digest(), "big") for one in image_ids]
    return np.argsort(np.array(lots, np.uint64), kind="stable")


def drawn(places: np.ndarray, found: Candidates, count: int, seed: int) -> np.ndarray:
    """So many of the places, by lot."""
    if len(places) <= count:
        return places
    return np.sort(places[_by_lot([found.image_ids[place] for place in places.tolist()], seed)[:count]])


def _last_runs(storage: Storage, uri: str, count: int) -> tuple[list[str], set[str]]:
    """The names of the last nights that labelled anything, and the ids of their runs."""
    ended, _ = nights_of(storage, uri)
    names: list[str] = []
    runs: set[str] = set()
    for name in reversed(ended):
        if len(names) == count:
            break
        record = read_end(storage, uri, name)
        if record["run_id"] is not None:
            names.append(name)
            runs.add(record["run_id"])
    return names, runs


def details(now: Collection, found: Candidates, places: np.ndarray) -> list[Detail]:
    """Of these candidates, in their order."""
    known: dict[str, Detail] = {}
    for number, ids in _by_file(found, places).items():
        rows = now.columns(now.files[number], _DETAILS)
        rows = rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(ids, pa.string())))
        for row in rows.to_pylist():
            pixels = row["width"] * row["height"]
            shares: Counter[str] = Counter()
            for one in row["segments"]:
                shares[one["category"]] += one["area"] / pixels
            sha256 = row["source"]["sha256"] if row["source"] else None
            known[row["image_id"]] = Detail(row["image_id"], row["uri"], sha256, shares)
    return [known[found.image_ids[place]] for place in places.tolist()]


def full_rows(now: Collection, found: Candidates, places: np.ndarray) -> pa.Table:
    """The rows themselves, by image_id."""
    tables = [COLLECTION_SCHEMA.empty_table()]
    for number, ids in sorted(_by_file(found, places).items()):
        rows = now.read(now.files[number]).select(COLLECTION_SCHEMA.names).cast(COLLECTION_SCHEMA)
        tables.append(rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(ids, pa.string()))))
    return pa.concat_tables(tables)


def _by_file(found: Candidates, places: Iterable[int] | np.ndarray) -> dict[int, list[str]]:
    ids: dict[int, list[str]] = {}
    for place in places:
        ids.setdefault(int(found.files[place]), []).append(found.image_ids[place])
    return ids
