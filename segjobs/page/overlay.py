"""Pictures for people: images and manifest segments in, PIL pictures out.

    overlay         the photo with its masks laid over it
    label_picture   the masks alone, in flat colours; unlabelled pixels hatched
    contact_sheet   image | truth | prediction, one row per image, with captions and a legend

Colours are the categories' own where these can be told apart, else those of ``PALETTE``.
"""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segjobs.manifest.rle import decode, encode_crop
from segjobs.manifest.schema import Category, Task, palette_color

Color = tuple[int, int, int]
Segments = Sequence[Mapping[str, Any]]

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
    objects = {category.id: category.color for category in categories if not _is_background(category)}
    defaults = {palette_color(index) for index in range(len(categories) + 1)}
    clash = any(_distance(a, b) < _MIN_DISTANCE for a, b in combinations([(0, 0, 0), *objects.values()], 2))
    if clash or defaults.issuperset(objects.values()):
        colors.update(zip(objects, _distinct_colors(len(objects)), strict=True))
    return colors


def overlay(
    image: np.ndarray | Image.Image,
    segments: Segments,
    categories: Sequence[Category],
    *,
    alpha: float = 0.5,
    outline: bool = True,
) -> Image.Image:
    """The image, uint8 (H, W, 3) RGB or PIL, with a manifest row's segments over it.

    ``alpha``: opacity of the masks, 0 to 1. Small masks lie over large ones; several objects of one
    class get shades of its colour. The background class leaves the photo as it is.
    """
    canvas = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
    background = {category.id for category in categories if _is_background(category)}
    objects = [segment for segment in segments if segment["category_id"] not in background]
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
    segments: Segments, size_hw: tuple[int, int], categories: Sequence[Category], *, task: Task = "semantic"
) -> Image.Image:
    """A manifest row's segments in flat colours, without the photo.

    Pixels that no segment covers are hatched (``semantic``, ``panoptic``: unlabelled) or dark
    (``instance``: background, as the task defines it).
    """
    canvas = np.full((*size_hw, 3), 24, np.uint8) if task == "instance" else _hatching(size_hw)
    for segment, color in _in_drawing_order(segments, display_colors(categories)):
        window, mask = _cut_out(segment, margin_px=0)
        canvas[window][mask] = color
    return Image.fromarray(canvas)


# Contact sheet -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """One row of a contact sheet.

    ``image``: uint8 (H, W, 3) RGB or PIL. ``truth``, ``prediction``: segments of manifest rows, or
    None where there are none to show. ``score``: the image's own mIoU in [0, 1], if known. ``task``
    says what pixels without a segment are (see ``label_picture``).
    """

    name: str
    image: np.ndarray | Image.Image
    truth: Segments | None = None
    prediction: Segments | None = None
    score: float | None = None
    task: Task = "semantic"


_PAPER, _INK, _FAINT, _PANEL = (255, 255, 255), (31, 35, 40), (110, 118, 129), (240, 242, 245)
_MARGIN, _GAP, _LINE = 24, 10, 20  # pixels; _LINE is the height of a line of text
_SWATCH = 12


def contact_sheet(
    rows: Sequence[Tile],
    *,
    legend: Sequence[Category],
    columns: Sequence[str] = ("image", "truth", "prediction"),
    thumb_px: int = 280,
    title: str = "",
) -> Image.Image:
    """A sheet of one row per image, its pictures side by side and each at most ``thumb_px`` wide and high.

    ``legend``: the manifest's categories; those that occur on the sheet are explained at its foot.
    ``columns``: from ``image``, ``truth``, ``prediction`` (overlays), ``truth_map`` and
    ``prediction_map`` (flat colours).
    """
    width = 2 * _MARGIN + len(columns) * thumb_px + (len(columns) - 1) * _GAP
    strips = [_row_strip(row, legend, columns, thumb_px) for row in rows]
    head = _head_strip(title, columns, thumb_px, width)
    foot = _legend_strip(_occurring(rows, legend, columns), width)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in (head, *strips, foot))), _PAPER)
    y = 0
    for strip in (head, *strips, foot):
        sheet.paste(strip, (0 if strip.width == width else _MARGIN, y))
        y += strip.height
    return sheet


def _head_strip(title: str, columns: Sequence[str], thumb_px: int, width: int) -> Image.Image:
    top = _MARGIN + (_LINE + 16 if title else 0)
    strip = Image.new("RGB", (width, top + _LINE + 2), _PAPER)
    draw = ImageDraw.Draw(strip)
    if title:
        draw.text((_MARGIN, _MARGIN - 4), elide(title, width - 2 * _MARGIN, 20), _INK, _font(20))
    for position, column in enumerate(columns):
        draw.text((_MARGIN + position * (thumb_px + _GAP), top), column.replace("_", " "), _FAINT, _font(13))
    return strip


def _row_strip(row: Tile, categories: Sequence[Category], columns: Sequence[str], thumb_px: int) -> Image.Image:
    photo = row.image if isinstance(row.image, Image.Image) else Image.fromarray(row.image)
    scale = min(1.0, thumb_px / max(photo.size))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    width = len(columns) * thumb_px + (len(columns) - 1) * _GAP
    strip = Image.new("RGB", (width, size[1] + _LINE + 16), _PAPER)
    draw = ImageDraw.Draw(strip)
    for position, column in enumerate(columns):
        left = position * (thumb_px + _GAP)
        picture = _picture(row, column, photo, categories)
        if picture is None:
            draw.rectangle((left, 0, left + size[0] - 1, size[1] - 1), _PANEL)
            draw.text((left + size[0] / 2, size[1] / 2), f"no {column.split('_')[0]}", _FAINT, _font(13), anchor="mm")
        else:
            strip.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, 0))
    score = "" if row.score is None else f"mIoU {row.score:.2f}"
    name = elide(row.name, width - _font(13).getlength(score) - _GAP, 13)
    draw.text((0, size[1] + 4), name, _INK, _font(13))
    draw.text((width, size[1] + 4), score, _INK, _font(13), anchor="ra")
    return strip


def _picture(row: Tile, column: str, photo: Image.Image, categories: Sequence[Category]) -> Image.Image | None:
    kind, _, form = column.partition("_")
    if column == "image":
        return photo.convert("RGB")
    if kind not in ("truth", "prediction") or form not in ("", "map"):
        raise ValueError(f"column {column!r}: expected image, truth, prediction, truth_map or prediction_map")
    segments = row.truth if kind == "truth" else row.prediction
    if segments is None:
        return None
    if form == "map":
        return label_picture(segments, (photo.height, photo.width), categories, task=row.task)
    return overlay(photo, segments, categories, alpha=0.6)


def _occurring(rows: Sequence[Tile], categories: Sequence[Category], columns: Sequence[str]) -> list[Category]:
    """The categories drawn on the sheet, each in its colour; overlays do not draw the background."""
    ids = {segment["category_id"] for row in rows for segment in (*(row.truth or ()), *(row.prediction or ()))}
    if not any(column.endswith("_map") for column in columns):
        ids -= {category.id for category in categories if _is_background(category)}
    colors = display_colors(categories)
    return [replace(category, color=colors[category.id]) for category in categories if category.id in ids]


def _legend_strip(categories: Sequence[Category], width: int) -> Image.Image:
    places, x, y = [], _MARGIN, 4
    for category in categories:
        label = elide(category.name, width - 2 * _MARGIN - _SWATCH - 6, 13)
        step = _SWATCH + 6 + _font(13).getlength(label) + 18
        if x > _MARGIN and x + step - 18 > width - _MARGIN:
            x, y = _MARGIN, y + _LINE + 2
        places.append((x, y, label, category.color))
        x += step
    strip = Image.new("RGB", (width, y + (_LINE if places else 0) + _MARGIN - 4), _PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, label, color in places:
        draw.rounded_rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), 3, color)
        draw.text((x + _SWATCH + 6, y), label, _INK, _font(13))
    return strip


def elide(text: str, width_px: float, font_px: int) -> str:
    """``text``, or its beginning and end with an ellipsis between, so that it is at most ``width_px`` wide."""
    font = _font(font_px)
    if font.getlength(text) <= width_px:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if font.getlength(shorter) <= width_px:
            return shorter
    return "…"


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def shrunk(image: np.ndarray, segments: Segments, *, long_px: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """An image, uint8 (H, W, 3), and its segments, small enough for a sheet: at most ``long_px`` on its longer side.

    Masks keep the pixel next to each kept one's centre; those that vanish are left out.
    """
    height, width = image.shape[:2]
    scale = long_px / max(height, width)
    if scale >= 1:
        return image, [dict(segment) for segment in segments]
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    small = []
    for segment in segments:
        mask = decode(segment["segmentation"]["counts"], (height, width)).astype(np.uint8)
        mask = cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST).astype(bool)
        counts, area, bbox = encode_crop(mask, (0, 0), mask.shape)
        if area:
            code = {"size": list(mask.shape), "counts": counts}
            small.append({**segment, "segmentation": code, "area": area, "bbox": [float(edge) for edge in bbox]})
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)), small


# Colours and masks ---------------------------------------------------------------------------------


def _is_background(category: Category) -> bool:
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


def _in_drawing_order(segments: Segments, colors: Mapping[int, Color]) -> list[tuple[Mapping[str, Any], Color]]:
    """Segments with their colours, large ones first, so that small ones stay visible."""
    objects = Counter(segment["category_id"] for segment in segments)
    seen: Counter[int] = Counter()
    drawn = []
    for segment in sorted(segments, key=lambda segment: segment["area"], reverse=True):
        category_id = segment["category_id"]
        color = colors[category_id]
        drawn.append((segment, _shade(color, seen[category_id]) if objects[category_id] > 1 else color))
        seen[category_id] += 1
    return drawn


def _cut_out(segment: Mapping[str, Any], *, margin_px: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The window of a segment's box, with a margin inside the image, and its mask there, bool (h, w)."""
    height, width = segment["segmentation"]["size"]
    x, y, w, h = segment["bbox"]
    window = (
        slice(max(0, int(y) - margin_px), min(height, int(y + h) + margin_px)),
        slice(max(0, int(x) - margin_px), min(width, int(x + w) + margin_px)),
    )
    return window, decode(segment["segmentation"]["counts"], (height, width))[window]


def _hatching(size_hw: tuple[int, int]) -> np.ndarray:
    """Diagonal grey stripes, uint8 (H, W, 3), wide enough to survive a thumbnail."""
    period = max(6, round(max(size_hw) / 40))
    y, x = np.ogrid[: size_hw[0], : size_hw[1]]
    stripe = (x + y) % period < period // 2
    return np.where(stripe[..., None], np.uint8(205), np.uint8(235)).repeat(3, axis=2)
