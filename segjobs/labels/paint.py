"""Objects painted to one class a pixel (``labels.task=semantic``): an adapter's labels of objects in, of classes out.

Larger objects lie under smaller ones, of equal ones the earlier under the later. Pixels that no object covers are of
``labels.background``, or unlabelled where that is null; a background that no object has becomes a class of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from segjobs.config import LabelsConfig
from segjobs.labels.base import LabelReader, Labels, Masks
from segjobs.manifest.rle import VOID, encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment, stack


def as_task(labels: Labels, config: LabelsConfig) -> Labels:
    """Labels of objects, as objects or, with ``labels.task=semantic``, as classes."""
    if config.task != "semantic":
        return labels
    categories = labels.categories
    background = next((one for one in categories if one.name == config.background), None)
    if config.background is not None and background is None:
        used = {one.id for one in categories}
        background = Category(next(n for n in range(len(used) + 1) if n not in used), config.background, (0, 0, 0))
        categories = (background, *categories)
    read = partial(_painted, read=labels.read, categories=categories, background=background)
    return replace(labels, task="semantic", categories=categories, read=read)


def _painted(
    text: str,
    size_hw: tuple[int, int],
    *,
    read: LabelReader,
    categories: tuple[Category, ...],
    background: Category | None,
) -> Masks:
    masks = read(text, size_hw)
    return replace(masks, segments=painted(masks.segments, size_hw, categories, background=background))


def painted(
    segments: Sequence[Segment],
    size_hw: tuple[int, int],
    categories: Sequence[Category],
    *,
    background: Category | None = None,
) -> list[Segment]:
    """One segment per class that is seen, by the order of ``categories``."""
    index = {category.id: place for place, category in enumerate(categories)}
    canvas = np.full(size_hw, VOID if background is None else index[background.id], np.uint16)
    for place in stack(segments, "area"):
        canvas[segments[place].mask()] = index[segments[place].category_id]
    return [Segment.from_region(categories[region.index], region, size_hw) for region in encode_label_map(canvas)]
