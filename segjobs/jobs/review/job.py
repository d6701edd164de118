"""Review: a collection in, tasks of a few of its images for people out, with their masks as predictions.

    newest version, what was sent → candidates → ranked by strategy → pictures, without near-duplicates
    → reviews/00007/picked.parquet → task files → review.json

What is picked is on record before a task file is written, and no image is picked twice: not by the next review, not by
one at the same time, not after a death. People's answers come back by ``edits``.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs import __version__
from segjobs.config import ExportConfig, ReviewConfig
from segjobs.errors import ConfigError, ExitCode, StorageError
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.review.candidates import Candidates, Ranked, Sent, candidates_of, details, full_rows, rank
from segjobs.jobs.review.choose import Pictures, Unlike, in_order, spread
from segjobs.jobs.review.disagree import disagreements
from segjobs.jobs.review.tasks import setting_of, write_tasks
from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.reviews import Review, claim, open_review, read_seal, reviews_of, seal, sent_rows
from segjobs.manifest.table_files import split_version
from segjobs.results import DryRun, ReviewResult
from segjobs.storage import Storage, join

_ATTEMPTS = 20
_POOL = 10
_PASSES = ("env", "collection", "storage", "max_failed_fraction")
"""Keys that say nothing of what is picked and written."""
_LEFT_OUT = {
    "human": "a person's already",
    "failed": "without masks",
    "sent": "sent before",
    "near_duplicates": "near-duplicates",
    "not_written": "not written",
}


def review(config: ReviewConfig, *, dry_run: bool = False) -> ReviewResult | DryRun:
    """Pick images and write their tasks, once; prints how it went on standard error.

    ``dry_run`` only reports from how many it would pick. Raises a SegjobsError for what stops the whole.
    """
    progress, storage = Progress("review"), Storage(config.storage)
    uri = config.collection.uri
    if split_version(uri)[1] is not None:
        raise ConfigError(f"collection.uri: {uri} names a version, and what is sent is of the newest one; drop the @")
    check_writable(uri, key="collection.uri")
    now = open_collection(storage, uri)
    setting_of(_export_config(config.collection.uri, _settings(config)), now.filled, now.version, __version__)
    if dry_run:
        return _dry_run(config, storage, now, progress)
    for number in reviews_of(storage, uri)[1]:
        begun = open_review(storage, uri, number)
        progress.note(f"review: review {number} is begun: it is ended as it was begun")
        ended = _end(storage, begun, progress)
        if begun.settings == _settings(config):
            return _told(config, ended)
    for _ in range(_ATTEMPTS):
        now = open_collection(storage, uri)
        picked = _pick(config, storage, now, progress)
        if not picked.rows.num_rows:
            return _told(config, picked)
        if claim(storage, picked):
            return _told(config, _end(storage, picked, progress))
        progress.note(f"review: another review took number {picked.number}: its images are left out")
    raise StorageError(f"{uri}: {_ATTEMPTS} others were first with a review each; run the command again")


# --- what is picked ------------------------------------------------------------------------------


def _settings(config: ReviewConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=set(_PASSES))


def _pick(config: ReviewConfig, storage: Storage, now: Collection, progress: Progress) -> Review:
    """The next review, which is not on record yet; without rows where there is nothing to send."""
    ended, begun = reviews_of(storage, now.uri)
    sent = _sent(storage, now.uri, [*ended, *begun])
    with progress.phase("candidates", f"looking through {now.pinned}") as looking:
        found = candidates_of(now, sent)
        ranked = _ranked(config, storage, now, found)
        looking.outcome = f"{len(ranked.places)} of {len(found.image_ids)} images to pick from"
    if ranked.note:
        progress.note(f"review: {config.strategy}: {ranked.note}")
    pictures, unlike = Pictures(storage, config.decode.max_pixels), Unlike(sent.hashes, config.near_duplicates)
    pool = ranked.places[: config.pool or _POOL * config.count]
    with progress.phase("pictures", f"looking at pictures of {len(pool)} images at most") as looking:
        looks = pictures.look(details(now, found, pool))
        if config.strategy == "diverse":
            chosen = spread(looks, config.count, unlike, sent.hashes)
        else:
            chosen = in_order(looks, config.count, unlike)
        looking.outcome = f"{len(chosen)} picked"
    left_out = Counter({**found.left_out, **pictures.left_out, "near_duplicates": unlike.near_duplicates})
    rows = full_rows(now, found, pool[[one.place for one in chosen]])
    by_id = {one.detail.image_id: one for one in chosen}
    order = [by_id[image_id] for image_id in rows["image_id"].to_pylist()]
    scores = [float(ranked.scores[one.place]) for one in order]
    rows = rows.append_column("score", pa.array([None if np.isnan(one) else one for one in scores], pa.float64()))
    rows = rows.append_column("hash", pa.array([one.hash for one in order], pa.uint64()))
    number = 1 + max([0, *ended, *begun])
    counts = {name: count for name, count in left_out.items() if count}
    return Review(now.uri, number, rows, _settings(config), now.version, now.filled, __version__, counts)


def _ranked(config: ReviewConfig, storage: Storage, now: Collection, found: Candidates) -> Ranked:
    return disagreements(config, storage, now, found) if config.strategy == "disagree" else rank(config, storage, found)


def _sent(storage: Storage, uri: str, numbers: list[int]) -> Sent:
    """An image with other bytes than it was sent with is another picture, which can be sent."""
    images: set[tuple[str, str | None]] = set()
    hashes: list[int] = []
    for rows in sent_rows(storage, uri, sorted(numbers), ["image_id", "source", "hash"]):
        for row in rows.to_pylist():
            images.add((row["image_id"], row["source"]["sha256"] if row["source"] else None))
            if row["hash"] is not None:
                hashes.append(row["hash"])
    return Sent(frozenset(images), np.array(hashes, np.uint64))


# --- what is written -----------------------------------------------------------------------------


def _export_config(uri: str, settings: Mapping[str, Any]) -> ExportConfig:
    """The export that writes the tasks."""
    keys = {name: settings[name] for name in ("format", "coco", "label_studio")}
    return ExportConfig.model_validate({"manifest": {"uri": uri}, "output": {"uri": join(uri, "reviews")}, **keys})


def _end(storage: Storage, begun: Review, progress: Progress) -> Review:
    """Write the task files of a review that is on record, and say that they stand."""
    with progress.phase("tasks", "writing the tasks"):
        files, rows = write_tasks(storage, begun, _export_config(begun.uri, begun.settings))
    failed = sum(status != "ok" for status in rows["status"].to_pylist())
    left_out = {**begun.left_out, **({"not_written": failed} if failed else {})}
    seal(
        storage,
        begun,
        {
            "review": begun.number,
            "collection": f"{begun.uri}@{begun.version}",
            "settings": begun.settings,
            "images": rows.num_rows - failed,
            "left_out": left_out,
            "files": files,
        },
    )
    return replace(begun, left_out=left_out)


# --- what is told --------------------------------------------------------------------------------


def _dry_run(config: ReviewConfig, storage: Storage, now: Collection, progress: Progress) -> DryRun:
    ended, begun = reviews_of(storage, now.uri)
    found = candidates_of(now, _sent(storage, now.uri, [*ended, *begun]))
    ranked = _ranked(config, storage, now, found)
    if ranked.note:
        progress.note(f"review: {config.strategy}: {ranked.note}")
    table: dict[str, str | int] = {
        "collection": now.pinned,
        "reviews": f"{len(ended)} ended, {len(begun)} begun",
        **{name: found.left_out[name] for name in ("human", "failed", "sent")},
        "to pick from": len(ranked.places),
        "pick": f"{min(config.count, len(ranked.places))} at most, near-duplicates left out",
    }
    return DryRun((table,))


def _told(config: ReviewConfig, done: Review) -> ReviewResult:
    terminal = Terminal()
    words = [f"{count} {_LEFT_OUT.get(name, name)}" for name, count in sorted(done.left_out.items())]
    if words:
        terminal.print(f"left out: {', '.join(words)}")
    if not done.rows.num_rows:
        terminal.print(f"nothing to send: no image of {done.uri} is left that strategy={config.strategy} would pick")
        return ReviewResult(done.uri, None, None, 0, dict(done.left_out), ())
    record = read_seal(Storage(config.storage), done.uri, done.number)
    files = tuple(join(done.folder, file["path"]) for file in record["files"])
    images = record["images"]
    failed = done.left_out.get("not_written", 0)
    if failed:
        terminal.print(f"{failed} image(s) have masks that {config.format} cannot hold: see failures.jsonl")
    if images + failed < config.count:
        terminal.print(f"{images} of {config.count} images: no more are left, or more near-duplicates than pool allows")
    terminal.print(f"review {done.number}: {images} images of version {done.version}: {', '.join(files)}")
    too_many = failed > config.max_failed_fraction * done.rows.num_rows
    code = ExitCode.TOO_MANY_FAILED if too_many else ExitCode.DONE
    return ReviewResult(done.uri, done.number, done.folder, images, dict(done.left_out), files, code)
