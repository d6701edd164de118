"""Pictures for people: images and manifest segments in, PIL pictures out.

    overlay         the photo with its masks laid over it
    label_picture   the masks alone, in flat colours; unlabelled pixels hatched

Colours are the categories' own where these can be told apart, else those of ``PALETTE``.
"""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import cv2
import numpy as np
from PIL import Image

from segjobs.manifest.schema import Category, Task, palette_color
from segjobs.manifest.segments import Segment, stack

Color = tuple[int, int, int]

BACKGROUND_NAMES = ("background", "__background__", "_background_")
# The first seven are Okabe and Ito's, told apart by the colour-blind too (https://jfly.uni-koeln.de/color/);
# the others, from Trubetskoy's list of 20 distinct colours, add what these leave free.
PALETTE: tuple[Color, ...] = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (240, 228, 66), (204, 121, 167), (86, 180, 233), (230, 159, 0),
    (145, 30, 180), (191, 239, 69), (128, 0, 0), (220, 190, 255), (0, 0, 117), (154, 99, 36), (240, 50, 230),
    (170, 255, 195), (70, 153, 144), (255, 216, 177), (128, 128, 0),
)  # fmt: skip
_MIN_DISTANCE = 48  # of two colours, Euclidean in RGB: nearer ones are confused at thumbnail size
_OUTLINE_PER_PX = 1 / 400  # outline width by the picture's long edge


def display_colors(categories: Sequence[Category]) -> dict[int, Color]:
    """Category id → the colour it is drawn in.

    The categories' own where somebody chose them and they can be told apart. VOC's dark default
    colours, two that are nearly the same, or black for anything but the background give way to
    ``PALETTE`` and, past its end, to hues a golden angle apart.
    """
    colors = {category.id: category.color for category in categories}
    objects = {category.id: category.color for category in categories if not is_background(category)}
    defaults = {palette_color(index) for index in range(len(categories) + 1)}
    clash = any(_distance(a, b) < _MIN_DISTANCE for a, b in combinations([(0, 0, 0), *objects.values()], 2))
    if clash or defaults.issuperset(objects.values()):
        colors.update(zip(objects, _distinct_colors(len(objects)), strict=True))
    return colors


def overlay(
    image: np.ndarray | Image.Image,
    segments: Sequence[Segment],
    categories: Sequence[Category],
    *,
    alpha: float = 0.5,
    outline: bool = True,
) -> Image.Image:
    """The image, uint8 (H, W, 3) RGB or PIL, with the segments over it.

    ``alpha``: opacity of the masks, 0 to 1. Small masks lie over large ones; several objects of one
    class get shades of its colour. The background class leaves the photo as it is.
    """
    canvas = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
    background = {category.id for category in categories if is_background(category)}
    objects = [segment for segment in segments if segment.category_id not in background]
    width_px = max(1, round(max(canvas.shape[:2]) * _OUTLINE_PER_PX))
    for segment, color in _in_drawing_order(objects, display_colors(categories)):
        window, mask = _cut_out(segment, margin_px=width_px)
        pixels = canvas[window]
        blend = (1 - alpha) * pixels[mask] + alpha * np.array(color)
        pixels[mask] = np.rint(blend).astype(np.uint8)
        if outline:
            # The mask's edge and not the picture's: outside the window counts as mask.
            inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=width_px, borderValue=1)
            pixels[mask & (inner == 0)] = color
    return Image.fromarray(canvas)


def label_picture(
    segments: Sequence[Segment], size_hw: tuple[int, int], categories: Sequence[Category], *, task: Task = "semantic"
) -> Image.Image:
    """Segments in flat colours, without the photo.

    Pixels that no segment covers are hatched (``semantic``, ``panoptic``: unlabelled) or dark
    (``instance``: background, as the task defines it).
    """
    canvas = np.full((*size_hw, 3), 24, np.uint8) if task == "instance" else _hatching(size_hw)
    for segment, color in _in_drawing_order(segments, display_colors(categories)):
        window, mask = _cut_out(segment, margin_px=0)
        canvas[window][mask] = color
    return Image.fromarray(canvas)


# Colours and masks ---------------------------------------------------------------------------------


def is_background(category: Category) -> bool:
    return category.name.lower() in BACKGROUND_NAMES


def _distance(a: Color, b: Color) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


def _distinct_colors(count: int) -> list[Color]:
    colors = list(PALETTE[:count])
    for extra in range(count - len(colors)):
        rgb = colorsys.hsv_to_rgb(extra * 0.618034 % 1, 0.55 + 0.4 * (extra % 2), 0.95 - 0.3 * (extra % 3) / 2)
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return colors


def _shade(color: Color, position: int) -> Color:
    """The colour of a class's object number ``position``: near its class's, unlike its neighbours'."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    turn, lift = ((0, 0), (0.03, 0.25), (-0.03, -0.2), (0.05, -0.3), (-0.05, 0.35), (0, 0.5), (0.02, -0.4))[
        position % 7
    ]
    if lift < 0:
        value *= 1 + lift
    else:
        saturation, value = saturation * (1 - lift), value + (1 - value) * lift
    rgb = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def _in_drawing_order(segments: Sequence[Segment], colors: Mapping[int, Color]) -> list[tuple[Segment, Color]]:
    """Segments with their colours, large ones first, so that small ones stay visible."""
    objects = Counter(segment.category_id for segment in segments)
    seen: Counter[int] = Counter()
    drawn = []
    for place in stack(segments, "area"):
        segment, category_id = segments[place], segments[place].category_id
        color = colors[category_id]
        drawn.append((segment, _shade(color, seen[category_id]) if objects[category_id] > 1 else color))
        seen[category_id] += 1
    return drawn


def _cut_out(segment: Segment, *, margin_px: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The window of a segment's box, with a margin inside the image, and its mask there, bool (h, w)."""
    (height, width), (x, y, w, h) = segment.size_hw, segment.bbox
    window = (
        slice(max(0, int(y) - margin_px), min(height, int(y + h) + margin_px)),
        slice(max(0, int(x) - margin_px), min(width, int(x + w) + margin_px)),
    )
    return window, segment.mask()[window]


def _hatching(size_hw: tuple[int, int]) -> np.ndarray:
    """Diagonal grey stripes, uint8 (H, W, 3), wide enough to survive a thumbnail."""
    period = max(6, round(max(size_hw) / 40))
    y, x = np.ogrid[: size_hw[0], : size_hw[1]]
    stripe = (x + y) % period < period // 2
    return np.where(stripe[..., None], np.uint8(205), np.uint8(235)).repeat(3, axis=2)
