"""What ``label`` writes is what torchvision gives when it is called directly, whatever the batch.

Tolerance: the pipeline computes in channels_last, whose convolutions add in another order than torchvision's
NCHW default, and convolutions of one image and of a batch differ likewise. What float32 itself leaves open is
measured, against the same network in float64: the labels must agree wherever the two best logits are further
apart than ``SLACK`` times that. Masks of objects must agree wherever the mask probability is further than 1e-3
from its threshold.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional
from torchvision.models.resnet import Bottleneck

from segjobs.config import LabelConfig, load_config
from segjobs.manifest.parts import read_rows
from segjobs.manifest.rle import decode, paint
from segjobs.models.resize import resize_image, target_size, to_tensor
from segjobs.sources.decode import decode_image
from segjobs.storage import Storage
from tests.in_process import label_in_process

MEAN, STD = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
# Those of ResNet-101 run the same code: tests/models/test_parity.py compares them.
SEMANTIC = ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
SLACK = 6.0
"""Two logits of ours and two of torchvision's may each be off by the error of float32, measured on one of the two."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def pixels_of(photo: Path) -> torch.Tensor:
    """A photo at ``model.resize=short:128``, normalised: float32 (1, 3, h, w)."""
    image = decode_image(photo.read_bytes(), max_pixels=10**8)
    pixels = resize_image(to_tensor(image), target_size("short:128", (image.shape[0], image.shape[1])))
    return ((pixels / 255 - MEAN) / STD)[None]


def checkpoint(name: str, path: Path, photos: Path) -> torch.nn.Module:
    """A seeded network, and its state dict at ``path``."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    if name in SEMANTIC:  # random logits hardly vary: with norms of a photo's statistics, centred, several classes win
        photo = pixels_of(min(photos.iterdir()))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
            if isinstance(layer, Bottleneck):  # else every block doubles the rounding errors of those before it
                torch.nn.init.constant_(layer.bn3.weight, 0.2)
        with torch.inference_mode():
            network.train()(torch.cat([photo, photo.flip(3)]))
        network.eval()
        *_, last = (layer for layer in network.classifier.modules() if getattr(layer, "out_channels", 0) == 21)
        with torch.inference_mode():
            last.bias -= network(photo)["out"].mean(dim=(0, 2, 3))
    torch.save(network.state_dict(), path)
    return network


def logits_of(network: torch.nn.Module, pixels: torch.Tensor, size_hw: tuple[int, int]) -> np.ndarray:
    """torchvision's logits (C, H, W) at the image's size, in the type of ``pixels``."""
    with torch.inference_mode():
        logits = network(pixels)["out"]
        return functional.interpolate(logits, size_hw, mode="bilinear", align_corners=False)[0].numpy()


def labelled(tmp_path: Path, photos: Path, name: str, batch_size: int, *overrides: str) -> list[dict[str, Any]]:
    output = str(tmp_path / f"batch{batch_size}")
    common = [f"input.uri={photos}", f"output.uri={output}", f"model.name={name}", "input.limit=2"]
    weights = [f"model.weights={tmp_path / 'seeded.pth'}", f"compute.batch_size={batch_size}"]
    assert label_in_process(load_config(LabelConfig, None, [*common, *weights, *overrides])).ok == 2
    return list(read_rows(Storage(), output))


@pytest.mark.parametrize("name", SEMANTIC)
def test_semantic(name: str, shared_data: Path, tmp_path: Path) -> None:
    photos = shared_data / "coco_mini" / "train2017"
    network = checkpoint(name, tmp_path / "seeded.pth", photos)
    rows = labelled(tmp_path, photos, name, 1, "model.resize=short:128")
    batched = labelled(tmp_path, photos, name, 2, "model.resize=short:128")
    exact = copy.deepcopy(network).double()
    several = 0
    for row, other in zip(rows, batched, strict=True):
        size_hw = (row["height"], row["width"])
        pixels = pixels_of(Path(row["uri"]))
        logits = logits_of(network, pixels, size_hw)
        error = np.abs(logits - logits_of(exact, pixels.double(), size_hw)).max()
        second, first = np.sort(logits, axis=0)[-2:]
        clear = first - second > SLACK * error
        expected = logits.argmax(axis=0)
        for one in (row, other):
            ids = paint([(s["category_id"], s["segmentation"]["counts"]) for s in one["segments"]], size_hw)
            np.testing.assert_array_equal(ids[clear], expected[clear])
        several += len(np.unique(expected)) > 1
        assert clear.mean() > 0.98
    assert several, "images of one class prove nothing"


def pasted_alike(box: np.ndarray, slack: float = 0.03) -> bool:
    """Whether rounding errors leave the whole pixels of this box (x1, y1, x2, y2) as they are.

    torchvision pastes a mask of 28×28 with a rim of one into the box widened as much, cut off to whole pixels.
    One thread instead of two moves a box by up to 0.008 pixels here.
    """
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (30 / 28)
    edges = np.concatenate([centre - half, centre + half])
    return bool((np.abs(edges - edges.round()) > slack).all())


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_instances(name: str, shared_data: Path, tmp_path: Path) -> None:
    photos = shared_data / "coco_mini" / "train2017"
    checkpoint(name, tmp_path / "seeded.pth", photos)
    heads = {"box_score_thresh": 0.0, "box_detections_per_img": 8}
    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, min_size=160, max_size=267, **heads
    ).eval()
    network.load_state_dict(torch.load(tmp_path / "seeded.pth", weights_only=True))
    options = [f"model.options.{key}={value}" for key, value in heads.items()]
    if name == "maskrcnn_resnet50_fpn":
        options.append("model.options.frozen_norm=false")
    compared, segments = 0, 0
    for row in labelled(tmp_path, photos, name, 1, "model.resize=short:160", *options):
        size_hw = (row["height"], row["width"])
        image = decode_image(Path(row["uri"]).read_bytes(), max_pixels=10**8)
        with torch.inference_mode():
            (expected,) = network([torch.from_numpy(image).permute(2, 0, 1) / 255])
        probabilities = expected["masks"][:, 0].numpy()
        for segment in row["segments"]:
            mask = decode(segment["segmentation"]["counts"], size_hw)
            same_class = np.flatnonzero(expected["labels"].numpy() == segment["category_id"])
            scores = expected["scores"].numpy()[same_class]
            nearest = same_class[np.argmin(np.abs(scores - segment["score"]))]
            np.testing.assert_allclose(expected["scores"][nearest], segment["score"], rtol=1e-4)
            segments += 1
            if not pasted_alike(expected["boxes"][nearest].numpy()):
                continue
            compared += 1
            clear = np.abs(probabilities[nearest] - 0.5) > 1e-3
            np.testing.assert_array_equal(mask[clear], (probabilities[nearest] >= 0.5)[clear])
    assert compared > segments / 2
