"""pycocotools' own evaluation of segments, as the reference for matching and average precision."""

import contextlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjobs.manifest.segments import Segment
from segjobs.metrics.average_precision import FIGURES, DetectionMatches
from segjobs.metrics.matching import MATCHES_TYPE, MatchKind, match_image

Images = list[tuple[list[Segment], list[Segment]]]
"""(truth, predicted) segments of each image."""


def reference(images: Images, category_ids: list[int], kind: MatchKind) -> tuple[list[float], dict[str, np.ndarray]]:
    """The twelve numbers (-1 where undefined), and AP, AP50 and AR100 of each class (NaN where undefined)."""
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, pair in enumerate(images):
        for side, segments in zip(sides, pair, strict=True):
            side += [{**one.to_row(), "image_id": number, "id": len(side) + k + 1} for k, one in enumerate(segments)]
    for detection in sides[1]:
        detection["iscrowd"] = 0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = []
        for side in sides:
            one = COCO()
            one.dataset = {
                "images": [{"id": number} for number in range(len(images))],
                "categories": [{"id": category} for category in category_ids],
                "annotations": side,
            }
            one.createIndex()
            # Masks are run-length codes already; the size of the image is not looked at.
            one.annToRLE = lambda annotation: annotation["segmentation"]
            coco.append(one)
        evaluation = COCOeval(*coco, "segm" if kind == "mask" else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = np.where(evaluation.eval["precision"] > -1, evaluation.eval["precision"], np.nan)
    recall = np.where(evaluation.eval["recall"] > -1, evaluation.eval["recall"], np.nan)
    # Parameters sort the categories; precision is (T, R, K, A, M), recall (T, K, A, M).
    place = [sorted(category_ids).index(category) for category in category_ids]
    classes = {
        "AP": precision[:, :, :, 0, 2].mean(axis=(0, 1))[place],
        "AP50": precision[0, :, :, 0, 2].mean(axis=0)[place],
        "APs": precision[:, :, :, 1, 2].mean(axis=(0, 1))[place],
        "AR100": recall[:, :, 0, 2].mean(axis=0)[place],
    }
    return list(evaluation.stats), classes


def matches_of(images: Images, category_ids: list[int], kind: MatchKind) -> DetectionMatches:
    rows = [match_image(truth, predicted, kind=kind) for truth, predicted in images]
    return DetectionMatches.from_column(pa.array(rows, MATCHES_TYPE), category_ids)


def assert_equal(result: Any, expected: tuple[list[float], dict[str, np.ndarray]], *, within: float = 1e-9) -> None:
    stats, classes = expected
    found = [-1.0 if result.figures[name] is None else result.figures[name] for name in FIGURES]
    np.testing.assert_allclose(found, stats, rtol=0, atol=within)
    for name, values in classes.items():
        mine = [np.nan if value is None else value for value in result.per_class[name]]
        np.testing.assert_allclose(mine, values, rtol=0, atol=within, err_msg=name)
