"""The semantic Segmenter: any network that gives class logits, with its preprocessing and its way back.

    uint8 image → resize (rule of the card), pad to the network's divisor → logits → crop → upsample, argmax → LabelMap

A network maps float32 (N, 3, h, w) to logits (N, C, h', w'), or to torchvision's mapping ``{"out": …, "aux": …}``.
Where the logits are smaller than the input they are upsampled to the input's size and from there to the image's, as
torchvision followed by an interpolation does.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segjobs.config import LossConfig
from segjobs.errors import ItemError
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.schema import ModelCard
from segjobs.models import batching
from segjobs.models.base import VOID, LabelMap, LabelRuns, Prediction, Scales, Target, with_attributes
from segjobs.models.losses import resolve_class_weights, semantic_loss
from segjobs.models.preparing import preparing_by_card
from segjobs.models.resize import to_tensor
from segjobs.models.run_finder import find_runs
from segjobs.models.uncertainty import of_logits
from segjobs.models.upsample import upsample_on_cpu
from segjobs.models.upsample_device import DeviceLogits, runs_on_device, upsample_on_device, upsampled

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DEVICE_BYTES = 2**30  # larger upsampled logits go the CPU's way, plane by plane, instead of filling the GPU


class StrideLogits(nn.Module):
    """A torchvision segmentation network without its last step, the upsampling to the input's size.

    That step costs 61 million interpolated values for a batch of 8 at 520x693 and 21 classes; ``postprocess`` takes it
    for the classes that can win, which are few. The state dict is torchvision's, key by key.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        self.classifier = network.get_submodule("classifier")
        self.aux_classifier = dict(network.named_children()).get("aux_classifier")
        self._head_takes_all = not isinstance(self.classifier, nn.Sequential)  # LR-ASPP reads two feature maps

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """float32 (N, 3, h, w) → ``out`` (N, C, h/stride, w/stride), and ``aux`` alike while training."""
        features = self.backbone(batch)
        logits = {"out": self.classifier(features if self._head_takes_all else features["out"])}
        if self.training and self.aux_classifier is not None:
            logits["aux"] = self.aux_classifier(features["aux"])
        return logits


class ForegroundLogits(nn.Module):
    """A network of one channel, the foreground's logit, as one of two classes: softmax then gives its sigmoid."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 (N, 3, h, w) → logits (N, 2, h', w'), the background's 0."""
        foreground = self.network(batch)
        return torch.cat([torch.zeros_like(foreground), foreground], dim=1)


class SemanticSegmenter:
    """See ``base.Segmenter``. ``divisor``: the network takes heights and widths that are multiples of it; ``least``:
    and at least so long.

    ``resizing``: uint8 (3, H, W) → (3, h, w), in place of the card's rule; such a network's logits go straight to the
    image's size, as transformers upsamples them.
    """

    same_size_batches = True

    def __init__(
        self,
        module: nn.Module,
        card: ModelCard,
        *,
        divisor: int = 1,
        least: int = 1,
        resizing: Callable[[torch.Tensor], torch.Tensor] | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.card = card
        self.module = module.eval().to(torch.device(device)).to(memory_format=torch.channels_last)
        self._divisor = divisor
        self.preparing = preparing_by_card(card, divisor=divisor, least=least, by="torch")
        self._device = torch.device(device)
        self._dtype = AUTOCAST[precision]
        self._resizing = resizing
        self._range = 1 / card.preprocessing.get("scale", 1 / 255)
        self._mean = torch.tensor(card.preprocessing["mean"], device=device)[:, None, None]
        self._std = torch.tensor(card.preprocessing["std"], device=device)[:, None, None]
        self.set_loss(LossConfig())

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, 3) RGB → uint8 (3, h, w): resized; padded at right and bottom with the mean colour."""
        if self._resizing is not None:
            return self._resizing(to_tensor(image))
        return self.preparing.given(self.preparing.array(image))

    @torch.inference_mode()
    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Prepared tensors of one shape → logits (C, h', w') each, float32 or the autocast type, on the device."""
        return list(self._logits(batch)["out"])

    @torch.inference_mode()
    def postprocess(self, output: torch.Tensor, size_hw: tuple[int, int]) -> LabelMap:
        """Logits (C, h', w') of one image → its label map. Raises ItemError NON_FINITE."""
        logits, by_way_of = self._at_inner_size(output, size_hw)
        finite = torch.isfinite(logits.sum())  # a GPU's answer: asked for when it has no more to do
        label_map = self._on_device(logits, size_hw, by_way_of)
        self._check_finite(finite)
        if label_map is not None:
            return label_map
        return LabelMap(*upsample_on_cpu(logits.cpu().contiguous().numpy(), size_hw, by_way_of=by_way_of))

    @torch.inference_mode()
    def runs(self, outputs: Sequence[torch.Tensor], sizes_hw: Sequence[tuple[int, int]]) -> list[LabelRuns | ItemError]:
        """See ``base.GivesRuns``."""
        if self._device.type == "cuda":
            images = [
                DeviceLogits(logits, size_hw, by_way_of)
                for output, size_hw in zip(outputs, sizes_hw, strict=True)
                for logits, by_way_of in [self._at_inner_size(output, size_hw)]
            ]
            if all(4 * len(one.logits) * one.size_hw[0] * one.size_hw[1] <= _DEVICE_BYTES for one in images):
                with suppress(torch.OutOfMemoryError):
                    return [self._non_finite() if one is None else one for one in runs_on_device(images)]
        return list(map(self._runs_on_cpu, outputs, sizes_hw))

    def _runs_on_cpu(self, output: torch.Tensor, size_hw: tuple[int, int]) -> LabelRuns | ItemError:
        logits, by_way_of = self._at_inner_size(output, size_hw)
        array = logits.cpu().contiguous().numpy()
        if not np.isfinite(array.sum()):
            return self._non_finite()
        return find_runs(array, size_hw, by_way_of=by_way_of)

    @torch.inference_mode()
    def logits(self, output: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        """See ``base.GivesLogits``. Raises ItemError NON_FINITE."""
        logits, by_way_of = self._at_inner_size(output, size_hw)
        self._check_finite(torch.isfinite(logits.sum()))
        return upsampled(logits, size_hw, by_way_of=by_way_of)

    def uncertainty(self, output: torch.Tensor, size_hw: tuple[int, int]) -> Uncertainty:
        """See ``base.GivesUncertainty``."""
        return of_logits(self._at_inner_size(output, size_hw)[0])

    @torch.inference_mode()
    def planes(self, output: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        """See ``base.GivesPlanes``."""
        return self._at_inner_size(output, size_hw)[0]

    def scaled(self, factor: float) -> "SemanticSegmenter":
        """See ``base.Scales``; it shares the network."""
        resizing = self._resizing.scaled(factor) if isinstance(self._resizing, Scales) else self._resizing
        return with_attributes(self, preparing=replace(self.preparing, factor=factor), _resizing=resizing)

    def _at_inner_size(
        self, output: torch.Tensor, size_hw: tuple[int, int]
    ) -> tuple[torch.Tensor, tuple[int, int] | None]:
        """Logits without what was padded, float32, and the size to upsample them to before the image's, if any."""
        if self._resizing is not None:
            return output.float(), None
        inner = self.preparing.inner_size(size_hw)
        if self._divisor > 1:
            output = output[:, : inner[0], : inner[1]]
        logits = output.float()
        return logits, inner if logits.shape[1:] != inner != size_hw else None

    def _check_finite(self, finite: torch.Tensor) -> None:
        if not finite:
            raise self._non_finite()

    def _non_finite(self) -> ItemError:
        return ItemError("NON_FINITE", f"{self.card.name} gave NaN or infinity; with precision=fp16 try fp32")

    def _on_device(
        self, logits: torch.Tensor, size_hw: tuple[int, int], by_way_of: tuple[int, int] | None
    ) -> LabelMap | None:
        """The label map as a GPU makes it; None without one, or where it has no room for it."""
        if logits.is_cuda and 4 * len(logits) * size_hw[0] * size_hw[1] <= _DEVICE_BYTES:
            with suppress(torch.OutOfMemoryError):
                return LabelMap(*upsample_on_device(logits, size_hw, by_way_of=by_way_of))
        return None

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → one LabelMap each."""
        return batching.predict(self, images)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """What ``loss`` computes from now on. ``amounts``: see ``losses.resolve_class_weights``. Raises ConfigError."""
        names = [category.name for category in self.card.categories]
        weights = resolve_class_weights(config.class_weights, names, amounts)
        self._loss = config
        self._class_weights = None if weights is None else torch.tensor(weights, device=self._device)

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """``losses.semantic_loss`` at the images' own size, plus a share of the auxiliary head's.

        The card's resize rule is not applied: what a training shows has been scaled by then. Images of different
        sizes are padded to a common one; padding and ``VOID`` carry no loss.
        Raises ItemError LABEL_SHAPE or LABEL_VALUE for a target that does not fit.
        """
        height, width = self.preparing.padded_size(
            (max(image.shape[0] for image in images), max(image.shape[1] for image in images))
        )
        labels = np.full((len(images), height, width), VOID, np.int64)
        for label, image, target in zip(labels, images, targets, strict=True):
            label[: image.shape[0], : image.shape[1]] = self._checked_ids(image, target)
        truth = torch.from_numpy(labels).to(self._device)
        logits = self._logits([to_tensor(self.preparing.padded(image, (height, width))) for image in images])
        loss = self._loss_of(logits["out"], truth)
        return loss + self._loss.auxiliary * self._loss_of(logits["aux"], truth) if "aux" in logits else loss

    def _loss_of(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The logits are upsampled to the truth's size, as torchvision's networks do."""
        upsampled = F.interpolate(logits.float(), truth.shape[-2:], mode="bilinear", align_corners=False)
        return semantic_loss(upsampled, truth, self._loss, class_weights=self._class_weights)

    def _logits(self, batch: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        # Stacked as (N, h, w, 3) and viewed as (N, 3, h, w), the batch is channels_last without a copy.
        rows = [tensor.permute(1, 2, 0) for tensor in batch]
        # From pinned memory a batch is copied behind the one that is being computed, and nobody waits.
        pixels = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, pin_memory=self._device.type == "cuda")
        torch.stack(rows, out=pixels)
        scaled = (
            pixels.permute(0, 3, 1, 2)
            .to(self._device, non_blocking=True)
            .float()
            .div_(self._range)
            .sub_(self._mean)
            .div_(self._std)
        )
        with torch.autocast("cuda", self._dtype, enabled=self._device.type == "cuda" and self._dtype != torch.float32):
            logits = self.module(scaled)
        return {"out": logits} if isinstance(logits, torch.Tensor) else logits

    def _checked_ids(self, image: np.ndarray, target: Target) -> np.ndarray:
        if not isinstance(target, LabelMap) or target.ids.shape != image.shape[:2]:
            raise ItemError("LABEL_SHAPE", f"a semantic model trains on label maps of the image's {image.shape[:2]}")
        wrong = (target.ids >= len(self.card.categories)) & (target.ids != VOID)
        if wrong.any():
            known = len(self.card.categories) - 1
            raise ItemError(
                "LABEL_VALUE", f"label index {target.ids[wrong][0]} is no class of the model (0 to {known})"
            )
        return target.ids
