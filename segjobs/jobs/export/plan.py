"""What an export is of: config and manifest in; the writers' setting, the tasks and the plan that names them out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import cast

from segjobs import __version__
from segjobs.config import ExportConfig, digest, later, nearest
from segjobs.errors import ConfigError, ConflictError, ManifestError
from segjobs.exporters.base import Exporter, Setting
from segjobs.exporters.file_names import same_stem, unusual_names
from segjobs.jobs.engine.standing import differences, differing, read_standing_json, unlike
from segjobs.jobs.export.documents import PublishedFile
from segjobs.jobs.export.parts import Span
from segjobs.jobs.export.summary import ExportReport
from segjobs.labels.json_text import parse_json
from segjobs.manifest.parts import Run, footer_of, list_parts, part_uri
from segjobs.manifest.seal import damaged, open_table
from segjobs.storage import Storage, join

PLAN, REPORT = "plan.json", "export.json"


def make_setting(config: ExportConfig, run: Run) -> Setting:
    """What the writers need of a manifest and a config. Raises ConfigError where they do not fit."""
    footer = footer_of(run)
    by_name = {category.name: category for category in footer.categories}
    wanted = list(by_name) if config.categories is None else config.categories
    problems = [
        f"categories: {name!r} is no class of it; {nearest(name, by_name)}" for name in wanted if name not in by_name
    ]
    problems += [f"categories: {name!r} is named twice" for name in sorted({n for n in wanted if wanted.count(n) > 1})]
    if config.components and footer.task != "semantic":
        problems.append(f"components: {config.manifest.uri} is {footer.task}: its segments are objects already")
    if problems:
        raise ConfigError(*problems)
    categories = tuple(by_name[name] for name in wanted)
    about = {
        "description": f"{footer.task} masks of {run.uri}",
        "version": f"segjobs {__version__}",
        "run_id": run.info.run_id,
    }
    ids = {category.id: category.id for category in categories}
    return Setting(footer.task, categories, ids, config, about, by_model=footer.model is not None)


def numbering(
    storage: Storage, uri: str, image_ids: Sequence[str], setting: Setting
) -> tuple[dict[str, int], dict[int, int]]:
    """The ids that a COCO JSON gives to images (by ``file_name``) and categories (by name).

    Where not one path agrees, bare file names decide. Raises ConfigError where nothing matches, or a class is
    missing there; an image that it does not list is left to fail by itself.
    """
    try:
        raw = parse_json(storage.read(uri))
        files = {str(entry["file_name"]): int(entry["id"]) for entry in raw["images"]}
        classes = {str(entry["name"]): int(entry["id"]) for entry in raw["categories"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"ids_from: {uri}: expected COCO JSON with images and categories: {error!r}") from None
    known = [category.name for category in setting.categories if category.name not in classes]
    if known:
        raise ConfigError(*(f"ids_from: {uri} has no class {name!r}; {nearest(name, classes)}" for name in known))
    found = {image_id: files[image_id] for image_id in image_ids if image_id in files}
    if not found:
        bare = Counter(name.rpartition("/")[2] for name in files)
        by_bare = {name.rpartition("/")[2]: number for name, number in files.items()}
        own = Counter(image_id.rpartition("/")[2] for image_id in image_ids)
        found = {
            image_id: by_bare[name]
            for image_id in image_ids
            if (name := image_id.rpartition("/")[2]) in by_bare and bare[name] == own[name] == 1
        }
    if image_ids and not found:
        raise ConfigError(f"ids_from: {uri}: no file_name is an image_id, such as {image_ids[0]!r}")
    return found, {category.id: classes[category.name] for category in setting.categories}


def make_spans(run: Run, image_ids: Sequence[str], exporter: Exporter, numbers: dict[str, int] | None) -> list[Span]:
    """The tasks of an export, one per part of the manifest."""
    unusual = unusual_names(image_ids, suffix=exporter.suffix) if exporter.folder else {}
    shared = same_stem(image_ids) if exporter.by_stem else set()
    starts = accumulate((part.rows for part in run.parts), initial=0)
    spans = []
    for index, (part, start) in enumerate(zip(run.parts, starts, strict=False)):
        members = image_ids[start : start + part.rows]
        own = None if numbers is None else {i: numbers[i] for i in members if i in numbers}
        names = {i: unusual[i] for i in members if i in unusual}
        spans.append(Span(index, part, start + 1, names, [i for i in members if i in shared], own))
    return spans


def make_plan(config: ExportConfig, run: Run, setting: Setting, numbers: dict[str, int] | None) -> dict[str, object]:
    """What the export is of: the same plan gives the same files."""
    settings = config.model_dump(mode="json", include={"format", "categories", "components", *_own_settings(config)})
    if numbers is not None:
        settings["ids_from"] = digest(sorted(numbers.items()), sorted(setting.ids.items()))
    source = {"run_id": run.info.run_id, "parts_digest": digest([part.sha256 for part in run.parts])}
    return {"verb": "export", "manifest": source, **settings, **later(config, "coco.segmentation")}


def _own_settings(config: ExportConfig) -> set[str]:
    return {config.format} & set(ExportConfig.model_fields)


def adopt(storage: Storage, uri: str, plan: dict[str, object], *, overwrite: bool = False) -> dict[str, object] | None:
    """The report of the same export where it is finished, else None.

    Another one that is finished is taken away where ``overwrite``. Raises ConflictError for anything else there.
    """
    standing = read_standing_json(storage, join(uri, PLAN))
    if standing is None:
        if storage.exists(join(uri, "plan.parquet")) or list_parts(storage, uri):
            raise ConflictError(f"{uri} holds a manifest: choose another output.uri for its export")
        return None
    report = read_standing_json(storage, join(uri, REPORT))
    if report is not None and (lacking := sorted(ExportReport.__required_keys__ - report.keys())):
        raise damaged(join(uri, REPORT), f"no key {lacking[0]!r}", mend="choose a new output.uri")
    lost = [path for path in _paths_of(report) if not storage.exists(join(uri, path))] if report else []
    if report is not None and overwrite and (lost or differing(standing, plan)):
        remove(storage, uri, report)
        return None
    if lines := differences(standing, plan, deep=True):
        ways = "" if report is None else "; overwrite=true replaces it"
        raise unlike(f"{uri} holds another export", lines, f"one{ways}", finished=report is not None)
    if lost:
        raise ManifestError(
            f"{join(uri, lost[0])}: {REPORT} names it, and it is not there; overwrite=true exports anew"
        )
    return report


def remove(storage: Storage, uri: str, report: Mapping[str, object]) -> None:
    """Take a finished export away: the files that it wrote, and no other. What tells that it stands goes last."""
    for number in sorted(list_parts(storage, uri)):
        where = part_uri(uri, number)
        rows = open_table(storage.read(where), where, mend="choose a new output.uri", columns=["file"])
        for path in rows["file"].to_pylist():
            if path is not None:
                storage.delete(join(uri, path))
        storage.delete(where)
    for path in (*_paths_of(report), REPORT, PLAN):
        storage.delete(join(uri, path))


def _paths_of(report: Mapping[str, object]) -> list[str]:
    """The documents that a report names."""
    return [file["path"] for file in cast("list[PublishedFile]", report["files"])]
