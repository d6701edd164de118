"""Reading and decoding for ``label``: planned items in, images (or why there are none) out.

item ─→ read, sha256 ─→ decode ─→ Loaded        in an actor's threads, or
block of items ─→ block with pixels ─→ Loaded   by tasks on any CPU, where GPUs would wait for decoding
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.jobs.engine.executor import Work, Worker
from segjobs.jobs.engine.isolation import work_isolated
from segjobs.jobs.engine.watchdog import OnStuck, Watchdog
from segjobs.manifest.rows import planned_items
from segjobs.sources.bands import Bands
from segjobs.sources.blame import Blame
from segjobs.sources.read import LARGE_BYTES, Reads, read_item
from segjobs.sources.read_ahead import ReadAhead
from segjobs.sources.windows import count_pixels, read_image
from segjobs.storage import FileInfo, Storage

if TYPE_CHECKING:
    from segjobs.models.preparing import Preparing


@dataclass(frozen=True)
class Decoding:
    """How images are read and decoded. ``threads``: of one task or actor; ``deadline_s``: for one image.

    ``most_whole_pixels``: larger images are left to whoever labels them in tiles; None decodes all of them whole.
    ``bands``: of which an image's pixels are made; None takes its own colours.
    ``preparing``: what the model sees of an image, where tasks can say that; None leaves it to the model.
    """

    storage: Storage
    max_pixels: int
    threads: int
    deadline_s: float
    most_whole_pixels: int | None = None
    bands: Bands | None = None
    preparing: "Preparing | None" = None


@dataclass
class Loaded:
    """A planned item on its way: its image, or why there is none, and what it took.

    ``prepared``: uint8 (h, w, 3), what the network sees of it, in place of the image, of which the size is left.
    ``huge``: it is to be labelled in tiles, if it turns out as large as its file; it was not decoded, or not even read.
    """

    item: FileInfo
    sha256: str | None = None
    image: np.ndarray | None = None
    prepared: np.ndarray | None = None
    size_hw: tuple[int, int] = (0, 0)
    error: ItemError | None = None
    huge: bool = False
    read_ms: float = 0.0
    decode_ms: float = 0.0


def reading(planned: Sequence[FileInfo], decoding: Decoding, watchdog: Watchdog) -> Reads:
    """The bytes of a shard's files, those of a remote store read ahead; a store that fails is told from its files."""
    blame = Blame(decoding.storage, planned, holding=watchdog.holding)
    return ReadAhead(blame, (item for item in planned if not _in_slices(item, decoding)))


def _in_slices(item: FileInfo, decoding: Decoding) -> bool:
    """Whether it is read at its turn, where huge images are labelled in tiles: many wait at a time."""
    return decoding.most_whole_pixels is not None and item.size > LARGE_BYTES


def load(item: FileInfo, decoding: Decoding, watchdog: Watchdog, reads: Reads) -> Loaded:
    """Read and decode one image; what is wrong with it is its ``error``. ``reads``: its shard's."""
    loaded = Loaded(item)
    most = decoding.most_whole_pixels
    if _in_slices(item, decoding):
        loaded.huge = True
        return loaded
    start = time.perf_counter()
    try:
        data = read_item(reads, item)
        loaded.sha256 = hashlib.sha256(data).hexdigest()
        middle = time.perf_counter()
        loaded.read_ms = 1000 * (middle - start)
        with watchdog.holding([item.path]):
            if most is not None and count_pixels(data) > most:
                loaded.huge = True
                return loaded
            loaded.image = read_image(data, max_pixels=decoding.max_pixels, bands=decoding.bands)
        loaded.decode_ms = 1000 * (time.perf_counter() - middle)
    except ItemError as error:
        loaded.error = error
    return loaded


_PIXELS_SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("pixels", pa.large_binary()),  # uint8 RGB: (height, width, 3), or what was prepared of that
        ("prepared_height", pa.int32()),
        ("prepared_width", pa.int32()),
        ("huge", pa.bool_()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
    ]
)


def decoding_tasks(decoding: Decoding, report: OnStuck) -> Worker:
    """In a task: planned items → the same with their pixels, or the error that each met."""
    imports = [__name__] if decoding.preparing is None else [__name__, "segjobs.models.preparing"]
    isolated = partial(work_isolated, make=partial(_decoder, decoding), fail=_undecoded, imports=imports)
    return Worker(_decoder(decoding, report), isolated)


def _decoder(decoding: Decoding, report: OnStuck) -> Work:
    def decode(items: pa.Table) -> pa.Table:
        planned = planned_items(items)
        with Watchdog(decoding.deadline_s, report) as watchdog, ThreadPoolExecutor(decoding.threads) as threads:
            reads = reading(planned, decoding, watchdog)

            def work(item: FileInfo) -> Loaded:
                loaded = load(item, decoding, watchdog, reads)
                with watchdog.holding([item.path]):
                    _prepare(loaded, decoding.preparing)
                return loaded

            return _packed(items, threads.map(work, planned))

    return decode


def _prepare(loaded: Loaded, preparing: "Preparing | None") -> None:
    """In the image's place what the network sees of it, which is smaller as a rule."""
    if preparing is None or loaded.image is None:
        return
    start = time.perf_counter()
    loaded.size_hw = (loaded.image.shape[0], loaded.image.shape[1])
    try:
        loaded.prepared = preparing.array(loaded.image)
    except ItemError as error:
        loaded.error = error
    loaded.image = None
    loaded.decode_ms += 1000 * (time.perf_counter() - start)


def _undecoded(item: pa.Table, error: ItemError) -> pa.Table:
    return _packed(item, [Loaded(planned_items(item)[0], error=error)])


def _packed(items: pa.Table, loaded: Iterable[Loaded]) -> pa.Table:
    rows = [_pack(one) for one in loaded]
    for field in _PIXELS_SCHEMA:
        items = items.append_column(field, pa.array([row[field.name] for row in rows], field.type))
    return items


def _pack(loaded: Loaded) -> dict[str, object]:
    height, width = loaded.image.shape[:2] if loaded.image is not None else loaded.size_hw
    pixels = loaded.image if loaded.prepared is None else loaded.prepared
    prepared_hw = loaded.prepared.shape[:2] if loaded.prepared is not None else (None, None)
    return {
        "sha256": loaded.sha256,
        "pixels": pixels.tobytes() if pixels is not None else None,
        "prepared_height": prepared_hw[0],
        "prepared_width": prepared_hw[1],
        "huge": loaded.huge,
        "height": height,
        "width": width,
        "code": loaded.error.code if loaded.error else None,
        "message": loaded.error.message if loaded.error else None,
        "read_ms": loaded.read_ms,
        "decode_ms": loaded.decode_ms,
    }


def unpack(items: pa.Table, number: int, item: FileInfo) -> Loaded:
    """The inverse of ``_pack``; the image, or what was prepared of it, is a view into the block."""
    row = {name: items[name][number] for name in _PIXELS_SCHEMA.names}
    loaded = Loaded(item, row["sha256"].as_py(), read_ms=row["read_ms"].as_py(), decode_ms=row["decode_ms"].as_py())
    if row["pixels"].is_valid:
        loaded.size_hw = (row["height"].as_py(), row["width"].as_py())
        pixels = np.frombuffer(row["pixels"].as_buffer(), np.uint8)
        if row["prepared_height"].is_valid:
            loaded.prepared = pixels.reshape(row["prepared_height"].as_py(), row["prepared_width"].as_py(), 3)
        else:
            loaded.image = pixels.reshape(*loaded.size_hw, 3)
    elif row["huge"].as_py():
        loaded.huge = True
    else:
        loaded.error = ItemError(row["code"].as_py(), row["message"].as_py())
    return loaded
