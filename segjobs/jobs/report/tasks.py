"""The report's work on the cluster: images ranked and tallied from small columns, picked ones drawn, a task each.

    per_image.parquet, or scores/part-*.parquet → rank_scores → candidates of an evaluation
    parts of a manifest → tally_parts → candidates and counts of a run
    picked image_ids → draw_images → thumbnails

What a task gives back is small and does not grow with the number of images.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypedDict, TypeVar

import numpy as np
import pyarrow as pa

from segjobs.errors import ItemError, ManifestError
from segjobs.evaluation.foreign import ForeignReader
from segjobs.evaluation.scored_parts import MEND
from segjobs.jobs.engine.executor import Rows, Work
from segjobs.jobs.engine.ray_data import dataset_of, keep_order, map_blocks, rows_of
from segjobs.manifest.parts import PartInfo, Run, read_part
from segjobs.manifest.rows import ManifestRow, segments_of, sha256_of
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.seal import open_table
from segjobs.manifest.segments import Segment
from segjobs.manifest.statistics import Counts, add_counts, count_rows
from segjobs.page import huge
from segjobs.page.contents import Card, ManifestTally
from segjobs.page.picks import Pick, Wanted, candidates
from segjobs.page.pictures import AT_FULL_SIZE, Subject, draw_card, with_ids
from segjobs.sources.bands import Bands
from segjobs.sources.read import opened_original, read_original
from segjobs.sources.windows import Windows, open_windows, read_image
from segjobs.storage import Storage, join

_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)
_PARTS_PER_TASK = 16
_ROWS_AT_ONCE = 65_536
_CONFIDENCE_BINS = 10
_TALLIED = ("image_id", "status", "width", "height", "confidence", "segments")
_ROW = ("image_id", "uri", "width", "height", "source", "status", "error", "segments")
_CARD_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("pictures", pa.map_(pa.string(), pa.binary())),
        ("absent", pa.map_(pa.string(), pa.string())),
        ("remarks", pa.list_(pa.string())),
        ("classes", pa.list_(pa.int32())),
    ]
)


class PartsTally(TypedDict):
    """``picks`` by confidence, ``counts`` (``manifest.statistics``), ``confidence``: images that are ok, by bin."""

    picks: list[Pick]
    counts: Counts
    confidence: list[int]


@dataclass(frozen=True)
class Drawing:
    """What a task needs to draw any image: small, and the same for all.

    ``mapping``: id of a predicted class → of a drawn one. ``foreign`` reads predictions that are no run.
    ``bands``: as the masks' images were read.
    """

    storage: Storage
    truth: Run | None
    predictions: Run | None
    categories: tuple[Category, ...]
    mapping: Mapping[int, int | None]
    task: Task
    thumb_px: int
    max_pixels: int
    foreign: ForeignReader | None = None
    bands: Bands | None = None


def _mapped(rows: Sequence[Mapping[str, str]], task: Work) -> Rows:
    """One task for each of ``rows`` → the rows that they give back, in order."""
    if not rows:
        return
    dataset = dataset_of([pa.Table.from_pylist([dict(row)]) for row in rows])
    keep_order(dataset)
    yield from rows_of(map_blocks(dataset, task))


# --- picking -----------------------------------------------------------------------------------


def ranked(storage: Storage, uri: str, wanted: Wanted) -> list[Pick]:
    """The images of an evaluation that could be shown: those scored, by their own mIoU."""
    names = storage.list_names(uri)
    if "per_image.parquet" in names:
        files = [join(uri, "per_image.parquet")]
    else:
        parts = storage.list_names(join(uri, "scores"))
        files = [join(uri, "scores", name) for name in sorted(parts) if name.endswith(".parquet")]
    rank = partial(rank_scores, storage=storage, wanted=wanted)
    found = _mapped([{"uri": file} for file in files], rank)
    return [Pick(row["image_id"], row["score"]) for row in found]


def rank_scores(block: pa.Table, *, storage: Storage, wanted: Wanted) -> pa.Table:
    """Task: the URI of a table of scores → its candidates (image_id, score)."""
    found: list[Pick] = []
    for uri in block["uri"].to_pylist():
        table = open_table(storage.read(uri), uri, mend=MEND, columns=["image_id", "status", "mean_iou"])
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            scored = _where(batch, "status", "ok")
            ids, scores = scored["image_id"].to_pylist(), scored["mean_iou"].to_pylist()
            found = _narrowed([*found, *candidates(ids, scores, wanted)], wanted)
    return _picks_table(found)


def _where(rows: _Rows, column: str, value: str) -> _Rows:
    """The rows with this value in a column. Not by an Arrow expression: on slices of a file's batches its filter
    crashed (pyarrow 26)."""
    return rows.filter(pa.array([one == value for one in rows[column].to_pylist()], pa.bool_()))


def _narrowed(found: Sequence[Pick], wanted: Wanted) -> list[Pick]:
    return candidates([pick.image_id for pick in found], [pick.score for pick in found], wanted)


def _picks_table(found: Sequence[Pick]) -> pa.Table:
    schema = pa.schema([("image_id", pa.string()), ("score", pa.float64())])
    return pa.Table.from_pylist([pick._asdict() for pick in found], schema=schema)


def tallied(storage: Storage, run: Run, wanted: Wanted) -> tuple[list[Pick], ManifestTally]:
    """One pass over the small columns of a manifest: candidates by confidence, and what it holds."""
    tasks = [
        {"parts": json.dumps([asdict(part) for part in run.parts[start : start + _PARTS_PER_TASK]])}
        for start in range(0, len(run.parts), _PARTS_PER_TASK)
    ]
    task = partial(tally_parts, storage=storage, run=_slim(run), wanted=wanted)
    found: list[Pick] = []
    counts: Counts = {}
    confidence = np.zeros(_CONFIDENCE_BINS, np.int64)
    for row in _mapped(tasks, task):
        raw = json.loads(row["tally"])
        found = _narrowed([*found, *(Pick(*pick) for pick in raw["picks"])], wanted)
        counts = add_counts(counts, raw["counts"])
        confidence += raw["confidence"]
    return found, ManifestTally(counts, tuple(confidence.tolist()))


def tally_parts(block: pa.Table, *, storage: Storage, run: Run, wanted: Wanted) -> pa.Table:
    """Task: parts of a manifest (JSON) → their tallies as JSON, one part in memory at a time."""
    tallies = [
        json.dumps(tally_rows(read_part(storage, run, PartInfo(**raw), columns=_TALLIED), wanted))
        for texts in block["parts"].to_pylist()
        for raw in json.loads(texts)
    ]
    return pa.table({"tally": tallies})


def tally_rows(rows: pa.Table, wanted: Wanted) -> PartsTally:
    """Rows of a manifest → their tally, which is JSON."""
    ok = _where(rows, "status", "ok")
    scores = ok["confidence"].to_pylist()
    known = np.array([score for score in scores if score is not None], np.float64)
    bins = np.clip((known * _CONFIDENCE_BINS).astype(int), 0, _CONFIDENCE_BINS - 1)
    return {
        "picks": candidates(ok["image_id"].to_pylist(), scores, wanted),
        "counts": count_rows(rows),
        "confidence": np.bincount(bins, minlength=_CONFIDENCE_BINS).tolist(),
    }


def _slim(run: Run) -> Run:
    """The run without its parts, which may be many: it travels with each of its tasks."""
    return replace(run, parts=())


# --- drawing -----------------------------------------------------------------------------------


def drawn(drawing: Drawing, image_ids: Iterable[str], texts: Mapping[str, str]) -> dict[str, Card]:
    """Cards by image_id, each drawn by a task of its own. ``texts``: what ``drawing.foreign`` reads, by image_id."""
    sides = {"truth": drawing.truth, "prediction": drawing.predictions}
    rows = [
        {
            "image_id": image_id,
            "text": json.dumps(texts.get(image_id)),
            **{name: json.dumps(_part_of(run, image_id)) for name, run in sides.items()},
        }
        for image_id in image_ids
    ]
    slim = replace(
        drawing,
        truth=_slim(drawing.truth) if drawing.truth else None,
        predictions=_slim(drawing.predictions) if drawing.predictions else None,
    )
    return {
        row["image_id"]: Card(
            row["image_id"],
            row["uri"],
            None,
            dict(row["pictures"]),
            dict(row["absent"]),
            frozenset(row["classes"]),
            tuple(row["remarks"]),
        )
        for row in _mapped(rows, partial(draw_images, drawing=slim))
    }


def _part_of(run: Run | None, image_id: str) -> dict[str, object] | None:
    """The part whose range of image_ids holds this one."""
    if run is None:
        return None
    number = bisect_right(run.parts, image_id, key=lambda part: part.first_id) - 1
    return asdict(run.parts[number]) if number >= 0 and image_id <= run.parts[number].last_id else None


def draw_images(block: pa.Table, *, drawing: Drawing) -> pa.Table:
    """Task: image_ids with the parts of their rows (JSON) → rows of ``_CARD_SCHEMA``."""
    cards: list[dict[str, object]] = []
    for row in block.to_pylist():
        truth = _row_of(drawing.storage, drawing.truth, row["truth"], row["image_id"])
        prediction = _row_of(drawing.storage, drawing.predictions, row["prediction"], row["image_id"])
        cards.append(draw_image(row["image_id"], truth, prediction, drawing=drawing, text=json.loads(row["text"])))
    return pa.Table.from_pylist(cards, schema=_CARD_SCHEMA)


def _row_of(storage: Storage, run: Run | None, part: str, image_id: str) -> ManifestRow | None:
    raw = json.loads(part)
    if run is None or raw is None:
        return None
    rows = read_part(storage, run, PartInfo(**raw), columns=_ROW)
    return next(iter(_where(rows, "image_id", image_id).to_pylist()), None)


def draw_image(
    image_id: str,
    truth: ManifestRow | None,
    prediction: ManifestRow | None,
    *,
    drawing: Drawing,
    text: str | None = None,
) -> dict[str, object]:
    """Rows of one image (None where a side has none) → a row of ``_CARD_SCHEMA``. Nothing about one image is an error:
    what cannot be drawn says so. ``text``: its prediction, where that is no row."""
    rows = {"truth": truth, "prediction": prediction}
    absent, remarks = {}, []
    masks: dict[str, list[Segment] | None] = dict.fromkeys(rows)
    size_hw = None
    for name, run in (("truth", drawing.truth), ("prediction", drawing.predictions)):
        row = rows[name]
        if run is None:
            continue
        if row is None:
            absent[name] = f"no {name} for this image"
        elif row["status"] != "ok":
            absent[name] = f"{row['error']['code']}: {row['error']['message']}"
        elif size_hw not in (None, (row["height"], row["width"])):
            absent[name] = f"another size: {row['width']}×{row['height']} pixels"
        else:
            size_hw = (row["height"], row["width"])
            try:
                segments = segments_of(row)
                masks[name] = segments if name == "truth" else with_ids(segments, drawing.mapping)
            except ManifestError as error:
                absent[name] = str(error)
    if drawing.foreign is not None and text is None:
        absent["prediction"] = "no prediction for this image"
    elif drawing.foreign is not None and text is not None and size_hw is not None:
        try:
            masks["prediction"] = with_ids(drawing.foreign(text, size_hw).segments, drawing.mapping)
        except ItemError as error:
            absent["prediction"] = f"{error.code}: {error.message}"
    source = next((row for row in rows.values() if row), None)
    pictures: dict[str, bytes] = {}
    if source is not None and size_hw is not None:
        too_large = size_hw[0] * size_hw[1] > drawing.max_pixels
        draw = partial(_draw_huge if too_large else _draw_whole, source, drawing=drawing, absent=absent)
        subject = Subject(None, masks["truth"], masks["prediction"], size_hw, drawing.task)
        try:
            pictures = draw(subject)
        except ManifestError as error:
            remarks.append(f"the masks cannot be drawn: {error}")
            masks = dict.fromkeys(rows)
            pictures = draw(replace(subject, truth=None, prediction=None))
    drawn = {segment.category_id for segments in masks.values() for segment in segments or ()}
    return {
        "image_id": image_id,
        "uri": source["uri"] if source else "",
        "pictures": list(pictures.items()),
        "absent": list(absent.items()),
        "remarks": remarks,
        "classes": sorted(drawn),
    }


def _draw_whole(row: ManifestRow, subject: Subject, *, drawing: Drawing, absent: dict[str, str]) -> dict[str, bytes]:
    """``subject``: without its photo, which ``absent`` says where it cannot be had. Raises ManifestError."""
    try:
        data = read_original(drawing.storage, row["uri"], sha256=sha256_of(row))
        photo = read_image(data, max_pixels=drawing.max_pixels, bands=drawing.bands)
        _check_size((photo.shape[0], photo.shape[1]), subject.size_hw)
        subject = replace(subject, photo=photo)
    except ItemError as error:
        absent["image"] = f"{error.code}: {error.message}"
    return draw_card(subject, drawing.categories, thumb_px=drawing.thumb_px)


def _draw_huge(row: ManifestRow, subject: Subject, *, drawing: Drawing, absent: dict[str, str]) -> dict[str, bytes]:
    """As ``_draw_whole``, by windows of the file; the same pictures, and those of one window at full size."""
    try:
        with opened_original(drawing.storage, row["uri"], sha256=sha256_of(row)) as data:
            windows = open_windows(data, max_pixels=drawing.max_pixels, bands=drawing.bands)
            _check_size(windows.size_hw, subject.size_hw)
            return _draw_small_and_window(subject, windows, drawing)
    except ItemError as error:
        absent["image"] = f"{error.code}: {error.message}"
    return _draw_small_and_window(subject, None, drawing)


def _draw_small_and_window(subject: Subject, windows: Windows | None, drawing: Drawing) -> dict[str, bytes]:
    small = huge.small(subject, windows, thumb_px=drawing.thumb_px)
    place = huge.telling(small, subject.size_hw, side_px=drawing.thumb_px)
    draw = partial(draw_card, categories=drawing.categories, thumb_px=drawing.thumb_px)
    window = draw(huge.window(subject, windows, place))
    return {**draw(small), **{AT_FULL_SIZE.format(name): picture for name, picture in window.items()}}


def _check_size(found_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    """Raise ItemError CHANGED where an image is not of its masks' size."""
    if found_hw != size_hw:
        raise ItemError("CHANGED", f"{found_hw[1]}×{found_hw[0]} pixels now, its masks are {size_hw[1]}×{size_hw[0]}")
