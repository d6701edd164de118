"""labelme: a JSON of shapes an image in, manifest segments out.

    JSON → shapes_of → shapes, their names and groups
    shape → rasterise → its window and mask
    labels.task=instance (the default): one segment per shape, or per group of shapes of one name and group_id
    labels.task=semantic: shapes painted in their order, later ones over earlier ones

Shapes are drawn as labelme 7.1 draws them (``shape_to_mask``: Pillow, outline included), so that its own PNG exports
hold the same pixels. Earlier versions left the joints of a linestrip open and cut a mask's corner to whole pixels.

| shape | becomes |
|---|---|
| polygon | the polygon, of three points or more |
| oriented_rectangle, rotation (X-AnyLabeling's) | the polygon of its four corners |
| rectangle | the rectangle between its two corners; of four points (X-AnyLabeling), if these are its corners |
| circle | the circle round the first point through the second |
| mask | the bitmap, pasted at its first point, rounded half to even |
| line, linestrip | a line of ``labels.line_width_px``; left out where that is null, as ``without_mask`` |
| any of another number of points | LABEL_VALUE |
| point, points | left out: no area |
| a name of ``labels.void_names`` | instance: left out; semantic: unlabelled pixels, painted in its turn |

Flags, descriptions and ``imageData`` are not read.
"""

import base64
import binascii
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from segjobs.config import LabelsConfig, nearest
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    Policy,
    check_size,
    match_files,
    policy_of,
    read_label,
    resolve,
)
from segjobs.labels.class_tables import named_categories
from segjobs.labels.json_text import parse_json, words_of
from segjobs.labels.names_of_files import names_of_files
from segjobs.labels.polygons import TOLERANCE_PX
from segjobs.manifest.rle import VOID, encode_crop, encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_mask
from segjobs.storage import Storage
from segjobs.text import first_few

_MANY = 10**9
# Least and most points by shape_type.
_POINTS = {
    "polygon": (3, _MANY), "oriented_rectangle": (4, 4), "rotation": (4, 4), "rectangle": (2, 4), "circle": (2, 2),
    "line": (2, 2), "linestrip": (2, _MANY),
}  # fmt: skip
_FARTHEST_PX = 10**6  # beyond it Pillow's whole numbers end


@dataclass(frozen=True)
class Shape:
    """One shape: its name, group (None: alone), kind, points, float (N, 2) x, y in pixels, and bitmap if any."""

    number: int
    name: str
    group: object
    kind: str
    points: np.ndarray
    bitmap: str | None = None


@dataclass(frozen=True)
class Rules:
    """How shapes become masks. ``background``: class of pixels that no shape covers (semantic). ``own_size``: the size
    that a JSON says must be its image's."""

    semantic: bool
    categories: tuple[Category, ...]
    void_names: tuple[str, ...] = ("__ignore__",)
    background: Category | None = None
    line_width_px: int | None = None
    policy: Policy = field(default_factory=Policy)
    own_size: bool = True


def labelme_labels(request: LabelRequest) -> Labels:
    """Adapter of ``labelme``: the text of an image is the URI of its JSON.

    Without class names in the config every JSON is read once on the driver to collect them.
    """
    files = match_files(request, (".json",))
    config = request.config
    if config.categories is None:
        config = config.model_copy(update={"categories": _names(request.storage, files.uris, config.void_names)})
    rules = rules_of(config)
    read = partial(_read, storage=request.storage, rules=rules)
    task = "semantic" if rules.semantic else "instance"
    return Labels(task, rules.categories, files.uris, read, files.digest, files.leftovers)


def rules_of(config: LabelsConfig) -> Rules:
    """The rules of a config with class names. Void names among these are no classes. Raises ConfigError."""
    semantic = config.task == "semantic"
    names = [name for name in config.categories or () if name not in config.void_names]
    first_color = 0 if semantic and names[:1] == [config.background] else 1
    named = config.model_copy(update={"categories": names})
    categories = named_categories(named, first_color=first_color)
    background = next((category for category in categories if category.name == config.background), None)
    if config.background is not None and background is None:
        raise ConfigError(f"labels.background: {config.background!r} is no class; {nearest(config.background, names)}")
    return Rules(
        semantic,
        categories,
        tuple(config.void_names),
        background,
        config.line_width_px,
        policy_of(named, categories),
        config.frame != "mixed",
    )


def _names(storage: Storage, uris: Sequence[str | None], void_names: Sequence[str]) -> list[str]:
    """Every name that the files use, sorted; files that cannot be read become failed rows later."""

    def of_file(uri: str) -> set[str]:
        return {shape.name for shape in shapes_of(read_label(storage, uri))[0]}

    return sorted(names_of_files(uris, of_file).difference(void_names))


def _read(uri: str, size_hw: tuple[int, int], *, storage: Storage, rules: Rules) -> Masks:
    shapes, own_size = shapes_of(read_label(storage, uri))
    if own_size is not None and rules.own_size:
        check_size(own_size, size_hw)
    return masks_of(shapes, size_hw, rules)


def shapes_of(data: bytes) -> tuple[list[Shape], tuple[int, int] | None]:
    """A labelme JSON → its shapes and, where it says it, the image's (h, w). Raises ItemError LABEL_VALUE."""
    try:
        raw = parse_json(data)
        shapes = [
            Shape(
                number,
                str(entry["label"]),
                entry.get("group_id"),
                str(entry.get("shape_type") or "polygon"),
                _points(entry["points"]),
                entry.get("mask"),
            )
            for number, entry in enumerate(raw["shapes"])
        ]
        height, width = raw.get("imageHeight"), raw.get("imageWidth")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ItemError("LABEL_VALUE", f"not a labelme JSON: {words_of(error)}") from None
    if not all((np.abs(shape.points) <= _FARTHEST_PX).all() for shape in shapes):
        raise ItemError("LABEL_VALUE", f"a shape has a coordinate that is not finite, or beyond {_FARTHEST_PX} px")
    return shapes, (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _points(value: object) -> np.ndarray:
    """float (N, 2). Raises ValueError or TypeError where it is no list of pairs of numbers."""
    points = np.array(value)
    if points.size and points.dtype.kind not in "iuf":
        raise TypeError("points: expected pairs of numbers")
    return points.astype(np.float64).reshape(-1, 2)


def masks_of(shapes: Sequence[Shape], size_hw: tuple[int, int], rules: Rules) -> Masks:
    """Shapes on an image of ``size_hw`` pixels → segments.

    Instances in the order of their first shape, classes in the order of the table. Raises ItemError
    LABEL_VALUE where a shape is malformed or its name is unknown (and the policy fails it).
    """
    known = {category.name: category for category in rules.categories}
    named = [shape for shape in shapes if shape.name not in rules.void_names]
    resolved, findings = resolve([shape.name for shape in named], known, rules.policy, what="names")
    category_of = {shape.number: category for shape, category in zip(named, resolved, strict=True)}
    drawn, odd = [], defaultdict(list)
    for shape in shapes:
        if shape.name in rules.void_names:
            odd["void"].append(shape.number)
            if not rules.semantic:
                continue
        elif category_of[shape.number] is None:
            continue
        window = rasterise(shape, size_hw, line_width_px=rules.line_width_px)
        if window is None:
            odd["without_mask"].append(shape.number)
            continue
        if _leaves(shape, size_hw):
            odd["outside_frame"].append(shape.number)
        if not window[1].any():
            odd["empty_masks"].append(shape.number)
            continue
        drawn.append((shape, window))
    segments = _painted(drawn, category_of, size_hw, rules) if rules.semantic else _objects(drawn, category_of, size_hw)
    findings += tuple(
        Finding(check, len(numbers), f"shapes[{', '.join(first_few([str(one) for one in numbers]))}]")
        for check, numbers in odd.items()
    )
    return Masks(segments, findings)


MaskWindow = tuple[tuple[int, int], np.ndarray]
"""A mask, bool (h, w), and where its top left corner lies: (x, y) in pixels."""


def _objects(
    drawn: Sequence[tuple[Shape, MaskWindow]], category_of: Mapping[int, Category | None], size_hw: tuple[int, int]
) -> list[Segment]:
    """One segment per shape or group."""
    groups: dict[tuple[str, str] | int, tuple[Category, list[MaskWindow]]] = {}
    for shape, window in drawn:
        category = category_of[shape.number]
        assert category is not None, "shapes without a class are left out before"  # noqa: S101
        key = (shape.name, repr(shape.group)) if shape.group is not None else shape.number
        groups.setdefault(key, (category, []))[1].append(window)
    segments = []
    for category, windows in groups.values():
        corner_xy, mask = _joined(windows)
        segments.append(Segment.from_region(category, encode_crop(mask, corner_xy, size_hw), size_hw))
    return segments


def _joined(windows: Sequence[MaskWindow]) -> MaskWindow:
    """The union of windows."""
    left, top = (min(corner[axis] for corner, _ in windows) for axis in (0, 1))
    right = max(corner[0] + mask.shape[1] for corner, mask in windows)
    bottom = max(corner[1] + mask.shape[0] for corner, mask in windows)
    union = np.zeros((bottom - top, right - left), bool)
    for (x, y), mask in windows:
        union[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] |= mask
    return (left, top), union


def _painted(
    drawn: Sequence[tuple[Shape, MaskWindow]],
    category_of: Mapping[int, Category | None],
    size_hw: tuple[int, int],
    rules: Rules,
) -> list[Segment]:
    """One segment per class, later shapes over earlier ones."""
    index = {category.id: number for number, category in enumerate(rules.categories)}
    rest = VOID if rules.background is None else index[rules.background.id]
    canvas = np.full(size_hw, rest, np.uint16)
    for shape, ((x, y), mask) in drawn:
        category = category_of.get(shape.number)
        value = VOID if category is None else index[category.id]
        canvas[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = value
    return [Segment.from_region(rules.categories[region.index], region, size_hw) for region in encode_label_map(canvas)]


# --- drawing ------------------------------------------------------------------------------------


def rasterise(shape: Shape, size_hw: tuple[int, int], *, line_width_px: int | None) -> MaskWindow | None:
    """A shape's mask in the window of the image that it covers; None where it is no area.

    Raises ItemError LABEL_VALUE where the shape has too few points, or is of an unknown kind.
    """
    points = shape.points
    if shape.kind == "mask":
        return _bitmap(shape, size_hw)
    if shape.kind in ("point", "points"):
        return None
    if shape.kind not in _POINTS:
        raise ItemError(
            "LABEL_VALUE", f"shapes[{shape.number}]: shape_type {shape.kind!r}; known: {', '.join(_POINTS)}, mask"
        )
    least, most = _POINTS[shape.kind]
    corners = shape.kind != "rectangle" or len(points) == 2 or _are_corners(points)
    if not least <= len(points) <= most or not corners:
        expected = f"{least}" if least == most else f"{least} or more"
        expected = "two opposite corners, or all four" if shape.kind == "rectangle" else expected
        raise ItemError(
            "LABEL_VALUE", f"shapes[{shape.number}]: a {shape.kind} of {len(points)} points; expected {expected}"
        )
    if shape.kind in ("line", "linestrip") and line_width_px is None:
        return None
    reach = _reach(shape, line_width_px or 0)
    (left, top), (right, bottom) = _window(reach, size_hw)
    # Pillow cuts coordinates of polygons and lines to whole pixels, towards zero: do it before the shift. It turns the
    # joints of a linestrip about the points as they are: no shift.
    whole = shape.kind not in ("circle", "linestrip")
    left, top = (0, 0) if shape.kind == "linestrip" else (left, top)
    canvas = Image.new("1", (max(1, right - left), max(1, bottom - top)))
    moved = (np.trunc(points) if whole else points) - (left, top)
    draw = ImageDraw.Draw(canvas)
    flat = [(float(x), float(y)) for x, y in moved]
    if shape.kind == "circle":
        (x, y), radius = flat[0], math.dist(points[0], points[1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif shape.kind == "rectangle":
        (x0, y0), (x1, y1) = np.min(flat, axis=0), np.max(flat, axis=0)
        draw.rectangle((x0, y0, x1, y1), outline=1, fill=1)
    elif shape.kind in ("line", "linestrip"):
        draw.line(flat, fill=1, width=line_width_px or 1, joint="curve")
    else:
        draw.polygon(flat, outline=1, fill=1)
    if right <= left or bottom <= top:
        return (0, 0), np.zeros((0, 0), bool)
    return (left, top), np.array(canvas, bool)


def _are_corners(points: np.ndarray) -> bool:
    """Whether four points are the corners of an upright rectangle, in any order."""
    low, high = points.min(axis=0), points.max(axis=0)
    expected = {(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])}
    return len(points) == 4 and {(x, y) for x, y in points.tolist()} == expected


def _reach(shape: Shape, margin_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest x, y that the shape can colour."""
    if shape.kind == "circle":
        radius = math.dist(shape.points[0], shape.points[1])
        return shape.points[0] - radius, shape.points[0] + radius
    return shape.points.min(axis=0) - margin_px, shape.points.max(axis=0) + margin_px


def _window(reach: tuple[np.ndarray, np.ndarray], size_hw: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(left, top), (right, bottom) of the image's pixels within reach, a pixel more on each side."""
    size_wh = size_hw[::-1]
    low = [min(max(math.floor(edge) - 1, 0), limit) for edge, limit in zip(reach[0], size_wh, strict=True)]
    high = [min(max(math.ceil(edge) + 2, 0), limit) for edge, limit in zip(reach[1], size_wh, strict=True)]
    return (low[0], low[1]), (high[0], high[1])


def _leaves(shape: Shape, size_hw: tuple[int, int]) -> bool:
    low, high = _reach(shape, 0)
    return bool((low < -TOLERANCE_PX).any() or (high > np.array(size_hw[::-1]) + TOLERANCE_PX).any())


def _bitmap(shape: Shape, size_hw: tuple[int, int]) -> MaskWindow:
    """A ``mask`` shape: a base64 PNG, pasted with its corner at the first point and cut at the frame."""
    try:
        data = base64.b64decode(shape.bitmap or "", validate=True)
        pixels = decode_mask(data, max_pixels=size_hw[0] * size_hw[1]) > 0
        left, top = (round(edge) for edge in shape.points[0].tolist())
    except (binascii.Error, ItemError, IndexError, TypeError) as error:
        raise ItemError(
            "LABEL_VALUE", f"shapes[{shape.number}]: a mask without a bitmap that can be read: {error}"
        ) from None
    pixels = pixels[max(0, -top) : max(0, size_hw[0] - top), max(0, -left) : max(0, size_hw[1] - left)]
    return (max(0, left), max(0, top)), pixels
