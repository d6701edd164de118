"""COCO panoptic labels: a JSON of segments and a PNG of segment ids an image in, manifest segments out.

    JSON → read_panoptic → the categories, and the PNG and segments of each image
    PNG + segments_info → masks_of → one segment per object or stuff region, in the JSON's order

A pixel's segment is r + 256 g + 65536 b (panopticapi, ``rgb2id``); 0 is unlabelled. ``area`` and ``bbox``
are counted from the PNG, which alone says where a segment is; on COCO's own files they are the JSON's.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np

from segjobs.config import digest
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    Policy,
    UnknownId,
    check_size,
    leftover,
    list_files,
    policy_of,
    prints_of,
    read_label,
    read_whole,
    resolve,
)
from segjobs.labels.json_text import flag, parse_json, whole, words_of
from segjobs.labels.match_files import match_paths
from segjobs.manifest.rle import VOID, encode_label_map
from segjobs.manifest.schema import Category, palette_color
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_color_map
from segjobs.storage import Storage
from segjobs.text import first_few

_CITYSCAPES = re.compile(r"(_gtFine|_gtCoarse)?_leftImg8bit(?=\.\w+$)")
_LARGEST_ID = 2**31 - 1  # int32, as the manifest's category_id


class SegmentInfo(TypedDict):
    """What is read of an entry of ``segments_info``."""

    id: int
    category_id: int
    iscrowd: bool


@dataclass(frozen=True)
class PanopticImage:
    """One entry of ``annotations``: its PNG's name and its ``segments_info``."""

    file_name: str
    segments: tuple[SegmentInfo, ...]


def coco_panoptic_labels(request: LabelRequest) -> Labels:
    """Adapter of ``coco_panoptic``: the text of an image is the JSON of its PNG's URI and its segments."""
    config = request.config
    data = read_whole(request.storage, config.uri)
    categories, images = read_panoptic(data, name=config.uri)
    matches = match_paths(request.image_ids, list(images), image_key=_key, label_key=_key)
    files = list_files(request, (".png",), folder=config.masks or config.uri.removesuffix(".json"))
    texts, lost = [], []
    for image_id in request.image_ids:
        entry = images.get(matches.label_of.get(image_id, ""))
        if entry is not None and entry.file_name not in files:
            lost.append(entry.file_name)
        found = entry is not None and entry.file_name in files
        texts.append(json.dumps([files[entry.file_name].uri, entry.segments]) if entry and found else None)
    if lost and not any(texts):
        raise ConfigError(
            f"labels.masks: {len(lost)} PNGs that the JSON names are not there, such as {lost[0]!r}; "
            "give the folder that holds them"
        )
    read = partial(
        _read,
        storage=request.storage,
        categories=categories,
        policy=policy_of(config, categories),
        max_pixels=request.max_pixels,
    )
    prints = digest(hashlib.sha256(data).hexdigest(), prints_of(files.values()))
    return Labels("panoptic", categories, texts, read, prints, leftover("labels_without_image", matches.unused))


def _key(path: str) -> str:
    """A path without what Cityscapes adds: createPanopticImgs.py names photographs after the labels."""
    return _CITYSCAPES.sub("", path.replace("\\", "/"))


def read_panoptic(
    data: bytes, *, name: str = "COCO panoptic JSON"
) -> tuple[tuple[Category, ...], dict[str, PanopticImage]]:
    """Categories (their own ids, colours and ``isthing``), and the annotations by the image's file name.

    Raises ManifestError where it is no such file, naming the entries that are wrong.
    """
    try:
        raw = parse_json(data)
        listed = {str(entry["id"]): str(entry["file_name"]) for entry in raw["images"]}
        categories = tuple(_category(position, entry) for position, entry in enumerate(raw["categories"]))
        annotations = [
            (
                str(entry["image_id"]),
                PanopticImage(str(entry["file_name"]), tuple(_segment(s) for s in entry["segments_info"])),
            )
            for entry in raw["annotations"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(
            f"{name}: {words_of(error)}; expected images, categories and annotations with segments_info, as COCO "
            "panoptic has"
        ) from None
    problems = [
        f"image_id {image_id!r} is not among the images" for image_id, _ in annotations if image_id not in listed
    ]
    for what, values in (
        ("image", [image_id for image_id, _ in annotations]),
        ("category", [category.id for category in categories]),
        ("category", [category.name for category in categories]),
    ):
        problems += [f"{what} {value!r} stands there twice" for value, count in Counter(values).items() if count > 1]
    if problems:
        raise ManifestError(f"{name}: {'; '.join(first_few(problems))}")
    return categories, {listed[image_id]: image for image_id, image in annotations}


def _category(position: int, entry: Mapping[str, Any]) -> Category:
    color = tuple(whole(channel) for channel in entry.get("color") or palette_color(position + 1))
    thing, number = entry.get("isthing"), whole(entry["id"])
    if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
        raise ValueError(f"colour {list(color)} of category {number}: expected three numbers of 0 to 255")
    if not 0 <= number <= _LARGEST_ID:
        raise ValueError(f"category id {number}: expected 0 to {_LARGEST_ID}")
    return Category(number, str(entry["name"]), color, None if thing is None else flag(thing))


def _segment(entry: Mapping[str, Any]) -> SegmentInfo:
    number, category_id = whole(entry["id"]), whole(entry["category_id"])
    return {"id": number, "category_id": category_id, "iscrowd": flag(entry.get("iscrowd"))}


def _read(
    text: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    categories: tuple[Category, ...],
    policy: Policy,
    max_pixels: int,
) -> Masks:
    uri, entries = json.loads(text)
    colors = decode_color_map(read_label(storage, uri), max_pixels=max_pixels)
    check_size(colors.shape[:2], size_hw)
    return masks_of(colors, entries, categories, policy)


def masks_of(
    colors: np.ndarray,
    entries: Sequence[SegmentInfo],
    categories: Sequence[Category],
    policy: Policy | None = None,
) -> Masks:
    """Segment ids as colours, uint8 (H, W, 3), and their ``segments_info`` → segments, in the order of these.

    Raises UnknownId where ids of the PNG are not in the list, or categories are unknown, unless ``policy``
    takes them; ItemError LABEL_VALUE where an id is listed twice.
    """
    policy = policy or Policy()
    ids = [entry["id"] for entry in entries]
    if len(set(ids)) < len(ids) or len(ids) >= VOID or not all(0 < one < 2**24 for one in ids):
        raise ItemError("LABEL_VALUE", "segments_info: ids that repeat, are 0 or less, or do not fit into 24 bits")
    known = {category.id: category for category in categories}
    keys = [entry["category_id"] for entry in entries]
    resolved, findings = resolve(keys, known, policy, what="category ids")
    indices, strangers = _indices(colors, ids)
    if strangers:
        found = ", ".join(first_few([f"{value} ({count} px)" for value, count in strangers.items()]))
        if policy.unknown == "fail":
            raise UnknownId("LABEL_VALUE", f"segment ids {found} of the PNG are not in segments_info")
        findings += (Finding("unknown_ids", len(strangers), f"segment ids {found}: taken as unlabelled"),)
    segments, size_hw = [], (colors.shape[0], colors.shape[1])
    regions = encode_label_map(indices)
    for region in regions:
        category, entry = resolved[region.index], entries[region.index]
        if category is not None:
            segments.append(Segment.from_region(category, region, size_hw, iscrowd=bool(entry["iscrowd"])))
    empty = sorted(set(range(len(ids))) - {region.index for region in regions})
    if empty:
        detail = f"segments {', '.join(first_few([str(ids[position]) for position in empty]))} have no pixel"
        findings += (Finding("empty_masks", len(empty), detail),)
    return Masks(segments, findings)


def _indices(colors: np.ndarray, ids: Sequence[int]) -> tuple[np.ndarray, dict[int, int]]:
    """Positions in ``ids``, uint16 (H, W) with ``VOID`` where the id is 0 or not listed; and those not listed."""
    codes = colors[..., 0] + 256 * colors[..., 1].astype(np.int32) + 65536 * colors[..., 2].astype(np.int32)
    order = np.argsort(np.array([0, *ids]))
    places = np.searchsorted(np.array([0, *ids])[order], codes).clip(max=len(ids))
    table = np.array([VOID, *range(len(ids))], np.uint16)[order]
    listed = np.array([0, *ids])[order][places] == codes
    values, counts = np.unique(codes[~listed], return_counts=True)
    strangers = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return np.where(listed, table[places], np.uint16(VOID)), strangers
