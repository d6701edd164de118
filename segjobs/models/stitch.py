"""Objects that tiles cut: each tile's instances in, as masks of the whole image at once; whole objects out.

    Instances of a tile ─→ masks, as run-length codes ─→ the same object in two tiles? ─→ their union

Two tiles both look at what they share. Two masks of one class are one object where, on the pixels that both tiles see,
they agree: their intersection there is at least ``tiles.merge_at`` of the smaller mask's part there, or of the union of
both parts. So the length of a road or a river that leaves the tiles on either side does not matter, as it would for
whole masks, nor does a box, which says nothing of thin objects. The union of all that are one keeps the best score.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segjobs.config import PostprocessConfig, TilesConfig
from segjobs.manifest import coco_api
from segjobs.manifest.coco_api import Box
from segjobs.manifest.rle import encode_runs, encoded
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.models.base import Instances
from segjobs.models.postprocess import instance_masks, segment_of
from segjobs.models.tiling import Axis

_Span = tuple[int, int]


@dataclass(frozen=True)
class _Piece:
    """An object as one tile sees it: its number among all pieces, and its mask on the whole image."""

    number: int
    segment: Segment


class Stitcher:
    """The objects of an image of ``rows`` by ``columns`` of tiles, which come in any order."""

    def __init__(
        self,
        rows: Axis,
        columns: Axis,
        categories: Sequence[Category],
        tiles: TilesConfig,
        postprocess: PostprocessConfig,
    ) -> None:
        self._rows = rows
        self._columns = columns
        self._categories = categories
        self._tiles = tiles
        self._postprocess = postprocess
        self._size_hw = (rows.length, columns.length)
        self._segments: list[Segment] = []
        self._same_as: list[int] = []  # an earlier piece of the same object, or the piece itself
        self._of_tile: dict[tuple[int, int], list[_Piece]] = {}

    def add(self, row: int, column: int, prediction: Instances) -> None:
        """A tile's objects, in its own pixels."""
        top, left = self._rows.starts[row], self._columns.starts[column]
        pieces: list[_Piece] = []
        for one in instance_masks(prediction, self._categories, self._postprocess):
            segment = segment_of(
                replace(one, corner_xy=(one.corner_xy[0] + left, one.corner_xy[1] + top)), self._size_hw
            )
            if segment is not None:
                x, y, w, h = one.box_xywh
                pieces.append(_Piece(len(self._segments), replace(segment, stated_bbox=(x + left, y + top, w, h))))
                self._segments.append(pieces[-1].segment)
                self._same_as.append(pieces[-1].number)
        for place in ((row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)):
            if others := self._of_tile.get(place):
                self._match(pieces, others, self._shared((row, column), place))
        self._of_tile[row, column] = pieces

    def finish(self) -> tuple[list[Segment], float | None]:
        """All tiles were added: whole objects by descending score, and the mean of their scores."""
        groups: defaultdict[int, list[Segment]] = defaultdict(list)
        for number, segment in enumerate(self._segments):
            groups[self._root(number)].append(segment)
        whole = [self._whole(group) for group in groups.values()]
        kept = [segment for segment in whole if segment.area >= self._postprocess.min_area_px]
        kept = sorted(kept, key=lambda segment: -_score(segment))[: self._postprocess.top_k]
        return kept, sum(map(_score, kept)) / len(kept) if kept else None

    def _shared(self, place: tuple[int, int], other: tuple[int, int]) -> tuple[_Span, _Span]:
        """Rows and columns of pixels that two tiles both see."""
        rows, columns = (
            (max(axis.starts[one], axis.starts[two]), min(axis.starts[one], axis.starts[two]) + axis.size)
            for axis, one, two in zip((self._rows, self._columns), place, other, strict=True)
        )
        return rows, columns

    def _match(self, pieces: Sequence[_Piece], others: Sequence[_Piece], shared: tuple[_Span, _Span]) -> None:
        window = self._window(shared)
        for piece, other in _close(pieces, others, shared):
            parts = [coco_api.intersection([one.segment.segmentation, window]) for one in (piece, other)]
            areas = [coco_api.area(part) for part in parts]
            common = coco_api.area(coco_api.intersection(parts))
            of = min(areas) if self._tiles.merge == "smaller" else sum(areas) - common
            if common and common >= self._tiles.merge_at * of:
                first, second = sorted((self._root(piece.number), self._root(other.number)))
                self._same_as[second] = first

    def _window(self, shared: tuple[_Span, _Span]) -> coco_api.Rle:
        """The mask of a rectangle."""
        (top, bottom), (left, right) = shared
        starts = np.arange(left, right) * self._size_hw[0] + top
        ends = starts + (bottom - top)
        if bottom - top == self._size_hw[0]:
            starts, ends = starts[:1], ends[-1:]
        return {"size": list(self._size_hw), "counts": encode_runs(starts, ends, self._size_hw).counts}

    def _root(self, number: int) -> int:
        while self._same_as[number] != number:
            number = self._same_as[number]
        return number

    def _whole(self, group: Sequence[Segment]) -> Segment:
        best = max(group, key=_score)
        if len(group) == 1:
            return best
        union = coco_api.union([segment.segmentation for segment in group])
        whole = best.with_mask(encoded(union["counts"], self._size_hw), self._size_hw)
        return replace(whole, stated_bbox=_around([one.stated_bbox for one in group if one.stated_bbox is not None]))


def _score(segment: Segment) -> float:
    return segment.score or 0.0


def _close(
    pieces: Sequence[_Piece], others: Sequence[_Piece], shared: tuple[_Span, _Span]
) -> Iterator[tuple[_Piece, _Piece]]:
    """Pairs of one class whose boxes meet on the shared pixels."""
    (top, bottom), (left, right) = shared
    for piece in pieces:
        for other in others:
            (x, y, w, h), (x2, y2, w2, h2) = piece.segment.bbox, other.segment.bbox
            meet = max(x, x2, left) < min(x + w, x2 + w2, right) and max(y, y2, top) < min(y + h, y2 + h2, bottom)
            if meet and piece.segment.category_id == other.segment.category_id:
                yield piece, other


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest x, y, w, h that holds all."""
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return left, top, right - left, bottom - top
