"""What a night would cost: its images and a measured rate in; hours, GPU-hours and money out.

    the newest night that labelled anything ─┐
                                             ├→ Rate ─→ hours, × GPUs, × price_per_hour
    probe: some of the night's images, drawn ┘

A probe labels images as the night would, into a folder ``probes/`` of the collection that nobody reads, and takes that
away again.
"""

import heapq
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from segjobs.config import NightlyConfig, ShardConfig
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.cluster import expected
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.layout import layout
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import Summary
from segjobs.jobs.nightly.labelling import Machines, job_of, label_config_of, label_run, machines_of
from segjobs.manifest.nights import LABELLED, Night, read_end
from segjobs.manifest.schema import ModelCard
from segjobs.storage import Storage, is_remote, join, local_path

_SHARDS = 4  # of a probe, for each actor at a guess: the last one's end is a small part of it
_HOUR_S = 3600


@dataclass(frozen=True)
class Rate:
    """``images`` labelled in ``seconds`` by ``machines`` (None where that was not kept); ``source``: measured by whom.

    ``start_s``: that went by before the first worker was at work; None where it is part of ``seconds``.
    """

    images: int
    seconds: float
    machines: Machines | None
    source: str
    start_s: float | None = None


def cost(images: int, rate: Rate | None, machines: Machines, price_per_hour: float | None) -> dict[str, str]:
    """What is told of ``images`` at this rate on ``machines``. ``rate``: None where nothing was measured.

    A rate of other machines is scaled by their number; one of GPUs says nothing of CPUs, and is not used there.
    """
    if rate is None or (rate.machines is not None and rate.machines.unit != machines.unit):
        other = "no night has labelled anything yet"
        if rate is not None and rate.machines is not None:
            other = f"there are {machines.unit}s, and what was {rate.source} was on {rate.machines.unit}s"
        return {"hours": f"not known: {other}; --probe 64 labels that many of its images, and tells"}
    scale = 1.0 if rate.machines is None else machines.units / rate.machines.units
    a_second = rate.images / rate.seconds * scale
    hours = (images / a_second + (rate.start_s or 0.0)) / _HOUR_S
    by = f"{a_second:.1f} images/s, {rate.source}"
    if scale != 1 and rate.machines is not None:
        by += f" on {rate.machines.units:g} {machines.unit}(s), scaled to {machines.units:g}"
    if rate.start_s is not None:
        by += f", and {rate.start_s:.0f} s of start"
    told = {
        "hours": f"{hours:.2g} at {by}",
        f"{machines.unit}-hours": f"{hours * machines.units:.2g} ({machines.units:g} {machines.unit}(s) × hours)",
        "not in it": "listing, comparing, the commit and the page",
    }
    if price_per_hour is not None:
        told["price"] = f"{hours * price_per_hour:.2f} (hours × price_per_hour={price_per_hour:g})"
    return told


def machines_for(config: NightlyConfig, progress: Progress) -> Machines:
    """What would label, as the cluster is now."""
    have = expected(config.compute, progress)
    return machines_of(layout(config.compute, have), have.cpus, have.gpus)


def rate_of_nights(storage: Storage, uri: str, ended: Sequence[str]) -> Rate | None:
    """Of the newest night that labelled anything; ``ended``: the oldest first."""
    for name in reversed(ended):
        record: Mapping[str, Any] = read_end(storage, uri, name)
        if record["images"] and record["seconds"]:
            kept = record.get("machines")
            machines = None if kept is None else Machines(kept["gpus"], kept["cpus"])
            return Rate(record["images"], record["seconds"], machines, f"measured in {name}")
    return None


def probe(
    config: NightlyConfig,
    storage: Storage,
    night: Night,
    card: ModelCard,
    progress: Progress,
    executor: Executor | None,
    *,
    images: int,
) -> tuple[Rate | None, str]:
    """Label so many of the night's images, drawn by their ids, and take the result away; the rate, and how it went.

    No rate where the night labels none. Raises a SegjobsError as the night would.
    """
    drawn = heapq.nsmallest(images, night.files(), key=lambda file: sha256(file.path.encode()).digest())
    if not drawn:
        return None, "no image is to be labelled"
    drawn.sort(key=lambda file: file.path)
    with _throw_away(storage, night.uri) as place:
        label_config = label_config_of(config, place)
        # As many images as a batch at least, which is what a GPU computes at once.
        most = max(config.compute.batch_size, len(drawn) // _SHARDS)
        shard = ShardConfig(images=min(most, config.shard.images), bytes=config.shard.bytes)
        adopted = adopt_run(storage, job_of(config, card, drawn, place, shard=shard))
        summary, machines = label_run(label_config, storage, adopted, card, progress, executor)
    return _rate_of(summary, machines), _told(summary, sum(max(file.size, 0) for file in drawn))


def _rate_of(summary: Summary, machines: Machines) -> Rate:
    """From when a worker said that it works, where one did."""
    start_s = summary.start_seconds.get("workers", 0.0) if "first image" in summary.start_seconds else 0.0
    at_work_s = max(summary.seconds - start_s, 1e-6)
    return Rate(summary.images, at_work_s, machines, f"measured on {summary.images} images now", start_s)


def _told(summary: Summary, size_bytes: int) -> str:
    failed = f", {summary.failed} failed" if summary.failed else ""
    return f"{summary.images} images of {size_bytes} bytes labelled in {summary.seconds:.1f} s{failed}; nothing is kept"


@contextmanager
def _throw_away(storage: Storage, uri: str) -> Generator[str]:
    """A folder below the collection, where all nodes see it and rights to write are had; it goes at the end."""
    place = join(uri, "probes", uuid.uuid4().hex)
    try:
        yield place
    finally:
        if storage.is_folder(place) or is_remote(place):
            for file in list(storage.walk(place)):
                storage.delete(file.uri)
        if not is_remote(place):
            _remove_empty(place, up_to=uri)


def _remove_empty(place: str, *, up_to: str) -> None:
    """Empty folders of a local place, and those around it up to the collection's, where they are empty."""
    root, top = local_path(place), local_path(up_to)
    below = sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True) if root.is_dir() else []
    around = [path for path in root.parents if path == top or top in path.parents]
    for folder in (*below, root, *around):
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


def dry_run_table(night: Night, kinds: Sequence[str]) -> dict[str, str | int]:
    """What the night would do, without what that costs."""
    images = night.of(*LABELLED)
    return {
        "collection": f"{night.uri}, version {night.version}",
        **{name: night.counts.get(name, 0) for name in kinds},
        "to label": images.num_rows,
        "bytes": sum(max(size, 0) for size in images["size"].to_pylist()),
    }
