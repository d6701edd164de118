"""Maps of class colours (RGB PNG or palette): pixels in, manifest segments out.

    LabelsConfig → color_table → which colour is which class
    decoded colours + table → masks_of → one segment per class present

The colours are labels.colors, in the order of labels.categories, or those of labels.table.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError
from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, policy_of, read_label
from segjobs.labels.class_tables import (
    BUILT_IN,
    UNKNOWN,
    ClassTable,
    Color,
    built_in_categories,
    masks_from_indices,
    name_problems,
    repeated,
)
from segjobs.manifest.rle import VOID
from segjobs.manifest.schema import Category
from segjobs.sources.label_map import decode_color_map
from segjobs.storage import Storage


@dataclass(frozen=True)
class ColorTable:
    """What each colour means: the table's categories are drawn in their ``color``; ``void``: unlabelled."""

    table: ClassTable
    void: tuple[Color, ...]

    @cached_property
    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes of known colours, int32 ascending, and the index of each, uint16 (``VOID`` where void)."""
        colors = [*(category.color for category in self.table.categories), *self.void]
        codes = np.array([_code(color) for color in colors], np.int32)
        indices = np.array([*range(len(self.table.categories)), *([VOID] * len(self.void))], np.uint16)
        order = np.argsort(codes)
        return codes[order], indices[order]


def rgb_labels(request: LabelRequest) -> Labels:
    """Adapter of ``rgb``: the text of an image is the URI of its colour map."""
    colors = color_table(request.config)
    files = match_files(request, (".png", ".tif", ".tiff", ".bmp", ".gif"))
    read = partial(_read, storage=request.storage, colors=colors, max_pixels=request.max_pixels)
    return Labels("semantic", colors.table.categories, files.uris, read, files.digest, files.leftovers)


def color_table(labels: LabelsConfig) -> ColorTable:
    """The colours of a config. Raises ConfigError with every contradiction in it."""
    void = tuple(_color(color) for color in labels.void_colors)
    if labels.table is not None:
        categories = built_in_categories(BUILT_IN[labels.table])
        void = void or BUILT_IN[labels.table].void_colors
    else:
        names, colors = labels.categories or [], labels.colors or []
        problems = name_problems(labels)
        if names and len(colors) != len(names):
            problems.append(f"labels.colors: {len(colors)} for {len(names)} labels.categories; expected one a name")
        if problems:
            raise ConfigError(*problems)
        categories = tuple(
            Category(number, name, _color(color))
            for number, (name, color) in enumerate(zip(names, colors, strict=True))
        )
    twice = repeated([*(category.color for category in categories), *void])
    if twice:
        raise ConfigError(f"labels.colors: {list(twice[0])} is given twice; each colour means one thing")
    policy = policy_of(labels, categories)
    return ColorTable(ClassTable(categories, (), labels.unknown, unknown_class=policy.unknown_class), void)


def _color(values: list[int]) -> Color:
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise ConfigError(f"labels.colors: {values}: expected r, g, b of 0 to 255")
    return values[0], values[1], values[2]


def _read(uri: str, size_hw: tuple[int, int], *, storage: Storage, colors: ColorTable, max_pixels: int) -> Masks:
    pixels = decode_color_map(read_label(storage, uri), max_pixels=max_pixels)
    check_size(pixels.shape[:2], size_hw)
    return masks_of(pixels, colors)


def masks_of(pixels: np.ndarray, colors: ColorTable) -> Masks:
    """uint8 (H, W, 3) → one segment per class present. Raises UnknownId where colours are unknown and fail."""
    codes = pixels[..., 0].astype(np.int32) << 16 | pixels[..., 1].astype(np.int32) << 8 | pixels[..., 2]
    known, indices = colors.codes
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    found = np.where(known[places] == codes, indices[places], np.uint16(UNKNOWN))
    return masks_from_indices(found, colors.table, values_of=lambda unknown: _counted(codes[unknown]))


def _counted(codes: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(codes, return_counts=True)
    texts = [f"({value >> 16}, {value >> 8 & 255}, {value & 255})" for value in values.tolist()]
    return dict(zip(texts, counts.tolist(), strict=True))


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
