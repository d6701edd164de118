"""Prepare labels: images and somebody's label files in, a manifest of truth out.

    list images → adapter: list or read labels, match → splits → plan → tasks: read image, read label, RLE → writer
    → checks.json, statistics.json, contact_sheet.png → run.json

The adapters in ``labels/`` know the formats; this job moves their data through the same plan, parts
and failure rows as ``label`` does. With ``splits`` each split is a run of its own at output.uri/NAME.
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from segjobs.config import PrepareConfig, digest, later
from segjobs.errors import ConfigError, ConflictError, ItemError
from segjobs.jobs.engine.adopt import Adopted, adopt_run, input_difference, moved_line, plans_begun
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.executor import Executor, OnRow, Stage, Tasks, Worker
from segjobs.jobs.engine.isolation import work_isolated
from segjobs.jobs.engine.listing import plan_input
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor
from segjobs.jobs.engine.run import gather, run_job, summary_of_finished
from segjobs.jobs.engine.shards import TIMES_SCHEMA, Job
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.summary import dry_run_of, print_summary
from segjobs.jobs.engine.watchdog import OnStuck
from segjobs.jobs.prepare.label_checks import (
    CHECKS_FILE,
    FINDINGS,
    Destination,
    Gathered,
    checks_of,
    described,
    finding_of,
    print_checks,
    print_found,
    publish_splits,
    read_checks,
    shard_tally,
)
from segjobs.labels.base import (
    Finding,
    LabelReader,
    LabelRequest,
    Labels,
    Leftover,
    Masks,
    SizeReader,
    leftover,
    read_whole,
)
from segjobs.labels.class_tables import with_class_names
from segjobs.labels.frame import read_in_frame
from segjobs.labels.ignore import without_ignored
from segjobs.labels.rename import ClassMap, class_map, remap
from segjobs.labels.splits import check_splits, split_by_lists, split_by_shares
from segjobs.labels.table import IMAGES, get_adapter
from segjobs.manifest.plan import Plan, first_there, make_plan, select
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import Footer
from segjobs.results import DryRun, PrepareResult, RunResult
from segjobs.sources.bands import Bands, pixels_of
from segjobs.sources.blame import Blame
from segjobs.sources.decode import Frame
from segjobs.sources.read import LARGE_BYTES, NO_PHOTOGRAPH, digest_of, opened_item, read_item
from segjobs.sources.tiff import Slices
from segjobs.sources.windows import frame_of
from segjobs.storage import FileInfo, Storage, join

_THREADS = 4  # of one task: it waits for storage more than it computes
_EXTRA = pa.schema([*TIMES_SCHEMA, FINDINGS])
_LATER = (
    *("labels.frame", "labels.divisor", "labels.attribute", "labels.prefix", "labels.pattern", "labels.ignore"),
    *("labels.crowds", "storage.max_item_bytes", "input.bands", "input.range"),
)
"""Keys of an identity that joined it when runs had been made without them."""


def prepare(
    config: PrepareConfig, *, dry_run: bool = False, executor: Executor | None = None
) -> PrepareResult | DryRun:
    """Run or continue the job that ``config`` describes; prints the summary of each manifest on standard error.

    Raises a SegjobsError for what stops the whole job. ``dry_run`` only reports what would be done. ``executor``: who
    works, by default a Ray that is joined or started when there is something to do.
    """
    check_splits(config.splits, config.group)
    progress = Progress("prepare")
    storage = Storage(config.storage)
    config = config.model_copy(update={"labels": with_class_names(config.labels, storage)})
    plan = _plan(config, storage, progress)
    found = find_labels(config, storage, progress, plan)
    try:
        runs = _adopted(storage, found)
    except ConflictError:
        begun = _as_planned(config, storage, progress, plan)
        if begun is None:
            raise
        found, runs = begun
    if dry_run:
        planned = [
            dry_run_of(run.adopted, f"labels of format {config.labels.format}", "tasks on any CPU") for run in runs
        ]
        print_checks(described(checks_of(found.leftovers)))
        return DryRun(tuple(table for one in planned for table in one.tables))
    work = _work(config, storage, progress, found.labels, executor)
    manifests = {run.split: _run(config, storage, run, work) for run in runs}
    if config.splits:
        _close_splits(config, storage, runs, found.leftovers, executor=work.executor)
    return PrepareResult(manifests)


def read_labels(
    config: PrepareConfig, storage: Storage, progress: Progress, found: "Found", *, executor: Executor | None
) -> RunResult:
    """Run or continue the one manifest of labels that ``find_labels`` found, without splits."""
    (run,) = _adopted(storage, found)
    return _run(config, storage, run, _work(config, storage, progress, found.labels, executor))


def _work(
    config: PrepareConfig, storage: Storage, progress: Progress, labels: Labels, executor: Executor | None
) -> "_Work":
    def connected(job: Job) -> Executor:
        if executor is not None:
            return executor
        check_writable(job.uri)
        connect(config.compute, progress)
        check_shared(storage, job.uri, {"input.uri": first_there(job.plan), "labels.uri": config.labels.uri})
        return RayExecutor()

    settings = ReadSettings(
        labels.read,
        class_map(labels.categories, config.classes, labels.task),
        empty_where_missing=config.labels.missing == "empty",
        max_pixels=config.decode.max_pixels,
        frame=config.labels.frame,
        size_of=labels.size_of,
        any_size=labels.any_size,
        bands=Bands.of(pixels_of(config.input)),
    )
    return _Work(settings, progress, connected)


@dataclass(frozen=True)
class _Set:
    """The items of one manifest: all of them (no name), or a split's. ``texts``: the labels', in their order."""

    name: str
    uri: str
    plan: Plan
    texts: list[str | None]


@dataclass(frozen=True)
class _Run:
    """One manifest: the whole's (no split), or a split's. ``adopted``: what of it stands."""

    adopted: Adopted
    split: str
    leftovers: Sequence[Leftover]


@dataclass(frozen=True)
class Found:
    """What is to be prepared: labels, the job of each manifest by its split, and what is left over of the whole."""

    labels: Labels
    jobs: dict[str, Job]
    leftovers: list[Leftover]


def find_labels(config: PrepareConfig, storage: Storage, progress: Progress, plan: Plan) -> Found:
    """Labels for the plan's images. Raises ConfigError where they do not suit the config."""
    request = LabelRequest(config.labels, storage, plan.items["image_id"].to_pylist(), config.decode.max_pixels)
    with progress.phase("labels", f"looking for labels of format {config.labels.format}"):
        labels = without_ignored(get_adapter(config.labels.format)(request), request)
    if config.labels.missing == "empty" and labels.task == "semantic":
        raise ConfigError("labels.missing: an image without label is empty only where labels are objects (instances)")
    sets, leftovers = _manifests(config, storage, plan, labels)
    return Found(labels, {one.name: _job(config, labels, one) for one in sets}, leftovers)


def _adopted(storage: Storage, found: Found) -> list[_Run]:
    """The run of each manifest. Raises ConflictError where one's output holds another."""
    return [_Run(adopt_run(storage, job), split, () if split else found.leftovers) for split, job in found.jobs.items()]


def _as_planned(
    config: PrepareConfig, storage: Storage, progress: Progress, listed: Plan
) -> tuple[Found, list[_Run]] | None:
    """Labels for the images of the plans that were begun, whatever is listed now; None where these do not fit either.

    The digest of labels is of those of all images: one that came or went with its label makes another.
    """
    uris = [join(config.output.uri, name) for name in config.splits] or [config.output.uri]
    files = {file.path: file for plan in plans_begun(storage, uris) for file in planned_items(plan.items)}
    if not files:
        return None
    plan = make_plan(files.values(), config.shard)
    moved = input_difference(plan.items, listed.items)
    if not moved:
        return None
    found = find_labels(config, storage, progress, plan)
    try:
        runs = _adopted(storage, found)
    except ConflictError:
        return None
    progress.note(f"prepare: {moved_line(config.output.uri, moved)}")
    return found, runs


def _plan(config: PrepareConfig, storage: Storage, progress: Progress) -> Plan:
    """The images: those of ``input``, or without photographs those that the label file names."""
    if config.input.uri is not None:
        return plan_input(config, storage, progress)
    with progress.phase("listing", f"planning the images that {config.labels.uri} names") as listing:
        names = IMAGES[config.labels.format](config.labels, storage)
        files = [FileInfo(NO_PHOTOGRAPH, name, -1, 0, "") for name in names]
        plan = make_plan(files, config.shard, limit=config.input.limit)
        listing.outcome = f"{plan.items.num_rows} images in {plan.num_shards} shards, without their photographs"
    if not names and config.fail_on_empty:
        raise ConfigError(
            f"labels.uri: {config.labels.uri}: names no image; fail_on_empty=false makes an empty manifest"
        )
    return plan


def _manifests(
    config: PrepareConfig, storage: Storage, plan: Plan, labels: Labels
) -> tuple[list[_Set], list[Leftover]]:
    """Which images go into which manifest, and what goes into none."""
    image_ids = plan.items["image_id"].to_pylist()
    leftovers = list(labels.leftovers)
    listed = np.ones(len(image_ids), bool)
    if labels.listed is not None:
        listed = np.array([image_id in labels.listed for image_id in image_ids], bool)
        leftovers += leftover("not_listed", [image_ids[place] for place in np.flatnonzero(~listed).tolist()])
    if config.labels.missing == "skip":
        labelled = np.array([text is not None for text in labels.texts], bool)
        skipped = [image_ids[place] for place in np.flatnonzero(listed & ~labelled).tolist()]
        leftovers += leftover("images_without_label", skipped)
        listed &= labelled
        if image_ids and not listed.any():
            raise ConfigError(f"labels.missing=skip: none of {len(image_ids)} images has a label")
    members = {"": listed}
    if config.splits:
        splits = _splits(config, storage, image_ids)
        members = {name: taken & listed for name, taken in splits.members.items()}
        leftovers += splits.leftovers
    empty = [name for name, taken in members.items() if name and not taken.any()]
    if empty and image_ids:
        raise ConfigError(f"splits.{empty[0]}: takes none of {len(image_ids)} images; give it a larger share")
    sets = []
    for name, taken in members.items():
        part = plan if taken.all() else select(plan, taken, config.shard)
        texts = [labels.texts[place] for place in np.flatnonzero(taken).tolist()]
        sets.append(_Set(name, join(config.output.uri, name) if name else config.output.uri, part, texts))
    return sets, leftovers


def _splits(config: PrepareConfig, storage: Storage, image_ids: Sequence[str]):
    shares = {name: value for name, value in config.splits.items() if not isinstance(value, str)}
    if shares:
        return split_by_shares(image_ids, shares, config.group)

    def read(split: str, where: str) -> str:
        if not where.lower().endswith(".txt"):
            if config.labels.format != "voc":
                raise ConfigError(f"splits.{split}: {where!r}: expected a list of names (.txt) or a share such as 0.8")
            where = join(config.labels.uri, "ImageSets", "Segmentation", f"{where}.txt")
        return read_whole(storage, where, f"splits.{split}").decode("utf-8-sig", "replace")

    lists = {name: value for name, value in config.splits.items() if isinstance(value, str)}
    return split_by_lists(image_ids, lists, read)


def _job(config: PrepareConfig, labels: Labels, one: _Set) -> Job:
    table = class_map(labels.categories, config.classes, labels.task)
    labels_keys = config.labels.model_dump(exclude={"ignore_uri"})  # whose files are in the labels' digest
    identity = {
        "labels": {
            **{key: value for key, value in labels_keys.items() if f"labels.{key}" not in _LATER},
            **dict.fromkeys(("uri", "masks", "class_file")),
            "digest": labels.digest,
        },
        "classes": config.classes,
        "decode": config.decode.model_dump(),
        **later(config, *_LATER),
        **({"boxes_only": True} if labels.boxes_only else {}),
    }
    categories = table.categories if table else labels.categories
    return Job(
        "prepare",
        one.uri,
        one.plan,
        identity,
        Footer(
            labels.task,
            categories,
            digest(identity),
            boxes_only=labels.boxes_only,
            pixels=pixels_of(config.input),
        ),
        config.model_dump(mode="json", exclude={"notify"}),  # a webhook is nothing to keep
        pa.array(one.texts, pa.large_string()),
        partial(shard_tally, sheet_images=config.contact_sheet),
        grace_s=config.compute.grace_s,
        verify=config.verify,
    )


@dataclass(frozen=True)
class _Work:
    """How the shards of a run are worked on. ``executor``: called where there is something to do."""

    settings: "ReadSettings"
    progress: Progress
    executor: Callable[[Job], Executor]


def _run(config: PrepareConfig, storage: Storage, run: _Run, work: _Work) -> RunResult:
    """One manifest, from its plan to its summary."""
    adopted = run.adopted
    job = adopted.job
    if adopted.run is not None:
        summary = summary_of_finished(storage, job, adopted.run, work.progress)
    else:
        if adopted.moved:
            work.progress.note(f"prepare: {moved_line(job.uri, adopted.moved)}")
        if run.split:
            work.progress.note(f"prepare: split {run.split}: {job.plan.items.num_rows} images")
        executor = work.executor(job)
        read = partial(read_shard, storage=storage, settings=work.settings, author=Author(job.run_id))
        summary = run_job(
            storage,
            job,
            [Stage("reading", partial(reading, read, Author(job.run_id)), Tasks())],
            work.progress,
            executor=executor,
            tallies=_gathered(config, storage, job, run.leftovers),
        )
    print_found(storage, job.uri)
    return print_summary(summary, config.max_failed_fraction)


def _gathered(config: PrepareConfig, storage: Storage, job: Job, leftovers: Sequence[Leftover]) -> Gathered:
    return Gathered(_destination(config, storage, job), leftovers)


def _destination(config: PrepareConfig, storage: Storage, job: Job) -> Destination:
    bands = Bands.of(pixels_of(config.input))
    return Destination(job, storage, config.contact_sheet, config.decode.max_pixels, bands)


def _close_splits(
    config: PrepareConfig,
    storage: Storage,
    runs: Sequence[_Run],
    leftovers: Sequence[Leftover],
    *,
    executor: Callable[[Job], Executor],
) -> None:
    """The checks over all splits, unless they stand."""
    uri = join(config.output.uri, CHECKS_FILE)
    if not storage.exists(uri):
        at_work, gathered = executor(runs[0].adopted.job), {}
        for run in runs:
            job = adopt_run(storage, run.adopted.job).job
            gathered[run.split] = _gathered(config, storage, job, ())
            gather(at_work, storage, job, gathered[run.split])
        publish_splits(storage, config.output.uri, gathered, leftovers)
    print_checks(read_checks(storage, config.output.uri))


# --- tasks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadSettings:
    """How a label becomes the masks of its image.

    ``any_size``: labels of images above ``max_pixels`` are read by bands. ``bands``: of which the images have pixels.
    """

    read: LabelReader
    classes: ClassMap | None
    empty_where_missing: bool
    max_pixels: int
    frame: str = "shown"
    size_of: SizeReader | None = None
    any_size: bool = False
    bands: Bands | None = None


def reading(read: Callable[..., pa.Table], author: Author, _: OnStuck) -> Worker:
    """In a task: planned items with their labels → manifest rows."""

    def fail(item: pa.Table, error: ItemError) -> pa.Table:
        findings = _json([finding_of(error, has_label=item["label"][0].is_valid)])
        row = failed_row(planned_items(item)[0], author, error)
        return rows_table([{**row, **dict.fromkeys(TIMES_SCHEMA.names, 0.0), FINDINGS.name: findings}], _EXTRA, item)

    return Worker(read, partial(work_isolated, make=lambda _: read, fail=fail), shown=read)


def read_shard(
    items: pa.Table, on_row: OnRow = lambda row: None, *, storage: Storage, settings: ReadSettings, author: Author
) -> pa.Table:
    """Task: planned items with their labels → manifest rows, with times and findings; each is shown at once."""

    def shown(item: FileInfo, label: str | None) -> dict[str, object]:
        made = row(item, label)
        on_row(made)
        return made

    def row(item: FileInfo, label: str | None) -> dict[str, object]:
        start = time.perf_counter()
        sha256 = None
        times = dict.fromkeys(TIMES_SCHEMA.names, 0.0)
        try:
            if item.uri == NO_PHOTOGRAPH:
                frame = _stated_frame(item, label, settings)
            else:
                with _opened(storage, blame, item) as data:
                    sha256 = digest_of(data)
                    times["read_ms"] = 1000 * (time.perf_counter() - start)
                    frame = _frame(data, settings)
            masks = _masks(item, label, frame, settings)
        except ItemError as error:
            findings = _json([finding_of(error, has_label=label is not None)])
            return {**failed_row(item, author, error, sha256=sha256), **times, FINDINGS.name: findings}
        times["decode_ms"] = 1000 * (time.perf_counter() - start) - times["read_ms"]
        done = ok_row(
            item, author, sha256=sha256, size_hw=frame.size_hw, segments=masks.segments, annotation=masks.annotation
        )
        return {**done, **times, FINDINGS.name: _json(masks.findings)}

    planned = planned_items(items)
    blame = Blame(storage, planned)
    with ThreadPoolExecutor(_THREADS) as threads:
        rows = list(threads.map(shown, planned, items["label"].to_pylist()))
    return rows_table(rows, _EXTRA, items)


@contextmanager
def _opened(storage: Storage, blame: Blame, item: FileInfo) -> Generator[Slices]:
    """An image's file, in memory where it is not large. Raises ItemError."""
    if item.size <= LARGE_BYTES:
        yield read_item(blame, item)
        return
    with opened_item(storage, item) as data:
        yield data


def _frame(data: Slices, settings: ReadSettings) -> Frame:
    """Raises ItemError, of an image that is too large for its label too."""
    frame = frame_of(data, max_pixels=settings.max_pixels, bands=settings.bands)
    height, width = frame.size_hw
    if height * width > settings.max_pixels and not settings.any_size:
        raise ItemError("TOO_LARGE", f"{width}x{height} pixels, decode.max_pixels is {settings.max_pixels}")
    return frame


def _stated_frame(item: FileInfo, label: str | None, settings: ReadSettings) -> Frame:
    """The frame of an image without photograph, as its label has it. Raises ItemError."""
    if label is None or settings.size_of is None:
        raise ItemError("NOT_FOUND", f"{item.path}: neither a photograph nor a label says the size of this image")
    height, width = settings.size_of(label)
    if height * width > settings.max_pixels:
        raise ItemError("TOO_LARGE", f"{width}x{height} pixels by the label, decode.max_pixels={settings.max_pixels}")
    return Frame((height, width))


def _masks(item: FileInfo, label: str | None, frame: Frame, settings: ReadSettings) -> Masks:
    if label is None:
        if settings.empty_where_missing:
            return Masks([], (Finding("images_without_label", 1, "taken as empty: labels.missing=empty"),))
        raise ItemError("NOT_FOUND", f"{item.path}: no label belongs to this image")
    masks = read_in_frame(settings.read, label, frame, settings.frame)
    return remap(masks, settings.classes) if settings.classes else masks


def _json(findings: Sequence[Finding]) -> str:
    return json.dumps([[one.check, one.count, one.detail] for one in findings], ensure_ascii=False)
