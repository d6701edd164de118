"""The universal Segmenter: transformers' networks of queries, as semantic, instance or panoptic.

uint8 image → its image processor's size → class and mask logits of queries → queries.py → a prediction
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segjobs.config import LossConfig
from segjobs.errors import ConfigError, ItemError, WeightsError
from segjobs.manifest.schema import ModelCard
from segjobs.models import batching
from segjobs.models.base import Prediction, Target, with_attributes
from segjobs.models.hf_files import Repository
from segjobs.models.hf_network import Resizing
from segjobs.models.queries import (
    Patch,
    Reading,
    Thresholds,
    instances,
    panoptic_map,
    semantic_logits,
    semantic_map,
    semantic_scores,
)
from segjobs.models.resize import to_tensor
from segjobs.models.semantic import AUTOCAST
from segjobs.models.weights import first_line

_TINY = 1e-12  # of a class's score; they may all be 0
_READINGS = {
    "eomt": Reading(at_image=True),
    "mask2former": Reading(grid_hw=(384, 384)),
    "maskformer": Reading(),
    "oneformer": Reading(antialias=True, exclusive=True),
}
"""By model type, as its image processor's ``post_process_…`` have it."""


class UniversalSegmenter:
    """See ``base.Segmenter``. It is not trained here."""

    same_size_batches = True

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        repository: Repository,
        resizing: Resizing,
        *,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.card = card
        self.module: Any = network.eval().to(torch.device(device))
        self._device = torch.device(device)
        self._dtype = AUTOCAST[precision]
        self._resizing = resizing
        self._kind = str(repository.config["model_type"])
        self._reading = _READINGS[self._kind]
        about = card.preprocessing
        self._range = 1 / about["scale"]
        self._mean, self._std = (torch.tensor(about[key], device=device)[:, None, None] for key in ("mean", "std"))
        self._more: dict[str, torch.Tensor] = {}
        if self._kind == "oneformer":
            self._more["task_inputs"] = task_tokens(repository, card.task).to(self._device)
        options = card.options
        stuff = frozenset(number for number, one in enumerate(card.categories) if one.isthing is False)
        self._thresholds = Thresholds(
            score=options.get("threshold", 0.0),
            mask=options.get("mask_threshold", 0.5),
            overlap=options.get("overlap_mask_area_threshold", 0.8),
            stuff=stuff if card.task == "panoptic" else frozenset(),
        )

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, 3) RGB → uint8 (3, h, w), resized; EoMT's padded at right and bottom. Raises ItemError."""
        resized = self._resizing(to_tensor(image))
        padding = self._resizing.padding((resized.shape[-2], resized.shape[-1]))
        return F.pad(resized, (0, padding[1], 0, padding[0])) if any(padding) else resized

    def forward(self, batch: Sequence[torch.Tensor]) -> list[list[Patch]]:
        """Prepared tensors of one shape → class and mask logits of each, on the device, by patch."""
        pixels = torch.stack(list(batch)).to(self._device, non_blocking=True)
        starts, along_height = self._starts((pixels.shape[-2], pixels.shape[-1]))
        if len(starts) > 1:
            side = self._resizing.patch_side
            parts = [pixels.narrow(2 if along_height else 3, start, side) for start in starts]
            pixels = torch.cat(parts)
        input_hw = (pixels.shape[-2], pixels.shape[-1])
        more = {key: value.expand(len(pixels), -1) for key, value in self._more.items()}
        enabled = self._device.type == "cuda" and self._dtype != torch.float32
        with torch.no_grad(), torch.autocast("cuda", self._dtype, enabled=enabled):
            scaled = pixels.float().div_(self._range).sub_(self._mean).div_(self._std)
            found = self.module(pixel_values=scaled, **more)
        rows = list(zip(found.class_queries_logits, found.masks_queries_logits, strict=True))
        return [
            [
                Patch(*rows[number * len(batch) + image], input_hw, input_hw, start)
                for number, start in enumerate(starts)
            ]
            for image in range(len(batch))
        ]

    @torch.inference_mode()
    def postprocess(self, output: Sequence[Patch], size_hw: tuple[int, int]) -> Prediction:
        """Logits of one image → its prediction at ``size_hw``. Raises ItemError NON_FINITE."""
        patches, reading, resized_hw = self._read(output, size_hw)
        self._check_finite(patches)
        if self.card.task == "semantic":
            return semantic_map(patches, reading, resized_hw, size_hw)
        task = panoptic_map if self.card.task == "panoptic" else instances
        return task(patches[0], reading, self._thresholds, size_hw)

    @torch.inference_mode()
    def logits(self, output: Sequence[Patch], size_hw: tuple[int, int]) -> torch.Tensor:
        """See ``base.GivesLogits``: of a semantic network, on the CPU. Raises ItemError NON_FINITE."""
        patches, reading, resized_hw = self._read(output, size_hw)
        self._check_finite(patches)
        return semantic_logits(patches, reading, resized_hw, size_hw)

    @torch.inference_mode()
    def planes(self, output: Sequence[Patch], size_hw: tuple[int, int]) -> torch.Tensor:
        """See ``base.GivesPlanes``: the logarithms of the classes' shares of all scores, on the CPU."""
        patches, reading, resized_hw = self._read(output, size_hw)
        scores = semantic_scores(patches, reading, resized_hw, size_hw).clamp(min=_TINY)
        not_finite = sum(0 * (one.classes.sum() + one.masks.sum()) for one in patches)  # 0, or NaN
        return (scores / scores.sum(dim=0)).log() + not_finite

    def scaled(self, factor: float) -> "UniversalSegmenter":
        """See ``base.Scales``; it shares the network."""
        return with_attributes(self, _resizing=self._resizing.scaled(factor))

    def _check_finite(self, patches: Sequence[Patch]) -> None:
        if not all(bool(torch.isfinite(one.classes.sum() + one.masks.sum())) for one in patches):
            raise ItemError("NON_FINITE", f"{self.card.name} gave NaN or infinity; with precision=fp16 try fp32")

    def _read(self, output: Sequence[Patch], size_hw: tuple[int, int]) -> tuple[list[Patch], Reading, tuple[int, int]]:
        """Logits on the CPU, how they are read, and the size that the image had for the network."""
        resized_hw = self._resizing.size_hw(size_hw)
        patches = [
            Patch(
                one.classes.float().cpu(),
                one.masks.float().cpu(),
                one.input_hw,
                (min(resized_hw[0], one.input_hw[0]), min(resized_hw[1], one.input_hw[1])),
                one.start,
            )
            for one in output
        ]
        reading = self._reading
        if self._kind == "eomt":  # reads its masks at the size of its input
            reading = Reading(grid_hw=patches[0].input_hw, at_image=True)
        return patches, reading, resized_hw

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → a prediction each."""
        return batching.predict(self, images)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """Nothing to choose: see ``loss``."""

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """Raises ConfigError."""
        raise ConfigError(f"model.name={self.card.name}: a network of queries is not trained by segjobs")

    def _starts(self, size_hw: tuple[int, int]) -> tuple[list[int], bool]:
        """Where patches begin on an image's longer side, and whether that is its height: EoMT's ``_split_image``."""
        side = self._resizing.patch_side
        longer = max(size_hw)
        count = math.ceil(longer / side) if side else 1
        overlap = (count * side - longer) / (count - 1) if count > 1 else 0
        return [int(number * (side - overlap)) for number in range(count)], size_hw[0] > size_hw[1]


def task_tokens(repository: Repository, task: str) -> torch.Tensor:
    """OneFormer's task, as its processor gives it to the network: int64 (1, task_seq_len). Raises WeightsError."""
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    length = repository.config.get("task_seq_len", 77)
    length = length if type(length) is int else 77
    files = repository.named
    text = f"the task is {task}"
    try:
        if "tokenizer.json" in files:
            tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
            tokenizer.no_padding()  # which a file may ask for, and with another token than 0
            tokenizer.enable_truncation(length)
            ids = tokenizer.encode(text).ids
        else:
            ids = CLIPTokenizer(str(files["vocab.json"]), str(files["merges.txt"]))(
                text, truncation=True, max_length=length
            )["input_ids"]
    except KeyError as error:
        raise WeightsError(
            f"{repository.uri}: OneFormer reads its task, and {error} of its tokenizer is missing"
        ) from error
    except Exception as error:  # what tokenizers' Rust raises is an Exception and no more
        raise WeightsError(f"{repository.uri}: the tokenizer cannot be read: {first_line(error)}") from error
    return F.pad(torch.tensor([ids]), (0, length - len(ids)))
