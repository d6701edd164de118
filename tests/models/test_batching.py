"""Batches: cut by shape and count; halved when the device's memory does not hold them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segjobs.errors import ItemError
from segjobs.models.batching import forward_in_halves, predict, same_size_runs


class Limited:
    """Stands in for a Segmenter on a device that holds ``pixels`` of input at a time."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.same_size_batches = True

    def preprocess(self, image):
        return torch.from_numpy(image).permute(2, 0, 1)

    def forward(self, batch):
        if sum(tensor[0].numel() for tensor in batch) > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")
        return [int(tensor.sum()) for tensor in batch]

    def postprocess(self, output, size_hw):
        return SimpleNamespace(total=output, size_hw=size_hw)


def tensors(*sides):
    return [torch.full((3, 1, side), index + 1, dtype=torch.uint8) for index, side in enumerate(sides)]


@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 8])
def test_halves_keep_the_order(pixels):
    batch = tensors(*[1] * 7)
    assert forward_in_halves(Limited(pixels), batch) == [3 * (index + 1) for index in range(7)]


def test_one_that_does_not_fit_alone():
    outputs = forward_in_halves(Limited(4), tensors(2, 9, 4))
    assert outputs[::2] == [3 * 2, 3 * 3 * 4]
    assert isinstance(outputs[1], ItemError)
    assert outputs[1].code == "GPU_OOM"
    assert "9x1 pixels do not fit" in outputs[1].message
    assert "\n" not in outputs[1].message


def test_runs():
    batch = tensors(2, 2, 2, 3, 3, 2)
    assert [(run.start, run.stop) for run in same_size_runs(batch, 2, same_size=True)] == [
        *((0, 2), (2, 3), (3, 5), (5, 6)),
    ]
    assert [(run.start, run.stop) for run in same_size_runs(batch, 4, same_size=False)] == [(0, 4), (4, 6)]
    assert list(same_size_runs([], 4, same_size=True)) == []


def test_predict_keeps_the_order():
    images = [np.full((1, side, 3), side, np.uint8) for side in (2, 2, 5, 1)]
    predictions = predict(Limited(100), images, batch_size=8)
    assert [p.total for p in predictions] == [12, 12, 75, 3]
    assert [p.size_hw for p in predictions] == [(1, 2), (1, 2), (1, 5), (1, 1)]
