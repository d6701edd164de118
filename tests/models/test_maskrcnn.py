"""What is Mask R-CNN's own: the sizes that its network sees, and the way from its outputs to masks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segjobs.config import ModelConfig, PostprocessConfig
from segjobs.errors import ItemError
from segjobs.models import maskrcnn, paste
from segjobs.models.by_runs import by_runs
from segjobs.models.maskrcnn import Detections, InstanceSegmenter
from segjobs.models.paste import MaskRuns, RoiMasks
from segjobs.models.postprocess import to_segments
from segjobs.models.registry import build
from segjobs.storage import Storage


@pytest.mark.parametrize(("resize", "seen_hw"), [("short:64", (64, 76)), ("64x64", (64, 64)), ("native", (40, 48))])
def test_images_are_resized_for_use_and_not_in_training(resize: str, seen_hw: tuple[int, int]) -> None:
    config = ModelConfig(name="maskrcnn_resnet50_fpn", weights="none", categories=["cat"], resize=resize)
    model = build(config, Storage(), device="cpu")
    assert isinstance(model, InstanceSegmenter)
    transform = model.module.transform
    for training, expected in ((False, seen_hw), (True, (40, 48))):
        transform.train(training)
        images, _ = transform([torch.zeros(3, 40, 48)])
        assert images.image_sizes == [expected]


CONFIGS = [
    PostprocessConfig(),
    PostprocessConfig(score_threshold=0.5, mask_threshold=0.3, min_area_px=40),
    PostprocessConfig(classes=["dog"], top_k=2),
]


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    config = ModelConfig(name="maskrcnn_resnet50_fpn", weights="none", categories=["cat", "dog", "cow"])
    built = build(config, Storage(), device="cpu")
    assert isinstance(built, InstanceSegmenter)
    return built


def detections(seed: int, count: int, size_hw: tuple[int, int] = (64, 80)) -> Detections:
    """What the network may give; channel 4 is none of the categories."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * torch.tensor(size_hw[::-1])
    masks = F.interpolate(torch.rand(count, 1, 5, 5, generator=generator), (28, 28), mode="bicubic").clamp(0, 1)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    labels = torch.randint(1, 5, (count,), generator=generator)
    return Detections(size_hw, corners.reshape(-1, 4), labels, scores, masks, torch.tensor(0.0))


SIZES = [(60, 75), (33, 90), (1, 1), (200, 150)]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_batch_s_masks_by_runs_are_those_of_one_crop_after_the_other(
    model: InstanceSegmenter, config: PostprocessConfig
) -> None:
    outputs = [detections(seed, count) for seed, count in enumerate([20, 0, 3, 40])]
    encode = by_runs(model, config)
    assert encode is not None
    found = encode(outputs, SIZES)
    for (segments, confidence), output, size_hw in zip(found, outputs, SIZES, strict=True):
        expected, mean = to_segments(model.postprocess(output, size_hw), model.card.categories, config)
        assert (segments, confidence) == (expected, mean)
        assert [one.stated_bbox for one in segments] == [one.stated_bbox for one in expected]
    assert len(found[3][0]) > 1, "objects to compare"
    assert encode(outputs[::-1], SIZES[::-1]) == found[::-1]
    assert encode([], []) == []


def test_a_batch_comes_to_the_host_by_two_copies(model: InstanceSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no mask, to know the windows; and the runs."""
    copies: list[str] = []
    for module in (maskrcnn, paste):
        to_host = module.to_host
        monkeypatch.setattr(
            module, "to_host", lambda parts, one=to_host, name=module.__name__: copies.append(name) or one(parts)
        )
    model.object_runs([detections(seed, 10) for seed in range(5)], [(64, 80)] * 5, PostprocessConfig())
    assert copies == ["segjobs.models.maskrcnn", "segjobs.models.paste"]


def test_numbers_that_are_none_are_told_of_their_image(model: InstanceSegmenter) -> None:
    outputs = [detections(seed, 4) for seed in range(3)]
    outputs[1] = replace(outputs[1], checksum=torch.tensor(torch.nan))
    found = model.object_runs(outputs, [(64, 80)] * 3, PostprocessConfig())
    assert [isinstance(one, ItemError) and one.code for one in found] == [False, "NON_FINITE", False]
    with pytest.raises(ItemError, match="NaN or infinity"):
        model.postprocess(outputs[1], (64, 80))


def test_a_mask_head_that_gives_nan_fails_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"box_score_thresh": 0.0, "box_detections_per_img": 3}
    config = ModelConfig(
        name="maskrcnn_resnet50_fpn", weights="none", options=heads, categories=["cat", "dog"], resize="native"
    )
    model = build(config, Storage(), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    model.module.roi_heads.mask_predictor.mask_fcn_logits.bias.data.fill_(torch.nan)
    (output,) = model.forward([model.preprocess(image)])
    assert len(output.scores)
    with pytest.raises(ItemError, match="NaN or infinity"):
        model.postprocess(output, (64, 64))


def test_what_a_gpu_has_no_room_for_is_pasted_on_the_cpu(
    model: InstanceSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [detections(1, 12)]
    expected = model.object_runs(outputs, [(64, 80)], PostprocessConfig())
    runs_at, full = paste.runs_at, [True]

    def short(threshold: float, images: Sequence[RoiMasks]) -> list[MaskRuns]:
        if full.pop():
            full.append(False)
            raise torch.OutOfMemoryError("no room")
        return runs_at(threshold, images)

    monkeypatch.setattr(maskrcnn, "runs_at", short)
    (found,) = model.object_runs(outputs, [(64, 80)], PostprocessConfig())
    for name, value in vars(expected[0]).items():
        np.testing.assert_array_equal(getattr(found, name), value)
