"""A Segmenter of the user's own for tests of the jobs: ``model.name=tests.toy_model:build``, no network, exact answers.

Red says the class (below 86 dark, below 172 mid, else bright), green the confidence (green / 255), so a
test knows the masks of every image that it draws. Blue of the first pixel is the image's number.

    TOY_SLEEP_S   seconds that each image takes, for tests that stop a run in the middle
    TOY_FAILS     numbers of images that the network has an error at, such as 3,5: today, not the next time
    TOY_LOG       a folder: one line per image that went through ``forward``, its number, in a file per process

``model.options``: ``seed`` (another seed is another model), ``spoil`` (a file that the first batch appends to, so
that it changes between the plan and its reading), ``poison`` (what the image of a number does to its process:
``{7: crash, 9: hang}``, or its answer, one of ``ANSWERS``).

``field5``, ``blobs`` and ``nearest`` are networks beside it, for tiles.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from segjobs.config import LossConfig
from segjobs.errors import ItemError
from segjobs.manifest.schema import ModelCard, make_categories
from segjobs.models import batching
from segjobs.models.base import VOID, Instances, LabelMap, Prediction
from segjobs.models.tiling import label_map_of
from tests import huge_scene

CATEGORIES = make_categories(["dark", "mid", "bright"])
ANSWERS: dict[str, Callable[[LabelMap], Any]] = {
    "transposed": lambda given: LabelMap(given.ids.T, given.confidence),
    "smaller": lambda given: LabelMap(given.ids[1:], given.confidence),
    "halves": lambda given: LabelMap(given.ids + np.float32(0.5), given.confidence),
    "another class": lambda given: LabelMap(given.ids + np.uint16(3), given.confidence),
    "no number": lambda given: LabelMap(given.ids, given.confidence * np.float32(np.nan)),
    "a list": lambda given: given.ids.tolist(),
}
"""What the toy can be made to answer instead of a label map."""
NOT_FINITE = 255
"""The number of an image for which the network answers NaN."""


class ToySegmenter:
    """See ``segjobs.models.base.Segmenter``."""

    same_size_batches = True

    def __init__(self, seed: int, spoil: str | None, poison: dict[int, str] | None) -> None:
        self._spoil = spoil
        self._poison = {int(number): what for number, what in (poison or {}).items()}
        self.card = ModelCard("toy", "semantic", CATEGORIES, digest=f"{seed:064d}", weights="none")
        self.module = torch.nn.Identity()

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self._spoil:
            with open(self._spoil, "ab") as file:
                file.write(b"more")
            self._spoil = None
        outputs = torch.stack(list(batch)).float()
        for output in outputs:
            number = int(output[2, 0, 0])
            time.sleep(float(os.environ.get("TOY_SLEEP_S", "0")))
            if folder := os.environ.get("TOY_LOG"):
                with (Path(folder) / str(os.getpid())).open("a") as file:
                    file.write(f"{number}\n")
            if self._poison.get(number) == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
                time.sleep(1000)  # Ray's handler is at it in another thread: this image is not done meanwhile
            if self._poison.get(number) == "hang":
                time.sleep(1000)
            if self._poison.get(number) == "raise" or str(number) in os.environ.get("TOY_FAILS", "").split(","):
                raise ValueError(f"the toy does not like {number}")
            if number == NOT_FINITE:
                output[0] = torch.nan
        return list(outputs)

    def postprocess(self, output: torch.Tensor, size_hw: tuple[int, int]) -> LabelMap:
        red, green, blue = output.numpy()
        if not np.isfinite(red).all():
            raise ItemError("NON_FINITE", "toy gave NaN")
        assert red.shape == size_hw
        answer = ANSWERS.get(self._poison.get(int(blue[0, 0]), ""), lambda given: given)
        return answer(LabelMap((red // 86).astype(np.uint16), green / np.float32(255)))

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        return [self.postprocess(self.forward([self.preprocess(image)])[0], image.shape[:2]) for image in images]

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Prediction]) -> torch.Tensor:
        raise NotImplementedError("the toy is not trained")


def build(seed: int = 0, spoil: str | None = None, poison: dict[int, str] | None = None) -> ToySegmenter:
    """The factory that ``model.name`` names."""
    return ToySegmenter(seed, spoil, poison)


class Field5:
    """A network that sees 5x5 pixels and computes in whole numbers: the same bits however an image is cut."""

    same_size_batches = True

    def __init__(self, classes: int) -> None:
        categories = make_categories([f"class {number}" for number in range(classes)])
        self.card = ModelCard("field5", "semantic", categories, digest="5" * 64, weights="none")
        self.module = torch.nn.Identity()
        generator = torch.Generator().manual_seed(5)
        self._kernel = torch.randint(-8, 9, (classes, 3, 5, 5), generator=generator).float()

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.copy()).permute(2, 0, 1)

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(F.conv2d(torch.stack(list(batch)).float(), self._kernel, padding=2) / 1024)

    def logits(self, output: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        assert output.shape[1:] == size_hw
        return output

    def postprocess(self, output: torch.Tensor, size_hw: tuple[int, int]) -> Prediction:
        return label_map_of(self.logits(output, size_hw).numpy())

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        return batching.predict(self, images)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        raise NotImplementedError("field5 is not trained")

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Prediction]) -> torch.Tensor:
        raise NotImplementedError("field5 is not trained")


class Blobs(Field5):
    """Each connected region of pixels that are not black is an object, of a class by its red, scored by its green."""

    def __init__(self) -> None:
        super().__init__(classes=3)
        self.card = ModelCard("blobs", "instance", CATEGORIES, digest="b" * 64, weights="none")

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(batch)

    def postprocess(self, output: torch.Tensor, size_hw: tuple[int, int]) -> Instances:
        pixels = output.numpy()
        count, regions, stats, _ = cv2.connectedComponentsWithStats((pixels.any(axis=0)).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.int64)
        crops = [
            (regions[y : y + h, x : x + w] == number).astype(np.float32) for number, (x, y, w, h) in enumerate(boxes, 1)
        ]
        colours = np.array([pixels[:, regions == number].max(axis=1) for number in range(1, count)]).reshape(-1, 3)
        corners = boxes[:, :2].astype(np.int32)
        order = np.argsort(-colours[:, 1].astype(np.int64), kind="stable")
        return Instances(
            size_hw=size_hw,
            classes=(colours[order, 0] // 86).astype(np.int64),
            scores=colours[order, 1].astype(np.float32) / 255,
            boxes_xyxy=np.concatenate([corners, corners + boxes[:, 2:]], axis=1).astype(np.float32)[order],
            crops=[crops[place] for place in order],
            corners_xy=corners[order],
        )


def blobs() -> Blobs:
    """The factory that ``model.name`` names."""
    return Blobs()


def field5(classes: int = 4, categories: Sequence[str] | None = None) -> Field5:
    """The factory that ``model.name`` names."""
    made = Field5(len(categories or range(classes)))
    if categories is not None:
        made.card = replace(made.card, categories=make_categories(categories))
    return made


def expected_ids(image: np.ndarray) -> np.ndarray:
    """The label map that the toy gives for an image uint8 (H, W, 3), VOID nowhere."""
    ids = (image[..., 0] // 86).astype(np.uint16)
    assert not (ids == VOID).any()
    return ids


class Nearest(Field5):
    """Each pixel is of the class whose colour in ``tests/huge_scene.py`` is nearest: exact, and of no field at all."""

    def __init__(self) -> None:
        super().__init__(classes=len(huge_scene.CLASSES))
        categories = make_categories(huge_scene.CLASSES)
        self.card = ModelCard("nearest", "semantic", categories, digest="c" * 64, weights="none")
        colors = torch.from_numpy(huge_scene.COLORS.astype(np.float32))
        self._kernel = 2 * colors[:, :, None, None]
        self._bias = -(colors**2).sum(dim=1)

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(F.conv2d(torch.stack(list(batch)).float(), self._kernel, self._bias) / 4096)


def nearest() -> Nearest:
    """The factory that ``model.name`` names."""
    return Nearest()


def nothing_to_learn(categories: Sequence[str]) -> Field5:
    """A factory of any classes, whose module has no parameter."""
    made = Field5(len(categories))
    made.card = replace(made.card, categories=make_categories(categories))
    return made
