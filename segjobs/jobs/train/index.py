"""Which images a model learns from: manifests in, an index of their rows out, and one row read by its place.

    data.uri, data.mix, validation.uri → Source (run, classes) ─→ tasks: scan parts ─→ Index
    place in the Index → part → segments, image → Example

The index holds three numbers an image; ids, masks and pixels stay in the parts and are read where they are used.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.config import SourceConfig, nearest
from segjobs.errors import ConfigError, ManifestError
from segjobs.jobs.engine.ray_errors import own_error
from segjobs.labels.splits import split_by_shares
from segjobs.manifest.parts import Run, footer_of, open_run, read_part
from segjobs.manifest.schema import Category, Task
from segjobs.narrow import is_object
from segjobs.storage import Storage
from segjobs.training.examples import ExampleSource

_SCAN_COLUMNS = ("image_id", "status", "width", "height", "confidence", "segments")
_PARTS_PER_TASK = 16


@dataclass(frozen=True)
class Index:
    """``rows``: int32 (N, 3), the source, part and row of each image, in this order.

    ``amounts``: int64 (C,), labelled pixels (semantic) or objects (instance) of each class. ``left_out``: reason →
    (images, one of them).
    """

    rows: np.ndarray
    amounts: np.ndarray
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)


# --- classes ------------------------------------------------------------------------------------


def open_source(key: str, config: SourceConfig, storage: Storage, task: Task) -> Run:
    """The finished manifest. Raises ManifestError, or ConfigError where its masks do not suit a model of ``task``."""
    run = open_run(storage, config.uri)
    if footer_of(run).boxes_only:
        raise ConfigError(f"{key}: {config.uri} has boxes alone, and a training needs masks; name labels with masks")
    made_from = run.info.config.get("input")
    if is_object(made_from) and made_from.get("uri", "") is None:
        raise ConfigError(
            f"{key}: {config.uri} was prepared without photographs (input.uri=null), which a training looks at; "
            "prepare its labels with input.uri"
        )
    kind = footer_of(run).task
    if kind != task and kind != "panoptic":
        mend = (
            "its masks do not say what lies between objects: prepare the labels with labels.task=semantic"
            if task == "semantic"
            else "its masks do not tell objects apart: prepare labels of objects (coco, yolo, labelme, instance_ids)"
        )
        raise ConfigError(
            f"{key}: {config.uri} is a manifest of {kind} masks, and the model gives {task} ones; {mend}, "
            f"or choose a model.name of the {kind} kind"
        )
    return run


def class_list(run: Run, rename: Mapping[str, str | None], names: Sequence[str] | None, task: Task) -> list[Category]:
    """The classes to learn, in channel order: ``names``, else the manifest's under their new names; with its colours.

    Raises ConfigError where a name is none of the manifest's.
    """
    found: dict[str, Category] = {}
    categories = _learnable(run, task)
    unknown = sorted(rename.keys() - {category.name for category in categories})
    if unknown:
        known = nearest(unknown[0], [category.name for category in categories])
        raise ConfigError(f"classes.{unknown[0]}: no class of {run.uri}; {known}")
    for category in categories:
        name = rename.get(category.name, category.name)
        if name is not None:
            found.setdefault(name, Category(category.id, name, category.color))
    strange = [name for name in names or () if name not in found]
    if strange:
        raise ConfigError(
            *(f"model.categories: {name!r} is no class of {run.uri}; {nearest(name, found)}" for name in strange)
        )
    chosen = [found[name] for name in names or found]
    if len(chosen) < (2 if task == "semantic" else 1):
        raise ConfigError(f"data.uri: {run.uri} has {len(chosen)} class(es); a {task} model needs more to tell apart")
    return chosen


def class_index(
    key: str, run: Run, rename: Mapping[str, str | None], names: Sequence[str], task: Task
) -> dict[int, int | None]:
    """Category id → class of the model. Raises ConfigError for a class that the model does not have."""
    place = {name: number for number, name in enumerate(names)}
    index: dict[int, int | None] = {category.id: None for category in footer_of(run).categories}
    problems = []
    for category in _learnable(run, task):
        name = rename.get(category.name, category.name)
        if name is not None and name not in place:
            problems.append(
                f"{key}: {run.uri} has a class {category.name!r}, which the model has not ({nearest(name, place)}); "
                f"set classes.{category.name}=<one of the model's, or null to leave its pixels unlabelled>"
            )
        index[category.id] = place.get(name) if name is not None else None
    if problems:
        raise ConfigError(*problems)
    return index


def _learnable(run: Run, task: Task) -> list[Category]:
    """An instance model learns the things of panoptic labels; stuff is background to it."""
    return [one for one in footer_of(run).categories if task == "semantic" or one.isthing is not False]


def by_origin(sources: Iterable[ExampleSource]) -> list[ExampleSource]:
    """The sources; one whose persons' masks have a weight of their own as two, by origin, each of its own weight."""
    found: list[ExampleSource] = []
    for source in sources:
        config = source.config
        human = config.model_copy(update={"origin": "human", "weight": config.weight * config.human_weight})
        if config.human_weight == 1:
            found.append(source)
        elif config.origin == "human":
            found.append(replace(source, config=human))
        else:
            model = config.model_copy(update={"origin": "model"})
            found += [replace(source, config=one, half=True) for one in (human, model)]
    return found


# --- index --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """How a model of ``task`` is shown images: after its card's rule ``resize``."""

    task: Task
    resize: str

    def is_too_long(self, size_hw: tuple[int, int]) -> bool:
        """Whether it cannot be shown an image of this size."""
        from segjobs.models.resize import is_long_strip

        return self.task == "semantic" and is_long_strip(self.resize, size_hw)


def make_index(
    sources: Sequence[ExampleSource],
    storage: Storage,
    shown: Shown,
    *,
    classes: int,
    share: float,
    scored: str = "any",
) -> tuple[Index, Index]:
    """Scan the sources' parts in tasks: the images to learn from, and those of the first manifest in ``share``.

    The share is held back from every source, so that no image is both learnt and scored; of it only images of the
    origin ``scored`` are kept. Raises the SegjobsError of a task.
    """
    chunks = [
        (number, source, range(start, min(start + _PARTS_PER_TASK, len(source.run.parts))))
        for number, source in enumerate(sources)
        for start in range(0, len(source.run.parts), _PARTS_PER_TASK)
    ]
    scan = ray.remote(num_cpus=1)(_scan_parts)
    try:
        tasks = [scan.remote(source, parts, storage, shown, (share, scored)) for _, source, parts in chunks]
        scanned = ray.get(tasks)
    except RayError as error:
        raise own_error(error) or error from error
    sides = []
    for held in (False, True):
        rows, amounts, left_out = [], np.zeros(classes, np.int64), {}
        for (number, source, _), found in zip(chunks, scanned, strict=True):
            for one in found:
                leading = number == 0 or (number == 1 and source.half and sources[0].half)
                if one.held == held and (leading or not held):
                    rows.append(
                        np.stack([np.full_like(one.row, number), np.full_like(one.row, one.part), one.row], axis=1)
                    )
                    amounts += np.bincount(one.classes, one.weights, classes).astype(np.int64)
                    for reason, (count, example) in one.left_out.items():
                        before, first = left_out.get(reason, (0, example))
                        left_out[reason] = (before + count, first)
        found_rows = np.concatenate(rows) if rows else np.zeros((0, 3), np.int32)
        if held:  # halves of one manifest follow each other
            found_rows = found_rows[np.lexsort((found_rows[:, 2], found_rows[:, 1]))]
        sides.append(Index(found_rows, amounts, left_out))
    return sides[0], sides[1]


@dataclass(frozen=True)
class _Scanned:
    """One side of a part. ``row``: int32 (N,), rows that are kept; ``classes``, ``weights``: of their segments."""

    part: int
    held: bool
    row: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    left_out: dict[str, tuple[int, str]]


def _scan_parts(
    source: ExampleSource, parts: range, storage: Storage, shown: Shown, holding: tuple[float, str]
) -> list[_Scanned]:
    return [one for part in parts for one in _scan(source, part, storage, shown, holding)]


def _scan(
    source: ExampleSource, part: int, storage: Storage, shown: Shown, holding: tuple[float, str]
) -> Iterable[_Scanned]:
    share, scored = holding
    columns = _SCAN_COLUMNS if source.run.table is None else (*_SCAN_COLUMNS, "origin")
    table = read_part(storage, source.run, source.run.parts[part], columns=columns)
    image_ids = table["image_id"].to_pylist()
    row, classes, areas = _used_segments(table["segments"].combine_chunks(), source)
    reasons = _reasons(table, np.bincount(row, minlength=len(image_ids)) == 0, source, shown)
    held = np.zeros(len(image_ids), bool)
    if share:
        held = split_by_shares(image_ids, {"learnt": 1 - share, "held": share}, None).members["held"]
    origins = _origins(table, source)
    asked = np.isin(origins, ["human", "model"] if source.config.origin == "any" else [source.config.origin])
    for side in (False, True) if share else (False,):
        here = held == side if not source.half else (held == side) & asked
        wanted = asked & (origins == scored) if side and scored != "any" else asked
        why = np.where((reasons == "") & ~wanted, np.char.add("with masks of origin ", origins), reasons)
        kept = here & (why == "")
        left_out = {
            reason: (int((here & (why == reason)).sum()), image_ids[int(np.argmax(here & (why == reason)))])
            for reason in np.unique(why[here]).tolist()
            if reason
        }
        taken = kept[row]
        weights = areas[taken] if shown.task == "semantic" else np.ones(taken.sum(), np.int64)
        yield _Scanned(part, side, np.flatnonzero(kept).astype(np.int32), classes[taken], weights, left_out)


def _origins(table: pa.Table, source: ExampleSource) -> np.ndarray:
    """Whose the masks of each image are, human or model: as a collection says, else as the whole manifest is."""
    if source.run.table is None:
        return np.full(table.num_rows, "human" if source.run.info.model_label is None else "model")
    return np.array(table["origin"].to_pylist(), str)


def _reasons(table: pa.Table, empty: np.ndarray, source: ExampleSource, shown: Shown) -> np.ndarray:
    """Why each image is left out, as text; empty where it is not."""
    confidence = table["confidence"].to_numpy().astype(np.float64)  # null becomes NaN, which no bound excludes
    least = source.config.min_confidence
    sizes = zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True)
    conditions = {
        "failed in the manifest": np.array(table["status"].to_pylist()) != "ok",
        f"confidence below {least:g}": confidence < least,
        "without a labelled pixel": empty & (shown.task == "semantic"),
        f"too long a strip for model.resize={shown.resize}": np.array(
            [height is not None and shown.is_too_long((height, width)) for height, width in sizes], bool
        ),
    }
    return np.select(list(conditions.values()), list(conditions), "")


def _used_segments(segments: pa.ListArray, source: ExampleSource) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, class and area of each segment of a class that is learnt and of enough score, (K,) each."""
    lengths = segments.value_lengths().fill_null(0).to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    flat: pa.StructArray = segments.flatten()
    category, area = flat.field("category_id").to_numpy(), flat.field("area").to_numpy().astype(np.int64)
    score = flat.field("score").to_numpy(zero_copy_only=False)  # other tools' labels may have none: NaN
    known, place = np.unique(category, return_inverse=True)
    _check_known(known.tolist(), source)
    classes = np.array([-1 if (index := source.index[one]) is None else index for one in known.tolist()], np.int64)
    classes = classes[place] if known.size else np.zeros(0, np.int64)
    used = (classes >= 0) & ~(score < source.config.min_score)
    return row[used], classes[used], area[used]


def _check_known(category_ids: Iterable[int], source: ExampleSource) -> None:
    unknown = [one for one in category_ids if one not in source.index]
    if unknown:
        raise ManifestError(f"{source.key}: {source.run.uri}: category id {unknown[0]} is not in its categories")


# --- one image ----------------------------------------------------------------------------------
