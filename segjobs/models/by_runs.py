"""A batch's raw outputs → each image's segments by the runs of its masks, where nobody looks at their pixels.

    label maps      runs ─→ checked ─→ segments_of_runs
    objects         object_runs ─→ checked ─→ segments_of_objects

The segments are those of ``to_segments`` of each image's ``postprocess``; where a model does not give runs, or
post-processing looks at pixels (``needs_pixels``, ``fill_holes``), that is the way to them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from segjobs.config import PostprocessConfig
from segjobs.errors import ItemError
from segjobs.manifest.schema import ModelCard
from segjobs.manifest.segments import Segment
from segjobs.models.base import (
    GivesObjectRuns,
    GivesRuns,
    LabelRuns,
    ObjectRuns,
    RawOutput,
    Segmenter,
    gives_object_runs,
    gives_runs,
)
from segjobs.models.check_prediction import checked_object_runs, checked_runs, of_the_model
from segjobs.models.postprocess import needs_pixels, segments_of_objects, segments_of_runs

SizeHW = tuple[int, int]
Masks = tuple[list[Segment], float | None]
"""An image's segments and its confidence."""
Runs = TypeVar("Runs", LabelRuns, ObjectRuns)
ByRuns = Callable[[Sequence[RawOutput], Sequence[SizeHW]], list[Masks | ItemError]]


def by_runs(segmenter: Segmenter, config: PostprocessConfig) -> ByRuns | None:
    """The way of a batch of ``segmenter``'s outputs; None where there is none. It raises ItemError MODEL_ERROR."""
    card = segmenter.card
    if card.task == "instance":
        if not gives_object_runs(segmenter) or config.fill_holes:
            return None
        return partial(_of_objects, segmenter, card, config)
    if not gives_runs(segmenter) or needs_pixels(card.categories, config):
        return None
    return partial(_of_label_maps, segmenter, card, config)


def _of_label_maps(
    model: GivesRuns,
    card: ModelCard,
    config: PostprocessConfig,
    outputs: Sequence[RawOutput],
    sizes_hw: Sequence[SizeHW],
) -> list[Masks | ItemError]:
    with of_the_model():
        found = checked_runs(model.runs(outputs, sizes_hw), card, sizes_hw)
    return _each(found, lambda good: segments_of_runs(good, card.categories, config))


def _of_objects(
    model: GivesObjectRuns,
    card: ModelCard,
    config: PostprocessConfig,
    outputs: Sequence[RawOutput],
    sizes_hw: Sequence[SizeHW],
) -> list[Masks | ItemError]:
    with of_the_model():
        found = checked_object_runs(model.object_runs(outputs, sizes_hw, config), card, sizes_hw)
    return _each(found, lambda good: segments_of_objects(good, card.categories, config))


def _each(
    found: Sequence[Runs | ItemError], segments_of: Callable[[list[Runs]], Sequence[Masks]]
) -> list[Masks | ItemError]:
    """The masks of those that have runs, at their places."""
    made = iter(segments_of([one for one in found if not isinstance(one, ItemError)]))
    return [one if isinstance(one, ItemError) else next(made) for one in found]
