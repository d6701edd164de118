"""Label maps band by band: the codes of the whole map, whatever the bands; memory that does not hold it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.errors import ItemError
from segjobs.manifest import bands
from segjobs.manifest.bands import LabelBands
from segjobs.manifest.rle import VOID, encode_label_map


@settings(deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(1, 12), width=st.integers(1, 12), data=st.data())
def test_bands_give_the_regions_of_the_whole(seed: int, height: int, width: int, data: st.DataObject) -> None:
    ids = np.random.default_rng(seed).choice(np.array([0, 1, 7, VOID], np.uint16), (height, width))
    ids[:, : width // 2] = 7  # runs that go over bands and columns
    pieces_of, row = LabelBands((height, width)), 0
    while row < height:
        rows = data.draw(st.integers(1, height - row))
        middle = data.draw(st.integers(0, width))
        pieces = [(left, right) for left, right in ((middle, width), (0, middle)) if left < right]
        for left, right in pieces:  # in any order
            pieces_of.add(ids[row : row + rows, left:right], top=row, left=left)
        row += rows
    assert pieces_of.regions() == encode_label_map(ids)


def test_codes_that_are_written_a_few_columns_at_a_time_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(1).integers(0, 3, (40, 90)).astype(np.uint16)
    ids[:, 30:50] = 2  # a run over several steps
    expected = encode_label_map(ids)
    for at_once in (1, 7, 100):
        monkeypatch.setattr(bands, "_RUNS_AT_ONCE", at_once)
        pieces = LabelBands(ids.shape)
        for top in range(0, 40, 8):
            pieces.add(ids[top : top + 8], top=top)
        assert pieces.regions() == expected


def test_nothing_but_void_has_no_region() -> None:
    found = LabelBands((3, 2))
    found.add(np.full((3, 2), VOID, np.uint16), top=0)
    assert found.regions() == []


def test_the_label_map_is_not_held() -> None:
    size_hw, rows = (20_000, 500), 100
    tracemalloc.start()
    try:
        found = LabelBands(size_hw)
        for top in range(0, size_hw[0], rows):
            found.add(np.full((rows, size_hw[1]), top // 10_000, np.uint16), top=top)
        regions = found.regions()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(one.index, one.area) for one in regions] == [(0, 5_000_000), (1, 5_000_000)]
    assert peak < size_hw[0] * size_hw[1] / 2  # a label map has twice this many bytes


def test_an_image_over_cocos_run_lengths_is_too_large() -> None:
    with pytest.raises(ItemError, match="65536x65536 pixels: COCO's run-length code ends at 4294967295"):
        LabelBands((65536, 65536))
