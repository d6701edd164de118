"""Tiles cover an axis, two at most share a pixel; logits that agree stay bit by bit, others cross over.

Arrays, and tensors as a GPU has them: here on the CPU, by the same lines.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.config import TilesConfig
from segjobs.models.base import Logits
from segjobs.models.tiling import Axis, Blender, blocks, cut, label_map_of

BLENDS = ["gaussian", "linear", "none"]


def tiles(size: int, overlap: float = 0.25, blend: str = "gaussian") -> TilesConfig:
    return TilesConfig.model_validate({"size": size, "overlap": overlap, "blend": blend})


def test_tiles_by_hand() -> None:
    """1024 pixels with a quarter shared: every 768; the seams are 192 of the 256, 32 from either tile's edge."""
    axis = cut(2000, tiles(1024))
    assert axis == Axis(2000, 1024, (0, 768, 976), ((800, 992), (1288, 1480)))
    assert [axis.used(number) for number in range(3)] == [(0, 992), (800, 1480), (1288, 2000)]
    assert [axis.finished(number) for number in range(3)] == [(0, 800), (800, 1288), (1288, 2000)]
    assert cut(2000, tiles(1024, blend="none")).seams == ((896, 896), (1384, 1384))
    assert cut(700, tiles(1024)) == Axis(700, 700, (0,), ())


@settings(deadline=None, max_examples=300)
@given(length=st.integers(1, 3000), size=st.integers(16, 700), overlap=st.floats(0, 0.5), blend=st.sampled_from(BLENDS))
def test_tiles_cover_an_axis_and_at_most_two_share_a_pixel(length: int, size: int, overlap: float, blend: str) -> None:
    axis = cut(length, tiles(size, overlap, blend))
    last = len(axis.starts) - 1
    assert axis.starts[0] == 0 and axis.starts[last] + axis.size == length
    done = 0
    for number, start in enumerate(axis.starts):
        begin, end = axis.finished(number)
        assert begin == done < end
        done = end
        used = axis.used(number)
        assert start <= used[0] <= begin and end <= used[1] <= start + axis.size
        if number < last:
            assert used[1] <= axis.finished(number + 1)[1]
            assert start + axis.size - axis.starts[number + 1] >= int(axis.size * overlap)
    assert done == length


def as_array(logits: np.ndarray) -> Logits:
    return logits.copy()


def as_tensor(logits: np.ndarray) -> Logits:
    with torch.inference_mode():
        return torch.tensor(logits)


KINDS = pytest.mark.parametrize("kind", [as_array, as_tensor])


def blended(
    whole: np.ndarray, config: TilesConfig, kind: Callable[[np.ndarray], Logits], spoil: bool = False
) -> np.ndarray:
    """Tiles cut from (C, H, W) and put together again. ``spoil``: the pixels at a tile's inner edges are wrong."""
    rows, columns = cut(whole.shape[1], config), cut(whole.shape[2], config)
    blender, found = Blender(rows, columns, config), np.full_like(whole, np.nan)
    for row, top in enumerate(rows.starts):
        for column, left in enumerate(columns.starts):
            tile = whole[:, top : top + rows.size, left : left + columns.size].copy()
            if spoil:
                for axis, number, dim in ((rows, row, 1), (columns, column, 2)):
                    if number:
                        tile.swapaxes(1, dim)[:, :2] = 1e6
                    if number < len(axis.seams):
                        tile.swapaxes(1, dim)[:, -2:] = -1e6
            (y, y_end), (x, x_end) = rows.finished(row), columns.finished(column)
            found[:, y:y_end, x:x_end] = blender.add(row, column, kind(tile))
    return found


@KINDS
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size_hw", [(100, 75), (32, 90), (33, 20), (5, 200)])
def test_tiles_that_agree_stay_as_they_are_whatever_their_edges_hold(
    blend: str, size_hw: tuple[int, int], kind: Callable[[np.ndarray], Logits]
) -> None:
    whole = np.random.default_rng(0).normal(size=(3, *size_hw)).astype(np.float32)
    np.testing.assert_array_equal(blended(whole, tiles(32, 0.5, blend), kind, spoil=True), whole)


@pytest.mark.parametrize("blend", ["gaussian", "linear"])
def test_a_seam_is_torchs_lerp_of_both_tiles(blend: str) -> None:
    """By two tiles that disagree everywhere, side by side and one below the other."""
    config, draw = tiles(64, 0.5, blend), np.random.default_rng(1)
    long, short = cut(96, config), cut(64, config)
    one, two = draw.normal(size=(2, 4, 64, 64)).astype(np.float32)
    begin, end = long.seams[0]
    places = torch.arange(end - begin, dtype=torch.float64) + 0.5
    if blend == "linear":
        shares = places / (end - begin)
    else:
        first, second = ((places + begin - centre) / 8 for centre in (32, 64))
        shares = torch.softmax(torch.stack([-(first**2) / 2, -(second**2) / 2]), 0)[1]
    for across in (True, False):
        before, after = (torch.from_numpy(tile if across else tile.swapaxes(1, 2)) for tile in (one, two))
        expected = torch.lerp(before[:, :, begin:end], after[:, :, begin - 32 : end - 32], shares.float())
        blender = Blender(*((short, long) if across else (long, short)), config)
        pieces = [
            blender.add(*place, tile.copy())
            for place, tile in zip([(0, 0), (0, 1)[:: 1 if across else -1]], (one, two), strict=True)
        ]
        whole = np.concatenate([np.asarray(piece) for piece in pieces], axis=2 if across else 1)
        seam = whole[:, :, begin:end] if across else whole[:, begin:end].swapaxes(1, 2)
        np.testing.assert_allclose(seam, expected.numpy(), rtol=0, atol=5e-7)


@KINDS
@pytest.mark.parametrize(("blend", "steepest"), [("gaussian", 0.05), ("linear", 0.022), ("none", 1.0)])
def test_neighbours_that_disagree_cross_over_without_a_seam(
    blend: str, steepest: float, kind: Callable[[np.ndarray], Logits]
) -> None:
    """Two tiles of 256 pixels, one all 0, one all 1: how far the sharpest edge between two pixels goes."""
    config = tiles(256, 0.25, blend)
    rows, columns = cut(256, config), cut(448, config)
    assert len(columns.starts) == 2
    blender = Blender(rows, columns, config)
    pieces = [blender.add(0, column, kind(np.full((1, 256, 256), column, np.float32))) for column in (0, 1)]
    line = np.concatenate([np.asarray(piece) for piece in pieces], axis=2)[0, 100]
    steps = np.diff(line)
    assert (line[0], line[-1], line.size) == (0, 1, 448)
    assert steps.min() >= 0
    assert steepest / 2 < steps.max() <= steepest
    assert line + line[::-1] == pytest.approx(np.ones(448), abs=1e-6)  # neither tile counts for more


def test_what_is_held_are_the_seams_to_the_right_and_below() -> None:
    config, classes = tiles(64, 0.25), 5
    rows, columns = cut(64 * 30, config), cut(64 * 20, config)
    blender = Blender(rows, columns, config)
    most = 0
    for row in range(len(rows.starts)):
        for column in range(len(columns.starts)):
            blender.add(row, column, np.zeros((classes, 64, 64), np.float32))
            held = [one for one in vars(blender).values() if isinstance(one, np.ndarray)]
            assert all(one.base is None for one in held), "no view, which would hold a whole tile"
            most = max(most, sum(one.nbytes for one in held))
    seam = columns.seams[0][1] - columns.seams[0][0]
    below = 4 * classes * seam * columns.length
    assert below < most <= below + 4 * classes * seam * 64


@pytest.mark.parametrize("classes", [0, 2, 21, 150])
def test_blocks_cover_the_columns_and_bound_what_is_held(classes: int) -> None:
    """At most 160 MiB of seams and of a row's pixels, or eight tiles across."""
    held = []
    for side in (700, 2_000, 10_980, 20_000, 30_000, 100_000):
        axis = cut(side, tiles(1024))
        found = blocks(axis, axis, classes)
        assert [column for block in found for column in block] == list(range(len(axis.starts)))
        widest = max(axis.finished(block.stop - 1)[1] - axis.finished(block.start)[0] for block in found)
        held.append(widest * (12 * 1024 + 4 * classes * 192))
        assert held[-1] <= 5 * 2**25 or max(map(len, found)) <= 8
        assert max(map(len, found)) - min(map(len, found)) <= 1
    assert len(blocks(cut(10_980, tiles(1024)), cut(10_980, tiles(1024)), 2)) == 1  # no tile of it is computed twice


@KINDS
def test_the_winner_and_its_probability(kind: Callable[[np.ndarray], Logits]) -> None:
    given = label_map_of(kind(np.array([[[0.0, 2.0]], [[1.0, 2.0]], [[-1.0, 2.0]]], np.float32)))
    assert given.ids.tolist() == [[1, 0]]
    assert given.confidence is not None
    assert given.confidence.tolist() == [[pytest.approx(0.665241), pytest.approx(1 / 3)]]
