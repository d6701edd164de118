"""YOLO segmentation: a text file for each image with one ring per object, as Ultralytics reads it.

    labels/<name>.txt   class index, then x y x y … of one ring, divided by width and height
    images.txt          where each image is expected: ./images/<name><its extension>
    data.yaml           class names by index, and images.txt as both sets

A line is one ring. The ring here is the mask's outline along the edges of its pixels; holes and further parts are
joined to it by bridges that are walked to and fro and enclose nothing. A reader that asks for the centre of a pixel,
or COCO's rasteriser, gives back the very mask. Ultralytics draws the ring with ``cv2.fillPoly`` on whole pixels, edge
included, which thickens objects to the right and below and draws the bridges: the pixels of difference are counted,
at the image's own size and before Ultralytics' resampling to 1000 points. ``yolo.tolerance_px`` makes rings shorter.

Crowd regions are left out, as Ultralytics' own converter does. An image without objects has an empty file.
"""

import posixpath

import cv2
import numpy as np

from segjobs.exporters.base import Document, Exporter, Labelled, Loss, Series, Setting, Written, to_json
from segjobs.exporters.flatten import without_crowds
from segjobs.exporters.outline import joined, rings_of, signed_area, simplified, window_of

FOLDER, SUFFIX = "labels", ".txt"


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its text file."""
    found, crowds = without_crowds(image)
    lines, losses = [], [*crowds]
    for segment in found:
        (left, top), mask = window_of(segment.mask())
        rings = rings_of(mask)
        kept = [ring for one in rings if (ring := simplified(one, setting.config.yolo.tolerance_px)) is not None]
        if not kept:  # simplified to nothing: a ring around its box stays
            kept = rings_of(np.ones_like(mask))
        ring = joined(kept) + np.array([left, top])
        line, drawn = _line(ring, image.size_hw)
        lines.append(f"{setting.index[segment.category_id]} {line}\n")
        losses += _losses(segment.category_id, rings, mask, _drawn(drawn, (left, top), image.size_hw, mask.shape))
    path = f"./images/{image.name}{posixpath.splitext(image.image_id)[1]}"
    data = "".join(lines).encode()
    return Written(len(lines), data=data, image=path, losses=tuple(losses))


def _line(ring: np.ndarray, size_hw: tuple[int, int]) -> tuple[str, np.ndarray]:
    """A ring of pixels → its text, and the whole pixels, int32 (N, 2), that Ultralytics makes of the text."""
    scale = np.array([size_hw[1], size_hw[0]])
    words = [f"{value:.7g}" for value in (ring / scale).ravel().tolist()]
    read = np.array(words, np.float32).reshape(-1, 2)
    return " ".join(words), (read * scale.astype(np.float32)).astype(np.int32)


def _drawn(
    points: np.ndarray, corner_xy: tuple[int, int], size_hw: tuple[int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """What cv2.fillPoly makes of a ring, bool, in a window that is one pixel wider than ``shape`` on every side."""
    (left, top), (height, width) = corner_xy, shape
    window = np.zeros((height + 2, width + 2), np.uint8)
    cv2.fillPoly(window, [points - np.array(corner_xy, np.int32) + 1], 1)
    inside = np.zeros(window.shape, bool)  # the image ends where the window may not
    inside[max(0, 1 - top) : size_hw[0] - top + 1, max(0, 1 - left) : size_hw[1] - left + 1] = True
    return window.astype(bool) & inside


def _losses(category_id: int, rings: list[np.ndarray], mask: np.ndarray, drawn: np.ndarray) -> list[Loss]:
    areas = [signed_area(ring) for ring in rings]
    holes, parts = [-area for area in areas if area < 0], [area for area in areas if area > 0]
    true = np.pad(mask, 1)
    extra, missing = int((drawn & ~true).sum()), int((true & ~drawn).sum())
    found = [
        Loss("holes", category_id, len(holes), sum(holes)),
        Loss("parts", category_id, len(parts) - 1, sum(sorted(parts)[:-1])),
        Loss("extra", category_id, int(extra > 0), extra),
        Loss("missing", category_id, int(missing > 0), missing),
    ]
    return [loss for loss in found if loss.count]


def _data_yaml(setting: Setting) -> str:
    lines = [
        # No "path": Ultralytics takes the folder of this file, where a "." would be the folder it was started in.
        f"# {setting.about['description']}; put the images where images.txt says, and split it as you need",
        "train: images.txt",
        "val: images.txt",
        "names:",
        # A JSON string is a YAML one.
        *(f"  {index}: {to_json(category.name)}" for index, category in enumerate(setting.categories)),
    ]
    return "\n".join(lines) + "\n"


def _documents(setting: Setting) -> list[Document]:
    images = Document("images.txt", "", (Series("image", "", "\n", "\n"),))
    return [Document("data.yaml", _data_yaml(setting)), images]


EXPORTER = Exporter(write, _documents, FOLDER, SUFFIX)
