"""The contact sheet: images and their masks in, one picture out, which prepare, train and demo leave.

    image, segments → tile_of (shrunk) → contact_sheet: image | truth | prediction, a row an image, captions, a legend

Masks are drawn in the same colours and order as everywhere (``overlay.py``).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segjobs.manifest.rle import encode_crop
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment
from segjobs.page.overlay import display_colors, is_background, label_picture, overlay

_LONG_PX = 1024  # longest side of a tile's image: a few times its thumbnail, so that shrinking smooths outlines
_THUMB_PX = 280
_PAPER, _INK, _FAINT, _PANEL = (255, 255, 255), (31, 35, 40), (110, 118, 129), (240, 242, 245)
_MARGIN, _GAP, _LINE = 24, 10, 20  # pixels; _LINE is the height of a line of text
_SWATCH = 12


@dataclass(frozen=True)
class Tile:
    """One row of a contact sheet, small enough to hold many of them: made by ``tile_of``.

    ``image``: uint8 (H, W, 3) RGB. ``truth``, ``prediction``: segments of manifest rows, or
    None where there are none to show. ``score``: the image's own mIoU in [0, 1], if known. ``task``
    says what pixels without a segment are (see ``label_picture``).
    """

    name: str
    image: np.ndarray
    truth: Sequence[Segment] | None = None
    prediction: Sequence[Segment] | None = None
    score: float | None = None
    task: Task = "semantic"


def tile_of(
    name: str,
    image: np.ndarray,
    *,
    truth: Sequence[Segment] | None = None,
    prediction: Sequence[Segment] | None = None,
    score: float | None = None,
    task: Task = "semantic",
) -> Tile:
    """A tile of an image of any size, uint8 (H, W, 3) RGB, and its segments.

    Masks keep the pixel next to each kept one's centre; those that vanish are left out.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _LONG_PX / max(height, width))
    if scale == 1:
        return Tile(name, image, truth, prediction, score, task)
    size_hw = max(1, round(height * scale)), max(1, round(width * scale))
    truth, prediction = (side and _shrunk(side, (height, width), size_hw) for side in (truth, prediction))
    small = np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA))
    return Tile(name, small, truth, prediction, score, task)


def _shrunk(segments: Sequence[Segment], size_hw: tuple[int, int], to_hw: tuple[int, int]) -> list[Segment]:
    small: list[Segment] = []
    for segment in segments:
        segment.check_size(size_hw)
        mask = cv2.resize(segment.mask().astype(np.uint8), to_hw[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
        code = encode_crop(mask, (0, 0), to_hw)
        if code.area:
            small.append(segment.with_mask(code, to_hw))
    return small


def evenly_spread(count: int, most: int) -> list[int]:
    """``most`` of the numbers below ``count``, or all of them, the first and the last among them, in order."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()


def sheet_png(tiles: Sequence[Tile], *, legend: Sequence[Category], columns: Sequence[str], title: str) -> bytes:
    """``contact_sheet`` as a PNG."""
    buffer = io.BytesIO()
    contact_sheet(tiles, legend=legend, columns=columns, title=title).save(buffer, "PNG")
    return buffer.getvalue()


def contact_sheet(
    rows: Sequence[Tile],
    *,
    legend: Sequence[Category],
    columns: Sequence[str] = ("image", "truth", "prediction"),
    thumb_px: int = _THUMB_PX,
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
    photo = Image.fromarray(row.image)
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
        return photo
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
    ids = {segment.category_id for row in rows for segment in (*(row.truth or ()), *(row.prediction or ()))}
    if not any(column.endswith("_map") for column in columns):
        ids -= {category.id for category in categories if is_background(category)}
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
