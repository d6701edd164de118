"""Average precision by hand, and equal to pycocotools on real and random sets."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjobs.errors import ManifestError
from segjobs.manifest.rle import encode_crop, encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.metrics.average_precision import FIGURES, DetectionMatches, accumulate, interpolated, join
from segjobs.metrics.matching import MATCHES_TYPE
from tests.metrics.coco_reference import Images, assert_equal, matches_of, reference

KINDS = ("mask", "box")


def test_a_case_by_hand():
    """Three objects; the ranking is right, wrong, right: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3."""
    bit = 1  # area range all, threshold .50
    rows = [
        {
            "detections": [
                {"category_id": 7, "score": 0.9, "matched": bit, "ignored": 0},
                {"category_id": 7, "score": 0.8, "matched": 0, "ignored": 0},
            ],
            "truth": [{"category_id": 7, "all": 2, "small": 0, "medium": 0, "large": 2}],
        },
        {
            "detections": [
                {"category_id": 7, "score": 0.85, "matched": 0, "ignored": -1},  # ignored: neither
                {"category_id": 7, "score": 0.1, "matched": bit, "ignored": 0},
            ],
            "truth": [{"category_id": 7, "all": 1, "small": 0, "medium": 0, "large": 1}],
        },
    ]
    result = accumulate(DetectionMatches.from_column(pa.array(rows, MATCHES_TYPE), [3, 7]))
    # Recalls 0 to .33 (34 of 101) at precision 1, .34 to .66 (33) at 2/3, none beyond.
    ap50 = (34 + 33 * 2 / 3) / 101
    assert result.figures["AP50"] == pytest.approx(ap50)
    assert result.figures["AP"] == pytest.approx(ap50 / 10)
    assert result.figures["AP75"] == 0.0
    assert result.figures["APs"] is result.figures["ARm"] is None
    assert result.figures["APl"] == 0.0
    assert result.figures["AR1"] == pytest.approx(1 / 3 / 10)  # the first of each image: right, and ignored
    assert result.figures["AR10"] == result.figures["AR100"] == pytest.approx(2 / 3 / 10)
    assert result.per_class["AP50"] == (None, pytest.approx(ap50))
    assert (result.objects, result.detections) == ((0, 3), (0, 4))


def test_interpolation_takes_the_best_precision_from_there_on():
    right = np.array([[False, True, False, True], [False] * 4])
    assert interpolated(right, ~right, 2) == pytest.approx([0.5, 0.0])
    assert np.isnan(interpolated(right, ~right, 0)).all()
    assert interpolated(np.zeros((1, 0), bool), np.zeros((1, 0), bool), 3).tolist() == [0.0]


# --- against pycocotools -----------------------------------------------------------------------

SIZE_HW = (120, 130)  # large enough for an object of each area range
CATEGORIES = [30, 4, 11]


def random_segment(rng: np.random.Generator, near: Segment | None = None) -> Segment:
    """A blob of any of the area ranges, or one near another."""
    if near is None:
        top, left = rng.integers(0, 110, 2)
        height, width = (int(rng.integers(1, min(110, limit) + 1)) for limit in (SIZE_HW[0] - top, SIZE_HW[1] - left))
    else:
        x, y, w, h = near.bbox
        left, top = (int(max(0, value + rng.integers(-2, 3))) for value in (x, y))
        width = int(np.clip(w + rng.integers(-3, 4), 1, SIZE_HW[1] - left))
        height = int(np.clip(h + rng.integers(-3, 4), 1, SIZE_HW[0] - top))
    mask = rng.random((height, width)) < rng.choice([1.0, 0.9])
    mask[0, 0] = True
    code = encode_crop(mask, (int(left), int(top)), SIZE_HW)
    category_id = int(near.category_id if near and rng.random() < 0.9 else rng.choice(CATEGORIES))
    score = float(rng.integers(0, 8) / 8 if rng.random() < 0.5 else rng.random())  # many ties
    return Segment.from_region(Category(category_id, "", (0, 0, 0)), code, SIZE_HW, score=score)


def random_images(seed: int) -> Images:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(int(rng.integers(1, 6))):
        truth = [replace(random_segment(rng), iscrowd=bool(rng.random() < 0.2)) for _ in range(rng.integers(0, 7))]
        predicted = [random_segment(rng) for _ in range(rng.integers(0, 6))]
        predicted += [random_segment(rng, near) for near in truth for _ in range(rng.integers(0, 3))]
        if predicted and rng.random() < 0.15:  # more than a hundred of one class
            predicted += [random_segment(rng, predicted[0]) for _ in range(110)]
        images.append((truth, [predicted[n] for n in rng.permutation(len(predicted))]))
    return images


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_random_sets(seed, kind):
    images = random_images(seed)
    assert_equal(accumulate(matches_of(images, CATEGORIES, kind)), reference(images, CATEGORIES, kind))


def shaken(truth: list[Segment], rng: np.random.Generator) -> list[Segment]:
    """Detections of real objects: moved, some of another class, some twice, some missed."""
    found = []
    for segment in truth:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            reach = 1 + int(0.2 * segment.area**0.5)
            mask = np.roll(segment.mask(), rng.integers(-reach, reach + 1, 2), (0, 1))
            region = encode_label_map(mask.astype(np.uint8), void=0)[0]
            category_id = segment.category_id if rng.random() < 0.9 else truth[0].category_id
            score = round(float(rng.random()), 2)
            found.append(
                Segment.from_region(Category(category_id, "", (0, 0, 0)), region, segment.size_hw, score=score)
            )
    return found


def read(path: Path) -> tuple[COCO, list[dict[str, Any]]]:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path)), json.loads(path.read_text())["categories"]


def segments_of(coco: COCO, image_id: int) -> list[Segment]:
    """Annotations with their JSON's own area and box, masks as codes."""
    segments = []
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):
        code = coco.annToRLE(annotation)
        counts = code["counts"] if isinstance(code["counts"], str) else code["counts"].decode()
        number, score, box = annotation["category_id"], annotation.get("score"), tuple(annotation["bbox"])
        crowd, size_hw = bool(annotation["iscrowd"]), tuple(code["size"])
        segments.append(Segment(number, "", score, box, annotation["area"], crowd, size_hw, counts))
    return segments


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["coco_mini/instances_train2017.json", "nuts_coco/trainval.json"])
def test_real_objects_and_shaken_detections(path, kind, shared_data):
    coco, categories = read(shared_data / path)
    rng = np.random.default_rng(1)
    truths = [segments_of(coco, image_id) for image_id in sorted(coco.getImgIds())]
    images = [(truth, shaken(truth, rng)) for truth in truths]
    ids = [category["id"] for category in categories]
    result = accumulate(matches_of(images, ids, kind))
    assert_equal(result, reference(images, ids, kind))
    assert 0.1 < (result.figures["AP"] or 0) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_coco_eval_files(kind, shared_data):
    """The public way: files in, ``loadRes`` (which takes a detection's area from its box where it has one)."""
    truth, categories = read(shared_data / "coco_eval" / "gt_dataset.json")
    with contextlib.redirect_stdout(io.StringIO()):
        detections = truth.loadRes(str(shared_data / "coco_eval" / "dt_dataset.json"))
        evaluation = COCOeval(truth, detections, "segm" if kind == "mask" else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    image_ids = sorted(truth.getImgIds())
    images = [(segments_of(truth, image_id), segments_of(detections, image_id)) for image_id in image_ids]
    result = accumulate(matches_of(images, [category["id"] for category in categories], kind))
    found = [-1.0 if result.figures[name] is None else result.figures[name] for name in FIGURES]
    np.testing.assert_allclose(found, evaluation.stats, rtol=0, atol=1e-9)
    assert (result.figures["AP"] or 0) > 0.1


# --- columns -----------------------------------------------------------------------------------


def test_blocks_join_and_images_select():
    images = random_images(11) + random_images(12)
    whole = matches_of(images, CATEGORIES, "mask")
    joined = join([matches_of(part, CATEGORIES, "mask") for part in (images[:2], images[2:])])
    assert accumulate(joined) == accumulate(whole)
    kept = np.arange(len(images)) % 2 == 0
    assert accumulate(whole.select(kept)) == accumulate(matches_of(images[::2], CATEGORIES, "mask"))


def test_columns_may_be_chunked_sliced_and_null():
    row = {
        "detections": [{"category_id": 2, "score": 0.5, "matched": 1, "ignored": 0}],
        "truth": [{"category_id": 2, "all": 1, "small": 1, "medium": 0, "large": 0}],
    }
    array = pa.array([None, row, {"detections": [], "truth": []}, row, None], MATCHES_TYPE)
    for column in (array, pa.chunked_array([array.slice(0, 2), array.slice(2)])):
        matches = DetectionMatches.from_column(column, [1, 2])
        assert matches.image.tolist() == matches.truth_image.tolist() == [1, 3]
        assert matches.category.tolist() == [1, 1]
        assert matches.images == 5
    assert DetectionMatches.from_column(array.slice(2, 2), [2]).image.tolist() == [1]
    assert accumulate(DetectionMatches.from_column(pa.chunked_array([], MATCHES_TYPE), [])).figures["AP"] is None


def test_unknown_categories_are_refused():
    row = {"detections": [{"category_id": 9, "score": 0.5, "matched": 0, "ignored": 0}], "truth": []}
    with pytest.raises(ManifestError, match=r"category ids \[9\]"):
        DetectionMatches.from_column(pa.array([row], MATCHES_TYPE), [1, 2])


def test_blocks_of_other_classes_do_not_join():
    empty = pa.array([], MATCHES_TYPE)
    with pytest.raises(ValueError, match="one number of classes"):
        join([DetectionMatches.from_column(empty, [1]), DetectionMatches.from_column(empty, [1, 2])])
