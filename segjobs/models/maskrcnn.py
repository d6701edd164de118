"""The instance Segmenter: torchvision's Mask R-CNN without its paste of every mask to the full image.

    uint8 image → [normalise, resize, batch: torchvision's own transform] → backbone → RPN → heads → boxes and
    28x28 mask probabilities → a batch's masks as runs at the original size, or crops, made when they are looked at

Paper: He et al. 2017 (https://arxiv.org/abs/1703.06870); v2: Li et al. 2021 (https://arxiv.org/abs/2111.11429).
Masks are pasted as torchvision's ``paste_masks_in_image`` does it (``paste.py``). Images of different sizes share
a batch, padded with zeros to the largest, as torchvision does; so a result may differ in its last digits, and near
the frame, from the one in another batch.

How ``model.resize`` reads here: ``short:N`` is torchvision's min_size N with max_size 1333·N/800; ``long:N`` bounds
the longer side alone; ``HxW`` is exact; ``native`` resizes nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops.misc import FrozenBatchNorm2d

from segjobs.config import LossConfig, PostprocessConfig
from segjobs.errors import ItemError
from segjobs.manifest.schema import ModelCard, Options
from segjobs.models import batching
from segjobs.models.base import Instances, ObjectRuns, Prediction, Target, with_attributes
from segjobs.models.paste import MaskCrops, MaskRuns, RoiMasks, runs_at
from segjobs.models.postprocess import kept_objects
from segjobs.models.resize import scaled_size, to_tensor
from segjobs.models.semantic import AUTOCAST
from segjobs.models.upsample_device import to_host


def maskrcnn(options: Options, num_classes: int) -> nn.Module:
    """``maskrcnn_resnet50_fpn`` with random weights; ``num_classes`` counts the background.

    ``frozen_norm``: batch norms are constants (``FrozenBatchNorm2d``, eps 0), as the published weights were
    trained; False learns them, for training from scratch.
    """
    others = dict(options)
    if not others.pop("frozen_norm"):
        return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=num_classes, **others)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    network = MaskRCNN(backbone, num_classes=num_classes, **others)
    for layer in network.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.eps = 0.0
    return network


def maskrcnn_v2(options: Options, num_classes: int) -> nn.Module:
    """``maskrcnn_resnet50_fpn_v2`` with random weights; ``num_classes`` counts the background."""
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=num_classes, **options)


@dataclass(frozen=True)
class Detections:
    """Raw output of one image, on the device. ``size_hw``: of the resized image, the frame of ``boxes_xyxy``.

    ``labels``: int64 (N,), the network's channel. ``masks``: float32 (N, 1, 28, 28) in [0, 1]. ``checksum``: NaN or
    infinite where a feature, a class score or a mask is.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor
    masks: torch.Tensor
    checksum: torch.Tensor


class _Found(NamedTuple):
    """An image's objects on the host: index into the categories, or -1, int64 (N,); float32 (N,); float32 (N, 4)."""

    classes: np.ndarray
    scores: np.ndarray
    boxes_xyxy: np.ndarray


class InstanceSegmenter:
    """See ``base.Segmenter``. A category's id is the network's channel; channels without a category are dropped."""

    same_size_batches = False

    def __init__(self, module: nn.Module, card: ModelCard, *, device: str = "cpu", precision: str = "fp32") -> None:
        self.card = card
        self.module = module.eval().to(torch.device(device)).to(memory_format=torch.channels_last)
        self._device = torch.device(device)
        self._dtype = AUTOCAST[precision]
        self._index_of_channel = np.full(max(category.id for category in card.categories) + 2, -1)
        self._index_of_channel[[category.id for category in card.categories]] = np.arange(len(card.categories))
        self._rule: str = card.preprocessing["resize"]
        self._transform: Any = self.module.transform
        self._set_transform()

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, 3) RGB → uint8 (3, H, W): the resize is the network's own. Raises ItemError TOO_LARGE."""
        height, width = image.shape[:2]
        transform = self._transform
        if self._rule.startswith(("short", "long")):
            scale = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
            if math.floor(min(height, width) * scale) < 1:
                raise ItemError(
                    "TOO_LARGE",
                    f"{width}x{height} pixels: model.resize={self._rule} leaves no pixel of the shorter side",
                )
        return to_tensor(image)

    @torch.inference_mode()
    def forward(self, batch: Sequence[torch.Tensor]) -> list[Detections]:
        """Prepared tensors of any sizes → the objects of each, boxes in the resized frame."""
        network: Any = self.module
        with self._autocast():
            images, _ = self._transform(self._scaled(batch), None)
            features = network.backbone(images.tensors.contiguous(memory_format=torch.channels_last))
            proposals, _ = network.rpn(images, features, None)
            return self._detect(features, proposals, images.image_sizes)

    @torch.inference_mode()
    def postprocess(self, output: Detections, size_hw: tuple[int, int]) -> Instances:
        """Raw output of one image → its instances, best first. Raises ItemError NON_FINITE."""
        ((found, masks),) = self._on_host([output], [size_hw])
        if found is None:
            raise self._non_finite()
        known = np.flatnonzero(found.classes >= 0)
        crops = MaskCrops(RoiMasks(masks.cpu()[known], found.boxes_xyxy[known], size_hw))
        return Instances(
            size_hw=size_hw,
            classes=found.classes[known],
            scores=found.scores[known],
            boxes_xyxy=found.boxes_xyxy[known],
            crops=crops,
            corners_xy=crops.corners_xy,
        )

    @torch.inference_mode()
    def object_runs(
        self, outputs: Sequence[Detections], sizes_hw: Sequence[tuple[int, int]], config: PostprocessConfig
    ) -> list[ObjectRuns | ItemError]:
        """See ``base.GivesObjectRuns``. Two copies to the host a batch: of what is no mask, and of the runs."""
        found: list[_Found | None] = []
        objects: list[RoiMasks] = []
        for (one, masks), size_hw in zip(self._on_host(outputs, sizes_hw), sizes_hw, strict=True):
            if one is not None:
                known = np.flatnonzero(one.classes >= 0)
                kept = known[kept_objects(one.scores[known], one.classes[known], self.card.categories, config)]
                one = _Found(*(values[kept] for values in one))
                places = torch.from_numpy(kept).to(masks.device, non_blocking=True)
                objects.append(RoiMasks(masks[places], one.boxes_xyxy, size_hw))
            found.append(one)
        runs = iter(self._runs(config.mask_threshold, objects))
        return [
            self._non_finite()
            if one is None
            else ObjectRuns(size_hw, one.classes, one.scores, one.boxes_xyxy, *next(runs))
            for one, size_hw in zip(found, sizes_hw, strict=True)
        ]

    def _runs(self, threshold: float, objects: Sequence[RoiMasks]) -> list[MaskRuns]:
        """``runs_at`` on the device; on the CPU where a GPU has no room for it."""
        with suppress(torch.OutOfMemoryError):
            return runs_at(threshold, objects)
        return runs_at(threshold, [replace(one, masks=one.masks.cpu()) for one in objects])

    def _on_host(
        self, outputs: Sequence[Detections], sizes_hw: Sequence[tuple[int, int]]
    ) -> "list[tuple[_Found | None, torch.Tensor]]":
        """Of each image all that is no mask, by one copy for the batch, None where it holds NaN; and its masks."""
        parts: list[torch.Tensor] = []
        for one in outputs:
            numbers = [one.boxes_xyxy.flatten(), one.scores, one.checksum.reshape(1)]
            parts.append(torch.cat([*(part.float().view(torch.int32) for part in numbers), one.labels.int()]))
        found: list[tuple[_Found | None, torch.Tensor]] = []
        for one, part, size_hw in zip(outputs, to_host(parts), sizes_hw, strict=True):
            count = len(one.labels)
            boxes, scores, checksum = np.split(part[: 5 * count + 1].view(np.float32), [4 * count, 5 * count])
            resized = resize_boxes(torch.from_numpy(boxes.reshape(-1, 4)), list(one.size_hw), list(size_hw)).numpy()
            kept = _Found(self._index_of_channel[part[5 * count + 1 :]], scores, resized)
            found.append((kept if np.isfinite(checksum[0]) else None, one.masks))
        return found

    def _non_finite(self) -> ItemError:
        return ItemError("NON_FINITE", f"{self.card.name} gave NaN or infinity; with precision=fp16 try fp32")

    def scaled(self, factor: float) -> "InstanceSegmenter":
        """See ``base.Scales``; it shares the network."""
        transform = copy(self._transform)
        other = with_attributes(self, _transform=transform)
        if self._rule == "native":
            transform.resize = partial(_enlarge, factor)
            return other
        transform.resize = partial(_resize_in_use, transform, type(transform).resize.__get__(transform))
        transform.min_size = tuple(round(side * factor) for side in transform.min_size)
        transform.max_size = round(transform.max_size * factor)
        if transform.fixed_size is not None:
            height, width = scaled_size(transform.fixed_size[::-1], factor)
            transform.fixed_size = (width, height)
        return other

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → Instances each, one image to a batch."""
        return batching.predict(self, images, batch_size=1)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """Nothing to choose: ``LossConfig`` is of semantic models."""

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """Sum of torchvision's five losses at the images' own size. Objects without width or height are left out.

        Raises ItemError LABEL_SHAPE for a target that does not fit.
        """
        truth = [self._target(image, target) for image, target in zip(images, targets, strict=True)]
        with self._autocast():
            losses = self.module(self._scaled([to_tensor(image) for image in images]), truth)
        return torch.stack([value.float() for value in losses.values()]).sum()

    def _set_transform(self) -> None:
        """Give torchvision's transform the card's rule (for use: in training nothing is resized), means, deviations."""
        transform = self._transform
        transform.image_mean = list(self.card.preprocessing["mean"])
        transform.image_std = list(self.card.preprocessing["std"])
        # In training images are of the size that they were augmented to.
        transform.resize = partial(_resize_in_use, transform, None if self._rule == "native" else transform.resize)
        if "x" in self._rule:
            height, _, width = self._rule.partition("x")
            transform.fixed_size = (int(width), int(height))
        elif self._rule != "native":
            side, _, number = self._rule.partition(":")
            transform.min_size = (int(number),)
            transform.max_size = round(1333 * int(number) / 800) if side == "short" else int(number)

    def _scaled(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [image.to(self._device, non_blocking=True).float() / 255 for image in batch]

    def _autocast(self) -> torch.autocast:
        enabled = self._device.type == "cuda" and self._dtype != torch.float32
        return torch.autocast("cuda", self._dtype, enabled=enabled)

    def _detect(
        self, features: Mapping[str, torch.Tensor], proposals: list[torch.Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """torchvision's ``RoIHeads.forward`` for inference, which also sums what must be finite.

        torchvision drops objects of NaN score without a word: a broken network would label images as empty.
        """
        heads: Any = self.module.roi_heads
        pooled = heads.box_roi_pool(features, proposals, sizes)
        class_logits, box_regression = heads.box_predictor(heads.box_head(pooled))
        checksums = torch.stack([level.float().sum(dim=(1, 2, 3)) for level in features.values()]).sum(dim=0)
        logits = class_logits.float().sum(dim=1).split([len(boxes) for boxes in proposals])
        boxes, scores, labels = heads.postprocess_detections(class_logits, box_regression, proposals, sizes)
        mask_logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, sizes)))
        masks = maskrcnn_inference(mask_logits, labels)
        return [
            Detections(
                sizes[i],
                boxes[i],
                labels[i],
                scores[i],
                masks[i],
                checksums[i] + logits[i].sum() + masks[i].float().sum(),
            )
            for i in range(len(boxes))
        ]

    def _target(self, image: np.ndarray, target: Target) -> dict[str, torch.Tensor]:
        if not isinstance(target, Instances) or target.size_hw != image.shape[:2]:
            raise ItemError(
                "LABEL_SHAPE", f"an instance model trains on objects in the image's {image.shape[:2]} pixels"
            )
        sides = target.boxes_xyxy[:, 2:] - target.boxes_xyxy[:, :2]
        kept = np.flatnonzero((sides > 0).all(axis=1))
        masks = np.zeros((len(kept), *target.size_hw), np.uint8)
        for mask, index in zip(masks, kept.tolist(), strict=True):
            crop, (left, top) = target.crops[index], target.corners_xy[index]
            mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop >= 0.5
        channels = np.array([category.id for category in self.card.categories], np.int64)[target.classes[kept]]
        return {
            "boxes": torch.from_numpy(target.boxes_xyxy[kept]).float().to(self._device),
            "labels": torch.from_numpy(channels).to(self._device),
            "masks": torch.from_numpy(masks).to(self._device),
        }


Sized = tuple[torch.Tensor, dict[str, torch.Tensor] | None]
"""An image and its target."""


def _resize_in_use(
    transform: nn.Module,
    resize: Callable[[torch.Tensor, dict[str, torch.Tensor] | None], Sized] | None,
    image: torch.Tensor,
    target: dict[str, torch.Tensor] | None = None,
) -> Sized:
    """torchvision's ``resize`` (None: none), but in training neither an image nor its target is resized."""
    return (image, target) if resize is None or transform.training else resize(image, target)


def _enlarge(factor: float, image: torch.Tensor, target: None = None) -> Sized:
    """The image (3, H, W), which no rule resizes, at ``factor`` times its sides; as torchvision interpolates."""
    size_hw = scaled_size((image.shape[-2], image.shape[-1]), factor)
    return F.interpolate(image[None], size_hw, mode="bilinear", align_corners=False)[0], target
