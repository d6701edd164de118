"""One image that a model learns from: a place in the index in, pixels and masks out.

place → part → row → image, checked, and the segments of classes that are learnt → Example
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from segjobs.config import SourceConfig
from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.parts import Run, read_part
from segjobs.manifest.rows import OkRow, segments_of, sha256_of
from segjobs.manifest.segments import Segment
from segjobs.sources.decode import decode_image
from segjobs.sources.read import read_original
from segjobs.storage import Storage

_READ_COLUMNS = ("image_id", "uri", "width", "height", "source", "segments")
_CACHE_BYTES = 256 * 2**20  # of one process: parts that were read


@dataclass(frozen=True)
class ExampleSource:
    """A manifest as the model sees it. ``key``: of the config, for messages. ``index``: category id → class.

    The class is the model's. A category without one (None) is not learnt: its pixels are unlabelled, its objects
    are left out.
    """

    key: str
    config: SourceConfig
    run: Run
    index: Mapping[int, int | None]


@dataclass(frozen=True)
class Example:
    """One image with its masks. ``image``: uint8 (H, W, 3) RGB; ``segments``: those of classes that are learnt, as the
    manifest has them, each behind its class."""

    image_id: str
    image: np.ndarray
    segments: Sequence[tuple[int, Segment]]


def _used(segments: Iterable[Segment], source: ExampleSource) -> list[tuple[int, Segment]]:
    """The segments of one row that are learnt."""
    least = source.config.min_score
    return [
        (index, segment)
        for segment in segments
        if (index := source.index[segment.category_id]) is not None
        and not (segment.score is not None and segment.score < least)
    ]


class ExampleReader:
    """Reads examples by their place in an index; keeps the parts that it read last. Not thread-safe."""

    def __init__(self, sources: Sequence[ExampleSource], storage: Storage, *, max_pixels: int) -> None:
        self._sources = sources
        self._storage = storage
        self._max_pixels = max_pixels
        self._parts: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def read(self, place: Sequence[int]) -> Example:
        """``place``: source, part, row. Raises ManifestError that names the image where it cannot be read."""
        number, part, row_number = (int(one) for one in place)
        source = self._sources[number]
        row: OkRow = self._part(number, part).slice(row_number, 1).to_pylist()[0]
        try:
            image, segments = self._image(row), segments_of(row)
        except (ItemError, ManifestError) as error:
            raise ManifestError(f"{source.key}: image {row['image_id']!r}: {error}") from error
        return Example(row["image_id"], image, _used(segments, source))

    def image_id(self, place: Sequence[int]) -> str:
        number, part, row = (int(one) for one in place)
        return self._part(number, part)["image_id"][row].as_py()

    def _image(self, row: OkRow) -> np.ndarray:
        data = read_original(self._storage, row["uri"], sha256=sha256_of(row))
        image = decode_image(data, max_pixels=self._max_pixels)
        if image.shape[:2] != (row["height"], row["width"]):
            raise ItemError(
                "LABEL_SHAPE", f"masks of {row['width']}x{row['height']} on {image.shape[1]}x{image.shape[0]}"
            )
        return image

    def _part(self, number: int, part: int) -> pa.Table:
        key = (number, part)
        if key not in self._parts:
            run = self._sources[number].run
            self._parts[key] = read_part(self._storage, run, run.parts[part], columns=_READ_COLUMNS)
            while len(self._parts) > 1 and sum(table.nbytes for table in self._parts.values()) > _CACHE_BYTES:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]
