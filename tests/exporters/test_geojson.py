"""GeoJSON: outlines that are valid polygons, and whose insides are the very masks."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given

from segjobs.exporters.base import Loss
from segjobs.exporters.geojson import write
from segjobs.labels.base import Policy
from segjobs.labels.drawn import masks_of
from segjobs.labels.qupath import read_qupath
from segjobs.manifest.segments import Segment
from tests.exporters.samples import CAT, CATEGORIES, DOG, MASKS, labelled, overlapping, setting
from tests.manifests import segment_of


def feature_of(mask: np.ndarray, **keys: Any) -> dict[str, Any]:
    written = write(labelled([segment_of(mask, DOG, score=0.25)]), setting("geojson", **keys))
    (feature,) = json.loads(written.data or b"")["features"]
    return feature


def parts(geometry: dict[str, Any]) -> list[list[list[list[int]]]]:
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def inside(ring: list[list[int]], size_hw: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre a ring encloses: those with an odd number of its upright edges to their left."""
    height, width = size_hw
    crossings = np.zeros((height, width + 1), int)
    for (x, y), (to_x, to_y) in pairwise(ring):
        assert (x == to_x) != (y == to_y), "along the edges of pixels"
        crossings[min(y, to_y) : max(y, to_y), x] += 1
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


@given(MASKS)
def test_the_insides_are_the_very_mask(mask: np.ndarray) -> None:
    covered = np.zeros(mask.shape, int)
    for outer, *holes in parts(feature_of(mask)["geometry"]):
        part = inside(outer, mask.shape)
        for hole in holes:
            assert part[inside(hole, mask.shape)].all(), "within its outer ring"
            part &= ~inside(hole, mask.shape)
        covered += part
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len({tuple(corner) for corner in ring}) == len(ring) - 1 >= 4, "no ring meets itself"
    np.testing.assert_array_equal(covered, mask)


@given(overlapping())
def test_prepare_reads_the_very_masks(segments: list[Segment]) -> None:
    written = write(labelled(segments), setting("geojson"))
    kept = [replace(segment, score=1.0) for segment in segments if not segment.iscrowd]
    found = masks_of(read_qupath(written.data or b""), segments[0].size_hw, CATEGORIES, Policy())
    assert found.segments == kept


def test_a_feature_by_hand() -> None:
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    feature = feature_of(np.pad(ring, ((0, 0), (2, 0))), by_model=True)
    assert feature["geometry"]["type"] == "Polygon"
    outer, hole = feature["geometry"]["coordinates"]
    assert sorted(outer[1:]) == [[2, 0], [2, 3], [5, 0], [5, 3]]
    assert sorted(hole[1:]) == [[3, 1], [3, 2], [4, 1], [4, 2]]
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": DOG.name, "color": list(DOG.color)},
        "measurements": {"score": 0.25},
    }
    corners = feature_of(np.eye(2, dtype=bool))["geometry"]
    assert (corners["type"], len(corners["coordinates"])) == ("MultiPolygon", 2), "two pixels that touch at a corner"
    crowd = segment_of(ring, CAT, iscrowd=True)
    written = write(labelled([crowd]), setting("geojson"))
    assert (json.loads(written.data or b"")["features"], written.losses) == ([], (Loss("crowd", CAT.id, 1, 8),))
