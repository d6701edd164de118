"""People's corrections into a collection: their label files in, rows of origin human out, by one commit.

    images of the collection → adapter: list or read labels, match → a run of prepare under runs/ → one commit

The formats are read by what ``prepare`` reads them with. Images that the labels do not name stay as they are, and so
does an image that is no longer the one that the collection knows.
"""

import getpass
from collections.abc import Sequence
from dataclasses import replace

from segjobs.config import EditsConfig, OutputConfig, PhotographsConfig, PrepareConfig, nearest, shared_fields
from segjobs.config.prepare import reads_as
from segjobs.errors import ConfigError
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.prepare.job import Found, find_labels, read_labels
from segjobs.labels.base import Leftover
from segjobs.labels.class_tables import with_class_names
from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.edits import Edited, commit_edits, image_files
from segjobs.manifest.parts import open_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Category, Footer
from segjobs.manifest.table_files import split_version
from segjobs.results import DryRun, EditsResult, RunResult
from segjobs.storage import Storage, join

_STRANGERS = "labels_without_image"


def edits(config: EditsConfig, *, dry_run: bool = False, executor: Executor | None = None) -> EditsResult | DryRun:
    """Take the corrections that ``config`` describes, once; prints how it went on standard error.

    ``dry_run`` only reports what would be done. ``executor``: who works, by default a Ray that is joined or started
    when there is something to do. Raises a SegjobsError for what stops the whole.
    """
    progress, storage = Progress("edits"), Storage(config.storage)
    uri = config.collection.uri
    if split_version(uri)[1] is not None:
        raise ConfigError(f"collection.uri: {uri} names a version, and only the newest one is changed")
    check_writable(uri, key="collection.uri")
    now = open_collection(storage, uri)
    footer = now.filled
    prepared = _prepare_config(config, storage, footer)
    plan = make_plan(image_files(now), config.shard)
    found = find_labels(prepared, storage, progress, plan)
    job = found.jobs[""]
    _check(config, now, footer, job.footer)
    run_uri = join(uri, "runs", f"edits-{job.run_id}")
    strangers = [one for one in found.leftovers if one.check == _STRANGERS]
    if dry_run:
        return DryRun((_planned(now, job.run_id, job.plan.items.num_rows, strangers),))
    found = Found(found.labels, {"": replace(job, uri=run_uri)}, found.leftovers)
    run = read_labels(prepared, storage, progress, found, executor=executor)
    edited = commit_edits(storage, uri, open_run(storage, run_uri), by=config.by or _user(), labels=config.labels.uri)
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


def _planned(now: Collection, run_id: str, images: int, strangers: Sequence[Leftover]) -> dict[str, str | int]:
    held = now.holds(f"edits:{run_id}")
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
    changed = counts.get("changed", 0)
    if changed:
        terminal.print(
            f"{changed} image(s) have other bytes than those that the collection has masks of: their masks stay; "
            "segjobs nightly looks at such images, and the same corrections can be taken after it"
        )
    word = "corrections" if done.new else "nothing to do: these corrections"
    terminal.print(f"{word}: version {done.version} of {uri}, {counts.get('taken', 0)} images")
    return EditsResult(uri, done.version, done.new, run.uri, counts, run.failures, run.exit_code)
