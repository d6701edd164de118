"""Batches around a Segmenter: prepared tensors in, raw outputs (or predictions) out, in the order they came."""

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from segjobs.errors import ItemError
from segjobs.models.base import Prediction, Prepared, RawOutput, Segmenter, tensors_of
from segjobs.models.check_prediction import of_the_model
from segjobs.models.device_errors import out_of_memory

if TYPE_CHECKING:
    import torch

_OF_THREAD = threading.local()
_OVERTAKES = -1  # a stream's priority: its kernels go before those of the network's, on the default stream


@dataclass(frozen=True)
class Computed:
    """Raw outputs of a batch as ``forward_in_halves`` gives them. A GPU may still be computing: ``wait`` first."""

    outputs: list[RawOutput | ItemError]
    done: "torch.cuda.Event | None" = None

    def wait(self) -> None:
        """Returns once the device is done with the batch."""
        if self.done is not None:
            self.done.synchronize()


def launch(segmenter: Segmenter, batch: Sequence[Prepared]) -> Computed:
    """``forward_in_halves``, which on a GPU only queues the batch: the next one can be queued behind it."""
    outputs = forward_in_halves(segmenter, batch)
    if _gpu_of(segmenter) is None:
        return Computed(outputs)
    import torch  # here, and below: an exported network does without

    done = torch.cuda.Event(blocking=True)
    done.record()
    return Computed(outputs, done)


@contextmanager
def beside_the_network(segmenter: Segmenter) -> Iterator[None]:
    """Inside the ``with``, what the calling thread has a GPU do is not queued behind the network's next batch.

    For outputs that were waited for. On a CPU nothing changes.
    """
    if _gpu_of(segmenter) is None:
        yield
        return
    import torch

    if not hasattr(_OF_THREAD, "stream"):
        _OF_THREAD.stream = torch.cuda.Stream(priority=_OVERTAKES)
    with torch.cuda.stream(_OF_THREAD.stream):
        yield


def forward_in_halves(segmenter: Segmenter, batch: Sequence[Prepared]) -> list[RawOutput | ItemError]:
    """``segmenter.forward``, halving the batch each time the device runs out of memory, or the model raises an error.

    Returns one raw output per tensor, in order; for one that fails even alone, ItemError GPU_OOM or MODEL_ERROR.
    """
    try:
        with of_the_model():
            outputs = list(segmenter.forward(batch))
            if len(outputs) != len(batch):
                raise ItemError("MODEL_ERROR", f"forward gave {len(outputs)} outputs for {len(batch)} image(s)")
            return outputs
    except out_of_memory() as error:
        message = ". ".join(str(error).splitlines()[0].split(". ")[:2])  # and on with advice about torch's allocator
        height, width = max((tensor.shape[-2:] for tensor in tensors_of(batch[0])), key=math.prod)
        alone = ItemError("GPU_OOM", f"{width}x{height} pixels do not fit on the device alone: {message}")
    except ItemError as error:
        alone = ItemError(error.code, error.message)
    # Outside the handler: the exception's traceback would keep the failed batch's memory alive.
    if "torch" in sys.modules:  # an exported network does without
        sys.modules["torch"].cuda.empty_cache()
    if len(batch) == 1:
        return [alone]
    half = len(batch) // 2
    return forward_in_halves(segmenter, batch[:half]) + forward_in_halves(segmenter, batch[half:])


def same_size_runs(tensors: Sequence[Prepared], batch_size: int, *, same_size: bool) -> Iterator[slice]:
    """Cut a sequence into consecutive batches of at most ``batch_size``, each of one shape if ``same_size``."""
    start = 0
    for end in range(1, len(tensors) + 1):
        full = end - start == batch_size or end == len(tensors)
        if full or (same_size and tensors[end].shape != tensors[start].shape):
            yield slice(start, end)
            start = end


def predict(segmenter: Segmenter, images: Sequence[np.ndarray], *, batch_size: int = 8) -> list[Prediction]:
    """preprocess → forward → postprocess for images uint8 (H, W, 3) RGB of any sizes. Raises the first ItemError."""
    tensors = [segmenter.preprocess(image) for image in images]
    predictions: list[Prediction] = []
    for run in same_size_runs(tensors, batch_size, same_size=segmenter.same_size_batches):
        outputs = segmenter.forward(tensors[run])
        predictions += [
            segmenter.postprocess(output, (image.shape[0], image.shape[1]))
            for output, image in zip(outputs, images[run], strict=True)
        ]
    return predictions


@contextmanager
def set_aside(segmenter: Segmenter, device: Executor) -> Iterator[None]:
    """Inside the ``with``, the model leaves the GPU's memory to other processes; ``device`` runs its thread.

    No forward may be asked for meanwhile. On a CPU nothing changes.
    """
    where = _gpu_of(segmenter)
    if where is None:
        yield
        return
    import torch

    def move(to: str | torch.device) -> None:
        segmenter.module.to(to)
        torch.cuda.empty_cache()

    device.submit(move, "cpu").result()
    try:
        yield
    finally:
        device.submit(move, where).result()


def _gpu_of(segmenter: Segmenter) -> "torch.device | None":
    """The GPU that the network is on; None on a CPU, or of a network that is none of torch."""
    if segmenter.module is None:
        return None
    device = next((parameter.device for parameter in segmenter.module.parameters()), None)
    return device if device is not None and device.type == "cuda" else None


def compute_single_threaded() -> None:
    """Let torch and OpenCV use the calling thread only: for threads that work beside the network's."""
    if "torch" in sys.modules:  # an exported network does without
        sys.modules["torch"].set_num_threads(1)
    cv2.setNumThreads(1)
