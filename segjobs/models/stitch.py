"""Objects that tiles cut: each tile's objects in, as masks of the whole image at once; whole objects out.

    Instances of a tile ─→ masks, as run-length codes ─→ the same object in two tiles? ─→ their union
    PanopticMap ─→ the same; of each mask counts what is of the tile, so that unions never overlap; stuff is one a class

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
from segjobs.models.base import Instances, PanopticMap, Prediction
from segjobs.models.postprocess import instance_masks, kept_objects, segment_of
from segjobs.models.tiling import Axis

_Span = tuple[int, int]


@dataclass(frozen=True)
class _Piece:
    """An object as one tile sees it: its number among all pieces, and its mask on the whole image."""

    number: int
    segment: Segment


class Pieces:
    """What tiles see of objects, and which of it is one object. Tiles come in any order."""

    def __init__(self, rows: Axis, columns: Axis, tiles: TilesConfig) -> None:
        self._rows = rows
        self._columns = columns
        self._tiles = tiles
        self._size_hw = (rows.length, columns.length)
        self._segments: list[Segment] = []
        self._same_as: list[int] = []  # an earlier piece of the same object, or the piece itself
        self._of_tile: dict[tuple[int, int], list[_Piece]] = {}

    def add(self, row: int, column: int, segments: Sequence[Segment]) -> None:
        """A tile's objects, as masks of the whole image."""
        pieces = [_Piece(number, segment) for number, segment in enumerate(segments, len(self._segments))]
        self._segments += segments
        self._same_as += [piece.number for piece in pieces]
        for place in ((row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)):
            if others := self._of_tile.get(place):
                self._match(pieces, others, self._shared((row, column), place))
        self._of_tile[row, column] = pieces

    def groups(self) -> list[list[int]]:
        """All tiles were added: of each object its pieces, by their numbers in the order in which they were added."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for number in range(len(self._segments)):
            groups[self._root(number)].append(number)
        return list(groups.values())

    def __getitem__(self, number: int) -> Segment:
        return self._segments[number]

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


@dataclass(frozen=True)
class TiledImage:
    """An image that is cut into ``rows`` by ``columns`` of tiles, the classes of its objects, and which are kept."""

    rows: Axis
    columns: Axis
    categories: Sequence[Category]
    tiles: TilesConfig
    postprocess: PostprocessConfig

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.rows.length, self.columns.length


class Stitcher:
    """The objects of a tiled image, whose tiles come in any order."""

    def __init__(self, image: TiledImage) -> None:
        self._image = image
        self._pieces = Pieces(image.rows, image.columns, image.tiles)

    def add(self, row: int, column: int, prediction: Prediction) -> None:
        """A tile's objects, in its own pixels."""
        assert isinstance(prediction, Instances), "an instance model"  # noqa: S101
        top, left = self._image.rows.starts[row], self._image.columns.starts[column]
        segments: list[Segment] = []
        for one in instance_masks(prediction, self._image.categories, self._image.postprocess):
            segment = segment_of(
                replace(one, corner_xy=(one.corner_xy[0] + left, one.corner_xy[1] + top)), self._image.size_hw
            )
            if segment is not None:
                x, y, w, h = one.box_xywh
                segments.append(replace(segment, stated_bbox=(x + left, y + top, w, h)))
        self._pieces.add(row, column, segments)

    def finish(self) -> tuple[list[Segment], float | None]:
        """All tiles were added: whole objects by descending score, and the mean of their scores."""
        return _kept(
            [self._whole([self._pieces[n] for n in group]) for group in self._pieces.groups()], self._image.postprocess
        )

    def _whole(self, group: Sequence[Segment]) -> Segment:
        whole = _union(group, max(group, key=_score))
        return replace(whole, stated_bbox=_around([one.stated_bbox for one in group if one.stated_bbox is not None]))


class PanopticStitcher:
    """The objects and regions of a tiled image, whose tiles come in any order.

    A pixel is of the tile whose edge is farthest (the image is cut by ``tiles.blend=none``), and of that tile's segment
    there, so that no two overlap. Which segments of things are one is found as of instances, by the whole of what each
    tile sees; of stuff it is those of a class.
    """

    def __init__(self, image: TiledImage) -> None:
        self._image = image
        self._things = Pieces(image.rows, image.columns, image.tiles)
        self._own: list[Segment | None] = []  # of each piece of a thing what is of its tile, if anything
        self._stuff: defaultdict[int, list[Segment]] = defaultdict(list)  # by category, of what is of each tile

    def add(self, row: int, column: int, prediction: Prediction) -> None:
        """A tile's map, in its own pixels."""
        assert isinstance(prediction, PanopticMap), "a panoptic model"  # noqa: S101
        things: list[Segment] = []
        classes, scores = prediction.classes, prediction.scores
        for index in kept_objects(scores, classes, self._image.categories, self._image.postprocess):
            category, score = self._image.categories[int(classes[index])], float(scores[index])
            mask = prediction.ids == index
            own = self._placed(row, column, mask, category, score, own=True)
            if category.isthing is False:
                if own is not None:
                    self._stuff[category.id].append(own)
            elif (seen := self._placed(row, column, mask, category, score, own=False)) is not None:
                things.append(seen)
                self._own.append(own)
        self._things.add(row, column, things)

    def finish(self) -> tuple[list[Segment], float | None]:
        """All tiles were added: whole segments by descending score, and the mean of their scores.

        A thing has the best score that a tile gave it, stuff the mean over its pixels.
        """
        found = [
            _union(parts, replace(parts[0], score=max(_score(self._things[n]) for n in group)))
            for group in self._things.groups()
            if (parts := [part for n in group if (part := self._own[n]) is not None])
        ]
        for parts in self._stuff.values():
            mean = sum(_score(part) * part.area for part in parts) / sum(part.area for part in parts)
            found.append(_union(parts, replace(parts[0], score=mean)))
        return _kept(found, self._image.postprocess)

    def _placed(
        self, row: int, column: int, mask: np.ndarray, category: Category, score: float, *, own: bool
    ) -> Segment | None:
        """A tile's mask on the whole image, or what is of the tile's own pixels; None where there is nothing."""
        top, left = self._image.rows.starts[row], self._image.columns.starts[column]
        if own:
            (first, last), (begin, end) = self._image.rows.finished(row), self._image.columns.finished(column)
            mask = mask[first - top : last - top, begin - left : end - left]
            top, left = first, begin
        return Segment.from_mask(category, mask, corner_xy=(left, top), size_hw=self._image.size_hw, score=score)


def _kept(whole: Sequence[Segment], config: PostprocessConfig) -> tuple[list[Segment], float | None]:
    """By descending score, after min_area_px and top_k, and the mean score."""
    kept = [segment for segment in whole if segment.area >= config.min_area_px]
    kept = sorted(kept, key=lambda segment: -_score(segment))[: config.top_k]
    return kept, sum(map(_score, kept)) / len(kept) if kept else None


def _union(group: Sequence[Segment], like: Segment) -> Segment:
    """``like`` with the masks of all of the group."""
    if len(group) == 1:
        return like
    union = coco_api.union([segment.segmentation for segment in group])
    return like.with_mask(encoded(union["counts"], like.size_hw), like.size_hw)


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
