"""Logits at the network's resolution → label maps, or their runs, at the image's, by torch on the device that has them.

The definition is ``upsample.py``'s. ``runs_on_device`` is the way of a batch: all of it happens on the device, and what
comes to the host is one tensor, of a few bytes for each run:

    logits of a batch ─→ interpolated, argmax, confidence ─→ column by column: where does the label change? ─┐
                                    host ←─ one copy ←─ counts, first pixels, labels, sums of confidence ←───┘

Nothing asks the device for a number on the way: a stream of work with one wait at its end. It runs on a CPU as well,
where tests hold it against the encoder of label maps; there ``run_finder.py`` is faster.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from segjobs.models.base import LabelRuns
from segjobs.models.upsample import steps_to, upsampled_array

_PIXELS_A_RUN = 32
"""Room for one run in so many pixels comes to the host: a trained network's masks have one in 300, noise one in 1.
Where that is too little, a second copy follows."""
_STEP_BYTES = 2**30  # of upsampled logits at once


@dataclass(frozen=True)
class DeviceLogits:
    """Of one image: float32 (C, h, w) on a device, the size to give them, and by way of which."""

    logits: torch.Tensor
    size_hw: tuple[int, int]
    by_way_of: tuple[int, int] | None = None


def runs_on_device(images: Sequence[DeviceLogits]) -> list[LabelRuns | None]:
    """The runs of each image's label map; None where its logits hold NaN or infinity."""
    found: list[LabelRuns | None] = [None] * len(images)
    steps = list(_steps(images))
    packed = [_found([images[number] for number in step], _room(images, step)) for step in steps]
    for step, answer in zip(steps, to_host(packed), strict=True):
        runs = _unpacked(answer, [images[number].size_hw for number in step])
        if runs is None:  # rare: more runs than there was room for
            (answer,) = to_host([_found([images[number] for number in step], _pixels(images, step))])
            runs = _unpacked(answer, [images[number].size_hw for number in step])
            assert runs is not None, "a run has a pixel"  # noqa: S101
        for number, one in zip(step, runs, strict=True):
            found[number] = one
    return found


def _steps(images: Sequence[DeviceLogits]) -> "list[list[int]]":
    """Numbers of images that are computed at once: alike in all sizes, as many as there is memory for."""
    alike: defaultdict[object, list[int]] = defaultdict(list)
    for number, one in enumerate(images):
        alike[one.logits.shape, one.size_hw, one.by_way_of].append(number)
    steps: list[list[int]] = []
    for numbers in alike.values():
        one = images[numbers[0]]
        largest = max(height * width for height, width in steps_to(one.size_hw, one.by_way_of))
        most = max(1, _STEP_BYTES // (4 * len(one.logits) * largest))
        steps += [numbers[start : start + most] for start in range(0, len(numbers), most)]
    return steps


def _pixels(images: Sequence[DeviceLogits], step: Sequence[int]) -> int:
    return sum(images[number].size_hw[0] * images[number].size_hw[1] for number in step)


def _room(images: Sequence[DeviceLogits], step: Sequence[int]) -> int:
    return min(_pixels(images, step), max(_pixels(images, step) // _PIXELS_A_RUN, 1024))


def _found(images: Sequence[DeviceLogits], room: int) -> torch.Tensor:
    """Images alike → int32 (2·n + 3·room,): runs of each, is each finite; of the runs first pixel, label and sum."""
    logits = torch.stack([one.logits for one in images])
    size_hw, by_way_of = images[0].size_hw, images[0].by_way_of
    finite = torch.isfinite(logits.sum((1, 2, 3)))
    ids, confidence = _labels(logits, size_hw, by_way_of)
    return pack_runs(ids, confidence, finite, room)


def pack_runs(ids: torch.Tensor, confidence: torch.Tensor, finite: torch.Tensor, room: int) -> torch.Tensor:
    """int64 and float32 (n, H, W), bool (n,) → see ``_found``. A run that there is no room for is left out."""
    ids, confidence = (plane.transpose(1, 2).reshape(len(ids), -1) for plane in (ids, confidence))
    opens = torch.ones_like(ids, dtype=torch.bool)
    torch.ne(ids[:, 1:], ids[:, :-1], out=opens[:, 1:])
    places = torch.nonzero_static(opens.flatten(), size=room, fill_value=ids.numel())[:, 0]
    # The sum over a run is the difference of two prefix sums: the same each time, as adding by atomics is not.
    prefix = F.pad(confidence.flatten().double().cumsum(0), (1, 0))[
        torch.cat([places, places.new_tensor([ids.numel()])])
    ]
    sums = prefix.diff().float().view(torch.int32)
    labels = F.pad(ids.flatten(), (0, 1))[places]
    parts = [opens.sum(1), finite, places % ids.shape[1], labels]
    return torch.cat([*(part.to(torch.int32) for part in parts), sums])


def _unpacked(answer: np.ndarray, sizes_hw: Sequence[tuple[int, int]]) -> list[LabelRuns | None] | None:
    """None where there was no room for all runs."""
    count = len(sizes_hw)
    runs, finite, places, labels, sums = np.split(
        answer, np.cumsum([count, count, *[(len(answer) - 2 * count) // 3] * 2])
    )
    ends = np.cumsum(runs)
    if ends[-1] > len(places):
        return None
    found: list[LabelRuns | None] = []
    for size_hw, end, length, good in zip(sizes_hw, ends.tolist(), runs.tolist(), finite.tolist(), strict=True):
        part = slice(end - length, end)
        kept = LabelRuns(
            size_hw,
            places[part].astype(np.int64),
            labels[part].astype(np.uint16),
            sums[part].view(np.float32).astype(np.float64),
        )
        found.append(kept if good else None)
    return found


def _labels(
    logits: torch.Tensor, size_hw: tuple[int, int], by_way_of: tuple[int, int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (n, C, h, w) → int64 ids and float32 confidence, both (n, H, W)."""
    inner = logits if by_way_of is None else _interpolate(logits, by_way_of)
    ids = _interpolate(inner, size_hw).argmax(1)
    return ids, _interpolate(logits.softmax(1), size_hw).gather(1, ids[:, None])[:, 0]


def upsample_on_device(
    logits: torch.Tensor, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C, h, w) on any device → uint16 ids and float32 confidence in [0, 1], both (H, W)."""
    ids, confidence = _labels(logits[None], size_hw, by_way_of)
    small = ids[0].to(torch.uint8 if len(logits) <= 256 else torch.int32)
    if not logits.is_cuda:
        return small.numpy().astype(np.uint16), confidence[0].numpy()
    # By way of pinned memory: a GPU copies there twice as fast, and is waited for once.
    found = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in (small, confidence[0])]
    for one, tensor in zip(found, (small, confidence[0]), strict=True):
        one.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return found[0].numpy().astype(np.uint16), found[1].numpy()


def upsampled(
    logits: torch.Tensor, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None
) -> torch.Tensor:
    """float32 (C, h, w) → (C, H, W) on the same device: the interpolated logits themselves, a copy of them."""
    if logits.is_cuda:
        planes = logits[None]
        for step in steps_to(size_hw, by_way_of):
            planes = _interpolate(planes, step)
        return planes[0]
    return torch.from_numpy(upsampled_array(logits.contiguous().numpy(), size_hw, by_way_of=by_way_of))


def _interpolate(planes: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(planes, size_hw, mode="bilinear", align_corners=False)


def to_host(parts: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """int32 tensors (n,) by one copy, on a GPU by way of pinned memory."""
    if not parts:
        return []
    whole = torch.cat(list(parts))
    host = torch.empty(whole.shape, dtype=whole.dtype, pin_memory=whole.is_cuda)
    host.copy_(whole, non_blocking=True)
    if whole.is_cuda:
        torch.cuda.current_stream().synchronize()
    return np.split(host.numpy(), np.cumsum([len(part) for part in parts])[:-1])
