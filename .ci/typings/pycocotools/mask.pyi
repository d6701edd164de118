# What segjobs/manifest/coco_api.py calls. It is compiled; pyright's own annotations of it know one form only.
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

class EncodedRle(TypedDict):
    size: list[int]
    counts: bytes

def area(rleObjs: Mapping[str, object]) -> int: ...
def merge(rleObjs: Sequence[Mapping[str, object]], intersect: bool = ...) -> EncodedRle: ...
def frPyObjects(pyobj: Sequence[Sequence[float]], h: int, w: int) -> list[EncodedRle]: ...
def iou(
    dt: Sequence[Mapping[str, object]] | Sequence[Sequence[float]],
    gt: Sequence[Mapping[str, object]] | Sequence[Sequence[float]],
    pyiscrowd: Sequence[int],
) -> np.ndarray: ...
