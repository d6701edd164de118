"""What a network is shown: as torchvision resizes it, and the same whether an actor or a decoding task does it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from segjobs.config import LabellingModelConfig, ModelConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.models.preparing import check_preparing, preparing_of
from segjobs.models.registry import build, resolve
from segjobs.sources.synthetic import draw_scene
from segjobs.storage import Storage

UNET = {"name": "unet", "weights": "none", "options": {"encoder": "resnet18"}, "categories": ["a", "b"]}


def preparing(rule, **settings):
    config = ModelConfig(**{**UNET, **settings, "resize": rule})
    return preparing_of(config, resolve(config, Storage()))


@pytest.mark.parametrize(("rule", "size_hw"), [("short:64", (64, 96)), ("40x50", (40, 50)), ("native", (90, 135))])
def test_it_is_resized_as_torchvision_does_and_padded_with_the_mean_colour(rule, size_hw):
    image = draw_scene(3, (90, 135), index=0)[0]
    found = preparing(rule).array(image)
    expected = resize(torch.from_numpy(image).permute(2, 0, 1), list(size_hw), antialias=True).permute(1, 2, 0).numpy()
    assert found.shape == (-(-size_hw[0] // 32) * 32, -(-size_hw[1] // 32) * 32, 3)
    np.testing.assert_array_equal(found[: size_hw[0], : size_hw[1]], expected)
    assert (found[size_hw[0] :] == (124, 116, 104)).all()
    assert (found[:, size_hw[1] :] == (124, 116, 104)).all()


def test_an_exported_network_is_shown_the_same():
    image = draw_scene(3, (300, 200), index=0)[0]
    ours, theirs = preparing("short:64", runtime="onnxruntime"), preparing("short:64")
    assert (ours.by, theirs.by) == ("numpy", "torch")
    np.testing.assert_array_equal(ours.array(image), theirs.array(image))


def test_a_segmenter_is_given_what_it_makes_itself():
    config = ModelConfig(**UNET, resize="short:64")
    segmenter = build(config, Storage(), device="cpu", threads=1)
    image = draw_scene(3, (90, 135), index=0)[0]
    tasks = preparing("short:64")
    check_preparing(segmenter, tasks)
    torch.testing.assert_close(tasks.given(tasks.array(image)), segmenter.preprocess(image), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"compute.decode: unet.* in a way of its own.*set compute.decode=actor"):
        check_preparing(segmenter, replace(tasks, divisor=64))


@pytest.mark.parametrize(("factor", "size_hw"), [(0.75, (48, 72)), (1.25, (80, 120)), (0.01, (1, 1))])
def test_a_view_of_another_scale(factor, size_hw):
    """Both sides so many times as long as by the rule, from the image itself, and padded then."""
    image = draw_scene(3, (90, 135), index=0)[0]
    view = replace(preparing("short:64"), factor=factor)
    assert view.inner_size((90, 135)) == size_hw
    found = view.array(image)
    expected = resize(torch.from_numpy(image).permute(2, 0, 1), list(size_hw), antialias=True).permute(1, 2, 0).numpy()
    assert found.shape == (*view.padded_size(size_hw), 3)
    np.testing.assert_array_equal(found[: size_hw[0], : size_hw[1]], expected)
    assert (found[size_hw[0] :] == (124, 116, 104)).all()
    segmenter = build(ModelConfig(**UNET, resize="short:64"), Storage(), device="cpu", threads=1).scaled(factor)
    torch.testing.assert_close(view.given(found), segmenter.preprocess(image), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="in a way of its own"):
        check_preparing(segmenter, replace(view, factor=1.0))


@pytest.mark.parametrize(
    "settings", [{"tta": ["hflip"]}, {"tta": ["scale:1.25"]}, {"name": "ensemble", "models": [UNET, UNET]}]
)
def test_several_passes_are_left_to_the_actor(settings):
    """Each sees an image in its own way, and decoding tasks prepare it in one."""
    model = settings if "models" in settings else {**UNET, **settings}
    config = LabellingModelConfig.model_validate(model)
    assert preparing_of(config, resolve(config, Storage())) is None


def test_a_strip_is_too_long():
    with pytest.raises(ItemError, match="TOO_LARGE"):
        preparing("short:64").array(np.zeros((2, 300, 3), np.uint8))


def test_models_with_ways_of_their_own_are_left_to_them():
    for name, task in (
        ("tests.toy_model:build", "semantic"),
        ("hf", "semantic"),
        ("maskrcnn_resnet50_fpn", "instance"),
    ):
        card = replace(resolve(ModelConfig(**UNET), Storage()), name=name, task=task)
        assert preparing_of(ModelConfig(name=name), card) is None
