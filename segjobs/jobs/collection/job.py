"""A collection looked at, added to and tidied: what is to be done and its words in, figures and a few lines out.

    status, history, diff ─→ read a version or two
    add, publish, restore, compact ─→ one commit each; vacuum: files that no kept version has go
    discard ─→ a held night that is given up

What changes something says with ``dry_run`` what it would do. No cluster is needed.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.config import CollectionConfig
from segjobs.errors import ManifestError
from segjobs.jobs.engine.terminal import Terminal
from segjobs.manifest.adoption import add_run, app_id_of_run, check_run
from segjobs.manifest.collection import Collection, Committed, find_collection, open_collection
from segjobs.manifest.held_nights import discard, held_nights, how_to_end, is_discarded
from segjobs.manifest.nights import Night, commit_night, night_of_run, nights_of, open_night, read_end, version_with
from segjobs.manifest.parts import find_run, open_run, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.table_files import check_newest, has_table, masks_uri, split_version
from segjobs.manifest.versions import Difference, compaction, contents_of, difference, unneeded
from segjobs.results import CollectionResult, DryRun
from segjobs.storage import Storage, join

_HISTORY = 30  # versions that are shown to a person
_THREADS = 32  # that delete files
_LONGEST_DAYS = 365_000.0
_ATTEMPTS = 10


def collection(config: CollectionConfig, *, dry_run: bool = False) -> CollectionResult | DryRun:
    """Do what ``config`` says. Raises a SegjobsError for what stops it."""
    storage = Storage(config.storage)
    if config.do not in ("status", "history", "diff"):
        check_newest(config.collection.uri)
    return _DOES[config.do](config, storage, split_version(config.collection.uri)[0], dry_run)


def _told(config: CollectionConfig, uri: str, lines: list[str], figures: Mapping[str, object]) -> CollectionResult:
    terminal = Terminal()
    for line in lines:
        terminal.print(line)
    return CollectionResult(uri, config.do, figures)


def _committed(config: CollectionConfig, uri: str, what: str, done: Committed) -> CollectionResult:
    line = (
        f"{what}: version {done.version}, {done.added} files written in place of {done.rewritten}"
        if done.new
        else f"nothing to do: {what} is in version {done.version}"
    )
    figures = {"version": done.version, "new": done.new, "files_added": done.added, "files_rewritten": done.rewritten}
    return _told(config, uri, [line], figures)


# --- looks ---------------------------------------------------------------------------------------


def _status(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult:
    ended, begun = nights_of(storage, base)
    now = open_collection(storage, config.collection.uri) if has_table(storage, base) else None
    held = held_nights(storage, base, now, (read_end(storage, base, name) for name in ended))
    nights: dict[str, object] = {"nights": len(ended), "nights_begun": begun, "nights_held": held}
    waiting = [
        *(f"night {name} is begun and not ended; segjobs nightly goes on with it" for name in begun),
        *(
            f"night {night.name} is held by its gate; {how_to_end(base, night.run_uri or night.folder)}"
            for night in (open_night(storage, base, name) for name in held)
        ),
    ]
    if now is None and waiting:
        lines = [f"{base}: no version yet; {len(ended)} nights", *waiting]
        return _told(config, base, lines, {"version": None, **nights})
    now = now or open_collection(storage, config.collection.uri)  # says that none is here
    found = contents_of(now)
    size_bytes = sum(file.size_bytes for file in now.files)
    figures: dict[str, object] = {
        "version": now.version,
        "images": dict(found.images),
        "gone": found.gone,
        "failures": dict(found.failures),
        "origins": dict(found.origins),
        "models": dict(found.models),
        "files": len(now.files),
        "bytes": size_bytes,
        **nights,
    }
    lines = [
        f"{now.pinned}: {found.images.total()} images: {found.images['ok']} ok, {found.images['failed']} failed; "
        f"{found.gone} gone",
        *(f"  {code} {count}" for code, count in sorted(found.failures.items())),
        f"masks of {_listed(found.models)}; origin {_listed(found.origins)}",
        f"{len(now.files)} files, {size_bytes / 1e6:.1f} MB; {len(ended)} nights",
        *waiting,
    ]
    return _told(config, now.pinned, lines, figures)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _history(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult:
    now = open_collection(storage, config.collection.uri)
    entries = [_entry(one) for one in now.history() if one["version"] <= now.version]
    lines = [f"{one['version']:>6}  {one['at']}  {one['what']}" for one in entries[:_HISTORY]]
    more = [f"… and {len(entries) - _HISTORY} older ones"] if len(entries) > _HISTORY else []
    return _told(config, now.pinned, [*lines, *more], {"versions": entries})


def _entry(entry: Mapping[str, Any]) -> dict[str, object]:
    at = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC).isoformat(timespec="seconds")
    images = entry.get("images")
    if "night" in entry:
        what = f"night {entry['night']}" + (f": {_listed(images)}" if isinstance(images, dict) else "")
    elif "edits" in entry:
        what = f"edits of {entry['edits']} by {entry['by']}" + (
            f": {_listed(images)}" if isinstance(images, dict) else ""
        )
    elif "run" in entry:
        what = f"run {entry['run_id']} of {entry['run']}"
    elif entry["operation"] == "RESTORE":
        what = f"restored version {entry['operationParameters']['version']}"
    else:
        what = str(entry["operation"]).lower()
    return {"version": entry["version"], "at": at, "what": what, "run_id": entry.get("run_id")}


def _diff(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult:
    old, new = (open_collection(storage, f"{base}@{word}") for word in config.words)
    found = difference(old, new)
    lines = [f"from version {old.version} to {new.version}: {_listed(found.counts) if found.counts else 'the same'}"]
    lines += [f"  {kind}: {', '.join(repr(name) for name in names)}" for kind, names in sorted(found.examples.items())]
    return _told(config, base, lines, {"counts": dict(found.counts), "examples": found.examples})


# --- changes -------------------------------------------------------------------------------------


def _add(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    runs = [_run_at(storage, uri) for uri in config.words]
    runs.sort(key=lambda run: run.info.finished)
    if dry_run:
        return DryRun(tuple(_would_add(storage, base, run) for run in runs))
    results = [_committed(config, base, f"run {run.info.run_id}", add_run(storage, base, run)) for run in runs]
    return results[-1]


def _run_at(storage: Storage, uri: str) -> Run:
    run = find_run(storage, uri)
    if run is None:
        open_run(storage, uri)  # says what is there instead
        raise ManifestError(f"{uri} is a collection; runs are added, such as those of its runs/")
    if run.info.footer.boxes_only:
        raise ManifestError(f"{uri} has boxes alone, and a collection keeps masks")
    return run


def _would_add(storage: Storage, base: str, run: Run) -> dict[str, str | int]:
    now = find_collection(storage, base)
    held = now.holds(app_id_of_run(run)) if now else None
    if now and held is None:
        check_run(now, run)
    known = _image_ids(now) if now else pa.array([], pa.string())
    rows = sum(part.rows for part in run.parts)
    there = sum(
        pc.sum(pc.is_in(read_part(storage, run, part, columns=["image_id"])["image_id"], value_set=known)).as_py() or 0
        for part in run.parts
    )
    return {
        "collection": base,
        "run": f"{run.info.run_id} of {run.uri}",
        "images": rows,
        "new": rows - there,
        "there already": f"{there}; the newer row of each stays, and a human's before a model's",
        "committed": "no" if held is None else f"in version {held}: nothing to do",
    }


def _image_ids(now: Collection) -> pa.Array:
    tables = [now.columns(file, ["image_id"]) for file in now.files]
    return pa.concat_tables(tables)["image_id"].combine_chunks() if tables else pa.array([], pa.string())


def _publish(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    night = open_night(storage, base, night_of_run(config.words[0]))
    version = version_with(find_collection(storage, base), night.name)
    if version is None and is_discarded(storage, base, night.name):
        raise ManifestError(
            f"night {night.name} was discarded: its images are labelled by the nights after it. To have its masks all "
            f"the same: segjobs collection add {night.run_uri} collection.uri={base}"
        )
    if dry_run:
        return _would(night, {"committed": "no" if version is None else f"in version {version}: nothing to do"})
    return _committed(config, base, f"night {night.name}", commit_night(storage, night))


def _discard(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    night = open_night(storage, base, night_of_run(config.words[0]))
    version = version_with(find_collection(storage, base), night.name)
    if version is not None:
        raise ManifestError(
            f"night {night.name} is in version {version}; segjobs collection restore VERSION takes versions back"
        )
    before = is_discarded(storage, base, night.name)
    if dry_run:
        return _would(night, {"discarded": "before: nothing to do" if before else "no"})
    new = discard(storage, night)
    what = f"night {night.name} is discarded: its images are new again to the next night"
    line = what if new else f"nothing to do: night {night.name} was discarded before"
    return _told(config, base, [line], {"night": night.name, "new": new})


def _would(night: Night, about: Mapping[str, str]) -> DryRun:
    return DryRun(({"collection": night.uri, "night": night.name, "images": _listed(night.counts), **about},))


def _restore(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    old, now = open_collection(storage, f"{base}@{config.words[0]}"), open_collection(storage, base)
    found, strange = _taken_back(old, now)
    back = strange or (_listed(found.counts) if found.counts else "nothing")
    if found.human:
        back += f"; of these {found.human} are people's masks, which version {now.version} keeps"
    if dry_run:
        return DryRun(({"collection": base, "now": now.version, "restore": old.version, "taken back": back},))
    if found.counts or strange:
        now.restore(old.version)
    version = open_collection(storage, base).version
    line = f"version {version} is as version {old.version}: taken back: {back}"
    figures = {"version": version, "taken_back": dict(found.counts), "of_people": found.human}
    return _told(config, base, [line], figures)


def _taken_back(old: Collection, now: Collection) -> tuple[Difference, str]:
    """What the newer version has; or why that is not known, where another tool has written to it."""
    try:
        len(now.files)
    except ManifestError as error:
        return Difference(), f"what another tool has written: {error}"
    return difference(old, now), ""


def _compact(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    now = open_collection(storage, base)
    if dry_run:
        joined = sum(step.old is not None for step in compaction(now))
        return DryRun(({"collection": base, "files": len(now.files), "files to join": joined},))
    for _ in range(_ATTEMPTS):
        done = now.attempt(compaction(now), now.footer, "OPTIMIZE", {}, app_id=None)
        if done is not None:
            return _committed(config, base, "compaction", done)
        now = open_collection(storage, base)
    raise ManifestError(f"{base}: others commit all the time; run the command again when they are done")


def _vacuum(config: CollectionConfig, storage: Storage, base: str, dry_run: bool) -> CollectionResult | DryRun:
    now = open_collection(storage, base)
    names = unneeded(now, keep=timedelta(days=min(config.keep_days, _LONGEST_DAYS)), at=datetime.now(UTC))
    if dry_run:
        about = f"{len(names)}; versions of more than {config.keep_days:g} days ago can no longer be read after it"
        return DryRun(({"collection": base, "deletes": about, "such as": ", ".join(names[:3])},))
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda name: storage.delete(join(masks_uri(base), name)), names))
    line = f"{len(names)} files deleted that no version of the last {config.keep_days:g} days has"
    return _told(config, base, [line], {"files_deleted": len(names), "keep_days": config.keep_days})


_DOES: dict[str, Callable[[CollectionConfig, Storage, str, bool], CollectionResult | DryRun]] = {
    "status": _status,
    "history": _history,
    "diff": _diff,
    "add": _add,
    "publish": _publish,
    "discard": _discard,
    "restore": _restore,
    "compact": _compact,
    "vacuum": _vacuum,
}
