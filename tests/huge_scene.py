"""A scene as a satellite has it, of any size, with exact truth: drawn tile by tile, so that nobody ever holds it whole.

    size, seed ─→ truth of any pixels, a formula ─→ labels/scene.tif  ids, uint8
                               └─→ its colour, and grain ─→ images/scene.tif  RGB, or more bands

Both are BigTIFFs in deflated tiles of 512 pixels. Grain never takes a pixel to another class's colour: ``nearest`` of
``tests/toy_model.py`` finds the truth, each pixel of it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

CLASSES = ("meadow", "acre", "water", "road", "roof")
COLORS = np.array([(60, 150, 60), (190, 170, 90), (30, 60, 140), (120, 120, 120), (220, 60, 40)], np.uint8)
_TILE = 512
_GRAIN = 16  # values of it, around 0; colours are farther apart


def truth_at(rows: np.ndarray, columns: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Indices of ``CLASSES``, uint8 (h, w), of the scene's pixels at rows (h,) and columns (w,)."""
    y, x = rows[:, None].astype(np.int64), columns[None].astype(np.int64)
    ids = ((x + 2 * y) // 700 % 2).astype(np.uint8)
    bank = size_hw[0] / 2 + size_hw[0] / 10 * np.sin(columns * (6 * np.pi / size_hw[1]))
    ids[np.abs(y - bank[None]) < size_hw[1] / 40] = 2
    ids[(np.abs(x - y) % 1500 < 12) | (y % 1700 < 9)] = 3
    down, across = y // 256, x // 256
    some = (down * 7919 + across * 104729) % 11
    roof = (y % 256 > 40 + 9 * some) & (y % 256 < 130 + 9 * some) & (x % 256 > 30) & (x % 256 < 90 + 12 * some)
    ids[roof & (some % 3 == 0)] = 4
    return ids


def draw(folder: Path, size_hw: tuple[int, int], *, seed: int = 0, bands: int = 3) -> None:
    """Write the scene. ``bands``: more than three have noise before the red, green and blue, which are the last."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = {"tile": (_TILE, _TILE), "compression": "zlib", "compressionargs": {"level": 1}, "maxworkers": 1}
    common = {"bigtiff": True, "metadata": None, "dtype": np.uint8, **options}
    shape = (*size_hw, bands)
    look = {"photometric": "rgb"} if bands == 3 else {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(folder / "images" / "scene.tif", _pixels(size_hw, seed, bands), shape=shape, **common, **look)
    tifffile.imwrite(folder / "labels" / "scene.tif", _ids(size_hw), shape=size_hw, photometric="minisblack", **common)


def _ids(size_hw: tuple[int, int]) -> Iterator[np.ndarray]:
    for top in range(0, size_hw[0], _TILE):
        for left in range(0, size_hw[1], _TILE):
            yield truth_at(np.arange(top, top + _TILE), np.arange(left, left + _TILE), size_hw)


def _pixels(size_hw: tuple[int, int], seed: int, bands: int) -> Iterator[np.ndarray]:
    for number, ids in enumerate(_ids(size_hw)):
        rng = np.random.default_rng([seed, number])
        grain = rng.integers(0, _GRAIN, (*ids.shape, 1), np.uint8)
        rgb = COLORS[ids] + grain - np.uint8(_GRAIN // 2)
        yield np.dstack([rng.integers(0, 256, (*ids.shape, bands - 3), np.uint8), rgb]) if bands > 3 else rgb
