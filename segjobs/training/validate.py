"""Validation inside the workers: each scores its share of the images at their own size; counts are added exactly.

    places → [threads: read] → predict → segments, as ``label`` makes them → confusion, or matches ─→ all workers' sum

The figures are those that ``evaluate`` gives for the same masks.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from segjobs.config import PostprocessConfig
from segjobs.manifest.rle import label_runs
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.metrics.average_precision import DetectionMatches, accumulate
from segjobs.metrics.confusion import dense, image_confusion, summarise
from segjobs.metrics.matching import MATCHES_TYPE, MatchesRow, match_image
from segjobs.models.base import Segmenter
from segjobs.models.batching import predict
from segjobs.models.postprocess import to_segments
from segjobs.training.examples import Example, ExampleReader

ValidationScores = dict[str, Any]
"""JSON values: ``score``, by which models are compared, and what it is made of."""
HEADLINES = {"semantic": "mean_iou", "instance": "AP"}


@dataclass(frozen=True)
class Scored:
    """One image's example and what the model finds in it."""

    example: Example
    segments: list[Segment]


def predictions(
    segmenter: Segmenter, reader: ExampleReader, places: Sequence[np.ndarray], batch_size: int
) -> Iterator[Scored]:
    """The model on each image at its own size, in order; one batch is read while another is predicted.

    The module must be in eval mode.
    """
    chunks = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    with ThreadPoolExecutor(1) as thread:
        futures = (thread.submit(lambda chunk: [reader.read(place) for place in chunk], chunk) for chunk in chunks)
        window = deque(islice(futures, 2))
        while window:
            examples = window.popleft().result()
            window.extend(islice(futures, 1))
            found = predict(segmenter, [example.image for example in examples], batch_size=batch_size)
            for example, prediction in zip(examples, found, strict=True):
                yield Scored(example, to_segments(prediction, segmenter.card.categories, PostprocessConfig())[0])


def truth_segments(example: Example, categories: Sequence[Category]) -> list[Segment]:
    """The example's segments under the model's category ids."""
    return [replace(one, category_id=categories[index].id, score=1.0) for index, one in example.segments]


def score(
    segmenter: Segmenter, reader: ExampleReader, places: Sequence[np.ndarray], *, batch_size: int, device: str
) -> ValidationScores:
    """This worker's images and, where there are several workers, all the others': the same figures on each."""
    categories = segmenter.card.categories
    found = predictions(segmenter, reader, places, batch_size)
    if segmenter.card.task == "instance":
        return _average_precision(_gathered(_matches(one, categories) for one in found), categories)
    total = np.zeros((len(categories), len(categories) + 1), np.int64)
    for one in found:
        total += dense(_confusion(one, categories), len(categories))
    if dist.is_initialized():
        counts = torch.from_numpy(total).to(device)
        dist.all_reduce(counts)
        total = counts.cpu().numpy()
    return _mean_iou(total, categories)


def image_score(one: Scored, categories: Sequence[Category], task: str) -> float | None:
    """One image's own mIoU, for the contact sheet; None for objects."""
    return summarise(dense(_confusion(one, categories), len(categories))).mean_iou if task == "semantic" else None


def _confusion(one: Scored, categories: Sequence[Category]) -> np.ndarray:
    index = {category.id: number for number, category in enumerate(categories)}
    size_hw = one.example.image.shape[:2]
    truth = [(number, segment.counts) for number, segment in one.example.segments]
    predicted = [(index[segment.category_id], segment.counts) for segment in one.segments]
    return image_confusion(label_runs(truth, size_hw), label_runs(predicted, size_hw), len(categories))


def _mean_iou(total: np.ndarray, categories: Sequence[Category]) -> ValidationScores:
    scores = summarise(total)
    names = [category.name for category in categories]
    return {
        "score": scores.mean_iou,
        "mean_iou": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "iou": dict(zip(names, scores.iou, strict=True)),
        "dice": dict(zip(names, scores.dice, strict=True)),
    }


def _matches(one: Scored, categories: Sequence[Category]) -> MatchesRow:
    return match_image(truth_segments(one.example, categories), one.segments, kind="mask")


def _gathered(matches: Iterator[MatchesRow]) -> list[MatchesRow]:
    """Every worker's, rank after rank."""
    own = list(matches)
    if not dist.is_initialized():
        return own
    shares: list[list[MatchesRow]] = [[]] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    # Ranks took turns with the images: back to their order, which decides among equal scores.
    return [share[turn] for turn in range(len(shares[0])) for share in shares if turn < len(share)]


def _average_precision(matches: Sequence[MatchesRow], categories: Sequence[Category]) -> ValidationScores:
    column = pa.array(matches, MATCHES_TYPE)
    found = accumulate(DetectionMatches.from_column(column, [category.id for category in categories]))
    return {"score": found.figures["AP"], **found.figures}
