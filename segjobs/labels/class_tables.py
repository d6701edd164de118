"""Class tables: what the values or colours of a label map's pixels mean. Config in, one checked table out.

LabelsConfig + the file of class names → with_class_names → LabelsConfig with its categories
LabelsConfig → class_table → ClassTable
pixel values + ClassTable → masks_from_indices → one segment per class present
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import yaml

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError
from segjobs.labels.base import Finding, Masks, UnknownId, policy_of, read_whole
from segjobs.manifest.rle import VOID, encode_label_map
from segjobs.manifest.schema import VOC_NAMES, Category, make_categories, palette_color
from segjobs.manifest.segments import Segment
from segjobs.storage import Storage, is_utf8
from segjobs.text import first_few

Value = TypeVar("Value")

LARGEST_ID = 65535  # of a 16-bit PNG
UNKNOWN = VOID - 1
"""In indices: this pixel's value is neither a class's nor void."""

Color = tuple[int, int, int]
Unknown = Literal["fail", "ignore", "void", "map"]


@dataclass(frozen=True)
class BuiltIn:
    """A published class table: per class its name, the pixel value of its label maps, and its colour."""

    names: tuple[str, ...]
    pixel_ids: tuple[int, ...]
    colors: tuple[Color, ...]
    void_ids: tuple[int, ...]
    void_colors: tuple[Color, ...]


# cityscapesScripts, helpers/labels.py: name, id, colour of the 19 classes that are scored, in order of trainId.
_CITYSCAPES: tuple[tuple[str, int, Color], ...] = (
    ("road", 7, (128, 64, 128)), ("sidewalk", 8, (244, 35, 232)), ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)), ("fence", 13, (190, 153, 153)), ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)), ("traffic sign", 20, (220, 220, 0)), ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)), ("sky", 23, (70, 130, 180)), ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)), ("car", 26, (0, 0, 142)), ("truck", 27, (0, 0, 70)), ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)), ("motorcycle", 32, (0, 0, 230)), ("bicycle", 33, (119, 11, 32)),
)  # fmt: skip
_CITYSCAPES_VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
# polegroup and license plate are left out: they share the colours of pole and car.
_CITYSCAPES_VOID_COLORS: tuple[Color, ...] = (
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (0, 0, 90), (0, 0, 110),
)  # fmt: skip
CITYSCAPES_THINGS = (24, 25, 26, 27, 28, 31, 32, 33)  # hasInstances, of the classes that are scored
_NAMES, _IDS, _COLORS = zip(*_CITYSCAPES, strict=True)
BUILT_IN: dict[str, BuiltIn] = {
    # VOCinit.m: the colour map is ``palette_color``; (224, 224, 192) draws the id 255.
    "voc": BuiltIn(VOC_NAMES, tuple(range(21)), tuple(map(palette_color, range(21))), (255,), ((224, 224, 192),)),
    "cityscapes_ids": BuiltIn(_NAMES, _IDS, _COLORS, _CITYSCAPES_VOID_IDS, _CITYSCAPES_VOID_COLORS),
    "cityscapes_train_ids": BuiltIn(_NAMES, tuple(range(19)), _COLORS, (255,), _CITYSCAPES_VOID_COLORS),
}
"""Both Cityscapes tables give the same categories, with the trainIds as ids: only their files differ."""


@dataclass(frozen=True)
class ClassTable:
    """What each pixel value means.

    ``pixel_ids``: the values of the categories' pixels; None where these are the categories' own ids.
    ``unknown``: a value that is neither a category's nor in ``void_ids`` fails the image, is void
    (``ignore``, ``void``), or belongs to ``unknown_class`` (``map``).
    """

    categories: tuple[Category, ...]
    void_ids: tuple[int, ...] = (255,)
    unknown: Unknown = "fail"
    pixel_ids: tuple[int, ...] | None = None
    unknown_class: Category | None = None

    @cached_property
    def index_of(self) -> np.ndarray:
        """uint16 (65537,): pixel value → position in ``categories``, ``VOID`` or ``UNKNOWN``."""
        table = np.full(LARGEST_ID + 2, UNKNOWN, np.uint16)
        table[list(self.void_ids)] = VOID
        table[list(self.pixel_ids or [category.id for category in self.categories])] = np.arange(len(self.categories))
        return table

    @property
    def unknown_index(self) -> int:
        """What unknown values become in a map of indices, unless they fail it."""
        return self.categories.index(self.unknown_class) if self.unknown_class else VOID


def class_table(labels: LabelsConfig) -> ClassTable:
    """The class table of a config. Raises ConfigError with every contradiction in it."""
    if labels.table is not None:
        return _built_in_table(labels, BUILT_IN[labels.table])
    names = labels.categories or []
    ids = list(range(len(names))) if labels.ids is None else labels.ids
    void_ids = [255] if labels.void_ids is None else labels.void_ids
    problems = name_problems(labels)
    if names and len(ids) != len(names):
        problems.append(f"labels.ids: {len(ids)} ids for {len(names)} labels.categories; expected one id per name")
    problems += [f"labels.ids: {pixel_id} is given twice; each class has one id" for pixel_id in repeated(ids)]
    problems += [
        f"labels.{key}: {pixel_id}: expected 0 to {LARGEST_ID}, the values of a PNG"
        for key, values in (("ids", ids), ("void_ids", void_ids))
        for pixel_id in values
        if not 0 <= pixel_id <= LARGEST_ID
    ]
    problems += [
        f"labels.void_ids: {pixel_id} is the id of class {name!r} too; take it out of one of the two"
        for name, pixel_id in zip(names, ids, strict=False)
        if pixel_id in void_ids
    ]
    if problems:
        raise ConfigError(*problems)
    categories = tuple(
        Category(pixel_id, category.name, category.color)
        for pixel_id, category in zip(ids, make_categories(names), strict=True)
    )
    policy = policy_of(labels, categories)
    return ClassTable(categories, tuple(void_ids), labels.unknown, unknown_class=policy.unknown_class)


def _built_in_table(labels: LabelsConfig, built_in: BuiltIn) -> ClassTable:
    categories = built_in_categories(built_in)
    void_ids = built_in.void_ids if labels.void_ids is None else tuple(labels.void_ids)
    clash = [pixel_id for pixel_id in void_ids if pixel_id in built_in.pixel_ids]
    if clash:
        raise ConfigError(f"labels.void_ids: {clash[0]} is an id of labels.table={labels.table}")
    policy = policy_of(labels, categories)
    return ClassTable(categories, void_ids, labels.unknown, built_in.pixel_ids, policy.unknown_class)


def built_in_categories(built_in: BuiltIn) -> tuple[Category, ...]:
    """The categories of a built-in table, numbered from 0."""
    return tuple(
        Category(number, name, color)
        for number, (name, color) in enumerate(zip(built_in.names, built_in.colors, strict=True))
    )


def name_problems(labels: LabelsConfig) -> list[str]:
    """What is wrong with ``labels.categories`` as a list of names."""
    names = labels.categories or []
    problems = []
    if not names:
        problems.append(
            f"labels.categories: missing; {labels.format} labels need class names, such as [background, cat]"
        )
    return problems + [
        f"labels.categories: {name!r} is named twice; each class has one name" for name in repeated(names)
    ]


def named_categories(labels: LabelsConfig, *, first_color: int = 0) -> tuple[Category, ...]:
    """``labels.categories`` numbered from 0, coloured from ``first_color`` of the palette. Raises ConfigError.

    Objects are coloured from 1 on: colour 0 is black, the background's, which is no object.
    """
    problems = name_problems(labels)
    if problems:
        raise ConfigError(*problems)
    return tuple(
        Category(number, name, palette_color(number + first_color))
        for number, name in enumerate(labels.categories or ())
    )


def with_class_names(labels: LabelsConfig, storage: Storage) -> LabelsConfig:
    """The config with the names of ``labels.class_file`` as its categories. Raises ConfigError."""
    if labels.class_file is None:
        return labels
    return labels.model_copy(update={"categories": _names_in(labels.class_file, storage)})


class _Texts(yaml.BaseLoader):
    """Every scalar a text; of two equal keys none is lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key stands there twice", problem_mark=node.start_mark)
        return mapping


def _names_in(uri: str, storage: Storage) -> list[str]:
    data = read_whole(storage, uri, "labels.class_file")
    try:
        text = data.decode("utf-8-sig")
        if not uri.lower().endswith((".yaml", ".yml")):
            return [line.strip() for line in text.split("\n") if line.strip()]
        # Every scalar a text: a class that is called 0, no or 2020-01-01 keeps its name.
        raw = yaml.load(text, Loader=_Texts)  # noqa: S506  # makes texts, lists and dicts alone
    except (ValueError, OverflowError, yaml.YAMLError, RecursionError) as error:  # of characters beyond Unicode too
        what = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"labels.class_file: {uri}: not readable: {what}") from None
    names = raw.get("names") if isinstance(raw, dict) else None
    if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name and is_utf8(name) for name in names):
        raise ConfigError(f"labels.class_file: {uri}: expected 'names', a list of texts or a table of 0, 1, 2, …")
    return names


def masks_from_indices(
    indices: np.ndarray, table: ClassTable, *, values_of: Callable[[np.ndarray], dict[str, int]]
) -> Masks:
    """Class indices, uint16 (H, W) with ``VOID`` and ``UNKNOWN``, → one segment per class present.

    ``values_of``: bool (H, W) of unknown pixels → their values as texts, with their pixel counts.
    Raises UnknownId where the table fails unknown values and there are any.
    """
    findings: tuple[Finding, ...] = ()
    strangers = indices == UNKNOWN
    if strangers.any():
        findings = unknown_ids(values_of(strangers), table)
        indices = np.where(strangers, np.uint16(table.unknown_index), indices)
    size_hw = (indices.shape[0], indices.shape[1])
    regions = encode_label_map(indices, void=VOID)
    return Masks([Segment.from_region(table.categories[one.index], one, size_hw) for one in regions], findings)


def unknown_ids(values: Mapping[str, int], table: ClassTable) -> tuple[Finding, ...]:
    """What is found of values that are neither class nor void, with their pixels. Raises UnknownId by the table."""
    if not values:
        return ()
    found = ", ".join(first_few([f"{value} ({count} px)" for value, count in values.items()]))
    if table.unknown == "fail":
        raise UnknownId(
            "LABEL_VALUE",
            f"ids {found} are neither in labels.ids nor in labels.void_ids; "
            "labels.unknown=ignore takes them as unlabelled",
        )
    fate = f"taken as {table.unknown_class.name!r}" if table.unknown_class else "taken as unlabelled"
    return (Finding("unknown_ids", len(values), f"ids {found}: {fate}"),)


def repeated(values: Sequence[Value]) -> list[Value]:
    """The values that stand in a list before, each time they do."""
    return [value for position, value in enumerate(values) if values.index(value) < position]
