"""Label maps as PNG: the class of each pixel, as segmentation frameworks read them.

    labels/<name>.png   palette (8 bit) with the classes' colours, or grey of 16 bits; a pixel holds its category_id
    classes.json        what the values mean

8 bits hold every id up to 255 and the void id; larger ids need 16. ``png.void_id`` (255, or 65535 where 255 is a
class or 16 bits are needed) marks unlabelled pixels. What no object of an instance manifest covers is background:
``png.background_id`` gives it a value of its own, else it is void too.

A label map has one class per pixel: objects of one class become one region, and where objects overlap the one of
higher score is on top. Both are counted.
"""

import io
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from segjobs.exporters.base import Document, Exporter, Labelled, Loss, Setting, Written
from segjobs.exporters.flatten import NOTHING, covering_losses, top_segments

FOLDER, SUFFIX = "labels", ".png"
_LARGEST_ID = 65535
_VOID_COLOR = (224, 224, 192)  # PASCAL VOC's, of its value 255


@dataclass(frozen=True)
class Values:
    """What pixels hold besides category ids. ``background``: where no object of an instance manifest lies."""

    void: int
    background: int
    bits: int


def values_of(setting: Setting) -> Values:
    """Void, background and bits of an export, from the config and the largest id."""
    png = setting.config.png
    used = [category.id for category in setting.categories]
    used += [value for value in (png.void_id, png.background_id) if value is not None]
    fits = max(used, default=0) <= (254 if png.void_id is None else 255)
    void = png.void_id if png.void_id is not None else (255 if fits else _LARGEST_ID)
    return Values(void, void if png.background_id is None else png.background_id, 8 if fits else 16)


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its label map."""
    values = values_of(setting)
    top, visible = top_segments(image, setting)
    ids = np.array([segment.category_id for segment in image.segments] + [0], np.int64)
    ids[NOTHING] = values.background if setting.task == "instance" else values.void
    pixels = ids[top]
    if values.bits == 8:
        data = png_of(pixels.astype(np.uint8), _palette(setting, values))
    else:
        data = png_of(pixels.astype(np.uint16))
    merged = ()
    if setting.task != "semantic":
        counts = Counter(image.segments[position].category_id for position in np.flatnonzero(visible).tolist())
        merged = tuple(Loss("merged", i, count) for i, count in sorted(counts.items()) if count > 1)
    losses = (*covering_losses(image, visible), *merged)
    return Written(int(np.count_nonzero(visible)), data=data, losses=losses)


def png_of(pixels: np.ndarray, palette: bytes | None = None) -> bytes:
    """uint8 (H, W, 3), uint8 (H, W) with a palette of 256 colours, or uint16 (H, W) → PNG."""
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def _palette(setting: Setting, values: Values) -> bytes:
    colors = np.zeros((256, 3), np.uint8)
    colors[values.void] = _VOID_COLOR
    for category in setting.categories:
        colors[category.id] = category.color
    return colors.tobytes()


def _check(setting: Setting) -> list[str]:
    values = values_of(setting)
    names = {category.id: category.name for category in setting.categories}
    problems = [
        f"class {name!r} has the id {number}: a PNG holds 0 to {_LARGEST_ID}; "
        "leave it out by naming the others in `categories`"
        for number, name in names.items()
        if not 0 <= number <= _LARGEST_ID
    ]
    if values.void in names:
        problems.append(
            f"png.void_id: {values.void} is the id of class {names[values.void]!r} too; give one that no class has"
        )
    background = setting.config.png.background_id
    if background is not None and background in names:
        problems.append(
            f"png.background_id: {background} is the id of class {names[background]!r} too; give one that no class has"
        )
    if background is not None and setting.task != "instance":
        problems.append(
            f"png.background_id: a {setting.task} manifest has no background of its own: what no segment covers is "
            "unlabelled; expected null"
        )
    return problems


def _classes(setting: Setting) -> str:
    values = values_of(setting)
    classes = [{"id": c.id, "name": c.name, "color": list(c.color)} for c in setting.categories]
    background = values.background if setting.task == "instance" else None
    about = {"void_id": values.void, "background_id": background, "bits": values.bits, "categories": classes}
    return json.dumps({"info": setting.about, **about}, indent=1, ensure_ascii=False) + "\n"


EXPORTER = Exporter(write, lambda setting: [Document("classes.json", _classes(setting))], FOLDER, SUFFIX, check=_check)
