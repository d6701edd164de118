"""An image that is too large to be labelled whole: a planned item in; its segments, made tile by tile, out.

    file ─→ a row of tiles ─→ batches of them ─→ network ─┬→ seams blended ─→ rows of pixels that are done, as runs
                                                          └→ objects, as runs ─→ merged where tiles cut them

What is held is one row of tiles as pixels, of at most a block of columns (``tiling.blocks``), the logits of one tile
and of the seams to its neighbours (``models/tiling.py``), and runs: memory grows with the masks, and with nothing else
of the image. Each batch of tiles is under the watchdog by itself.
"""

import ctypes
import math
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from segjobs.config import PostprocessConfig, TilesConfig
from segjobs.errors import ItemError
from segjobs.jobs.engine.watchdog import Watchdog
from segjobs.jobs.label.decode import Decoding
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.segments import Segment
from segjobs.models.base import GivesLogits, LabelMap, Logits, Prediction, Prepared, RawOutput, Segmenter
from segjobs.models.batching import beside_the_network, launch, same_size_runs
from segjobs.models.check_prediction import checked, checked_logits, of_the_model, prepared
from segjobs.models.postprocess import BandedSegments
from segjobs.models.stitch import PanopticStitcher, Stitcher, TiledImage
from segjobs.models.tiling import Axis, Blender, blocks, cut, label_map_of
from segjobs.models.uncertainty import TILE_STEP, of_segments, pixels_of, summed_up
from segjobs.sources.read import digest_of, opened_item
from segjobs.sources.tiff import Slices
from segjobs.sources.windows import Window, count_pixels, open_windows
from segjobs.storage import FileInfo

_BATCH_BYTES = 2**25  # of logits, on a CPU, which gains nothing by batches of large tiles
_UNSURE_PX = 2**22  # of an image that are looked at for its uncertainty: 16 bytes each, and another 16 at its end
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Tiled:
    """An image that was labelled in tiles; ``times``: milliseconds by the manifest's columns of them."""

    sha256: str
    size_hw: tuple[int, int]
    segments: list[Segment]
    confidence: float | None
    times: dict[str, float]
    uncertainty: Uncertainty | None = None


@dataclass(frozen=True)
class Tiler:
    """A model that labels one image after the other in tiles; ``device`` runs its forward passes, ``on_gpu`` or not."""

    segmenter: Segmenter
    decoding: Decoding
    tiles: TilesConfig
    postprocess: PostprocessConfig
    batch_size: int
    device: Executor
    on_gpu: bool
    watchdog: Watchdog
    uncertainty: bool = False

    def label(self, item: FileInfo) -> Tiled | None:
        """None for an image that is small enough to be labelled whole. Raises ItemError."""
        with opened_item(self.decoding.storage, item) as data:
            with self.watchdog.holding([item.path]):
                if count_pixels(data) <= (self.tiles.most_whole_pixels or 0):
                    return None
            return _Image(self, item, data).label()


class _Image:
    """One image at work."""

    def __init__(self, tiler: Tiler, item: FileInfo, data: Slices) -> None:
        self._tiler = tiler
        self._item = item
        self._data = data
        self._card = tiler.segmenter.card
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._unsure: list[tuple[np.ndarray, np.ndarray]] = []
        with self._busy("decode_ms"):
            self._windows = open_windows(data, max_pixels=tiler.decoding.max_pixels, bands=tiler.decoding.bands)
        tiles = tiler.tiles if self._card.task == "semantic" else tiler.tiles.model_copy(update={"blend": "none"})
        self._rows, self._columns = (cut(length, tiles) for length in self._windows.size_hw)
        self._unsure_step = max(TILE_STEP, math.ceil(math.sqrt(math.prod(self._windows.size_hw) / _UNSURE_PX)))

    def label(self) -> Tiled:
        with self._busy("read_ms"):
            sha256 = digest_of(self._data)
        segments, confidence = self._label_map() if self._card.task == "semantic" else self._objects()
        uncertainty = self._uncertainty(segments) if self._tiler.uncertainty else None
        return Tiled(sha256, self._windows.size_hw, segments, confidence, dict(self._spent), uncertainty)

    def _uncertainty(self, segments: list[Segment]) -> Uncertainty | None:
        """None where tiles of a semantic model are not blended: they are no longer logits when they meet."""
        if self._card.task != "semantic":
            return of_segments(segments)
        if not self._unsure:
            return None
        margin, entropy = (np.concatenate(parts) for parts in zip(*self._unsure, strict=True))
        return summed_up(margin, entropy)

    def _objects(self) -> tuple[list[Segment], float | None]:
        tiler = self._tiler
        stitcher = Stitcher if self._card.task == "instance" else PanopticStitcher
        image = TiledImage(self._rows, self._columns, self._card.categories, tiler.tiles, tiler.postprocess)
        objects = stitcher(image)
        for block in blocks(self._rows, self._columns, 0):
            for row, pixels in enumerate(self._bands(block)):
                for column, output in zip(block, self._outputs(pixels, block), strict=True):
                    with self._busy("encode_ms"), beside_the_network(tiler.segmenter):
                        objects.add(row, column, self._prediction(output))
        with self._busy("encode_ms"):
            return objects.finish()

    def _label_map(self) -> tuple[list[Segment], float]:
        found = BandedSegments(self._windows.size_hw, self._card.categories, self._tiler.postprocess)
        classes = 0 if self._tiler.tiles.blend == "none" else len(self._card.categories)
        for block in blocks(self._rows, self._columns, classes):
            self._label_block(block, found)
        with self._busy("encode_ms"):
            return found.finish()

    def _label_block(self, block: range, found: BandedSegments) -> None:
        """The columns of tiles of a block, from the top to the bottom."""
        tiler, blender, seen = self._tiler, None, block
        if tiler.tiles.blend != "none":
            blender = Blender(self._rows, self._columns, tiler.tiles, block)
            seen = range(max(block.start - 1, 0), block.stop)
        first, last = self._columns.finished(block.start)[0], self._columns.finished(block.stop - 1)[1]
        for row, pixels in enumerate(self._bands(seen)):
            begin, end = self._rows.finished(row)
            ids = np.empty((end - begin, last - first), np.uint16)
            confidence = np.empty(ids.shape, np.float32)
            for column, output in zip(seen, self._outputs(pixels, seen), strict=True):
                with self._busy("encode_ms"), beside_the_network(tiler.segmenter):
                    if blender is not None and column < block.start:
                        blender.begin(row, column, self._logits(output))
                        continue
                    done = self._done(row, column, output, blender)
                left, right = self._columns.finished(column)
                ids[:, left - first : right - first] = done.ids
                confidence[:, left - first : right - first] = done.confidence
            with self._busy("encode_ms"):
                found.add(LabelMap(ids, confidence), top=begin, left=first)
                _give_back()

    def _bands(self, block: range) -> Iterator[np.ndarray]:
        """The pixels of each row of a block's tiles, uint8 (size, w, 3); what two rows share is read once."""
        size, left = self._rows.size, self._columns.starts[block.start]
        width = self._columns.starts[block.stop - 1] + self._columns.size - left
        pixels, end = np.empty((0, width, 3), np.uint8), 0
        for start in self._rows.starts:
            with self._busy("decode_ms"):
                more = self._windows.read(Window(end, left, start + size - end, width))
                pixels = np.concatenate([pixels[len(pixels) - (end - start) :], more]) if end else more
            end = start + size
            yield pixels

    def _outputs(self, pixels: np.ndarray, block: range) -> Iterator[RawOutput]:
        """The network's output for each tile of a row of ``block``, from left to right; one batch is computed ahead."""
        tiler, width, most = self._tiler, self._columns.size, self._most_at_once()
        flights: deque[Future[list[RawOutput]]] = deque()
        starts = [self._columns.starts[column] - self._columns.starts[block.start] for column in block]
        for first in range(0, len(starts), most):
            lefts = starts[first : first + most]
            with self._busy("decode_ms"), of_the_model():
                tiles = [np.ascontiguousarray(pixels[:, left : left + width]) for left in lefts]
                tensors = [prepared(tiler.segmenter, tile) for tile in tiles]
            flights.append(tiler.device.submit(self._forward, tensors))
            if len(flights) > 1:
                yield from flights.popleft().result()
        while flights:
            yield from flights.popleft().result()

    def _most_at_once(self) -> int:
        """Tiles of a batch. Without a GPU, what a network of full resolution gives for two batches must not be much."""
        if self._tiler.on_gpu:
            return self._tiler.batch_size
        logits_bytes = 4 * len(self._card.categories) * self._rows.size * self._columns.size
        return max(1, min(self._tiler.batch_size, _BATCH_BYTES // logits_bytes))

    def _forward(self, tensors: list[Prepared]) -> list[RawOutput]:
        """On the device's thread. Raises a tile's ItemError: an image without one of its tiles has no masks."""
        segmenter, outputs = self._tiler.segmenter, []
        with self._busy("forward_ms"):
            for run in same_size_runs(tensors, len(tensors), same_size=segmenter.same_size_batches):
                computed = launch(segmenter, tensors[run])
                computed.wait()
                outputs += computed.outputs
        failed = next((output for output in outputs if isinstance(output, ItemError)), None)
        if failed is not None:
            raise failed
        return outputs

    def _done(self, row: int, column: int, output: RawOutput, blender: Blender | None) -> LabelMap:
        """The pixels that a tile finishes."""
        if blender is not None:
            blended = blender.add(row, column, self._logits(output))
            if self._tiler.uncertainty:
                self._unsure.append(pixels_of(blended, self._unsure_step))
            return label_map_of(blended)
        prediction = self._prediction(output)
        assert isinstance(prediction, LabelMap) and prediction.confidence is not None, "a semantic model"  # noqa: S101
        own = _within(self._rows, row), _within(self._columns, column)
        return LabelMap(prediction.ids[own], prediction.confidence[own])

    def _logits(self, output: RawOutput) -> Logits:
        """Of a tile, at its own size."""
        segmenter, size_hw = self._tiler.segmenter, (self._rows.size, self._columns.size)
        assert isinstance(segmenter, GivesLogits), "check_blend"  # noqa: S101
        with of_the_model():
            given = segmenter.logits(output, size_hw)
        return checked_logits(given, self._card, size_hw)

    def _prediction(self, output: RawOutput) -> Prediction:
        """What the model itself makes of a tile."""
        size_hw = (self._rows.size, self._columns.size)
        with of_the_model():
            given = self._tiler.segmenter.postprocess(output, size_hw)
        return checked(given, self._card, size_hw)

    @contextmanager
    def _busy(self, stage: str) -> Generator[None]:
        """A piece of the work: under the watchdog, and its time is taken."""
        start = time.perf_counter()
        with self._tiler.watchdog.holding([self._item.path]):
            yield
        self._spent[stage] += 1000 * (time.perf_counter() - start)


def _give_back() -> None:
    """Hand what was freed back to the system: glibc keeps it in pieces, more of them with each row of tiles."""
    if trim := getattr(_LIBC, "malloc_trim", None):
        trim(0)


def _within(axis: Axis, number: int) -> slice:
    """The pixels that a tile finishes, counted from its own first."""
    begin, end = axis.finished(number)
    return slice(begin - axis.starts[number], end - axis.starts[number])
