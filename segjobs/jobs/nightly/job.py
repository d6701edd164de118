"""Bring a collection up to date: what is listed and a model in, a night's run, one commit, figures and a page out.

    list → compare → changes.parquet │ label → run.json │ figures, gate → commit → page → changes.json

Each step's file is published whole before the next one begins, and the same command goes on from what stands: a night
that is begun is finished as it was begun, whatever came since, and is committed once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from segjobs.config import LabelConfig, NightlyConfig, OutputConfig, shared_fields
from segjobs.errors import ConflictError, ExitCode
from segjobs.jobs.engine.adopt import Adopted, adopt_run
from segjobs.jobs.engine.cluster import connect, expected
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.layout import layout
from segjobs.jobs.engine.listing import plan_input
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor
from segjobs.jobs.engine.run import Summary, summary_of_finished
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.summary import print_summary
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.label.job import label_images, make_job, resolve_model
from segjobs.jobs.nightly.compare import Compared, Policy, compare
from segjobs.jobs.nightly.look import Look, cards_of, look_at, nothing
from segjobs.manifest.collection import find_collection, processing_of
from segjobs.manifest.nights import (
    LABELLED,
    Night,
    begin,
    commit_night,
    end,
    moment_of,
    name_of,
    nights_of,
    open_night,
    read_end,
)
from segjobs.manifest.parts import open_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import ModelCard
from segjobs.metrics.drift import NIGHTS, RuleResult, check_night, parse_night_rules, usual
from segjobs.page.night import NightContents, NightLine, index_page, night_page
from segjobs.results import DryRun, NightlyResult, RunResult
from segjobs.storage import FileInfo, Storage, join

KINDS = (*LABELLED, "stale_kept", "touched", "held", "gone", "same")
"""What an image can be to a night, in the order in which it is told."""


_HELD = 5  # that are named
_EXAMPLES = 12


def nightly(
    config: NightlyConfig, *, dry_run: bool = False, executor: Executor | None = None
) -> NightlyResult | DryRun:
    """Run or continue a night; prints how it went on standard error.

    ``dry_run`` lists and compares, and says what the night would do. ``executor``: who labels; Ray's as a rule.
    Raises a SegjobsError for what stops the whole.
    """
    progress, storage = Progress("nightly"), Storage(config.storage)
    uri = config.collection.uri
    with progress.phase("weights", f"loading {config.model.name}"):
        card = resolve_model(_label_config(config, uri), storage)
    rules = parse_night_rules(config.gate, [category.name for category in card.categories])
    check_writable(uri, key="collection.uri")
    ended, begun = nights_of(storage, uri)
    if begun:
        night = open_night(storage, uri, begun[0])
        progress.note(
            f"nightly: night {night.name} is begun: it is ended as it was begun; what came since is the next's"
        )
    else:
        night = _compared(config, storage, card, ended, progress)
    if dry_run:
        return _dry_run(config, storage, night, ended)
    if not begun:
        night = _begin(storage, night)
    _print_counts(night)
    result = _labelled(config, storage, night, card, progress, executor)
    records = [read_end(storage, uri, name) for name in ended]
    with progress.phase("looking", "looking at its masks"):
        look = _look(storage, night)
    earlier = [record["figures"] for record in records if record["published"] is not None]
    gate = [check_night(rule, look.figures, usual(earlier)) for rule in rules]
    missed = [one for one in gate if not one.met]
    held = bool(missed) and config.on_gate == "hold"
    version = None if held else commit_night(storage, night).version
    contents = NightContents(
        collection=uri,
        night=night.name,
        version=version,
        model=card.label,
        counts=night.counts,
        examples={change: night.of(change)["image_id"].slice(0, _EXAMPLES).to_pylist() for change in night.counts},
        failures={} if result is None else _failures(storage, night),
        figures=look.figures,
        earlier=earlier[-NIGHTS:],
        usual=usual(earlier),
        gate=gate,
        new=cards_of(storage, look.new, look.categories),
        unsure=cards_of(storage, look.unsure, look.categories),
    )
    page = join(night.folder, "index.html")
    storage.put_if_absent(page, night_page(contents).encode())
    record: dict[str, Any] = {
        "night": night.name,
        "run_id": night.run_id,
        "counts": dict(night.counts),
        "published": version,
        "images": 0 if result is None else result.images - result.already_done,
        "seconds": 0.0 if result is None else result.seconds,
        "figures": look.figures,
        "gate": {one.text: {"value": one.value, "met": one.met} for one in gate},
    }
    end(storage, night, record)
    _publish_index(storage, uri, [*records, record])
    return _told(night, result, version, gate, page)


# --- its masks -----------------------------------------------------------------------------------


def _look(storage: Storage, night: Night) -> Look:
    if night.run_uri is None:
        return nothing()
    return look_at(storage, open_run(storage, night.run_uri), set(night.of("new")["image_id"].to_pylist()))


def _failures(storage: Storage, night: Night) -> dict[str, tuple[int, str, str]]:
    assert night.run_uri is not None  # noqa: S101
    info = open_run(storage, night.run_uri).info
    return {code: (count, *info.examples[code]) for code, count in info.failures.items()}


def _publish_index(storage: Storage, uri: str, records: Sequence[Mapping[str, Any]]) -> None:
    """The list of nights, which is made of their records and is made anew each night."""
    lines = [
        NightLine(
            record["night"],
            record["counts"],
            record["published"],
            record["figures"],
            [text for text, rule in record["gate"].items() if not rule["met"]],
        )
        for record in records
    ]
    where = join(uri, "nights", "index.html")
    storage.delete(where)
    storage.put_if_absent(where, index_page(uri, lines).encode())


# --- what there is to do ---------------------------------------------------------------------------


def _compared(config: NightlyConfig, storage: Storage, card: ModelCard, ended: list[str], progress: Progress) -> Night:
    """Tonight, compared with the newest version and not begun."""
    uri = config.collection.uri
    plan = plan_input(config, storage, progress)
    now = find_collection(storage, uri)
    job = _job_of(config, card, [])
    policy = Policy(
        model=card.label,
        processing=processing_of(job.identity),
        retry_codes=frozenset(config.retry.codes),
        retry_times=config.retry.times,
        relabel=config.stale == "relabel",
        budget=config.budget_images,
        mark_gone=config.gone == "mark",
        tries=_Tries(storage, uri, ended),
    )

    def digest_of(file: FileInfo) -> str | None:
        try:
            return hashlib.sha256(storage.read_item(file.uri)[0]).hexdigest()
        except OSError:
            return None

    with progress.phase("comparing", f"comparing with {now.pinned if now else 'an empty table'}") as comparing:
        found = compare(plan, now, policy, digest_of)
        comparing.outcome = _counted(found.counts)
    return _night_of(config, card, found, now.version if now else 0)


def _night_of(config: NightlyConfig, card: ModelCard, found: Compared, version: int) -> Night:
    night = Night(config.collection.uri, name_of(datetime.now(UTC)), found.table(), dict(found.counts), version, None)
    files = list(night.files())
    run_id = _job_of(config, card, files).run_id if files else None
    return Night(night.uri, night.name, night.changes, night.counts, version, run_id)


def _begin(storage: Storage, night: Night) -> Night:
    """Begin the night, an hour of its own; what another command has begun in this second is left alone."""
    while not begin(storage, night):
        night = replace(night, name=name_of(moment_of(night.name) + timedelta(seconds=1)))
    return night


class _Tries:
    """How often images of a night's run had been tried again; each night's changes are read once."""

    def __init__(self, storage: Storage, uri: str, ended: list[str]) -> None:
        self._storage, self._uri, self._left = storage, uri, list(ended)
        self._known: dict[str, Mapping[str, int]] = {}

    def __call__(self, run_id: str) -> Mapping[str, int]:
        while run_id not in self._known and self._left:
            night = open_night(self._storage, self._uri, self._left.pop())
            if night.run_id is not None:
                again = night.of("retry")
                tries = zip(again["image_id"].to_pylist(), again["tries"].to_pylist(), strict=True)
                self._known.setdefault(night.run_id, dict(tries))
        return self._known.get(run_id, {})


def _label_config(config: NightlyConfig, output: str) -> LabelConfig:
    return LabelConfig(**{**shared_fields(config, LabelConfig), "output": OutputConfig(uri=output)})


def _job_of(config: NightlyConfig, card: ModelCard, files: list[FileInfo], output: str = "") -> Job:
    label_config = _label_config(config, output or config.collection.uri)
    return make_job(label_config, make_plan(files, config.shard), card)


# --- labelling -------------------------------------------------------------------------------------


def _labelled(
    config: NightlyConfig,
    storage: Storage,
    night: Night,
    card: ModelCard,
    progress: Progress,
    executor: Executor | None,
) -> RunResult | None:
    """The night's run, finished; None where nothing is to be labelled."""
    if night.run_uri is None:
        return None
    job = _job_of(config, card, list(night.files()), night.run_uri)
    if job.run_id != night.run_id:
        raise ConflictError(
            f"{night.folder}: the night is begun with another model or other settings; restore them to finish it, or "
            f"delete {night.folder} and {night.run_uri}, which are not finished, to begin anew"
        )
    label_config = _label_config(config, night.run_uri)
    adopted = adopt_run(storage, job)
    if adopted.run is not None:
        summary = summary_of_finished(storage, job, adopted.run, progress)
    else:
        summary = _label(label_config, storage, adopted, card, progress, executor)
    return print_summary(summary, config.max_failed_fraction)


def _label(
    config: LabelConfig,
    storage: Storage,
    adopted: Adopted,
    card: ModelCard,
    progress: Progress,
    executor: Executor | None,
) -> Summary:
    lay = layout(config.compute, expected(config.compute, progress))
    if executor is None:
        connect(config.compute, progress)
        executor = RayExecutor()
    return label_images(config, storage, adopted, card, lay, progress=progress, executor=executor)


# --- what is told ----------------------------------------------------------------------------------


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in KINDS if counts.get(name)) or "nothing is listed"


def _print_counts(night: Night) -> None:
    terminal = Terminal()
    terminal.print(f"night {night.name}: {_counted(night.counts)}")
    for image_id in night.of("held")["image_id"].to_pylist()[:_HELD]:
        terminal.print(f"  {image_id!r} has other bytes than those that a person masked: its masks are kept")


def _dry_run(config: NightlyConfig, storage: Storage, night: Night, ended: list[str]) -> DryRun:
    images = night.of(*LABELLED)
    table: dict[str, str | int] = {
        "collection": f"{night.uri}, version {night.version}",
        **{name: night.counts.get(name, 0) for name in KINDS},
        "to label": images.num_rows,
        "bytes": sum(max(size, 0) for size in images["size"].to_pylist()),
        "hours": _hours(config, storage, images.num_rows, ended),
    }
    return DryRun((table,))


def _hours(config: NightlyConfig, storage: Storage, images: int, ended: list[str]) -> str:
    """By the rate of the newest night that labelled anything."""
    for name in reversed(ended):
        record = read_end(storage, config.collection.uri, name)
        if record["images"] and record["seconds"]:
            hours = images * record["seconds"] / record["images"] / 3600
            price = "" if config.price_per_hour is None else f", {hours * config.price_per_hour:.2f} by price_per_hour"
            return f"{hours:.2g} at the {record['images'] / record['seconds']:.1f} images/s of {name}{price}"
    return "not known: no night has labelled anything yet"


def _told(
    night: Night, result: RunResult | None, version: int | None, gate: Sequence[RuleResult], page: str
) -> NightlyResult:
    terminal = Terminal()
    for one in gate:
        shown = "not known" if one.value is None else f"{one.value:.4g}"
        terminal.print(f"gate: {one.text}: {'met' if one.met else 'missed'} ({shown})")
    if version is None:
        terminal.print(
            f"held by its gate: look at {page}; segjobs collection publish {night.run_uri} collection.uri={night.uri} "
            "publishes it"
        )
    else:
        terminal.print(f"collection: {night.uri}@{version}; page: {page}")
    code = ExitCode.DONE if result is None else result.exit_code
    return NightlyResult(
        uri=night.uri,
        night=night.name,
        version=version,
        counts=dict(night.counts),
        run=None if result is None else result.uri,
        failures={} if result is None else result.failures,
        gate={one.text: one.met for one in gate},
        page=page,
        exit_code=code if all(one.met for one in gate) else ExitCode.GATE_MISSED,
    )
