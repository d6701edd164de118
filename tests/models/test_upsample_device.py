"""Runs of a batch as a device finds them, here on the CPU: bit by bit what the encoder makes of the same label maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.config import PostprocessConfig
from segjobs.manifest.rle import encode_label_map, encode_label_runs
from segjobs.manifest.schema import make_categories
from segjobs.models import upsample_device
from segjobs.models.base import LabelMap
from segjobs.models.postprocess import segments_of_runs, to_segments
from segjobs.models.upsample_device import DeviceLogits, runs_on_device, upsample_on_device

KINDS = ("one class", "checkerboard", "one pixel", "columns", "rows", "noise", "blobs")


def drawn_ids(seed, kind, classes, size_hw):
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(size_hw)
    ids = np.full(size_hw, seed % classes)
    if kind == "one pixel":
        ids[seed % size_hw[0], seed % size_hw[1]] = (seed + 1) % classes
    elif kind == "noise":
        ids = generator.integers(0, classes, size_hw)
    elif kind == "blobs":
        ids = generator.integers(0, classes, (3, 3))[rows * 3 // size_hw[0], columns * 3 // size_hw[1]]
    elif kind != "one class":
        ids = {"checkerboard": rows + columns, "columns": columns, "rows": rows}[kind] % classes
    return ids


def logits_of(ids, classes):
    """float32 (C, H, W) that lead by 3 to 8 at each pixel's class."""
    lead = 3 + ids * 5 / classes
    return torch.from_numpy(np.where(np.arange(classes)[:, None, None] == ids, lead, 0).astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.sampled_from([2, 3, 21, 300]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_codes_are_those_of_the_encoder_of_label_maps(seed, kinds, classes, size_hw):
    maps = [drawn_ids(seed + number, kind, classes, size_hw) for number, kind in enumerate(kinds)]
    found = runs_on_device([DeviceLogits(logits_of(ids, classes), size_hw) for ids in maps])
    codes = encode_label_runs([(one.starts, one.values, one.size_hw) for one in found])
    assert codes == [encode_label_map(ids.astype(np.uint16)) for ids in maps]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=4),
    st.integers(2, 22),
    st.booleans(),
)
def test_segments_are_those_of_the_label_map(seed, sizes_hw, classes, in_two_steps):
    generator = np.random.default_rng(seed)
    categories, config = make_categories([f"c{n}" for n in range(classes)]), PostprocessConfig(top_k=5)
    images = [
        DeviceLogits(
            torch.from_numpy(generator.normal(size=(classes, 4, 6)).astype(np.float32) * 4),
            size_hw,
            (16, 24) if in_two_steps else None,
        )
        for size_hw in sizes_hw
    ]
    ours = segments_of_runs(runs_on_device(images), categories, config)
    for one, (segments, confidence) in zip(images, ours, strict=True):
        label_map = LabelMap(*upsample_on_device(one.logits, one.size_hw, by_way_of=one.by_way_of))
        expected, mean = to_segments(label_map, categories, config)
        assert [(s.category, s.counts, s.area, s.bbox) for s in segments] == [
            (s.category, s.counts, s.area, s.bbox) for s in expected
        ]
        assert [s.score for s in segments] == pytest.approx([s.score for s in expected], abs=1e-6)
        assert confidence == pytest.approx(mean, abs=1e-6)


def test_images_of_a_batch_come_to_the_host_by_one_copy(monkeypatch):
    copies = []
    to_host = upsample_device.to_host
    monkeypatch.setattr(upsample_device, "to_host", lambda parts: copies.append(len(parts)) or to_host(parts))
    logits = logits_of(drawn_ids(1, "blobs", 3, (90, 70)), 3)
    runs_on_device([DeviceLogits(logits, size_hw) for size_hw in ((90, 70), (90, 70), (180, 140), (90, 70))])
    assert copies == [2], "two sizes, one copy"


def test_nothing_asks_the_device_for_a_number_before_the_copy():
    """On a device without data whoever asks for a value fails."""
    ids, confidence = torch.zeros(2, 5, 7, dtype=torch.int64, device="meta"), torch.zeros(2, 5, 7, device="meta")
    packed = upsample_device.pack_runs(ids, confidence, torch.ones(2, dtype=torch.bool, device="meta"), room=16)
    assert packed.shape == (2 * 2 + 3 * 16,)


def test_more_runs_than_expected_take_a_second_copy(monkeypatch):
    copies = []
    to_host = upsample_device.to_host
    monkeypatch.setattr(upsample_device, "to_host", lambda parts: copies.append(len(parts)) or to_host(parts))
    ids = drawn_ids(1, "checkerboard", 2, (64, 64))
    (found,) = runs_on_device([DeviceLogits(logits_of(ids, 2), (64, 64))])
    assert len(found.starts) == np.count_nonzero(np.diff(ids.ravel(order="F"))) + 1
    assert copies == [1, 1]


def test_numbers_that_are_none_are_told_of_their_image():
    good = logits_of(drawn_ids(1, "blobs", 3, (8, 8)), 3)
    bad = good.clone()
    bad[1, 3, 3] = float("nan")
    found = runs_on_device([DeviceLogits(good, (8, 8)), DeviceLogits(bad, (8, 8)), DeviceLogits(good, (8, 8))])
    assert [one is None for one in found] == [False, True, False]


def test_a_batch_larger_than_a_step_is_computed_in_several(monkeypatch):
    monkeypatch.setattr(upsample_device, "_STEP_BYTES", 4 * 3 * 64 * 2)
    logits = logits_of(drawn_ids(4, "blobs", 3, (8, 8)), 3)
    found = runs_on_device([DeviceLogits(logits, (8, 8))] * 5)
    assert len({tuple(one.starts.tolist()) for one in found}) == 1
