"""One image that a model learns from: a place in the index in, pixels and masks out.

place → part → row → image (or a part of a huge one), checked, and the segments of classes that are learnt → Example
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from segjobs.config import SourceConfig
from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.parts import Run, footer_of, read_part
from segjobs.manifest.rows import OkRow, segments_of, sha256_of
from segjobs.manifest.segments import Segment
from segjobs.sources.bands import Bands
from segjobs.sources.read import opened_original, read_original
from segjobs.sources.windows import Window, open_windows, read_image
from segjobs.storage import FileInfo, Storage

_READ_COLUMNS = ("image_id", "uri", "width", "height", "source", "segments")
_OF_PARTS = 1  # beside the seed, which augmentation draws from as well
_CACHE_BYTES = 256 * 2**20  # of one process: parts that were read


@dataclass(frozen=True)
class ExampleSource:
    """A manifest as the model sees it. ``key``: of the config, for messages. ``index``: category id → class.

    The class is the model's. A category without one (None) is not learnt: its pixels are unlabelled, its objects
    are left out. ``half``: another source has the manifest's images of other origin, and counts them.
    """

    key: str
    config: SourceConfig
    run: Run
    index: Mapping[int, int | None]
    half: bool = False

    @property
    def bands(self) -> Bands | None:
        """Of which the images have their pixels, as the manifest's footer says."""
        return Bands.of(footer_of(self.run).pixels)


@dataclass(frozen=True)
class Example:
    """One image with its masks. ``image``: uint8 (H, W, 3) RGB; ``segments``: those of classes that are learnt, as the
    manifest has them, each behind its class."""

    image_id: str
    image: np.ndarray
    segments: Sequence[tuple[int, Segment]]


def window_of(size_hw: tuple[int, int], side_px: int, *, seed: int) -> Window | None:
    """Of an image of more than ``side_px`` squared pixels, a random part of at most that side; else None.

    Every place is as likely.
    """
    if size_hw[0] * size_hw[1] <= side_px**2:
        return None
    rng = np.random.default_rng([seed, _OF_PARTS])
    height, width = (min(side_px, side) for side in size_hw)
    top, left = (int(rng.integers(0, side - shown + 1)) for side, shown in zip(size_hw, (height, width), strict=True))
    return Window(top, left, height, width)


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
    """Reads examples by their place in an index; keeps the parts that it read last. Not thread-safe.

    ``part_px``: of an image that is larger than its square, a part of that side is the example (``window_of``).
    """

    def __init__(
        self, sources: Sequence[ExampleSource], storage: Storage, *, max_pixels: int, part_px: int | None = None
    ) -> None:
        self._part_px = part_px
        self._sources = sources
        self._storage = storage
        self._max_pixels = max_pixels
        self._compared: set[tuple[str, FileInfo | None]] = set()
        self._parts: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def read(self, place: Sequence[int], *, seed: int | None = None) -> Example:
        """``place``: source, part, row. ``seed``: of which part of a huge image; None: always the same of each.

        Raises ManifestError that names the image where it cannot be read.
        """
        number, part, row_number = (int(one) for one in place)
        source = self._sources[number]
        row: OkRow = self._part(number, part).slice(row_number, 1).to_pylist()[0]
        seed = zlib.crc32(row["image_id"].encode()) if seed is None else seed
        window = window_of((row["height"], row["width"]), self._part_px, seed=seed) if self._part_px else None
        try:
            if window is None:
                image, segments = self._image(row, source.bands), segments_of(row)
            else:
                image, segments = self._pixels_of(row, window, source.bands), _seen_in(segments_of(row), window)
        except (ItemError, ManifestError) as error:
            raise ManifestError(f"{source.key}: image {row['image_id']!r}: {error}") from error
        return Example(row["image_id"], image, _used(segments, source))

    def image_id(self, place: Sequence[int]) -> str:
        number, part, row = (int(one) for one in place)
        return self._part(number, part)["image_id"][row].as_py()

    def _image(self, row: OkRow, bands: Bands | None) -> np.ndarray:
        data = read_original(self._storage, row["uri"], sha256=sha256_of(row))
        image = read_image(data, max_pixels=self._max_pixels, bands=bands)
        _check_size(row, (image.shape[0], image.shape[1]))
        return image

    def _pixels_of(self, row: OkRow, window: Window, bands: Bands | None) -> np.ndarray:
        # A huge file is compared with its sha256 once: each example would read all of it otherwise.
        known = (row["uri"], self._storage.info(row["uri"]))
        sha256 = None if known in self._compared else sha256_of(row)
        with opened_original(self._storage, row["uri"], sha256=sha256) as data:
            self._compared.add(known)
            windows = open_windows(data, max_pixels=self._max_pixels, bands=bands)
            _check_size(row, windows.size_hw)
            return windows.read(window)

    def _part(self, number: int, part: int) -> pa.Table:
        key = (number, part)
        if key not in self._parts:
            run = self._sources[number].run
            self._parts[key] = read_part(self._storage, run, run.parts[part], columns=_READ_COLUMNS)
            while len(self._parts) > 1 and sum(table.nbytes for table in self._parts.values()) > _CACHE_BYTES:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]


def _check_size(row: OkRow, size_hw: tuple[int, int]) -> None:
    if size_hw != (row["height"], row["width"]):
        raise ItemError("LABEL_SHAPE", f"masks of {row['width']}x{row['height']} on {size_hw[1]}x{size_hw[0]}")


def _seen_in(segments: Iterable[Segment], window: Window) -> list[Segment]:
    rows = np.arange(window.top, window.top + window.height)
    columns = np.arange(window.left, window.left + window.width)
    seen = (segment.seen_at(rows, columns) for segment in segments)
    return [segment for segment in seen if segment is not None]
