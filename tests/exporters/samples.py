"""Labelled images for tests of the writers: drawn masks in, what a writer is given out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segjobs.config import ExportConfig
from segjobs.exporters.base import Labelled, Setting
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment
from tests.manifests import segment_of

CAT, DOG, SKY = Category(3, "cat", (255, 0, 0)), Category(7, 'dog "é"', (0, 128, 0)), Category(1, "sky", (0, 0, 255))
CATEGORIES = (CAT, DOG, SKY)

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
LABEL_MAPS = SIZES.flatmap(lambda size: arrays.arrays(np.int8, size, elements=st.integers(-1, 2)))
"""Positions in ``CATEGORIES``, -1 where no segment is; at most 12 x 12 pixels."""
MASKS = SIZES.flatmap(lambda size: arrays.arrays(bool, size)).filter(np.any)


@st.composite
def overlapping(draw: st.DrawFn) -> list[Segment]:
    """One to five segments of one image that may overlap, with scores, some of them crowds."""
    size = draw(SIZES)
    masks = draw(st.lists(arrays.arrays(bool, size).filter(np.any), min_size=1, max_size=5))
    return [
        segment_of(
            mask,
            draw(st.sampled_from(CATEGORIES)),
            score=draw(st.floats(0, 1, width=32)),
            iscrowd=draw(st.booleans()),
        )
        for mask in masks
    ]


def segments_of_map(ids: np.ndarray) -> list[Segment]:
    """A label map of positions in ``CATEGORIES`` → one segment per class."""
    return [segment_of(ids == k, CATEGORIES[k]) for k in range(len(CATEGORIES)) if (ids == k).any()]


def labelled(segments: Sequence[Segment], size_hw: tuple[int, int] | None = None, **keys: Any) -> Labelled:
    """One image; its size is that of its first segment."""
    height, width = size_hw or segments[0].size_hw
    image = {"number": 4, "image_id": "a/b.jpg", "uri": "/photos/a/b.jpg", "name": "a/b"}
    return Labelled(**{**image, "size_hw": (height, width), "segments": tuple(segments), **keys})


def setting(name: str, task: Task = "instance", *, by_model: bool = False, **config: Any) -> Setting:
    """A setting of all three categories."""
    whole = {"manifest": {"uri": "m"}, "format": name, "output": {"uri": "o"}, **config}
    ids = {category.id: category.id for category in CATEGORIES}
    about = {"description": "masks"}
    return Setting(task, CATEGORIES, ids, ExportConfig.model_validate(whole), about, by_model=by_model)


def mask_of(segment: Segment) -> np.ndarray:
    """A segment's pixels by this test's own reading of COCO's counts: bool (H, W)."""
    height, width = segment.size_hw
    lengths, value, shift, last = [], 0, 0, []
    for symbol in segment.counts.encode():
        bits = symbol - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (last[-2] if len(last) > 2 else 0))
            last.append(lengths[-1])
            value = shift = 0
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T
