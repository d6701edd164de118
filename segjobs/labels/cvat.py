"""CVAT for images (XML 1.1): an element an image in, manifest segments out.

| element | becomes |
|---|---|
| polygon | one object, rasterised as COCO's polygons are |
| mask | one object: its run lengths in its window |
| ellipse | one object: a polygon of points on it |
| box, polyline, points, cuboid, skeleton, tag | no segment; counted as ``without_mask`` |

Who a task (or job) is assigned to, else its owner, and when it was last updated, is kept of its images.

An image's width and height must be its photograph's. A video's tracks are refused: export it as images.
"""

import hashlib
import math
import xml.etree.ElementTree as ElementTree  # documents with entities are refused before
from collections.abc import Iterator

from segjobs.errors import ManifestError
from segjobs.labels.base import LabelRequest, Labels, read_whole
from segjobs.labels.drawn import Document, Drawn, DrawnImage, ellipse, labels_of, unix_time


def cvat_labels(request: LabelRequest) -> Labels:
    """Adapter of ``cvat``: the text of an image is the JSON of its objects."""
    data = read_whole(request.storage, request.config.uri)
    return labels_of(request, read_cvat(data, name=request.config.uri))


def read_cvat(data: bytes, *, name: str = "CVAT XML") -> Document:
    """The images by name. Raises ManifestError where it is no such file."""
    place = "the file"
    images: dict[str, DrawnImage] = {}
    try:
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("a document type or entities, which CVAT does not write")
        root = ElementTree.fromstring(data)  # noqa: S314
        if root.tag != "annotations" or root.find("track") is not None:
            raise ValueError("no annotations of images (a video's tracks are not read)")
        known = _annotators(root)
        for element in root.iter("image"):
            place = f"image {element.get('name')!r}"
            key = element.attrib["name"]
            if key in images:
                raise ValueError("stands there twice")
            shapes = list(element)
            objects = [one for shape in shapes for one in _objects(shape)]
            size_hw = (int(element.attrib["height"]), int(element.attrib["width"]))
            by, at = known.get(element.get("task_id")) or known.get(None) or (None, None)
            images[key] = DrawnImage(tuple(objects), size_hw, len(shapes) - len(objects), by, at)
    except (ValueError, LookupError, OverflowError, ElementTree.ParseError) as error:  # an unknown encoding too
        what = f"no attribute {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ManifestError(f"{name}: {place}: {what}; expected CVAT for images 1.1") from None
    return Document(images, hashlib.sha256(data).hexdigest())


def _annotators(root: ElementTree.Element) -> dict[str | None, tuple[str | None, float | None]]:
    """Who, and when, by the id of their task; of a document of one task or job, whose images name none, by None."""
    found: dict[str | None, tuple[str | None, float | None]] = {}
    about = [*root.iterfind("meta/task"), *root.iterfind("meta/job"), *root.iterfind("meta/project/tasks/task")]
    for one in about:
        names = (one.findtext(f"{who}/{what}") for who in ("assignee", "owner") for what in ("username", "email"))
        by = next((name for name in names if name), None)
        found[one.findtext("id")] = (by, unix_time(one.findtext("updated")))
    return {**found, None: found[next(iter(found))]} if len(found) == 1 else found


def _objects(shape: ElementTree.Element) -> Iterator[Drawn]:
    """The object of an element, if it has an area."""
    given = shape.attrib
    if shape.tag == "polygon":
        yield Drawn(given["label"], "pixels", (tuple(_numbers(given["points"].replace(";", ","))),))
    elif shape.tag == "mask":
        window = [int(given[key]) for key in ("left", "top", "width", "height")]
        runs = [int(word) for word in given["rle"].split(",")]
        yield Drawn(given["label"], "window", (*runs, *window))
    elif shape.tag == "ellipse":
        center, radii = ([float(given[key]) for key in keys] for keys in (("cx", "cy"), ("rx", "ry")))
        turn = math.radians(float(given.get("rotation", 0)))
        yield Drawn(given["label"], "pixels", (tuple(ellipse(center, radii, turn)),))


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]
