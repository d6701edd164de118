"""GeoJSON in pixels, as QuPath imports it (File → Import objects from file): a file an image.

    geojson/<name>.geojson   a FeatureCollection with a feature for each object

A geometry is the outline along the edges of the mask's pixels, in pixels from the top left corner of the image, holes
as inner rings: a Polygon, or a MultiPolygon of several parts. Rings do not meet themselves, so the polygons are valid;
filling them (the centre of a pixel decides) gives back the very mask. ``classification`` has the class and its colour,
``measurements`` a model's score. Crowd regions are left out.
"""

import numpy as np

from segjobs.exporters.base import Exporter, Labelled, Setting, Written, exact, to_json
from segjobs.exporters.flatten import without_crowds
from segjobs.exporters.outline import parts_of
from segjobs.manifest.segments import Segment


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its FeatureCollection."""
    found, crowds = without_crowds(image)
    content = {"type": "FeatureCollection", "features": [_feature(segment, setting) for segment in found]}
    return Written(len(found), data=f"{to_json(content)}\n".encode(), losses=crowds)


def _feature(segment: Segment, setting: Setting) -> dict[str, object]:
    color = setting.categories[setting.index[segment.category_id]].color
    properties: dict[str, object] = {
        "objectType": "annotation",
        "classification": {"name": segment.category, "color": list(color)},
    }
    if setting.by_model:
        properties["measurements"] = {"score": exact(segment.score)}
    return {"type": "Feature", "geometry": _geometry(segment), "properties": properties}


def _geometry(segment: Segment) -> dict[str, object]:
    parts = [[_closed(ring) for ring in part] for part in parts_of(segment.mask())]
    return (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )


def _closed(ring: np.ndarray) -> list[list[int]]:
    """GeoJSON's rings end where they begin."""
    return [*ring.tolist(), ring[0].tolist()]


EXPORTER = Exporter(write, lambda setting: [], "geojson", ".geojson")
