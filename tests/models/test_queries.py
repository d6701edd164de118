"""Masks by queries: what transformers' own post-processing gives of the same logits, and what it costs."""

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    EomtImageProcessor,
    Mask2FormerImageProcessor,
    MaskFormerImageProcessor,
    OneFormerImageProcessor,
)
from transformers.image_transforms import get_size_with_aspect_ratio

from segjobs.models.base import VOID, Instances, PanopticMap
from segjobs.models.queries import Patch, Reading, Thresholds, instances, panoptic_map, semantic_map

CLASSES, QUERIES = 5, 12
INPUT = 64
EOMT = {"shortest_edge": INPUT, "longest_edge": INPUT}
KINDS: dict[str, tuple[Reading, Any]] = {
    "maskformer": (Reading(), MaskFormerImageProcessor()),
    "mask2former": (Reading(grid_hw=(384, 384)), Mask2FormerImageProcessor()),
    "oneformer": (Reading(antialias=True, exclusive=True), OneFormerImageProcessor(class_info_file="")),
    "eomt": (Reading(grid_hw=(INPUT, INPUT), at_image=True), EomtImageProcessor(size=EOMT, do_pad=True)),
}
SIZES = [(90, 120), (20, 13)]
by_kind = pytest.mark.parametrize("kind", KINDS)
by_size = pytest.mark.parametrize("size_hw", SIZES)


def patch_of(kind: str, size_hw: tuple[int, int], seed: int = 0) -> Patch:
    """Blobs of some pixels for masks, and queries that are rather sure of a class."""
    generator = torch.Generator().manual_seed(seed)
    classes = 4 * torch.randn((QUERIES, CLASSES + 1), generator=generator)
    coarse = 6 * torch.randn((1, QUERIES, 5, 6), generator=generator)
    masks = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic")[0]
    inner_hw = get_size_with_aspect_ratio(size_hw, INPUT, INPUT) if kind == "eomt" else (INPUT, INPUT)
    return Patch(classes, masks, (INPUT, INPUT), inner_hw)


def outputs(patch: Patch) -> Any:
    return SimpleNamespace(
        class_queries_logits=patch.classes[None].clone(),
        masks_queries_logits=patch.masks[None].clone(),
        patch_offsets=[],
    )


@by_kind
@by_size
def test_semantic(kind: str, size_hw: tuple[int, int]) -> None:
    reading, processor = KINDS[kind]
    patch = patch_of(kind, size_hw)
    (expected,) = processor.post_process_semantic_segmentation(outputs(patch), target_sizes=[size_hw])
    found = semantic_map([patch], reading, (INPUT, INPUT), size_hw)
    assert len(np.unique(found.ids)) > 2
    assert (found.ids == expected.numpy()).mean() > 0.998
    assert found.confidence is not None and 0 < found.confidence.min() <= found.confidence.max() <= 1


@by_kind
@by_size
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_panoptic(kind: str, size_hw: tuple[int, int], threshold: float) -> None:
    reading, processor = KINDS[kind]
    patch = patch_of(kind, size_hw)
    more = {} if kind == "eomt" else {"label_ids_to_fuse": set()}
    (expected,) = processor.post_process_panoptic_segmentation(
        outputs(patch), threshold=threshold, overlap_mask_area_threshold=0.4, target_sizes=[size_hw], **more
    )
    found = panoptic_map(patch, reading, Thresholds(threshold, 0.5, 0.4), size_hw)
    check_segments(found, expected)
    assert (len(found.scores) > 1) is (threshold < 1)


def check_segments(found: PanopticMap, expected: dict[str, Any]) -> None:
    """One for one: classes, scores and pixels."""
    infos, ids = expected["segments_info"], expected["segmentation"].numpy()
    assert found.classes.tolist() == [info["label_id"] for info in infos]
    np.testing.assert_allclose(found.scores, [info["score"] for info in infos], atol=1e-5)
    for number, info in enumerate(infos):
        assert ((found.ids == number) == (ids == info["id"])).mean() > 0.998


@by_kind
def test_stuff_is_one_region(kind: str) -> None:
    """Each of transformers' segments lies in one of ours, and all stuff of a class in the same."""
    reading, processor = KINDS[kind]
    size_hw = (90, 120)
    patch, stuff = patch_of(kind, size_hw, seed=3), frozenset(range(CLASSES - 1))
    more = {"stuff_classes": list(stuff)} if kind == "eomt" else {"label_ids_to_fuse": set(stuff)}
    (theirs,) = processor.post_process_panoptic_segmentation(
        outputs(patch), threshold=0.3, overlap_mask_area_threshold=0.2, target_sizes=[size_hw], **more
    )
    found = panoptic_map(patch, reading, Thresholds(0.3, 0.5, 0.2, stuff), size_hw)
    regions = [label for label in found.classes.tolist() if label in stuff]
    assert regions and len(regions) == len(set(regions))
    alone = panoptic_map(patch, reading, Thresholds(0.3, 0.5, 0.2), size_hw)
    assert len(alone.scores) > len(found.scores)

    def class_map(ids: np.ndarray, classes: list[int], first: int) -> np.ndarray:
        return np.array([*classes, -1])[np.where((ids == VOID) | (ids < first), len(classes), ids - first)]

    expected = class_map(alone.ids.astype(int), alone.classes.tolist(), 0)
    np.testing.assert_array_equal(class_map(found.ids.astype(int), found.classes.tolist(), 0), expected)
    labelled = theirs["segmentation"].numpy() >= (0 if kind == "eomt" else 1)
    assert ((found.ids != VOID) == labelled).mean() > 0.998


@pytest.mark.parametrize("kind", ["maskformer", "mask2former"])
@by_size
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_instances_that_may_overlap(kind: str, size_hw: tuple[int, int], threshold: float) -> None:
    reading, processor = KINDS[kind]
    patch = patch_of(kind, size_hw)
    (expected,) = processor.post_process_instance_segmentation(
        outputs(patch), threshold=threshold, target_sizes=[size_hw], return_binary_maps=True
    )
    order = np.argsort([-info["score"] for info in expected["segments_info"]], kind="stable")
    found = instances(patch, reading, Thresholds(threshold, 0.5, 0.8), size_hw)
    check_objects(found, [expected["segments_info"][n] for n in order], expected["segmentation"].numpy()[order] > 0.5)


@pytest.mark.parametrize("kind", ["oneformer", "eomt"])
@by_size
def test_instances_that_share_the_pixels_out(kind: str, size_hw: tuple[int, int]) -> None:
    reading, processor = KINDS[kind]
    patch = patch_of(kind, size_hw)
    more = {"overlap_mask_area_threshold": 0.2} if kind == "oneformer" else {}
    (expected,) = processor.post_process_instance_segmentation(
        outputs(patch), threshold=0.2, target_sizes=[size_hw], **more
    )
    infos, ids = expected["segments_info"], expected["segmentation"].numpy()
    found = instances(patch, reading, Thresholds(0.2, 0.5, 0.2), size_hw)
    assert len(infos) > 1
    order = np.argsort([-info["score"] for info in infos], kind="stable")
    if kind == "oneformer":
        masks = np.stack([ids == infos[n]["id"] for n in order])
        check_objects(found, [infos[n] for n in order], masks)
        return
    # EoMT's later objects are painted over earlier ones; before that they overlap.
    painted = np.full(size_hw, -1)
    places = {int(n): place for place, n in enumerate(order)}
    for number in range(len(infos)):
        painted[dense(found, places[number])] = number
    assert (painted == ids).mean() > 0.998
    np.testing.assert_allclose(found.scores, [infos[n]["score"] for n in order], atol=1e-4)


def check_objects(found: Instances, infos: list[dict[str, Any]], masks: np.ndarray) -> None:
    assert len(found.crops) == len(infos) > 0
    assert found.classes.tolist() == [info["label_id"] for info in infos]
    np.testing.assert_allclose(found.scores, [info["score"] for info in infos], atol=1e-4)
    for place, mask in enumerate(masks):
        assert (dense(found, place) == mask).mean() > 0.998
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(found.boxes_xyxy[place], box, atol=1)


def dense(found: Instances, place: int) -> np.ndarray:
    mask = np.zeros(found.size_hw, bool)
    crop, (left, top) = found.crops[place], found.corners_xy[place].tolist()
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop >= 0.5
    return mask


def test_patches_are_averaged_where_they_overlap() -> None:
    """EoMT shows its network squares of an image that is longer than they are."""
    reading, processor = (
        Reading(grid_hw=(INPUT, INPUT), at_image=True),
        EomtImageProcessor(size={"shortest_edge": INPUT, "longest_edge": None}, do_split_image=True),
    )
    for size_hw, resized_hw in (((50, 80), (INPUT, 102)), ((80, 50), (102, INPUT))):
        parts = [patch_of("mask2former", size_hw, seed=seed) for seed in range(2)]
        starts = [0, 38]
        given = SimpleNamespace(
            class_queries_logits=torch.stack([part.classes for part in parts]),
            masks_queries_logits=torch.stack([part.masks for part in parts]),
            patch_offsets=[(0, start, start + INPUT) for start in starts],
        )
        (expected,) = processor.post_process_semantic_segmentation(given, target_sizes=[size_hw])
        patches = [
            Patch(part.classes, part.masks, part.input_hw, part.inner_hw, start)
            for part, start in zip(parts, starts, strict=True)
        ]
        found = semantic_map(patches, reading, resized_hw, size_hw)
        assert (found.ids == expected.numpy()).mean() > 0.998


def test_no_query_that_is_sure_of_anything() -> None:
    patch = patch_of("maskformer", (9, 12))
    empty = panoptic_map(patch, Reading(), Thresholds(1.0, 0.5, 0.8), (9, 12))
    assert (empty.ids == VOID).all() and not len(empty.scores)
    nothing = instances(patch, Reading(), Thresholds(1.0, 0.5, 0.8), (9, 12))
    assert (len(nothing.crops), nothing.boxes_xyxy.shape, nothing.corners_xy.shape) == (0, (0, 4), (0, 2))


@pytest.mark.parametrize("task", [semantic_map, panoptic_map, instances], ids=["semantic", "panoptic", "instance"])
def test_memory_is_a_few_planes_whatever_the_queries(task: Any) -> None:
    """100 queries of this size would be 400 planes of a byte each."""
    generator = torch.Generator().manual_seed(0)
    patch = Patch(
        5 * torch.randn((100, CLASSES + 1), generator=generator),
        torch.randn((100, 20, 20), generator=generator),
        (80, 80),
        (80, 80),
    )
    size_hw = (1200, 1500)
    given = ([patch], Reading(), (80, 80), size_hw) if task is semantic_map else (
        patch, Reading(), Thresholds(0.0, 0.5, 0.0), size_hw
    )  # fmt: skip
    task(*given)
    tracemalloc.start()
    found = task(*given)
    if isinstance(found, Instances):
        assert len(found.crops) > 50
        for number in range(len(found.crops)):
            found.crops[number]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * size_hw[0] * size_hw[1]
