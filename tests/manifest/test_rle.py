"""Run-length codes against pycocotools, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segjobs.errors import ManifestError
from segjobs.manifest import rle


def reference(mask: np.ndarray) -> tuple[str, int, tuple[int, ...]]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return code["counts"].decode(), int(coco_mask.area(code)), tuple(map(int, coco_mask.toBbox(code)))


def check_label_map(ids: np.ndarray, void: int = rle.VOID) -> None:
    regions = rle.encode_label_map(ids, void=void)
    assert [region.index for region in regions] == [value for value in np.unique(ids).tolist() if value != void]
    for region in regions:
        assert (region.counts, region.area, region.bbox) == reference(ids == region.index)
        assert np.array_equal(rle.decode(region.counts, ids.shape), ids == region.index)
    painted = rle.paint([(region.index, region.counts) for region in regions], ids.shape, void)
    assert np.array_equal(painted, ids)


SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
MASKS = hnp.arrays(bool, SHAPES)


@settings(deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda kind: hnp.arrays(kind, SHAPES, elements=st.sampled_from([0, 1, 2, 7, 200, 255]))
    ),
    st.sampled_from([0, 255, rle.VOID]),
)
def test_label_maps_are_coded_as_pycocotools_codes_each_class(ids, void):
    check_label_map(ids, void)


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros((1, 1), np.uint8),
        np.full((5, 7), 3, np.uint16),
        np.full((5, 7), rle.VOID, np.uint16),
        np.arange(9, dtype=np.uint8)[None],
        np.arange(9, dtype=np.uint8)[:, None],
        np.indices((13, 14)).sum(0).astype(np.uint8) % 2,
        np.arange(65536, dtype=np.uint16).reshape(256, 256),  # every class, and VOID, once
        np.repeat([0, 1, 0, 5], [1, 2**21, 2**22 + 3, 17]).astype(np.uint8)[:, None],  # runs > 2^20
        np.asfortranarray(np.tile([[0, 4], [4, 0]], (6, 5)).astype(np.uint16)),
        np.arange(96, dtype=np.uint8).reshape(8, 12)[::2, ::-3],  # strides
    ],
    ids=["1x1", "full", "void", "row", "column", "checkerboard", "many", "huge", "fortran", "strided"],
)
def test_label_map_edges(ids):
    check_label_map(ids) if ids.max() < 300 else compare_few(ids)


def compare_few(ids: np.ndarray) -> None:
    regions = rle.encode_label_map(ids)
    assert len(regions) == np.setdiff1d(ids, [rle.VOID]).size
    for region in regions[:: max(1, len(regions) // 50)]:
        assert (region.counts, region.area, region.bbox) == reference(ids == region.index)
    assert np.array_equal(rle.paint([(r.index, r.counts) for r in regions], ids.shape), ids)


def test_label_map_by_hand():
    ids = np.array([[0, 0, 1], [9, 1, 1]], np.uint8)  # by columns: 0 9 | 0 1 | 1 1
    assert rle.encode_label_map(ids, void=9) == [
        rle.Region(0, rle.counts_from_runs([0, 1, 1, 1, 3]), 2, (0, 0, 2, 1)),
        rle.Region(1, "33", 3, (1, 0, 2, 2)),
    ]


@pytest.mark.parametrize("ids", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2))])
def test_other_arrays_are_no_label_maps(ids):
    with pytest.raises(ValueError, match="label map"):
        rle.encode_label_map(ids)


def test_an_image_without_pixels_has_no_regions():
    assert rle.encode_label_map(np.zeros((0, 4), np.uint8)) == []
    assert rle.paint([], (0, 4)).shape == (0, 4)


@settings(deadline=None)
@given(MASKS, st.tuples(*[st.integers(0, 3)] * 4))
def test_a_crop_is_coded_as_the_pasted_mask(mask, margins):
    above, below, left, right = margins
    pasted = np.pad(mask, ((above, below), (left, right)))
    assert rle.encode_crop(mask, (left, above), pasted.shape) == reference(pasted)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("corner_xy", [(0, 0), (3, 0), (0, 4), (3, 4), (1, 2)])
def test_crops_at_every_border(corner_xy, value):
    pasted = np.zeros((7, 8), bool)
    pasted[corner_xy[1] :, corner_xy[0] :][:3, :5] = value
    assert rle.encode_crop(np.full((3, 5), value), corner_xy, (7, 8)) == reference(pasted)


def test_a_full_height_crop_joins_its_columns():
    assert rle.encode_crop(np.ones((4, 3), bool), (2, 0), (4, 6)) == (
        rle.counts_from_runs([8, 12, 4]),
        12,
        (2, 0, 3, 4),
    )


def test_an_empty_crop_is_an_empty_mask():
    assert rle.encode_crop(np.zeros((0, 3), bool), (2, 1), (4, 6)) == reference(np.zeros((4, 6), bool))


@pytest.mark.parametrize("corner_xy", [(-1, 0), (0, -1), (3, 0), (0, 3)])
def test_a_crop_stays_in_the_image(corner_xy):
    with pytest.raises(ValueError, match="leaves the 4x4 image"):
        rle.encode_crop(np.ones((2, 2), bool), corner_xy, (4, 4))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 40), max_size=40))
def test_runs_round_trip(lengths):
    assert rle.runs(rle.counts_from_runs(lengths)).tolist() == lengths


@settings(deadline=None)
@given(MASKS)
def test_runs_and_counts_agree_with_pycocotools(mask):
    counts, area, _ = reference(mask)
    lengths = rle.runs(counts)
    assert lengths.dtype == np.int64
    assert lengths[1::2].sum() == area
    assert lengths.sum() == mask.size
    assert rle.counts_from_runs(lengths) == counts
    assert np.array_equal(rle.decode(counts, mask.shape), mask)
    uncompressed = {"size": list(mask.shape), "counts": lengths.tolist()}
    assert (
        rle.from_uncompressed(lengths.tolist()).encode() == coco_mask.frPyObjects(uncompressed, *mask.shape)["counts"]
    )


def test_lengths_of_zero_inside_a_code_are_kept():
    counts = rle.from_uncompressed([2, 0, 1, 3])
    assert rle.runs(counts).tolist() == [2, 0, 1, 3]
    assert rle.decode(counts, (3, 2)).T.ravel().tolist() == [False] * 3 + [True] * 3


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet=[chr(48 + n) for n in range(64)], max_size=60))
def test_any_text_is_a_code_or_a_manifest_error(text):
    try:
        lengths = rle.runs(text)
    except ManifestError:
        return
    assert (lengths >= 0).all()
    with pytest.raises(ManifestError, match=r"a mask of \d+ pixels on an image of"):
        rle.decode(text, (1, int(lengths.sum()) + 1))


@pytest.mark.parametrize("counts", ["P", "1P", "é", " ", "~", "p", "O", "ooooooo3", "3O"])
def test_malformed_counts(counts):
    with pytest.raises(ManifestError, match="counts"):
        rle.decode(counts, (3, 3))


@pytest.mark.parametrize("lengths", [[-1], [2**32], [2**70], [1, -5]])
def test_run_lengths_are_uint32(lengths):
    with pytest.raises(ManifestError, match="run lengths"):
        rle.counts_from_runs(lengths)


@pytest.mark.parametrize("counts", [[1.5], ["3"], None, 7, [None]])
def test_uncompressed_counts_are_whole_numbers(counts):
    with pytest.raises(ManifestError, match="whole numbers"):
        rle.from_uncompressed(counts)


def test_label_runs_by_hand():
    segments = [(4, rle.counts_from_runs([1, 2, 3])), (2, rle.counts_from_runs([3, 1, 2]))]
    ends, values = rle.label_runs(segments, (2, 3), 99)
    assert (ends.dtype, values.dtype) == (np.int64, np.int32)
    assert ends.tolist() == [1, 3, 4, 6]
    assert values.tolist() == [99, 4, 2, 99]


def test_no_segments_are_all_void():
    ends, values = rle.label_runs([], (2, 3))
    assert (ends.tolist(), values.tolist()) == ([6], [rle.VOID])


def test_an_image_without_pixels_has_no_runs():
    ends, values = rle.label_runs([(1, "")], (0, 3))
    assert (ends.size, values.size) == (0, 0)


def test_overlapping_segments_are_no_partition():
    code = rle.counts_from_runs
    with pytest.raises(ManifestError, match="classes 1 and 2 overlap at x=1, y=1"):
        rle.label_runs([(1, code([0, 4, 2])), (2, code([3, 3]))], (2, 3))
    with pytest.raises(ManifestError, match="overlap"):
        rle.label_runs([(1, code([0, 6])), (1, code([2, 1, 3]))], (2, 3))


@settings(deadline=None)
@given(st.lists(MASKS.filter(lambda mask: mask.size > 3), min_size=2, max_size=2))
def test_overlap_is_found_exactly_where_pixels_are_shared(masks):
    shape = tuple(np.minimum(masks[0].shape, masks[1].shape))
    first, second = (mask[: shape[0], : shape[1]] for mask in masks)
    segments = [(1, reference(first)[0]), (2, reference(second)[0])]
    if (first & second).any():
        with pytest.raises(ManifestError, match="overlap"):
            rle.paint(segments, shape)
    else:
        expected = np.where(first, 1, np.where(second, 2, rle.VOID))
        assert np.array_equal(rle.paint(segments, shape), expected)


@pytest.mark.parametrize("lengths", [[5], [3, 4], []])
def test_a_code_of_another_size_is_refused(lengths):
    with pytest.raises(ManifestError, match=r"a mask of \d+ pixels on an image of"):
        rle.label_runs([(0, rle.counts_from_runs(lengths))], (2, 3))


def test_polygons_are_their_union():
    square, triangle = [0, 0, 4, 0, 4, 4, 0, 4], [2.5, 2.5, 9, 3, 5, 8.5]
    parts = [coco_mask.decode(coco_mask.frPyObjects([part], 10, 12))[..., 0] for part in (square, triangle)]
    mask = rle.decode(rle.encode_polygons([square, triangle], (10, 12)), (10, 12))
    assert np.array_equal(mask, parts[0] | parts[1])
    assert mask[:4, :4].all()
    assert not rle.decode(rle.encode_polygons([], (3, 4)), (3, 4)).any()
    assert rle.decode(rle.encode_polygons([square], (0, 4)), (0, 4)).size == 0


@pytest.mark.parametrize(
    "part",
    [
        [],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6, 7],
        [0, 0, 1, 1, float("nan"), 0],
        [0, 0, 1e12, 0, 1, 1],
        ["a"] * 6,
        3,
        [[1, 2]] * 3,
    ],
)
def test_malformed_polygons(part):
    with pytest.raises(ManifestError, match="polygon"):
        rle.encode_polygons([part], (10, 12))
