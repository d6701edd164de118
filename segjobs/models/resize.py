"""The size that a network sees: the rules of ``model.resize``, for images and for label maps.

In: a rule and an image's height and width. Out: the height and width to resize to. A rule is one of

    native      the image's own size
    short:N     the shorter side becomes N, the longer one as torchvision computes it
    long:N      the longer side becomes N
    HxW         exactly this height and width; the aspect ratio is lost
"""

import math

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from segjobs.errors import ItemError

MAX_ASPECT = 16
"""``short:N`` refuses longer strips: 30000×10 pixels would become 1,560,000×520, which no memory holds."""


def target_size(rule: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width (both ≥ 1) that ``rule`` gives an image of ``size_hw``.

    Raises ItemError TOO_LARGE where ``short:N`` meets an image longer than ``MAX_ASPECT`` times its shorter side.
    """
    height, width = size_hw
    if rule == "native":
        return size_hw
    if "x" in rule:
        fixed_height, _, fixed_width = rule.partition("x")
        return int(fixed_height), int(fixed_width)
    side, _, number = rule.partition(":")
    wanted = int(number)
    short, long = sorted(size_hw)
    if side == "short":
        if is_long_strip(rule, size_hw):
            raise ItemError(
                "TOO_LARGE",
                f"{width}x{height} pixels is too long a strip for model.resize={rule} (at most {MAX_ASPECT}:1); "
                "use long:N, HxW or native",
            )
        new_short, new_long = wanted, int(wanted * long / short)
    else:
        new_short, new_long = max(1, int(wanted * short / long)), wanted
    return (new_long, new_short) if height > width else (new_short, new_long)


def scaled_size(size_hw: tuple[int, int], factor: float, *, multiple: int = 1) -> tuple[int, int]:
    """Both sides ``factor`` times as long, to the nearest multiple, of which there is one at least."""
    height, width = (multiple * max(1, round(side * factor / multiple)) for side in size_hw)
    return height, width


def is_long_strip(rule: str, size_hw: tuple[int, int]) -> bool:
    """Whether ``short:N`` refuses an image of this size."""
    return rule.startswith("short:") and max(size_hw) > MAX_ASPECT * min(size_hw)


def detection_size(rule: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width (both ≥ 1) at which Mask R-CNN sees an image: its reading of the rule (see ``maskrcnn``)."""
    if rule == "native" or "x" in rule:
        return target_size(rule, size_hw)
    side, _, number = rule.partition(":")
    short, long = int(number), round(1333 * int(number) / 800) if side == "short" else int(number)
    scale = min(short / min(size_hw), long / max(size_hw))
    return max(1, math.floor(size_hw[0] * scale)), max(1, math.floor(size_hw[1] * scale))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) → uint8 (3, H, W) over the same memory (copied only if read-only or strided)."""
    if not image.flags.writeable or not image.flags.c_contiguous:
        image = image.copy(order="C")
    return torch.from_numpy(image).permute(2, 0, 1)


def resize_image(image: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """uint8 (3, H, W) → uint8 (3, h, w): bilinear with antialiasing, by torch's native uint8 kernel.

    Equal to ``torchvision.transforms.v2.functional.resize``. The presets that torchvision ships beside its weights
    still use v1, which interpolates tensors in floats: some pixels differ by one grey level.
    """
    return resize(image, list(size_hw), antialias=True)


def resize_ids(ids: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Label map (H, W) → (h, w): each pixel takes the label under its centre."""
    rows = ((np.arange(size_hw[0]) + 0.5) * ids.shape[0] / size_hw[0]).astype(np.intp)
    columns = ((np.arange(size_hw[1]) + 0.5) * ids.shape[1] / size_hw[1]).astype(np.intp)
    return ids[rows[:, None], columns]
