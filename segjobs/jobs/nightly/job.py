"""Bring a collection up to date: what is listed and a model in, a night's run, one commit, figures and a page out.

    list → compare → changes.parquet │ label → run.json │ figures, gate → commit → page → changes.json

Each step's file is published whole before the next one begins, and the same command goes on from what stands: a night
that is begun is finished as it was begun, whatever came since, and is committed once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from segjobs.config import NightlyConfig
from segjobs.errors import ConflictError, ExitCode, StorageError
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.listing import plan_input
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import summary_of_finished
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.summary import print_summary
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.label.job import resolve_model
from segjobs.jobs.nightly.compare import Compared, Policy, compare
from segjobs.jobs.nightly.earlier import earlier_of
from segjobs.jobs.nightly.estimate import Rate, cost, dry_run_table, machines_for, probe, rate_of_nights
from segjobs.jobs.nightly.labelling import Machines, job_of, label_config_of, label_run
from segjobs.jobs.nightly.look import Look, cards_of, cards_of_changed, look_at, nothing
from segjobs.manifest.collection import check_place, find_collection, processing_of
from segjobs.manifest.held_nights import held_nights, how_to_end, is_discarded, rows_waiting, version_of
from segjobs.manifest.iceberg import open_catalogue, publish_nights
from segjobs.manifest.nights import (
    LABELLED,
    WAITING,
    Night,
    begin,
    commit_night,
    end,
    moment_of,
    name_of,
    nights_of,
    open_night,
    read_end,
    version_with,
)
from segjobs.manifest.parts import open_run
from segjobs.manifest.schema import ModelCard
from segjobs.metrics.drift import (
    NIGHTS,
    NightFigures,
    RuleResult,
    check_night,
    figures_in,
    last_of,
    parse_night_rules,
    usual,
)
from segjobs.page.night import NightContents, NightLine, index_page, night_page
from segjobs.results import DryRun, NightlyResult, RunResult
from segjobs.storage import FileInfo, Storage, join

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

KINDS = (*LABELLED, "stale_kept", "touched", WAITING, "held", "gone", "same")
"""What an image can be to a night, in the order in which it is told."""


_HELD = 5  # that are named
_EXAMPLES = 12


def nightly(
    config: NightlyConfig, *, dry_run: bool = False, probed: int = 0, executor: Executor | None = None
) -> NightlyResult | DryRun:
    """Run or continue a night; prints how it went on standard error.

    ``dry_run`` lists and compares, and says what the night would do and cost, by the rate of ``probed`` of its images,
    which are labelled and thrown away, or else of earlier nights. ``executor``: who labels; Ray's as a rule. Raises a
    SegjobsError for what stops the whole.
    """
    progress, storage = Progress("nightly"), Storage(config.storage)
    uri = config.collection.uri
    check_place(storage, uri)
    with progress.phase("weights", f"loading {config.model.name}"):
        card = resolve_model(label_config_of(config, uri), storage)
    rules = parse_night_rules(config.gate, [category.name for category in card.categories])
    check_writable(uri, key="collection.uri")
    catalogue = open_catalogue(config.publish.iceberg) if config.publish.iceberg.table and not dry_run else None
    ended, begun = nights_of(storage, uri)
    records = [read_end(storage, uri, name) for name in ended]
    held = held_nights(storage, uri, find_collection(storage, uri), records)
    if begun:
        night = open_night(storage, uri, begun[0])
        progress.note(
            f"nightly: night {night.name} is begun: it is ended as it was begun; what came since is the next's"
        )
    else:
        night = _compared(config, storage, card, ended, held, progress)
    waiting = [run for name in held if (run := open_night(storage, uri, name).run_uri) is not None]
    if dry_run:
        measured = probe(config, storage, night, card, progress, executor, images=probed) if probed else None
        return _dry_run(config, storage, night, ended, measured, progress)
    if not begun:
        night = _begin(storage, night)
    _print_counts(night, waiting)
    result, machines = _labelled(config, storage, night, card, progress, executor)
    with progress.phase("looking", "looking at its masks"):
        look = _look(storage, night)
    now = find_collection(storage, uri)
    earlier = [figures_in(record) for record in records if version_of(now, record) is not None]
    gate = [check_night(rule, look.figures, usual(earlier), last_of(earlier)) for rule in rules]
    published = version_with(now, night.name) is not None  # before this command was cut off
    is_held = config.on_gate == "hold" and not published and not all(one.met for one in gate)
    version = None if is_held else commit_night(storage, night).version
    page = join(night.folder, "index.html")
    contents = _contents(storage, night, card, version, look, earlier, gate, waiting)
    storage.put_if_absent(page, night_page(contents).encode())
    record: dict[str, Any] = {
        "night": night.name,
        "run_id": night.run_id,
        "counts": dict(night.counts),
        "published": version,
        "images": 0 if result is None else result.images - result.already_done,
        "seconds": 0.0 if result is None else result.seconds,
        "machines": None if machines is None else asdict(machines),
        "figures": look.figures,
        "gate": {one.text: {"value": one.value, "met": one.met, "why": one.why} for one in gate},
    }
    end(storage, night, record)
    _publish_index(storage, uri, [*records, record])
    if catalogue is not None:
        _publish_iceberg(config, storage, catalogue, [*records, record], progress)
    return _told(night, result, version, gate, page)


# --- its masks -----------------------------------------------------------------------------------


def _look(storage: Storage, night: Night) -> Look:
    if night.run_uri is None:
        return nothing()
    new = set(night.of("new")["image_id"].to_pylist())
    return look_at(storage, open_run(storage, night.run_uri), new, earlier_of(storage, night))


def _contents(
    storage: Storage,
    night: Night,
    card: ModelCard,
    version: int | None,
    look: Look,
    earlier: Sequence[NightFigures],
    gate: Sequence[RuleResult],
    waiting: Sequence[str],
) -> NightContents:
    return NightContents(
        collection=night.uri,
        night=night.name,
        version=version,
        model=card.label,
        counts=night.counts,
        examples={change: night.of(change)["image_id"].slice(0, _EXAMPLES).to_pylist() for change in night.counts},
        failures={} if night.run_uri is None else _failures(storage, night.run_uri),
        figures=look.figures,
        earlier=earlier[-NIGHTS:],
        usual=usual(earlier),
        last=last_of(earlier),
        gate=gate,
        held=waiting,
        new=cards_of(storage, look.new, look.categories),
        unsure=cards_of(storage, look.unsure, look.categories),
        changed=cards_of_changed(storage, look.changed, look.categories_before, look.categories),
    )


def _failures(storage: Storage, run_uri: str) -> dict[str, tuple[int, str, str]]:
    info = open_run(storage, run_uri).info
    return {code: (count, *info.examples[code]) for code, count in info.failures.items()}


def _publish_index(storage: Storage, uri: str, records: Sequence[Mapping[str, Any]]) -> None:
    """The list of nights, which is made of their records and is made anew each night."""
    now = find_collection(storage, uri)
    lines: list[NightLine] = []
    for record in records:
        version = version_of(now, record)
        missed = [text for text, rule in record["gate"].items() if not rule["met"]]
        discarded = version is None and is_discarded(storage, uri, record["night"])
        figures = figures_in(record)
        lines.append(NightLine(record["night"], record["counts"], version, figures, missed, discarded))
    where = join(uri, "nights", "index.html")
    storage.delete(where)
    storage.put_if_absent(where, index_page(uri, lines).encode())


def _publish_iceberg(
    config: NightlyConfig,
    storage: Storage,
    catalogue: "Catalog",
    records: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> None:
    """Append what the collection has of nights and the table has not: of tonight, and what was held or cut off before.

    Raises StorageError, when the night itself is done.
    """
    uri, name = config.collection.uri, str(config.publish.iceberg.table)
    now = find_collection(storage, uri)
    nights = {
        record["night"]: record["run_id"]
        for record in records
        if record["run_id"] and version_of(now, record) is not None
    }
    try:
        with progress.phase("iceberg", f"appending to {name}") as phase:
            done = publish_nights(catalogue, name, storage, uri, nights)
            phase.outcome = f"{len(done)} night(s)"
    except StorageError as error:
        raise StorageError(f"{error}; the night is done, and the next one appends what is missing there") from error


# --- what there is to do ---------------------------------------------------------------------------


def _compared(
    config: NightlyConfig,
    storage: Storage,
    card: ModelCard,
    ended: Sequence[str],
    held: Sequence[str],
    progress: Progress,
) -> Night:
    """Tonight, compared with the newest version and with what waits in ``held`` nights, and not begun."""
    uri = config.collection.uri
    plan = plan_input(config, storage, progress)
    now = find_collection(storage, uri)
    job = job_of(config, card, [])
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
        waiting = rows_waiting(storage, uri, held, model=policy.model, processing=policy.processing)
        found = compare(plan, now, policy, digest_of, waiting)
        comparing.outcome = _counted(found.counts)
    moment = datetime.now(UTC)
    if ended:  # nights follow each other by their names, should the clock have gone back
        moment = max(moment, moment_of(ended[-1]) + timedelta(seconds=1))
    return _night_of(config, card, found, now.version if now else 0, moment)


def _night_of(config: NightlyConfig, card: ModelCard, found: Compared, version: int, moment: datetime) -> Night:
    counts = dict(found.counts)
    night = Night(config.collection.uri, name_of(moment), found.table(), counts, version, None, found.newest)
    files = list(night.files())
    return replace(night, run_id=job_of(config, card, files).run_id) if files else night


def _begin(storage: Storage, night: Night) -> Night:
    """Begin the night, an hour of its own; what another command has begun in this second is left alone."""
    while not begin(storage, night):
        night = replace(night, name=name_of(moment_of(night.name) + timedelta(seconds=1)))
    return night


class _Tries:
    """How often images of a night's run had been tried again; each night's changes are read once."""

    def __init__(self, storage: Storage, uri: str, ended: Sequence[str]) -> None:
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


# --- labelling -------------------------------------------------------------------------------------


def _labelled(
    config: NightlyConfig,
    storage: Storage,
    night: Night,
    card: ModelCard,
    progress: Progress,
    executor: Executor | None,
) -> tuple[RunResult | None, Machines | None]:
    """The night's run, finished, and what this command had for it; None where nothing was to be labelled."""
    if night.run_uri is None:
        return None, None
    job = job_of(config, card, list(night.files()), night.run_uri)
    if job.run_id != night.run_id:
        raise ConflictError(
            f"{night.folder}: the night is begun with another model or other settings; restore them to finish it, or "
            f"delete {night.folder} and {night.run_uri}, which are not finished, to begin anew"
        )
    label_config = label_config_of(config, night.run_uri)
    adopted = adopt_run(storage, job)
    machines = None
    if adopted.run is not None:
        summary = summary_of_finished(storage, job, adopted.run, progress)
    else:
        summary, machines = label_run(label_config, storage, adopted, card, progress, executor)
    return print_summary(summary, config.max_failed_fraction), machines


# --- what is told ----------------------------------------------------------------------------------


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in KINDS if counts.get(name)) or "nothing is listed"


def _print_counts(night: Night, waiting: Sequence[str]) -> None:
    """``waiting``: runs of earlier nights that are held."""
    terminal = Terminal()
    terminal.print(f"night {night.name}: {_counted(night.counts)}")
    for image_id in night.of("held")["image_id"].to_pylist()[:_HELD]:
        terminal.print(f"  {image_id!r} has other bytes than those that a person masked: its masks are kept")
    for run in waiting:
        terminal.print(f"  {run} is held by its gate: {how_to_end(night.uri, run)}")


def _dry_run(
    config: NightlyConfig,
    storage: Storage,
    night: Night,
    ended: Sequence[str],
    measured: tuple[Rate | None, str] | None,
    progress: Progress,
) -> DryRun:
    """``measured``: by a probe, and how it went."""
    table = dry_run_table(night, KINDS)
    rate = rate_of_nights(storage, night.uri, ended)
    if measured is not None:
        rate, table["probe"] = measured
    images = night.of(*LABELLED).num_rows
    if images:
        machines = machines_for(config, progress)
        table |= cost(images, rate, machines, config.price_per_hour)
    return DryRun((table,))


def _told(
    night: Night, result: RunResult | None, version: int | None, gate: Sequence[RuleResult], page: str
) -> NightlyResult:
    terminal = Terminal()
    for one in gate:
        shown = f"not known: {one.why}" if one.value is None else f"{one.value:.4g}"
        terminal.print(f"gate: {one.text}: {'met' if one.met else 'missed'} ({shown})")
    if version is None:
        terminal.print(f"held by its gate: look at {page}; {how_to_end(night.uri, night.run_uri or night.folder)}")
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
