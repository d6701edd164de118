"""People's corrections into a collection: their label files in, rows of origin human out, by one commit.

    images of the collection → adapter: list or read labels, match → a run of prepare under runs/ → one commit

The formats are read by what ``prepare`` reads them with. Images that the labels do not name stay as they are, and so
does an image whose bytes are no longer those that the collection knows.
"""

import getpass
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from segjobs.config import EditsConfig, OutputConfig, PhotographsConfig, PrepareConfig, nearest, shared_fields
from segjobs.config.prepare import reads_as
from segjobs.errors import ConfigError
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.prepare.job import Found, find_labels, read_labels
from segjobs.labels.base import Leftover
from segjobs.labels.class_tables import with_class_names
from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.edits import Correction, Edited, app_of, commit_edits, image_files
from segjobs.manifest.parts import open_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import planned_items
from segjobs.manifest.schema import Category, Footer
from segjobs.manifest.table_files import check_newest
from segjobs.results import DryRun, EditsResult, RunResult
from segjobs.sources.read import NO_PHOTOGRAPH
from segjobs.storage import FileInfo, Storage, join

_STRANGERS = "labels_without_image"
_STAYED = {
    "changed": "have other bytes than those that the collection has masks of: their masks stay; segjobs nightly looks "
    "at such images",
    "newer": "have a person's masks of a later command, which stay",
    "unaltered": "have the model's masks unaltered, and stay the model's",
    "there": "have these very masks already",
}
_LOOKING = 16  # files that are looked up at once


def edits(config: EditsConfig, *, dry_run: bool = False, executor: Executor | None = None) -> EditsResult | DryRun:
    """Take the corrections that ``config`` describes, once; prints how it went on standard error.

    ``dry_run`` only reports what would be done. ``executor``: who works, by default a Ray that is joined or started
    when there is something to do. Raises a SegjobsError for what stops the whole.
    """
    progress, storage = Progress("edits"), Storage(config.storage)
    uri = config.collection.uri
    check_newest(uri)
    check_writable(uri, key="collection.uri")
    now = open_collection(storage, uri)
    footer = now.filled
    prepared = _prepare_config(config, storage, footer)
    plan = make_plan(image_files(now), config.shard)
    found = find_labels(prepared, storage, progress, plan)
    job = _as_they_are(config, storage, found.jobs[""])
    _check(config, now, footer, job.footer)
    run_uri = join(uri, "runs", f"edits-{job.run_id}")
    strangers = [one for one in found.leftovers if one.check == _STRANGERS]
    if dry_run:
        held = now.holds(app_of(job.run_id, config.unaltered))
        return DryRun((_planned(now, held, job.plan.items.num_rows, strangers),))
    found = Found(found.labels, {"": replace(job, uri=run_uri)}, found.leftovers)
    run = read_labels(prepared, storage, progress, found, executor=executor)
    correction = Correction(config.by or _user(), config.labels.uri, config.unaltered)
    edited = commit_edits(storage, uri, open_run(storage, run_uri), correction)
    return _told(config, run, edited, strangers)


def _prepare_config(config: EditsConfig, storage: Storage, footer: Footer) -> PrepareConfig:
    """How ``prepare`` reads the labels; the collection has the images."""
    labels = with_class_names(config.labels, storage)
    if labels.task is None and reads_as(labels.format) and footer.task != "panoptic":
        labels = labels.model_copy(update={"task": footer.task})
    own = {
        "input": PhotographsConfig.model_validate({"uri": config.collection.uri, **(footer.pixels or {})}),
        "labels": labels,
        "output": OutputConfig(uri=config.collection.uri),
    }
    return PrepareConfig(**{**shared_fields(config, PrepareConfig), **own})


def _as_they_are(config: EditsConfig, storage: Storage, job: Job) -> Job:
    """The job on the files of today: one of another time or etag is compared by its bytes, when they are read."""

    def look(known: FileInfo) -> FileInfo:
        found = None if known.uri == NO_PHOTOGRAPH else storage.info(known.uri)
        return known if found is None else replace(found, uri=known.uri, path=known.path)

    known = planned_items(job.plan.items)
    with ThreadPoolExecutor(_LOOKING) as threads:
        files = list(threads.map(look, known))
    return job if files == known else replace(job, plan=make_plan(files, config.shard))


def _check(config: EditsConfig, now: Collection, ours: Footer, theirs: Footer) -> None:
    """Raise ConfigError where the labels are no masks of the collection's task and classes."""
    if theirs.boxes_only:
        raise ConfigError(f"labels.uri: {config.labels.uri} has boxes alone, and a collection keeps masks")
    if theirs.task != ours.task:
        raise ConfigError(f"labels.task: these are {theirs.task} labels, and {now.uri} holds {ours.task} masks")
    names = _names(ours.categories)
    strange = [name for name in _names(theirs.categories) if name not in names]
    if strange:
        raise ConfigError(
            *(
                f"labels.uri: {name!r} is no class of {now.uri}; {nearest(name, names)}; `classes` gives it another "
                "name, or drops it"
                for name in strange
            )
        )


def _names(categories: Sequence[Category]) -> list[str]:
    return [category.name for category in categories]


def _user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        return "somebody"


def _planned(now: Collection, held: int | None, images: int, strangers: Sequence[Leftover]) -> dict[str, str | int]:
    return {
        "collection": now.pinned,
        "corrections": images,
        "not in it": _strange(strangers) or 0,
        "committed": "no" if held is None else f"in version {held}: nothing to do",
    }


def _strange(strangers: Sequence[Leftover]) -> str:
    count = sum(one.count for one in strangers)
    return f"{count}, such as {strangers[0].examples[0]!r}; left out" if count else ""


def _told(config: EditsConfig, run: RunResult, edited: Edited, strangers: Sequence[Leftover]) -> EditsResult:
    terminal, done, uri = Terminal(), edited.committed, config.collection.uri
    counts = {**edited.counts, "not_in_collection": sum(one.count for one in strangers)}
    if counts["not_in_collection"]:
        terminal.print(f"images of the labels that {uri} does not have: {_strange(strangers)}")
    for name, words in _STAYED.items():
        if counts.get(name):
            terminal.print(f"{counts[name]} image(s) {words}")
    word = "corrections" if done.new else "nothing to do: these corrections"
    accepted = f", {counts['accepted']} of them accepted as the model made them" if counts.get("accepted") else ""
    terminal.print(f"{word}: version {done.version} of {uri}, {counts.get('taken', 0)} images{accepted}")
    return EditsResult(uri, done.version, done.new, run.uri, counts, run.failures, run.exit_code)
