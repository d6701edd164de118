"""Objects of several passes: which are one, their scores, masks and boxes, by hand."""

import numpy as np
import pytest

from segjobs.config import LabellingModelConfig, View
from segjobs.models.base import Instances
from segjobs.models.fusion import fused
from segjobs.models.passes import mirrored
from segjobs.models.registry import build
from segjobs.storage import Storage

SIZE_HW = (20, 30)
Box = tuple[int, int, int, int]


def found(*objects: tuple[int, float, Box], inside: float = 1.0) -> Instances:
    """Rectangles: class, score, (x, y, w, h); ``inside``: the mask's probability there."""
    boxes = [box for _, _, box in objects]
    return Instances(
        size_hw=SIZE_HW,
        classes=np.array([index for index, _, _ in objects], np.int64),
        scores=np.array([score for _, score, _ in objects], np.float32),
        boxes_xyxy=np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(-1, 4),
        crops=[np.full((h, w), inside, np.float32) for _, _, w, h in boxes],
        corners_xy=np.array([(x, y) for x, y, _, _ in boxes], np.int32).reshape(-1, 2),
    )


def whole(instances: Instances, place: int) -> np.ndarray:
    """The mask's probability on the whole image."""
    plane = np.zeros(instances.size_hw, np.float32)
    crop, (left, top) = instances.crops[place], instances.corners_xy[place].tolist()
    plane[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return plane


def test_an_object_of_all_passes_has_their_mean_score_their_vote_and_their_weighted_box() -> None:
    one, two, three = (
        found((1, 0.9, (4, 4, 10, 10))),
        found((1, 0.6, (6, 4, 10, 10))),
        found((1, 0.3, (4, 6, 10, 10))),
    )
    result = fused([one, two, three], [1 / 3] * 3)
    assert result.classes.tolist() == [1]
    assert result.scores.tolist() == pytest.approx([0.6])
    mean = sum(whole(each, 0) for each in (one, two, three)) / 3
    np.testing.assert_allclose(whole(result, 0), mean, atol=1e-6)
    vote = np.zeros(SIZE_HW, bool)  # of two of three
    vote[4:14, 6:14] = vote[6:14, 4:14] = vote[6:14, 6:14] = True
    assert np.array_equal(whole(result, 0) >= 0.5, vote)
    # (0.9 · 4 + 0.6 · 6 + 0.3 · 4) / 1.8, and so on
    assert result.boxes_xyxy[0].tolist() == pytest.approx([14 / 3, 13 / 3, 44 / 3, 43 / 3])


def test_what_a_pass_did_not_find_counts_as_nothing_there() -> None:
    result = fused([found((0, 0.9, (0, 0, 6, 6))), found(), found((0, 0.6, (0, 0, 6, 6)))], [1 / 3] * 3)
    assert result.scores.tolist() == pytest.approx([0.5])
    weighted = fused([found((0, 0.8, (0, 0, 6, 6))), found()], [0.75, 0.25])
    assert weighted.scores.tolist() == pytest.approx([0.6])


def test_other_classes_and_masks_that_share_less_than_half_stay_apart() -> None:
    one = found((0, 0.9, (0, 0, 8, 8)), (1, 0.5, (16, 0, 9, 9)))
    two = found((1, 0.8, (0, 0, 8, 8)), (1, 0.7, (20, 0, 9, 9)))  # IoU of the last: 45 / 117
    result = fused([one, two], [0.5, 0.5])
    assert result.scores.tolist() == pytest.approx([0.45, 0.4, 0.35, 0.25])
    assert result.classes.tolist() == [0, 1, 1, 1]
    half = fused([found((0, 0.9, (0, 0, 9, 8))), found((0, 0.9, (3, 0, 9, 8)))], [0.5, 0.5])  # 48 / 96
    assert half.scores.tolist() == pytest.approx([0.9])


def test_two_objects_of_one_pass_stay_two_and_each_takes_the_nearest() -> None:
    """One on the other, as a pass without suppression gives them."""
    one = found((0, 0.9, (0, 0, 10, 10)), (0, 0.8, (0, 0, 10, 9)))
    two = found((0, 0.7, (0, 0, 10, 9)), (0, 0.6, (0, 0, 10, 10)))
    result = fused([one, two], [0.5, 0.5])
    assert result.scores.tolist() == pytest.approx([(0.9 + 0.6) / 2, (0.8 + 0.7) / 2])
    assert [whole(result, place).sum() for place in (0, 1)] == [100, 90]


def test_no_object_in_any_pass() -> None:
    result = fused([found(), found()], [0.5, 0.5])
    assert (len(result.scores), len(result.crops)) == (0, 0)
    assert (result.boxes_xyxy.shape, result.corners_xy.shape) == ((0, 4), (0, 2))


@pytest.mark.parametrize("view", [View(), View(hflip=True), View(vflip=True), View(hflip=True, vflip=True)], ids=str)
def test_objects_of_a_mirrored_image_come_back(view: View) -> None:
    given = found((0, 0.9, (2, 3, 7, 5)))
    given.crops[0][0, 0] = 0.25
    back = mirrored(given, view)
    axes = [axis for axis, by in ((0, view.vflip), (1, view.hflip)) if by]
    assert np.array_equal(whole(back, 0), np.flip(whole(given, 0), axes))
    lit = np.argwhere(whole(back, 0) > 0)
    (top, left), (bottom, right) = lit.min(0), lit.max(0) + 1
    assert back.boxes_xyxy[0].tolist() == [left, top, right, bottom]
    assert np.array_equal(whole(mirrored(back, view), 0), whole(given, 0))


def test_flips_of_a_model_that_sees_alike_change_nothing() -> None:
    """The user's own, of which there are predictions alone."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[2:9, 3:20] = (100, 200, 1)
    image[15:28, 10:14] = (200, 100, 1)
    config = {"name": "tests.toy_model:blobs"}
    alone = build(LabellingModelConfig.model_validate(config), Storage(), device="cpu").predict([image])[0]
    views = {**config, "tta": ["hflip", "vflip", "hflip+vflip"]}
    result = build(LabellingModelConfig.model_validate(views), Storage(), device="cpu").predict([image])[0]
    assert isinstance(alone, Instances) and isinstance(result, Instances)
    assert result.classes.tolist() == alone.classes.tolist()
    np.testing.assert_allclose(result.scores, alone.scores, atol=1e-6)
    np.testing.assert_allclose(result.boxes_xyxy, alone.boxes_xyxy)
    for place in (0, 1):
        assert np.array_equal(whole(result, place), whole(alone, place))
