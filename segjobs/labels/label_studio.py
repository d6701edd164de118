"""Label Studio's JSON export: tasks with polygons and brush masks in, manifest segments out.

| in the JSON | becomes |
|---|---|
| polygonlabels | one object: percent of the image's width and height, as it is shown |
| brushlabels, format rle | one object: the alpha of the painted image, which must have the image's size |
| rectanglelabels, ellipselabels, keypointlabels, choices and the like | no segment; counted as ``without_mask`` |
| polygon, brush (drawn without a class) | LABEL_VALUE |
| an annotation without result | zero segments |
| a task without annotation, or with cancelled ones only | an image without label; predictions are not read |
| several annotations | the one marked as ground truth, else the last; the others are counted as ``other_annotations`` |

Who completed an annotation, and when it was last changed, is kept. A task belongs to the image that its ``data`` names:
our own ``image_id``, or the path of its URL without the eight digits that Label Studio puts before an uploaded file's
name. Its ``original_width`` and ``original_height``, which are of the stored or of the shown frame, are not read:
percent need no size, and a brush mask has its own.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from segjobs.errors import ManifestError
from segjobs.labels.base import LabelRequest, Labels, leftover, read_whole
from segjobs.labels.drawn import Document, Drawn, DrawnImage, labels_of, unix_time
from segjobs.labels.json_text import parse_json, whole, words_of

_UPLOADED = re.compile(r"(?<=/)[0-9a-f]{8}-(?=[^/]+$)")
_WITHOUT_CLASS = ("polygon", "brush")


def label_studio_labels(request: LabelRequest) -> Labels:
    """Adapter of ``label_studio``: the text of an image is the JSON of its objects."""
    data = read_whole(request.storage, request.config.uri)
    return labels_of(request, read_label_studio(data, name=request.config.uri))


def read_label_studio(data: bytes, *, name: str = "Label Studio JSON") -> Document:
    """The tasks by image. Raises ManifestError where it is no such file."""
    images: dict[str, DrawnImage] = {}
    others, place = [], "the file"
    try:
        tasks = parse_json(data)
        if not isinstance(tasks, list):
            raise TypeError("expected a list of tasks (export as JSON)")
        for number, task in enumerate(tasks):
            place = f"task {number}"
            path = _path(task["data"])
            done = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
            if not done:
                continue
            chosen = next((one for one in done if one.get("ground_truth")), done[-1])
            others += [f"{path} ({len(done) - 1})"] if len(done) > 1 else []
            if path in images:
                raise ValueError(f"{path!r} stands there twice")
            changed = chosen.get("updated_at") or chosen.get("created_at")
            images[path] = replace(_image(chosen["result"]), by=_annotator(chosen), at=unix_time(changed))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ManifestError(f"{name}: {place}: {words_of(error)}; expected Label Studio's JSON export") from None
    return Document(images, hashlib.sha256(data).hexdigest(), leftover("other_annotations", others))


def _path(data: Mapping[str, Any]) -> str:
    """What the task's image is called."""
    if isinstance(data.get("image_id"), str):
        return data["image_id"]
    url = data["image"] if "image" in data else next((value for value in data.values() if isinstance(value, str)), None)
    if url is None:
        raise KeyError("image")
    parts = urlsplit(str(url))
    inner = parse_qs(parts.query).get("d")
    path = inner[0] if inner else unquote(parts.path)
    return _UPLOADED.sub("", path).lstrip("/")


def _annotator(annotation: Mapping[str, Any]) -> str | None:
    """Their address or name, else the number that Label Studio knows them by."""
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        name = " ".join(str(who[key]) for key in ("first_name", "last_name") if who.get(key))
        who = who.get("email") or name or who.get("id")
    return None if who in (None, "") else str(who)


def _image(results: list[Mapping[str, Any]]) -> DrawnImage:
    objects: list[Drawn] = []
    without_area = 0
    for result in results:
        kind, value = result["type"], result["value"]
        if kind in _WITHOUT_CLASS:
            raise ValueError(f"a {kind} without a class; expected {kind}labels")
        if kind == "polygonlabels":
            points = [float(number) for point in value["points"] for number in point]
            objects += [Drawn(str(label), "percent", (tuple(points),)) for label in value["polygonlabels"]]
        elif kind == "brushlabels" and value.get("format") == "rle":
            code = tuple(whole(number) for number in value["rle"])
            objects += [Drawn(str(label), "brush", code) for label in value["brushlabels"]]
        else:
            without_area += 1
    return DrawnImage(tuple(objects), None, without_area)
