"""What a reader of the scores has to know besides: the counts of an evaluation in, a line for each such thing out.

census, matches, image_ids → notes_of → Report.notes: on the terminal and on the page
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from segjobs.evaluation.pairing import STATED, Pairing
from segjobs.evaluation.scores import Census, Scores, flatten
from segjobs.metrics.average_precision import DetectionMatches
from segjobs.metrics.matching import MOST_DETECTIONS

_NUMBER = re.compile(r"\d+(?=\D*$)")
_SEQUENCE = 5  # images with numbers of one name that are taken for a sequence
_SHARE = 0.8  # of the images are in such, before a word is said


def notes_of(scores: Scores, pairing: Pairing, census: Census, matches: DetectionMatches | None) -> Iterator[str]:
    """What the scores alone do not tell. ``matches``: of the images that take part, where objects are ranked."""
    if not census.statuses["ok"]:
        yield "nothing was scored: no image of the truth has a good prediction, so there is no figure"
        return
    if not pairing.has_masks:
        boxes = "predictions are" if pairing.truth.has_masks else "truth is"
        yield f"the {boxes} boxes alone: objects are scored by boxes, and no pixel is"
    if matches is None:
        return
    objects = matches.objects[:, 0]
    crowds = int(census.objects[:, 0].sum()) - int(objects.sum())
    if crowds and not objects.any():
        yield (
            f"every object of the truth is a crowd region ({crowds}), which no score asks for; if they are objects, "
            "prepare the truth again with labels.crowds=as_objects"
        )
    yield from _beyond(scores, matches)
    yield _measures(scores, census)


def frames_note(image_ids: Sequence[str]) -> Iterator[str]:
    """A line where image_ids look like frames of several sequences, which are no independent images."""
    sequences: dict[tuple[str, str], set[int]] = defaultdict(set)
    for image_id in image_ids:
        folder, name = posixpath.split(image_id)
        found = _NUMBER.search(name)
        if found:
            sequences[folder, name[: found.start()]].add(int(found[0]))
    long = [numbers for numbers in sequences.values() if len(numbers) >= _SEQUENCE]
    if len(long) > 1 and sum(map(len, long)) >= _SHARE * len(image_ids):
        yield (
            f"image_ids look like frames of {len(long)} sequences, such as {image_ids[0]!r}; if they are, frames are "
            "no independent images and the intervals too narrow: bootstrap.group draws sequences (folder, column:NAME "
            "or a regex)"
        )


def _beyond(scores: Scores, matches: DetectionMatches) -> Iterator[str]:
    """That COCO counts the best hundred detections alone, where images have more, and what recall can still be."""
    several = 0
    for table in scores.tables("objects"):
        image, entries = flatten(table["objects"])
        numbers = np.stack([np.asarray(entries.field(name), np.int64) for name in ("truth", "predicted")])
        several += np.unique(image[(numbers > MOST_DETECTIONS).any(axis=0)]).size
    if not several:
        return
    total, reachable = np.zeros(matches.classes, np.int64), np.zeros(matches.classes, np.int64)
    np.add.at(total, matches.truth_category, matches.objects[:, 0])
    np.add.at(reachable, matches.truth_category, np.minimum(matches.objects[:, 0], MOST_DETECTIONS))
    there = total > 0
    bound = float((reachable[there] / total[there]).mean()) if there.any() else 1.0
    yield (
        f"{several} image(s) have more than {MOST_DETECTIONS} objects or detections of a class, of which COCO counts "
        f"the {MOST_DETECTIONS} best detections: "
        + (f"AR100 cannot exceed {bound:.3f}" if bound < 1 else "the others are left out")
    )


def _measures(scores: Scores, census: Census) -> str:
    """Whose areas and boxes average precision went by."""
    stated: dict[str, int] = dict.fromkeys(STATED, 0)
    for table in scores.tables("stated"):
        for name in STATED:
            found = table["stated"].combine_chunks().field(name).fill_null(0)
            stated[name] += int(np.asarray(found, np.int64).sum())
    objects, detections = census.objects.sum(axis=0).tolist()
    words = {
        "truth_areas": ("areas of the truth", objects),
        "truth_boxes": ("boxes of the truth", objects),
        "predicted_boxes": ("boxes of the predictions", detections),
    }
    parts = [
        f"{what}: {'their own' if stated[name] >= total else f'{stated[name]} of {total} their own'}"
        if stated[name]
        else f"{what}: of the masks"
        for name, (what, total) in words.items()
    ]
    return f"sizes and boxes of average precision: {'; '.join(parts)}"
