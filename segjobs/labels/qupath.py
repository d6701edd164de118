"""QuPath's GeoJSON: a file of annotations an image in, manifest segments out.

| geometry | becomes |
|---|---|
| Polygon | one object, rasterised as COCO's polygons are; its inner rings are holes |
| MultiPolygon | one object: its polygons, each without its holes, united |
| Point, LineString and their kin | no segment; counted as ``without_mask`` |

Coordinates are pixels of the whole image. The class is the classification's name (names of a derived class are joined
by ": ", as QuPath shows them); a geometry without is of the one name of ``labels.categories``, else ``Unclassified``.
A file is a FeatureCollection, a list of features, or one. A cell is its outline; its nucleus is not read.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import LabelRequest, Labels, Masks, Policy, match_files, policy_of, read_label
from segjobs.labels.class_tables import named_categories
from segjobs.labels.drawn import Drawn, DrawnImage, masks_of
from segjobs.labels.json_text import parse_json, words_of
from segjobs.labels.names_of_files import names_of_files
from segjobs.labels.paint import as_task
from segjobs.manifest.schema import Category
from segjobs.storage import Storage

UNCLASSIFIED = "Unclassified"
_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")


def qupath_labels(request: LabelRequest) -> Labels:
    """Adapter of ``qupath``: the text of an image is the URI of its GeoJSON.

    Without class names in the config every file is read once on the driver to collect them.
    """
    config, storage = request.config, request.storage
    files = match_files(request, (".geojson",), others=(".json",))
    nameless = _nameless(config)
    if config.categories is None:

        def names_of(uri: str) -> set[str]:
            return {one.name for one in read_qupath(read_label(storage, uri), nameless=nameless).objects}

        names = sorted(names_of_files(files.uris, names_of))
        if not names:
            raise ConfigError(f"labels.uri: {config.uri}: no object has a class; name them: labels.categories")
        config = config.model_copy(update={"categories": names})
    categories = named_categories(config, first_color=1)
    read = partial(
        _read, storage=storage, categories=categories, policy=policy_of(config, categories), nameless=nameless
    )
    return as_task(Labels("instance", categories, files.uris, read, files.digest, files.leftovers), config)


def _nameless(config: LabelsConfig) -> str:
    """The class of geometry without one."""
    names = config.categories or []
    return names[0] if len(names) == 1 else UNCLASSIFIED


def _read(
    uri: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    categories: tuple[Category, ...],
    policy: Policy,
    nameless: str,
) -> Masks:
    return masks_of(read_qupath(read_label(storage, uri), nameless=nameless), size_hw, categories, policy)


def read_qupath(data: bytes, *, nameless: str = UNCLASSIFIED) -> DrawnImage:
    """One image's objects. ``nameless``: the class of geometry without. Raises ItemError where it is no such file."""
    place = "the file"
    objects: list[Drawn] = []
    without_area = 0
    try:
        raw = parse_json(data)
        several = raw["features"] if isinstance(raw, dict) and "features" in raw else raw
        for number, feature in enumerate(several if isinstance(several, list) else [several]):
            place = f"feature {number}"
            geometry = feature["geometry"]
            kind, parts = geometry["type"], geometry["coordinates"]
            if kind in _WITHOUT_AREA:
                without_area += 1
                continue
            if kind not in ("Polygon", "MultiPolygon"):
                raise ValueError(f"geometry {kind!r}")
            polygons = [parts] if kind == "Polygon" else parts
            rings = tuple(tuple(_ring(ring) for ring in polygon) for polygon in polygons if polygon)
            objects.append(Drawn(_name(feature.get("properties") or {}) or nameless, "rings", rings))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ItemError("LABEL_VALUE", f"{place}: {words_of(error)}; expected QuPath's GeoJSON") from None
    return DrawnImage(tuple(objects), None, without_area)


def _name(properties: Mapping[str, Any]) -> str:
    """The class of a feature; empty where it has none."""
    classification = properties.get("classification") or {}
    names = classification.get("names") or [classification.get("name") or ""]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"classification {names!r}, expected texts")
    return ": ".join(names)


def _ring(points: list[list[float]]) -> tuple[float, ...]:
    """Positions x, y (and heights, which say nothing) → x, y, x, y, …; the last point, which is the first, left out."""
    pairs = [(float(point[0]), float(point[1])) for point in points]
    pairs = pairs[:-1] if pairs and pairs[0] == pairs[-1] else pairs
    if len(pairs) < 3:
        raise ValueError(f"a ring of {len(pairs)} points")
    return tuple(number for pair in pairs for number in pair)
