"""The size that a network sees: the rules of ``model.resize``, for images and for label maps.

In: a rule and an image's height and width. Out: the height and width to resize to. A rule is one of

    native      the image's own size
    short:N     the shorter side becomes N, the longer one as torchvision computes it
    long:N      the longer side becomes N
    HxW         exactly this height and width; the aspect ratio is lost
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from segjobs.errors import ItemError

if TYPE_CHECKING:
    import torch

MAX_ASPECT = 16
"""``short:N`` refuses longer strips: 30000×10 pixels would become 1,560,000×520, which no memory holds."""
_ROWS_AT_ONCE = 4  # a band of the matrix of weights: of more rows it is mostly zeros, of fewer it is no work for a BLAS
_VALUES_AT_ONCE = 2**19  # of a float each: 2 to 4 MiB that a thread keeps, and less than that for what comes of them
_PRODUCTS_AT_ONCE = 2**20  # above, OpenBLAS wakes threads, which spin beside those of the network


def target_size(rule: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width (both ≥ 1) that ``rule`` gives an image of ``size_hw``.

    Raises ItemError TOO_LARGE where ``short:N`` meets an image longer than ``MAX_ASPECT`` times its shorter side.
    """
    height, width = size_hw
    if rule == "native":
        return size_hw
    if "x" in rule:
        fixed_height, _, fixed_width = rule.partition("x")
        return int(fixed_height), int(fixed_width)
    side, _, number = rule.partition(":")
    wanted = int(number)
    short, long = sorted(size_hw)
    if side == "short":
        if is_long_strip(rule, size_hw):
            raise ItemError(
                "TOO_LARGE",
                f"{width}x{height} pixels is too long a strip for model.resize={rule} (at most {MAX_ASPECT}:1); "
                "use long:N, HxW or native",
            )
        new_short, new_long = wanted, int(wanted * long / short)
    else:
        new_short, new_long = max(1, int(wanted * short / long)), wanted
    return (new_long, new_short) if height > width else (new_short, new_long)


def scaled_size(size_hw: tuple[int, int], factor: float, *, multiple: int = 1) -> tuple[int, int]:
    """Both sides ``factor`` times as long, to the nearest multiple, of which there is one at least."""
    height, width = (multiple * max(1, round(side * factor / multiple)) for side in size_hw)
    return height, width


def padded_size(size_hw: tuple[int, int], *, divisor: int, least: int) -> tuple[int, int]:
    """Height and width that a network sees: multiples of ``divisor``, and at least so long."""
    height, width = (-(-max(side, least) // divisor) * divisor for side in size_hw)
    return height, width


def is_long_strip(rule: str, size_hw: tuple[int, int]) -> bool:
    """Whether ``short:N`` refuses an image of this size."""
    return rule.startswith("short:") and max(size_hw) > MAX_ASPECT * min(size_hw)


def detection_size(rule: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width (both ≥ 1) at which Mask R-CNN sees an image: its reading of the rule (see ``maskrcnn``)."""
    if rule == "native" or "x" in rule:
        return target_size(rule, size_hw)
    side, _, number = rule.partition(":")
    short, long = int(number), round(1333 * int(number) / 800) if side == "short" else int(number)
    scale = min(short / min(size_hw), long / max(size_hw))
    return max(1, math.floor(size_hw[0] * scale)), max(1, math.floor(size_hw[1] * scale))


def to_tensor(image: np.ndarray) -> "torch.Tensor":
    """uint8 (H, W, 3) → uint8 (3, H, W) over the same memory (copied only if read-only or strided)."""
    if not image.flags.writeable or not image.flags.c_contiguous:
        image = image.copy(order="C")
    import torch  # here, and below: an exported network does without

    return torch.from_numpy(image).permute(2, 0, 1)


def resize_image(image: "torch.Tensor", size_hw: tuple[int, int]) -> "torch.Tensor":
    """uint8 (3, H, W) → uint8 (3, h, w): bilinear with antialiasing, by torch's native uint8 kernel.

    Equal to ``torchvision.transforms.v2.functional.resize``. The presets that torchvision ships beside its weights
    still use v1, which interpolates tensors in floats: some pixels differ by one grey level.
    """
    from torchvision.transforms.v2.functional import resize

    return resize(image, list(size_hw), antialias=True)


def resize_array(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) → uint8 (h, w, 3): ``resize_image`` without torch, byte by byte.

    The kernel (ATen's UpSampleKernel.cpp, after Pillow's) has a triangle of two scales' width for each pixel, in whole
    numbers: first along the rows, rounded to uint8, and then along the columns. Here each pass is products of small
    matrices: a BLAS multiplies floats many times as fast as numpy whole numbers, and of these not one is rounded.
    """
    height, width = size_hw
    if image.shape[1] != width:
        found = np.empty((image.shape[0], width, 3), np.uint8)
        for some in _pieces(image.shape[0], 3, image.shape[1], width):
            columns = cv2.transpose(image[some])
            resized = _resize_rows(columns.reshape(len(columns), -1), width).astype(np.uint8)
            cv2.transpose(resized.reshape(width, -1, 3), dst=found[some])
        image = found
    if image.shape[0] != height:
        rows = image.reshape(image.shape[0], -1)
        found = np.empty((height, rows.shape[1]), np.uint8)
        for some in _pieces(rows.shape[1], 1, image.shape[0], height):
            found[:, some] = _resize_rows(rows[:, some], height)
        image = found.reshape(*size_hw, 3)
    return image


def _pieces(count: int, width: int, length: int, to: int) -> Iterator[slice]:
    """``count`` lines, ``width`` values wide, to be resized from ``length`` to ``to``: cut, as many as fit at once."""
    bands = _bands(length, to)
    most = min(_VALUES_AT_ONCE // bands.of.size, _PRODUCTS_AT_ONCE // bands.weights[0].size)
    step = max(1, most // width)
    return (slice(start, start + step) for start in range(0, count, step))


def _resize_rows(rows: np.ndarray, height: int) -> np.ndarray:
    """uint8 (H, n) → floats (height, n), to be cut to whole numbers, before the next call of this thread."""
    bands = _bands(len(rows), height)
    count, made, of = bands.weights.shape
    exact, width = bands.weights.dtype, rows.shape[1]
    taken = _SCRATCH.array("taken", (count * of, width), np.dtype(np.uint8))
    values = _SCRATCH.array("values", taken.shape, exact)
    found = _SCRATCH.array("found", (count, made, width), exact)
    np.take(rows, bands.of, axis=0, out=taken, mode="clip")  # none is outside; to "raise" takes another copy
    np.copyto(values, taken)
    np.matmul(bands.weights, values.reshape(count, of, width), out=found)
    found += 0.5
    return found.reshape(-1, width)[:height]  # below 256: the roundings of the weights are less than a half together


class _Scratch(threading.local):
    """Memory of one thread's own, taken again and again.

    malloc gives so large an array back to the system when it is freed. Getting it anew for each image, page by page,
    took longer than what is computed in it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of this shape that holds anything, until ``name`` is asked for again."""
        size = math.prod(shape) * dtype.itemsize
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, np.uint8)
        return kept[:size].view(dtype).reshape(shape)


_SCRATCH = _Scratch()


@dataclass(frozen=True)
class _Bands:
    """A matrix of weights, mostly zeros, as bands of rows: ``weights[n]`` times the pixels ``of`` band n.

    ``of``: int64 (bands * pixels,), of the old pixels; ``weights``: (bands, rows, pixels), floats of a type in which
    sums of 255 times the weights, and a half, are exact. The last band's rows may be more than there are.
    """

    of: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=256)
def _bands(length: int, to: int) -> _Bands:
    places, weights, precision = _triangles(length, to)
    starts = np.arange(0, to, _ROWS_AT_ONCE)
    first = np.minimum.reduceat(places[0], starts)
    of = int((np.maximum.reduceat(places[-1], starts) + 1 - first).max())
    first = np.minimum(first, length - of)
    bands = np.zeros((len(starts), _ROWS_AT_ONCE, of), np.float32 if precision <= 16 else np.float64)
    band, row = np.divmod(np.arange(to), _ROWS_AT_ONCE)
    for place, weight in zip(places, weights, strict=True):
        bands[band, row, place - first[band]] += weight / 2**precision  # behind the last pixel: 0
    return _Bands((first[:, None] + np.arange(of)).ravel(), bands)


@lru_cache(maxsize=256)
def _triangles(length: int, to: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Which pixels of ``length`` each of ``to`` is made of, and their weights, int32 (taps, to), in 2^-precision."""
    scale = length / to
    support = max(scale, 1.0)
    centre = scale * (np.arange(to) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), length) - first
    taps = np.arange(count.max())[:, None]
    shares = np.maximum(1 - np.abs((taps + first - centre + 0.5) / support), 0) * (taps < count)
    shares /= shares.sum(axis=0)
    precision = next(bits for bits in range(23) if bits == 22 or int(0.5 + shares.max() * 2 ** (bits + 1)) >= 1 << 15)
    weights = (shares * 2**precision + 0.5).astype(np.int32)
    return np.minimum(first + taps, length - 1), weights, precision


def resize_ids(ids: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Label map (H, W) → (h, w): each pixel takes the label under its centre."""
    rows = ((np.arange(size_hw[0]) + 0.5) * ids.shape[0] / size_hw[0]).astype(np.intp)
    columns = ((np.arange(size_hw[1]) + 0.5) * ids.shape[1] / size_hw[1]).astype(np.intp)
    return ids[rows[:, None], columns]
