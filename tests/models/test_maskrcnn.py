"""What is Mask R-CNN's own: the sizes that its network sees."""

import pytest
import torch

from segjobs.config import ModelConfig
from segjobs.models.maskrcnn import InstanceSegmenter
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
