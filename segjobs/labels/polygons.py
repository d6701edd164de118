"""Polygons against the frame of their image: flat x, y, x, y, … coordinates in pixels in, yes or no out.

The rasteriser (``rle.encode_polygons``) draws what lies inside and cuts the rest off at the edge.
"""

import numpy as np

from segjobs.narrow import is_list

TOLERANCE_PX = 1.0
"""Tools round and snap to the edge, so many a polygon reaches half a pixel or a whole one out of its image."""


def outside(part: object, size_hw: tuple[int, int]) -> bool:
    """Whether a point lies more than ``TOLERANCE_PX`` out of the image; parts without an inside never do."""
    if not is_list(part) or len(part) < 6:
        return False
    points = np.asarray(part, np.float64)
    height, width = size_hw
    x, y = points[0::2], points[1::2]
    low = -TOLERANCE_PX
    return bool(((x < low) | (x > width + TOLERANCE_PX)).any() or ((y < low) | (y > height + TOLERANCE_PX)).any())
