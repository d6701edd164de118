"""VGG Image Annotator (VIA 1 and 2): a project or its export as JSON in, manifest segments out.

| region | becomes |
|---|---|
| polygon | one object, rasterised as COCO's polygons are |
| circle, ellipse | one object: a polygon of points on it |
| rect, point, polyline | no segment; counted as ``without_mask`` |

The class is the region attribute ``labels.attribute``, by default the only one that regions have; where they have none,
the one name of ``labels.categories``. A file without regions is an image without an object.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from segjobs.config import LabelsConfig
from segjobs.errors import ManifestError
from segjobs.labels.base import LabelRequest, Labels, read_whole
from segjobs.labels.drawn import Document, Drawn, DrawnImage, ellipse, labels_of
from segjobs.labels.json_text import parse_json, words_of
from segjobs.text import quoted


def via_labels(request: LabelRequest) -> Labels:
    """Adapter of ``via``: the text of an image is the JSON of its objects."""
    data = read_whole(request.storage, request.config.uri)
    return labels_of(request, read_via(data, request.config))


def read_via(data: bytes, config: LabelsConfig) -> Document:
    """The files by name. Raises ManifestError where it is no such file."""
    images: dict[str, DrawnImage] = {}
    place = "the file"
    try:
        raw = parse_json(data)
        entries = list(raw.get("_via_img_metadata", raw).values())
        of_file = [(str(entry["filename"]), _regions(entry["regions"])) for entry in entries]
        attribute = config.attribute or _only_attribute([region for _, regions in of_file for region in regions])
        for name, regions in of_file:
            place = name
            if name in images:
                raise ValueError("stands there twice")
            found = [_object(region, attribute, config) for region in regions]
            objects = tuple(one for one in found if one is not None)
            images[name] = DrawnImage(objects, None, len(found) - len(objects))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ManifestError(f"{config.uri}: {place}: {words_of(error)}; expected VIA's JSON") from None
    return Document(images, hashlib.sha256(data).hexdigest())


def _regions(value: Any) -> list[Mapping[str, Any]]:
    """VIA 1 numbers the regions of a file in an object, VIA 2 lists them."""
    return list(value.values()) if isinstance(value, dict) else list(value)


def _only_attribute(regions: list[Mapping[str, Any]]) -> str | None:
    names = sorted({key for region in regions for key in region.get("region_attributes") or {}})
    if len(names) > 1:
        raise ValueError(f"regions have the attributes {quoted(names)}; say which is the class: labels.attribute")
    return names[0] if names else None


def _object(region: Mapping[str, Any], attribute: str | None, config: LabelsConfig) -> Drawn | None:
    """A region with an area; None for the others."""
    shape = region["shape_attributes"]
    kind = shape["name"]
    if kind == "polygon":
        pairs = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        points = [float(number) for pair in pairs for number in pair]
    elif kind in ("circle", "ellipse"):
        radii = [shape["r"]] * 2 if kind == "circle" else [shape["rx"], shape["ry"]]
        points = ellipse(
            [float(shape["cx"]), float(shape["cy"])], list(map(float, radii)), float(shape.get("theta", 0))
        )
    else:
        return None
    if attribute is not None:
        name = region["region_attributes"][attribute]
        if not isinstance(name, str):
            raise TypeError(f"{attribute}: {name!r}, expected the name of one class")
    elif config.categories is not None and len(config.categories) == 1:
        name = config.categories[0]
    else:
        raise ValueError("regions have no attribute; name their class: labels.categories=[…]")
    return Drawn(name, "pixels", (tuple(points),))
