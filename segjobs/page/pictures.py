"""The page's pictures of one image: photo and masks in, thumbnails out; and the same for notebooks.

    draw_row        a manifest row → the photo with its masks over it (or the masks alone), PIL
    draw_card       photo, truth, prediction → thumbnails of image, truth, prediction and difference
    difference      where a prediction is right, wrong, missing or extra, pixel by pixel

Masks are drawn small: photo and masks are shrunk together to a few times the thumbnail first, so that
an image of 100 megapixels costs what its decoding costs.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segjobs.errors import ItemError, ManifestError
from segjobs.evaluation.classes import candidates
from segjobs.manifest.rle import decode, encode_label_map
from segjobs.manifest.rows import segments_of
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment, check_known, stack
from segjobs.page.overlay import label_picture, overlay
from segjobs.sources.read import read_original
from segjobs.storage import Storage

RIGHT, WRONG, MISSING, EXTRA, UNLABELLED = range(5)
KINDS = ("right", "wrong class", "missing", "extra", "not scored")
"""Names of the values of ``difference``, by value."""
AT_FULL_SIZE = "{} at full size"
"""The name of a picture of one window of a huge image, by that of the thumbnail."""
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, MemoryError)
_ALPHA = 0.6
_DRAWN = 3  # masks are drawn at this many times the thumbnail: shrinking smooths their outlines
_NO_CLASS, _CROWD = -1, -2
_WEBP_QUALITY = 80
_PERIOD_PX = 6  # of the difference's hatching, in pixels of the thumbnail


# For notebooks -------------------------------------------------------------------------------------


def draw_row(
    row: Mapping[str, Any],
    categories: Sequence[Category],
    *,
    image: np.ndarray | Image.Image | None = None,
    storage: Storage | None = None,
    style: Literal["overlay", "map"] = "overlay",
) -> Image.Image:
    """One row of a manifest as a picture of its own size.

    ``row``: a dict of the manifest's columns; ``categories``: the manifest's
    (``footer_of(open_run(storage, uri)).categories``). ``image``: uint8 (H, W, 3) RGB or PIL, already
    turned by its EXIF orientation; None fetches ``row["uri"]`` through ``storage`` (by default local
    files and S3 with the environment's credentials), compares it with the row's SHA-256, and decodes
    it with Pillow. ``style``: the masks over the photo, or flat colours alone.

    Raises ManifestError for a row that failed or whose masks are malformed, ItemError where the image cannot
    be had (as ``sources.read.read_original``) or decoded, ValueError where it is not of the row's size.
    """
    name = row["image_id"]
    if row["status"] != "ok":
        error = row.get("error") or {}
        raise ManifestError(f"{name!r} has no masks to draw: {error.get('code')}: {error.get('message')}")
    size_hw = (row["height"], row["width"])
    if style == "map":
        return label_picture(segments_of(row), size_hw, categories)
    if image is None:
        sha256 = (row.get("source") or {}).get("sha256")
        image = open_picture(read_original(storage or Storage(), row["uri"], sha256=sha256), name=row["uri"])
    found_hw = image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]
    if found_hw != size_hw:
        raise ValueError(
            f"{name!r}: the image is {found_hw[1]}x{found_hw[0]} pixels, its row says {size_hw[1]}x{size_hw[0]}; "
            "give it at that size, turned by its EXIF orientation"
        )
    return overlay(image, segments_of(row), categories)


def open_picture(data: bytes, *, name: str) -> Image.Image:
    """File bytes → RGB as a viewer shows it, by Pillow alone. Raises ItemError UNREADABLE."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise ItemError("UNREADABLE", f"{name}: cannot be decoded: {error}") from error


# Two manifests, one table of classes -----------------------------------------------------------------


def common_categories(
    truth: Sequence[Category], predicted: Sequence[Category], *, rename: Mapping[str, str | None] | None = None
) -> tuple[tuple[Category, ...], dict[int, int | None]]:
    """The classes of both in one table, the truth's first, and predicted id → id in that table.

    What is the same class is the evaluation's to say (``candidates``); None is a class that counts as not predicted.
    """
    table: list[Category] = list(truth)
    mapping: dict[int, int | None] = {}
    free = 1 + max((category.id for category in truth), default=-1)
    for category, (name, found) in zip(predicted, candidates(predicted, truth, rename or {}).values(), strict=True):
        if name is None:
            mapping[category.id] = None
        elif found:
            mapping[category.id] = truth[found[0]].id
        else:
            mapping[category.id], free = free, free + 1
            table.append(replace(category, id=free - 1))
    return tuple(table), mapping


def with_ids(segments: Sequence[Segment], mapping: Mapping[int, int | None]) -> list[Segment]:
    """The segments with their category ids replaced, without those of no class.

    Raises ManifestError for an id that the mapping does not have.
    """
    check_known(segments, mapping)
    known = [(segment, mapping[segment.category_id]) for segment in segments]
    return [replace(segment, category_id=category_id) for segment, category_id in known if category_id is not None]


# Difference ------------------------------------------------------------------------------------------


def difference(
    truth: Sequence[Segment], predicted: Sequence[Segment], size_hw: tuple[int, int], *, task: Task
) -> np.ndarray:
    """What became of each pixel: uint8 (H, W) of RIGHT, WRONG, MISSING, EXTRA and UNLABELLED.

    Both sides by the ids of one table. A pixel that the truth does not cover is UNLABELLED, in
    instance manifests background: EXTRA where an object was found there. A covered pixel without a
    prediction is MISSING. Crowd regions are not scored: UNLABELLED. Where objects overlap, the
    smaller one counts.
    """
    wanted, found = class_map(truth, size_hw), class_map(predicted, size_hw)
    kinds = np.where(wanted == found, RIGHT, WRONG).astype(np.uint8)
    kinds[(wanted >= 0) & (found < 0)] = MISSING
    uncovered = wanted == _NO_CLASS
    if task == "instance":
        kinds[uncovered] = np.where(found[uncovered] >= 0, EXTRA, RIGHT)
    else:
        kinds[uncovered] = UNLABELLED
    kinds[wanted == _CROWD] = UNLABELLED
    return kinds


def class_map(segments: Sequence[Segment], size_hw: tuple[int, int]) -> np.ndarray:
    """int32 (H, W) of category ids, _NO_CLASS where nothing is; small objects over large ones over crowds."""
    ids = np.full(size_hw, _NO_CLASS, np.int32)
    for place in sorted(stack(segments, "area"), key=lambda place: not segments[place].iscrowd):
        segment = segments[place]
        ids[decode(segment.counts, size_hw)] = _CROWD if segment.iscrowd else segment.category_id
    return ids


def difference_picture(kinds: np.ndarray, photo: Image.Image | None = None) -> Image.Image:
    """``difference`` over the photo (of the same size) or over white.

    What is right is the photo in pale grey. The others differ in colour (Okabe and Ito's), in
    lightness and in hatching, so that they can be told apart without colour too.
    """
    height, width = kinds.shape
    grey = np.full((height, width), 255, np.uint8) if photo is None else np.asarray(photo.convert("L"))
    canvas = np.repeat((160 + 0.37 * grey).astype(np.uint8)[..., None], 3, axis=2)
    y, x = np.ogrid[:height, :width]
    hatching = {  # kind → colour, colour of its lines, where these are
        WRONG: ((213, 94, 0), (80, 25, 0), (x + y) % _PERIOD_PX < 2),
        MISSING: ((0, 114, 178), (190, 225, 250), (y % _PERIOD_PX < 1) & (x >= 0)),
        EXTRA: ((240, 228, 66), (120, 105, 0), (x % _PERIOD_PX < 1) & (y >= 0)),
        UNLABELLED: ((215, 215, 215), (150, 150, 150), (x - y) % _PERIOD_PX < 1),
    }
    for kind, (ground, line, lines) in hatching.items():
        where = kinds == kind
        canvas[where] = ground
        canvas[where & lines] = line
    return Image.fromarray(canvas)


def _shrunk_kinds(kinds: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """The kind that covers most of each pixel of the smaller picture."""
    if kinds.shape == size_wh[::-1]:
        return kinds
    share = [
        cv2.resize((kinds == kind).astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
        for kind in range(len(KINDS))
    ]
    return np.argmax(share, axis=0).astype(np.uint8)


# Thumbnails ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What there is to draw of one image, all in one frame and by one table of classes.

    ``photo``: uint8 (H, W, 3) RGB, or None where it could not be had. ``truth``, ``prediction``:
    segments, or None where there are none to show.
    """

    photo: np.ndarray | None
    truth: Sequence[Segment] | None
    prediction: Sequence[Segment] | None
    size_hw: tuple[int, int]
    task: Task


def draw_card(subject: Subject, categories: Sequence[Category], *, thumb_px: int) -> dict[str, bytes]:
    """``image``, ``truth``, ``prediction`` and ``difference`` as WebP, those that can be drawn.

    Each at most ``thumb_px`` wide and high. Without the photo, masks are flat colours.
    Raises ManifestError where a mask is malformed or of another size.
    """
    drawn_hw = drawn_height, drawn_width = drawn_size(subject.size_hw, thumb_px)
    height, width = _fitting(subject.size_hw, thumb_px)
    photo = None
    if subject.photo is not None:
        photo = Image.fromarray(subject.photo).resize((drawn_width, drawn_height), Image.Resampling.BOX)
    sides = {
        name: None if segments is None else _shrunk(segments, subject.size_hw, drawn_hw)
        for name, segments in (("truth", subject.truth), ("prediction", subject.prediction))
    }
    pictures = {} if photo is None else {"image": photo}
    for name, segments in sides.items():
        if segments is None:
            continue
        if photo is None:
            pictures[name] = label_picture(segments, drawn_hw, categories, task=subject.task)
        else:
            pictures[name] = overlay(photo, segments, categories, alpha=_ALPHA)
    small = {name: picture.resize((width, height), Image.Resampling.LANCZOS) for name, picture in pictures.items()}
    truth, prediction = sides["truth"], sides["prediction"]
    if truth is not None and prediction is not None:
        kinds = difference(truth, prediction, drawn_hw, task=subject.task)
        small["difference"] = difference_picture(_shrunk_kinds(kinds, (width, height)), small.get("image"))
    return {name: to_webp(picture) for name, picture in small.items()}


def drawn_size(size_hw: tuple[int, int], thumb_px: int) -> tuple[int, int]:
    """Height and width at which ``draw_card`` draws, before it shrinks to the thumbnail."""
    return _fitting(size_hw, _DRAWN * thumb_px)


def _fitting(size_hw: tuple[int, int], most_px: int) -> tuple[int, int]:
    scale = min(1.0, most_px / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def _shrunk(segments: Sequence[Segment], size_hw: tuple[int, int], to_hw: tuple[int, int]) -> list[Segment]:
    """The segments of a smaller picture: a pixel belongs to a mask that covers half of it or more.

    Raises ManifestError for a mask of another size than ``size_hw``.
    """
    for segment in segments:
        segment.check_size(size_hw)
    if size_hw == to_hw:
        return list(segments)
    small: list[Segment] = []
    for segment in segments:
        mask = 255 * segment.mask().astype(np.uint8)
        covered = cv2.resize(mask, to_hw[::-1], interpolation=cv2.INTER_AREA) >= 128
        small += [segment.with_mask(region, to_hw) for region in encode_label_map(covered.astype(np.uint8), void=0)]
    return small


def to_webp(picture: Image.Image, *, lossless: bool = False) -> bytes:
    """The picture's file; equal pictures give equal bytes with one version of Pillow."""
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=_WEBP_QUALITY, method=4, lossless=lossless)
    return sink.getvalue()


def data_uri(webp: bytes) -> str:
    """The bytes as an address that holds them itself."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def kind_swatch(kind: int) -> bytes:
    """How ``difference_picture`` draws one kind over a photo from dark to light, 28 × 16 pixels, for a legend."""
    photo = Image.fromarray(np.tile(np.linspace(0, 255, 28).astype(np.uint8), (16, 1)))
    return to_webp(difference_picture(np.full((16, 28), kind, np.uint8), photo), lossless=True)
