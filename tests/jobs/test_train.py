"""The training loop: what it feeds the model, that it learns, and that the seed decides everything."""

import numpy as np
import pytest
import torch

from segjobs.config import ModelConfig
from segjobs.jobs.train import FitSettings, Sample, fit
from segjobs.models.base import VOID, LabelMap, Segmenter
from segjobs.models.registry import build
from segjobs.storage import Storage

SETTINGS = FitSettings(steps=12, batch_size=2, crop_px=32)


def samples() -> list[Sample]:
    """Bright squares on dark ground; one image is smaller than a crop."""
    made = []
    for height, width in ((40, 48), (64, 32), (20, 24)):
        image = np.full((height, width, 3), 40, np.uint8)
        ids = np.zeros((height, width), np.uint16)
        image[5:15, 5:15], ids[5:15, 5:15] = 220, 1
        made.append((image, ids))
    return made


def model(seed: int = 0) -> Segmenter:
    config = ModelConfig(
        name="unet", weights="none", options={"encoder": "resnet18"}, categories=["ground", "square"], seed=seed
    )
    return build(config, Storage(), device="cpu", threads=1)


class Recorder:
    """A Segmenter's training side that keeps what it is given."""

    def __init__(self, loss: float = 0.0) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.seen: list[tuple[list[np.ndarray], list[LabelMap]]] = []
        self._loss = loss

    def loss(self, images, targets):
        self.seen.append((images, targets))
        return self.module.weight.sum() * 0 + self._loss


def test_batches_are_crops_with_their_labels() -> None:
    recorder = Recorder()
    fit(recorder, samples(), SETTINGS)
    assert len(recorder.seen) == 12
    for images, targets in recorder.seen:
        assert [image.shape for image in images] == [(32, 32, 3)] * 2
        for image, target in zip(images, targets, strict=True):
            bright = image[..., 0] == 220
            np.testing.assert_array_equal(bright, target.ids == 1)
            np.testing.assert_array_equal(image[..., 0] == 0, target.ids == VOID), "padding carries no label"
    assert not recorder.module.training


def test_every_sample_is_seen_before_any_is_seen_again() -> None:
    recorder = Recorder()
    fit(recorder, samples(), FitSettings(steps=3, batch_size=1, crop_px=32))
    padded = sum((target.ids == VOID).any() for _, targets in recorder.seen for target in targets)
    assert padded == 1, "one of the three samples is smaller than the crop"


def test_a_loss_that_is_not_finite_stops() -> None:
    with pytest.raises(ValueError, match="the loss is nan at step 1"):
        fit(Recorder(float("nan")), samples(), SETTINGS)


def test_it_learns_and_the_seed_decides() -> None:
    curves: list[list[float]] = []
    for _ in range(2):
        losses: list[float] = []
        fit(model(), samples(), SETTINGS, on_step=lambda step, loss, losses=losses: losses.append(loss))
        curves.append(losses)
    assert curves[0] == curves[1]
    assert np.mean(curves[0][-3:]) < 0.5 * np.mean(curves[0][:3])
