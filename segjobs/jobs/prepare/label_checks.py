"""What ``prepare`` finds and counts: a tally per shard on the workers, files beside run.json and tables on the driver.

    rows of a shard + their findings → shard_tally → kept in the part → Gathered.add, in any order
    Gathered → checks.json, statistics.json, contact_sheet.png → print_found

The driver holds one sum, twelve bytes of hash an image, and a few examples of each check.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from segjobs import __version__
from segjobs.errors import ItemError
from segjobs.jobs.engine.shards import Job, Tally
from segjobs.jobs.engine.terminal import Terminal
from segjobs.labels.base import CHECKS, Finding, Leftover, UnknownId
from segjobs.manifest.parts import part_uri
from segjobs.manifest.rows import OkRow, planned_items, segments_of
from segjobs.manifest.seal import damaged, open_json, open_table, sealed_json
from segjobs.manifest.segments import Segment
from segjobs.manifest.statistics import Counts, Statistics, add_counts, count_rows, statistics
from segjobs.page import huge
from segjobs.page.contact_sheet import Tile, sheet_png, tile_of
from segjobs.page.pictures import Subject
from segjobs.sources.bands import Bands
from segjobs.sources.read import NO_PHOTOGRAPH, opened_item, read_item
from segjobs.sources.windows import open_windows, read_image
from segjobs.storage import FileInfo, Storage, join

FINDINGS = pa.field("findings", pa.string())
"""Column of a row besides the manifest's: its findings as JSON, [check, count, detail] each."""
CHECKS_FILE, STATISTICS_FILE, SHEET_FILE = "checks.json", "statistics.json", "contact_sheet.png"

_MEND = "move it away; the manifest beside it is whole"
_EXAMPLES = 5  # of each check
_MOST_WHOLE_PX, _SMALL_PX = 2**24, 512  # a larger image is drawn in small
_DETAIL_CHARS = 300
_HASH_BYTES = 12  # of SHA-256: two images in a billion that agree by chance have odds of 1 : 10^11
_SHEET_PX = 4_000_000  # larger images are drawn only where there are too few others
_SHOWN_CLASSES = 24
_BY_CODE = {"LABEL_SHAPE": "size_mismatch", "LABEL_VALUE": "malformed"}


Pick = list[bool | str]
"""An image for the sheet: whether it is large, the hash of its id, and its id."""


class Check(TypedDict):
    """How often a check found something, on how many images, and some of them: image_id and detail."""

    count: int
    images: int
    examples: list[list[str]]


class DescribedCheck(Check):
    """A check in checks.json."""

    what: str


class StoredStatistics(Statistics):
    """What statistics.json holds besides: annotations without a mask, and the like, by check."""

    left_out: dict[str, int]


def finding_of(error: ItemError, *, has_label: bool) -> Finding:
    """What a failed row counts as."""
    if not has_label and error.code == "NOT_FOUND":
        return Finding("images_without_label", 1, error.message)
    check = "unknown_ids" if isinstance(error, UnknownId) else _BY_CODE.get(error.code, "unreadable")
    return Finding(check, 1, f"{error.code}: {error.message}")


# --- on the workers ----------------------------------------------------------------------------


def shard_tally(rows: pa.Table, *, sheet_images: int) -> Tally:
    """Rows with their findings → ``counts``, ``checks``, ``hashes`` (of each row) and ``picks`` for the sheet."""
    checks: dict[str, Check] = {}
    for image_id, findings in zip(rows["image_id"].to_pylist(), rows["findings"].to_pylist(), strict=True):
        for check, count, detail in json.loads(findings):
            one: Check = {"count": count, "images": 1, "examples": [[image_id, detail[:_DETAIL_CHARS]]]}
            checks[check] = _add_check(checks.get(check), one)
    hashes = [sha256 or "" for sha256 in rows["source"].combine_chunks().field("sha256").to_pylist()]
    packed = b"".join(bytes.fromhex(text[: 2 * _HASH_BYTES]).ljust(_HASH_BYTES, b"\0") for text in hashes)
    return {
        "counts": count_rows(rows),
        "checks": checks,
        "hashes": base64.b64encode(packed).decode("ascii"),
        "picks": _picks(rows, sheet_images),
    }


def _picks(rows: pa.Table, count: int) -> list[Pick]:
    """The ``count`` images that go first onto the sheet: small ones before large ones, by the hash of their id."""
    columns = (rows[name].to_pylist() for name in ("image_id", "width", "height"))
    lengths = rows["segments"].combine_chunks().value_lengths().to_pylist()
    found: list[Pick] = [
        [width * height > _SHEET_PX, hashlib.sha256(image_id.encode()).hexdigest()[:16], image_id]
        for image_id, width, height, segments in zip(*columns, lengths, strict=True)
        if segments
    ]
    return sorted(found)[:count]


def _add_check(one: Check | None, two: Check) -> Check:
    if one is None:
        return two
    return {
        "count": one["count"] + two["count"],
        "images": one["images"] + two["images"],
        "examples": sorted([*one["examples"], *two["examples"]])[:_EXAMPLES],
    }


# --- on the driver -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Destination:
    """Where the files of a run go and what they need: its job, its storage, and the sheet's limits."""

    job: Job
    storage: Storage
    sheet_images: int
    max_pixels: int
    bands: Bands | None = None


class Gathered:
    """The tallies of a run's shards (see ``engine.run.TallySink``)."""

    def __init__(self, place: Destination, leftovers: Iterable[Leftover]) -> None:
        self._place = place
        self._counts: Counts = {}
        self._checks = checks_of(leftovers)
        self._hashes: dict[int, bytes] = {}
        self._picks: list[Pick] = []

    def add(self, shard: int, tally: Tally) -> None:
        """One shard's tally, once."""
        self._counts = add_counts(self._counts, tally["counts"])
        for check, found in tally["checks"].items():
            self._checks[check] = _add_check(self._checks.get(check), found)
        self._hashes[shard] = base64.b64decode(tally["hashes"])
        self._picks = sorted([*self._picks, *tally["picks"]])[: self._place.sheet_images]

    @property
    def job(self) -> Job:
        """The run whose shards these are."""
        return self._place.job

    @property
    def hashes(self) -> np.ndarray:
        """bytes (N,): a hash per image in the plan's order, empty where its bytes were not read."""
        return np.frombuffer(b"".join(self._hashes[shard] for shard in sorted(self._hashes)), f"S{_HASH_BYTES}")

    def publish(self) -> None:
        """Write the files. Each is the same whenever it is written, so one that stands is left."""
        place, job = self._place, self._place.job
        found = {**self._checks, **checks_of(_duplicates(job, self.hashes))}
        about = {"schema": 1, "run_id": job.run_id, "version": __version__, "task": job.footer.task}
        covers = job.footer.task != "instance"
        left_out = {
            check: found[check]["count"]
            for check in ("without_mask", "empty_masks", "dropped_classes", "void", "orphans")
            if check in found
        }
        totals = {**statistics(self._counts, job.footer.categories, covers=covers), "left_out": left_out}
        _put(place.storage, join(job.uri, CHECKS_FILE), {**about, "checks": described(found)})
        _put(place.storage, join(job.uri, STATISTICS_FILE), {**about, **totals})
        sheet = _draw_sheet(place, [str(image_id) for _, _, image_id in self._picks], totals["images"]["ok"])
        if sheet is not None:
            place.storage.put_if_absent(join(job.uri, SHEET_FILE), sheet)


def described(found: Mapping[str, Check]) -> dict[str, DescribedCheck]:
    """All of ``CHECKS``, with meaning, count and examples; those that found nothing too."""
    nothing: Check = {"count": 0, "images": 0, "examples": []}
    return {check: {"what": what, **found.get(check, nothing)} for check, what in CHECKS.items()}


def checks_of(leftovers: Iterable[Leftover]) -> dict[str, Check]:
    """What is left over of a whole label set, as checks."""
    checks: dict[str, Check] = {}
    for one in leftovers:
        found: Check = {"count": one.count, "images": 0, "examples": [[name, ""] for name in one.examples]}
        checks[one.check] = _add_check(checks.get(one.check), found)
    return checks


def _put(storage: Storage, uri: str, value: Mapping[str, object]) -> None:
    storage.put_if_absent(uri, sealed_json(value))


def _duplicates(job: Job, hashes: np.ndarray) -> list[Leftover]:
    """Groups of images with the same bytes."""
    groups = _same(hashes)
    image_ids = job.plan.items["image_id"]
    examples = tuple(
        " = ".join(image_ids[place].as_py() for place in group[:_EXAMPLES]) for group in groups[:_EXAMPLES]
    )
    return [Leftover("duplicate_images", len(groups), examples)] if groups else []


def _same(hashes: np.ndarray) -> list[list[int]]:
    """Positions of equal hashes, two or more each, by first position; empty ones equal nothing."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    stops = np.append(starts[1:], ordered.size)
    groups = [
        order[start:stop].tolist()
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        if stop - start > 1 and ordered[start]
    ]
    return sorted(groups)


def publish_splits(storage: Storage, uri: str, gathered: dict[str, Gathered], leftovers: Sequence[Leftover]) -> None:
    """checks.json over all splits: what no split took, what two took, and copies that stand in two."""
    jobs = {name: one.job for name, one in gathered.items()}
    owner = np.repeat(np.arange(len(jobs)), [job.plan.items.num_rows for job in jobs.values()])
    names, image_ids = list(jobs), pa.chunked_array([job.plan.items["image_id"] for job in jobs.values()], pa.string())
    crossing = []
    for group in _same(np.concatenate([one.hashes for one in gathered.values()])):
        ids = {image_ids[place].as_py() for place in group}
        if len({owner[place] for place in group}) > 1 and len(ids) > 1:
            crossing.append(" = ".join(f"{names[owner[p]]}: {image_ids[p].as_py()}" for p in group[:_EXAMPLES]))
    copies = [Leftover("in_two_splits", len(crossing), tuple(crossing[:_EXAMPLES]))] if crossing else []
    counts = {name: job.plan.items.num_rows for name, job in jobs.items()}
    about = {"schema": 1, "version": __version__, "splits": counts}
    found = checks_of([*leftovers, *copies])
    _put(storage, join(uri, CHECKS_FILE), {**about, "checks": described(found)})


# --- the contact sheet -------------------------------------------------------------------------


def _draw_sheet(place: Destination, image_ids: Sequence[str], total: int) -> bytes | None:
    """PNG of images with their truth, in order of image_id; None where there is none to show."""
    job = place.job
    tiles = [tile for image_id in sorted(image_ids) if (tile := _tile(place, image_id))]
    if not tiles:
        return None
    title = f"{len(tiles)} of {total} labelled images: {job.uri}"
    return sheet_png(tiles, legend=job.footer.categories, columns=("image", "truth", "truth_map"), title=title)


def _tile(place: Destination, image_id: str) -> Tile | None:
    items = place.job.plan.items
    item = items.slice(pc.index(items["image_id"], image_id).as_py(), 1)
    where = part_uri(place.job.uri, item["shard"][0].as_py())
    part = open_table(place.storage.read(where), where, mend=_MEND, columns=["image_id", "height", "width", "segments"])
    row = part.slice(pc.index(part["image_id"], image_id).as_py(), 1)
    if item["uri"][0].as_py() == NO_PHOTOGRAPH:
        return None
    try:
        image, truth = _seen(place, planned_items(item)[0], row.to_pylist()[0])
    except ItemError:  # gone or changed since its label was read
        return None
    return tile_of(image_id, image, truth=truth, task=place.job.footer.task)


def _seen(place: Destination, item: FileInfo, row: OkRow) -> tuple[np.ndarray, Sequence[Segment]]:
    """An image and its truth, a huge one in small. Raises ItemError."""
    segments, size_hw = segments_of(row), (row["height"], row["width"])
    if size_hw[0] * size_hw[1] <= min(_MOST_WHOLE_PX, place.max_pixels):
        data = read_item(place.storage, item)
        return read_image(data, max_pixels=place.max_pixels, bands=place.bands), segments
    subject = Subject(None, segments, None, size_hw, place.job.footer.task)
    with opened_item(place.storage, item) as opened:
        windows = open_windows(opened, max_pixels=place.max_pixels, bands=place.bands)
        small = huge.small(subject, windows, thumb_px=_SMALL_PX)
    assert small.photo is not None and small.truth is not None, "both were given"  # noqa: S101
    return small.photo, small.truth


# --- what a person reads -----------------------------------------------------------------------


def read_checks(storage: Storage, uri: str) -> dict[str, DescribedCheck]:
    """The checks of a run, or over all splits, at ``uri``. Raises FileNotFoundError, or ManifestError: damaged."""
    where = join(uri, CHECKS_FILE)
    try:
        return dict(cast("dict[str, DescribedCheck]", open_json(storage.read(where), where, mend=_MEND)["checks"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(where, f"no checks in it: {error!r}", mend=_MEND) from error


def print_found(storage: Storage, uri: str) -> None:
    """The checks that found something and the statistics of a finished run, on standard error."""
    console = Terminal()
    say = console.print
    try:
        print_checks(read_checks(storage, uri))
        where = join(uri, STATISTICS_FILE)
        totals = cast("StoredStatistics", open_json(storage.read(where), where, mend=_MEND))
    except FileNotFoundError:
        return  # a run of an earlier version
    size = totals["size"]
    if totals["images"]["ok"]:
        sides = [f"{size[s]['min']}-{size[s]['max']} px (mean {size[s]['mean']:.0f})" for s in ("width", "height")]
        say(
            f"sizes: width {sides[0]}, height {sides[1]}; "
            f"{totals['images']['without_segments']} images without a segment"
        )
    for line in _remarks(totals):
        say(line)
    Terminal(width=None if sys.stderr.isatty() else 110).print(_class_table(totals), soft_wrap=False)


def print_checks(checks: Mapping[str, DescribedCheck]) -> None:
    """One line a check that found something, on standard error."""
    console = Terminal()
    for check, found in checks.items():
        if found["count"]:
            name, detail = found["examples"][0]
            detail = f": {detail}" if detail else ""
            console.print(f"check {check}: {found['count']} ({found['what']}), such as {name!r}{detail}")


def _remarks(totals: StoredStatistics) -> Iterable[str]:
    if totals["unlabelled_px"]:
        yield f"unlabelled: {totals['unlabelled_px'] / totals['pixels']:.1%} of the pixels"
    crowds = sum(entry["crowds"] for entry in totals["classes"])
    if crowds and crowds == totals["objects"]:
        yield (
            f"every object is a crowd region ({crowds}), which no score counts; if they are objects (CVAT marks all "
            "that was drawn with its brush), labels.crowds=as_objects takes them as such"
        )
    if totals["left_out"]:
        yield "left out: " + ", ".join(f"{count} {check}" for check, count in totals["left_out"].items())


def _class_table(totals: Statistics) -> Table:
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    table.add_column("class", no_wrap=True)
    for name in ("images", "objects", "pixels", "share", "small/medium/large", "mean area"):
        table.add_column(name, justify="right", no_wrap=True)
    classes = totals["classes"]
    if len(classes) > _SHOWN_CLASSES:
        classes = sorted((entry for entry in classes if entry["objects"]), key=lambda entry: -entry["pixels"])
    for entry in classes[:_SHOWN_CLASSES]:
        mean = entry["area"]["mean"]
        table.add_row(
            entry["category"],
            f"{entry['images']}",
            f"{entry['objects']}",
            f"{entry['pixels']}",
            "-" if entry["share"] is None else f"{entry['share']:.2%}",
            f"{entry['small']}/{entry['medium']}/{entry['large']}",
            "-" if mean is None else f"{mean:.0f} px",
        )
    more = len(totals["classes"]) - len(classes[:_SHOWN_CLASSES])
    if more:
        table.add_row(f"… {more} more: {STATISTICS_FILE}")
    return table
