"""labelme: a JSON an image, to be laid beside the images.

    labelme/<name>.json   imagePath, imageHeight, imageWidth, and a shape of type ``mask`` for each object

A ``mask`` shape is a bitmap in its box, so labelme (5.2 and later) and ``prepare`` read back the very pixels; in
labelme it is edited by its AI and brush tools, not by corners. ``imagePath`` is the bare name: the folder is laid over
that of the images. labelme finds an image's JSON by its path without extension, so ``a.jpg`` and ``a.png`` share one,
which is counted. Scores stand in ``description``; crowd regions are left out.
"""

import base64
import io
import posixpath

import numpy as np
from PIL import Image

from segjobs.exporters.base import Exporter, Labelled, Loss, Setting, Written, exact, to_json
from segjobs.exporters.flatten import without_crowds
from segjobs.exporters.outline import window_of
from segjobs.manifest.segments import Segment

_VERSION = "5.5.0"  # of labelme, whose format this is


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its JSON."""
    found, crowds = without_crowds(image)
    height, width = image.size_hw
    content = {
        "version": _VERSION,
        "flags": {},
        "shapes": [_shape(segment, setting) for segment in found],
        "imagePath": posixpath.basename(image.image_id),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    losses = crowds + ((Loss("name", None, 1),) if image.shares_name else ())
    return Written(len(found), data=f"{to_json(content)}\n".encode(), losses=losses)


def _shape(segment: Segment, setting: Setting) -> dict[str, object]:
    (left, top), mask = window_of(segment.mask())
    height, width = mask.shape
    return {
        "label": segment.category,
        "points": [[left, top], [left + width - 1, top + height - 1]],  # labelme counts the last pixel in
        "group_id": None,
        "description": f"score {exact(segment.score)}" if setting.by_model else "",
        "shape_type": "mask",
        "flags": {},
        "mask": _bitmap(mask),
    }


def _bitmap(mask: np.ndarray) -> str:
    """bool (h, w) → base64 of a PNG, 0 or 1 a pixel, as labelme writes it."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


EXPORTER = Exporter(write, lambda setting: [], "labelme", ".json", by_stem=True)
