"""What an export is of: config and manifest in; the writers' setting, the tasks and the plan that names them out."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import pyarrow as pa

from segjobs import __version__
from segjobs.config import ExportConfig, digest, nearest
from segjobs.errors import ConfigError, ConflictError, ManifestError
from segjobs.exporters.base import Exporter, Setting
from segjobs.exporters.file_names import same_stem, unusual_names
from segjobs.jobs.engine.standing import differences, read_standing_json
from segjobs.jobs.export.parts import Span
from segjobs.manifest.parts import Run, footer_of, list_parts
from segjobs.manifest.plan import read_plan
from segjobs.storage import Storage, join


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
        raw = json.loads(storage.read(uri))
        files = {str(entry["file_name"]): int(entry["id"]) for entry in raw["images"]}
        classes = {str(entry["name"]): int(entry["id"]) for entry in raw["categories"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
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


def image_ids_of(storage: Storage, run: Run) -> list[str]:
    """Every image_id of a manifest, in order, from its plan: one small file instead of every part."""
    uri = join(run.uri, "plan.parquet")
    try:
        image_ids = read_plan(storage.read(uri))[0].items["image_id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"{uri}: cannot be read ({error}); it lists the manifest's images") from error
    if len(image_ids) != sum(part.rows for part in run.parts):
        raise ManifestError(f"{uri}: {len(image_ids)} images, run.json has {sum(part.rows for part in run.parts)}")
    return image_ids


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
    return {"verb": "export", "manifest": source, **settings}


def _own_settings(config: ExportConfig) -> set[str]:
    return {config.format} & set(ExportConfig.model_fields)


def adopt(storage: Storage, uri: str, plan: dict[str, object]) -> dict[str, object] | None:
    """The report of the same export where it is finished, else None. Raises ConflictError for anything else there."""
    standing = read_standing_json(storage, join(uri, "plan.json"))
    if standing is None:
        if storage.exists(join(uri, "plan.parquet")) or list_parts(storage, uri):
            raise ConflictError(f"{uri} holds a manifest: choose another output.uri for its export")
        return None
    if lines := differences(standing, plan):
        raise ConflictError(f"{uri} holds another export: {'; '.join(lines)}. Choose a new output.uri")
    return read_standing_json(storage, join(uri, "export.json"))
