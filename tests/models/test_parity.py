"""Our way through torchvision's networks gives what torchvision gives, from the same seeded checkpoint."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms.v2 import functional as transforms

from segjobs.config import ModelConfig
from segjobs.errors import ItemError
from segjobs.models.paste import MaskCrops, RoiMasks
from segjobs.models.registry import build
from segjobs.storage import Storage

STORAGE = Storage()


def draw(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        "deeplabv3_mobilenet_v3_large",
        "fcn_resnet50",
        pytest.param("fcn_resnet101", marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet50", marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet101", marks=pytest.mark.slow),
    ],
)
def test_semantic_masks(name, tmp_path):
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    *_, last = (layer for layer in reference.classifier.modules() if getattr(layer, "out_channels", 0) == 21)
    with torch.inference_mode():  # random logits hardly vary: centred, more than one class wins
        last.bias -= reference(torch.randn(1, 3, 96, 120))["out"].mean(dim=(0, 2, 3))
    torch.save(reference.state_dict(), tmp_path / "seeded.pth")
    ours = build(ModelConfig(name=name, weights=str(tmp_path / "seeded.pth"), resize="short:96"), STORAGE, device="cpu")
    image = draw(120, 150)
    # Not torchvision's preset: it resizes tensors in floats, which rounds some pixels one grey level away.
    pixels = transforms.resize(torch.from_numpy(image).permute(2, 0, 1), [96], antialias=True)
    pixels = transforms.normalize(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        inner = reference(pixels[None])["out"]
    for size_hw in ((96, 120), (120, 150)):
        # The way back of a user of torchvision: its output, at the input's size, interpolated to the image's.
        logits = torch.nn.functional.interpolate(inner, size_hw, mode="bilinear", align_corners=False)
        expected = logits[0].numpy()
        (output,) = ours.forward([ours.preprocess(image)])
        ids = ours.postprocess(output, size_hw).ids
        check_labels(ids, expected)


def check_labels(ids, expected):
    assert len(np.unique(ids)) > 1
    # channels_last convolutions sum in another order: the winner may change where two logits are this close.
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    clear = first - second > 1e-4 * np.abs(expected).max()
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ids[clear], expected.argmax(axis=0)[clear])


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("maskrcnn_resnet50_fpn", "short:96"),
        pytest.param("maskrcnn_resnet50_fpn", "long:96", marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet50_fpn", "96x128", marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet50_fpn_v2", "short:96", marks=pytest.mark.slow),
    ],
)
def test_instances(name, resize, tmp_path):
    heads = {"box_score_thresh": 0.0, "box_detections_per_img": 10}
    sizes = {"short:96": (96, 160), "long:96": (96, 96), "96x128": (96, 128)}[resize]
    torch.manual_seed(0)
    reference = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, min_size=sizes[0], max_size=sizes[1], **heads
    ).eval()
    if "x" in resize:
        reference.transform.fixed_size = (128, 96)  # torchvision has width first here
    torch.save(reference.state_dict(), tmp_path / "seeded.pth")
    options = {**heads, "frozen_norm": False} if name == "maskrcnn_resnet50_fpn" else heads
    config = ModelConfig(name=name, weights=str(tmp_path / "seeded.pth"), options=options, resize=resize)
    ours = build(config, STORAGE, device="cpu")
    images = [draw(100, 120), draw(90, 140, seed=1)]
    # In the memory format that ours computes in: with the other one, torchvision's own boxes change where
    # non-maximum suppression meets a near tie.
    reference.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = reference([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])
    outputs = ours.forward([ours.preprocess(image) for image in images])
    channels = np.array([category.id for category in ours.card.categories])
    for image, output, truth in zip(images, outputs, expected, strict=True):
        got = ours.postprocess(output, image.shape[:2])
        real = np.isin(truth["labels"].numpy(), channels)
        assert len(got.scores) == real.sum() > 0
        np.testing.assert_array_equal(channels[got.classes], truth["labels"].numpy()[real])
        np.testing.assert_array_equal(got.scores, truth["scores"].numpy()[real])
        np.testing.assert_array_equal(got.boxes_xyxy, truth["boxes"].numpy()[real])
        for crop, (left, top), mask in zip(got.crops, got.corners_xy, truth["masks"].numpy()[real, 0], strict=True):
            pasted = np.zeros(image.shape[:2], np.float32)
            pasted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            np.testing.assert_allclose(pasted, mask, rtol=0, atol=ROUNDING)


def test_native_size_and_a_side_that_vanishes():
    heads = {"box_score_thresh": 0.0, "box_detections_per_img": 3}
    config = ModelConfig(name="maskrcnn_resnet50_fpn", weights="none", options=heads, resize="native")
    model = build(config, STORAGE, device="cpu")
    (output,) = model.forward([model.preprocess(draw(64, 96))])
    assert tuple(output.size_hw) == (64, 96)
    config = config.model_copy(update={"resize": "short:800"})
    with pytest.raises(ItemError, match=r"2x3000 pixels: model\.resize=short:800 leaves no pixel"):
        build(config, STORAGE, device="cpu").preprocess(draw(3000, 2))


ROUNDING = 4e-6  # of torchvision's own, whose weights are rounded otherwise on each kind of CPU
edge = st.floats(-4, 44, width=32)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(edge, edge, edge, edge), max_size=5), st.integers(0, 2**32 - 1))
def test_crops_are_torchvisions_pasted_masks_pixel_by_pixel(corners, seed):
    height, width = 30, 40
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 2, 2).sort(dim=1).values.reshape(-1, 4)
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    masks = torch.rand(len(boxes), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    expected = paste_masks_in_image(masks, boxes, (height, width))
    crops = MaskCrops(RoiMasks(masks, boxes.numpy(), (height, width)))
    assert len(crops) == len(crops[:]) == len(boxes)
    for crop, (left, top), truth in zip(crops, crops.corners_xy, expected[:, 0].numpy(), strict=True):
        pasted = np.zeros((height, width), np.float32)
        pasted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_allclose(pasted, truth, rtol=0, atol=ROUNDING)
        sure = np.abs(truth - 0.5) > ROUNDING
        np.testing.assert_array_equal((pasted >= 0.5)[sure], (truth >= 0.5)[sure])
