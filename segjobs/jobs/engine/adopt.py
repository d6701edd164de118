"""What a run's output holds already: a job in; what of it is done, and the plan to go on with, out.

list of parts, plan.parquet, run.json ─→ adopt_run ─┬→ nothing: publish_plan
                                                    ├→ the same run, finished or not → Adopted
                                                    └→ another run, or damage → refused, in a line
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from segjobs import __version__
from segjobs.errors import ConflictError, ManifestError
from segjobs.jobs.engine.shards import Job, run_key
from segjobs.jobs.engine.standing import differences, read_standing, unlike
from segjobs.manifest.parts import Run, crash_at, find_run, list_part_files, part_uri, plan_uri, run_id_of
from segjobs.manifest.plan import PLAN_MEND, Plan, read_plan, write_plan
from segjobs.manifest.schema import FOOTER_KEY
from segjobs.manifest.seal import damaged
from segjobs.storage import FileInfo, Storage

_WORDS = {
    "labels.digest": "label files of its images came, went or changed since it was planned; with those files as they "
    "were, content and times, this command goes on",
}


@dataclass(frozen=True)
class Adopted:
    """What stands at a job's output, and the job as it fits that.

    ``job``: with the standing plan, whose shards may be cut otherwise and whose images may be others. ``run``: where it
    is finished. ``done``: shards whose parts stand, each as it is listed. ``planned``: a plan stands. ``moved``: what
    of the input is not as it was planned, in words; empty where nothing is.
    """

    job: Job
    run: Run | None
    done: Mapping[int, FileInfo] = field(repr=False)
    planned: bool = False
    moved: str = ""


def adopt_run(storage: Storage, job: Job) -> Adopted:
    """Compare the job with what stands at its output, writing nothing.

    A run that is not finished is gone on with as it was planned: what came, went or changed since is named, and left to
    the next run. Raises ConflictError where the output holds a run of other settings, or a finished one of other
    images, with what differs; ManifestError where what stands there is damaged, or of two runs.
    """
    parts = list_part_files(storage, job.uri)  # before the plan: whoever publishes parts has published their plan
    data = read_standing(storage, plan_uri(job.uri))
    run = find_run(storage, job.uri)
    if data is None:
        _check_orphans(storage, job, run, parts)
        return Adopted(job, run, _of_plan(parts, job.plan))
    standing, head = _read_head(data, plan_uri(job.uri))
    if run is not None and run.info.run_id != head.run_id:
        raise ManifestError(
            f"{job.uri}: run.json is of run {run.info.run_id} and plan.parquet of run {head.run_id}: one of them came "
            "from elsewhere; choose a new output.uri"
        )
    same_settings = run_key(job.verb, job.identity, standing) == head.run_id
    moved = input_difference(standing.items, job.plan.items) if standing.digest != job.plan.digest else ""
    if not same_settings or (moved and run is not None):
        found = f"{job.uri} holds another run ({head.run_id})"
        raise unlike(found, _differences(job, head, moved), "run", finished=run is not None)
    return Adopted(_planned(job, standing), run, _of_plan(parts, standing), planned=True, moved=moved)


def plans_begun(storage: Storage, uris: Sequence[str]) -> list[Plan]:
    """The plans that stand at all of ``uris``, of which a run is not finished; else none."""
    data = [read_standing(storage, plan_uri(uri)) for uri in uris]
    if all(find_run(storage, uri) is not None for uri in uris):
        return []
    plans = [read_plan(one, plan_uri(uri))[0] for one, uri in zip(data, uris, strict=True) if one is not None]
    return plans if len(plans) == len(uris) else []


@dataclass(frozen=True)
class _Head:
    """What the footer of plan.parquet says of its run."""

    run_id: str
    verb: str
    identity: dict[str, object]


def _read_head(data: bytes, where: str) -> tuple[Plan, _Head]:
    """A standing plan, and whose it is. Raises ManifestError where its items are not those that make its run_id."""
    plan, metadata = read_plan(data, where)
    try:
        about = json.loads(metadata[FOOTER_KEY])
        head = _Head(about["run_id"], about["verb"], dict(about["identity"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(where, f"its footer names no run: {error!r}", mend=PLAN_MEND) from error
    if run_key(head.verb, head.identity, plan) != head.run_id:
        raise damaged(where, "its images are not those of its run_id", mend=PLAN_MEND)
    return plan, head


def _differences(job: Job, head: _Head, moved: str) -> list[str]:
    """What is not the same, key by key."""
    if head.verb != job.verb:
        return [f"it was made by {head.verb}, not {job.verb}"]
    wanted = json.loads(json.dumps(job.identity))  # as the file has it: lists for tuples
    return [
        *([f"the input differs: {moved}"] if moved else []),
        *differences(head.identity, wanted, deep=True, words=_WORDS),
    ]


def _of_plan(parts: Mapping[int, FileInfo], plan: Plan) -> dict[int, FileInfo]:
    """The parts of the plan's shards."""
    return {number: file for number, file in parts.items() if number < plan.num_shards}


def _check_orphans(storage: Storage, job: Job, run: Run | None, parts: Mapping[int, FileInfo]) -> None:
    """Raise ConflictError where a run without its plan stands that is not this job's."""
    other = run.info.run_id if run else run_id_of(storage, part_uri(job.uri, min(parts))) if parts else None
    if other not in (None, job.run_id):
        raise ConflictError(
            f"{job.uri} holds parts of another run ({other}), whose plan.parquet is gone; its model, its settings or "
            "its images are not those of this command: choose a new output.uri"
        )


def _planned(job: Job, plan: Plan) -> Job:
    """The job of this plan: each item with the label that it has in the job's own."""
    if job.labels is None or plan.digest == job.plan.digest:
        return replace(job, plan=plan)
    places = pc.index_in(plan.items["image_id"], value_set=job.plan.items["image_id"].combine_chunks())
    return replace(job, plan=plan, labels=job.labels.take(places.combine_chunks()))


def moved_line(uri: str, moved: str) -> str:
    """What a person is told of an input that is not as it was planned."""
    return (
        f"since {uri} was planned: {moved}; this run is finished as it was planned, and the next "
        "one, at a new output.uri, takes the images as they are then"
    )


def input_difference(old: pa.Table, new: pa.Table) -> str:
    """What came, went or changed between two plans' items, in words; empty where nothing did."""
    columns = ("image_id", "uri", "size", "mtime", "etag")
    before, after = (
        {row[0]: row[1:] for row in zip(*(table[name].to_pylist() for name in columns), strict=True)}
        for table in (old, new)
    )
    groups = {
        "added": sorted(after.keys() - before.keys()),
        "gone": sorted(before.keys() - after.keys()),
        "changed": sorted(key for key in before.keys() & after.keys() if before[key] != after[key]),
    }
    return ", ".join(f"{len(names)} image(s) {word} (such as {names[0]!r})" for word, names in groups.items() if names)


def publish_plan(storage: Storage, job: Job) -> None:
    """Say what the run is of, unless that stands. Raises StorageError where the store replaces files."""
    about = {"run_id": job.run_id, "verb": job.verb, "identity": job.identity, "version": __version__}
    data = write_plan(job.plan, {FOOTER_KEY: json.dumps(about, sort_keys=True).encode()})
    crash_at("plan:before")
    storage.put_first(plan_uri(job.uri), data)
    crash_at("plan:after")
