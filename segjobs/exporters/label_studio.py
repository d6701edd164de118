"""Label Studio: tasks with brush masks, and the labelling config that they need.

    tasks.json         one task per image: its URL, and annotations (human labels) or predictions (a model's)
    label_config.xml   to be pasted into the project's labelling interface

``label_studio.image_prefix`` is what Label Studio finds the images under, such as ``/data/local-files/?d=photos/``;
the image_id follows, percent-encoded. Without it a task holds the manifest's uri.
"""

from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from segjobs.errors import ItemError
from segjobs.exporters.base import Document, Exporter, Labelled, Series, Setting, Written, exact, to_json
from segjobs.exporters.label_studio_rle import encode_mask
from segjobs.manifest.segments import Segment

FROM_NAME, TO_NAME = "label", "image"
_MOST_PIXELS = (2**32 - 1) // 4  # the code's own count of values has 32 bits


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its task."""
    height, width = image.size_hw
    if height * width > _MOST_PIXELS:
        raise ItemError("TOO_LARGE", f"{width}x{height}: Label Studio's masks have {_MOST_PIXELS} pixels at most")
    results = [_result(segment, place, image, setting) for place, segment in enumerate(image.segments)]
    labels: dict[str, object] = {"result": results}
    if setting.by_model:
        labels |= {"model_version": image.model, "score": exact(image.confidence)}
    prefix = setting.config.label_studio.image_prefix
    url = image.uri if prefix is None else prefix + quote(image.image_id)
    task = {
        "data": {"image": url, "image_id": image.image_id},
        "predictions" if setting.by_model else "annotations": [labels],
    }
    return Written(len(results), records=(to_json(task),))


def _result(segment: Segment, place: int, image: Labelled, setting: Setting) -> dict[str, object]:
    height, width = image.size_hw
    result = {
        "id": f"{image.number}-{place}",
        "type": "brushlabels",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "image_rotation": 0,
        "original_width": width,
        "original_height": height,
        "value": {
            "format": "rle",
            "rle": encode_mask(segment.mask()),
            "brushlabels": [segment.category],
        },
    }
    return {**result, "score": exact(segment.score)} if setting.by_model else result


def _config_xml(setting: Setting) -> str:
    labels = [
        f'    <Label value={quoteattr(category.name)} background="#{bytes(category.color).hex()}"/>'
        for category in setting.categories
    ]
    lines = [
        "<View>",
        f'  <Image name="{TO_NAME}" value="$image" zoom="true"/>',
        f'  <BrushLabels name="{FROM_NAME}" toName="{TO_NAME}">',
        *labels,
        "  </BrushLabels>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def _check(setting: Setting) -> list[str]:
    return [
        f"class {category.name!r} has a control character, which Label Studio's config cannot hold"
        for category in setting.categories
        if any(ord(character) < 32 for character in category.name)
    ]


def _documents(setting: Setting) -> list[Document]:
    tasks = Document("tasks.json", "", (Series("records", "[\n", ",\n", "\n]\n"),))
    return [Document("label_config.xml", _config_xml(setting)), tasks]


EXPORTER = Exporter(write, _documents, check=_check)
