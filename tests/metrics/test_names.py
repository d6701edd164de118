"""Names stand once: what is computed, written and shown has the keys that are listed, and no other."""

import numpy as np

from segjobs.metrics.average_precision import FIGURES
from segjobs.metrics.bootstrap import semantic_figures
from segjobs.metrics.boundary import boundary_figures
from segjobs.metrics.conventions import CONVENTIONS
from segjobs.metrics.gate import CLASS_FIGURES, SET_FIGURES
from segjobs.metrics.names import (
    CONVENTION_WORDS,
    DETECTIONS,
    HEADLINE,
    OF_SET,
    QUALITY,
    RATIOS,
    WORDS,
    by_class,
)
from segjobs.metrics.panoptic import panoptic_figures


def test_what_is_computed_has_a_name() -> None:
    semantic = {*semantic_figures(np.ones((2, 3))), *boundary_figures(np.ones((2, 7)))}
    assert semantic == {*HEADLINE, *map(by_class, RATIOS)}
    assert set(panoptic_figures(np.ones((2, 5)), np.ones(2, bool))) == {*QUALITY, *map(by_class, QUALITY)}
    assert set(DETECTIONS) == {f"{kind}_{name}" for kind in ("mask", "box") for name in FIGURES}
    assert list(CONVENTION_WORDS) == [*CONVENTIONS, "per_image"]


def test_a_class_s_figure_is_told_from_the_set_s() -> None:
    assert [by_class(name) for name in ("iou", "recall")] == ["iou", "recall"]
    assert [by_class(name) for name in ("boundary_f", "pq", "mask_AP50")] == [
        "class_boundary_f", "class_pq", "class_mask_AP50",
    ]  # fmt: skip


def test_what_a_rule_may_ask_for_has_a_name() -> None:
    assert set(SET_FIGURES.values()) <= OF_SET.keys()
    assert SET_FIGURES["miou"] == SET_FIGURES["mean_iou"] == "mean_iou"
    assert (SET_FIGURES["ap"], SET_FIGURES["box_ap75"], SET_FIGURES["sq"]) == ("mask_AP", "box_AP75", "sq")
    assert CLASS_FIGURES == {
        "iou": "iou", "dice": "dice", "precision": "precision", "recall": "recall",
        "boundary_iou": "class_boundary_iou", "boundary_f": "class_boundary_f",
        "ap": "class_mask_AP", "ap50": "class_mask_AP50", "box_ap": "class_box_AP", "pq": "class_pq",
    }  # fmt: skip


def test_every_score_is_printed_under_a_name_of_its_own() -> None:
    names = [words.name for words in WORDS.values()]
    assert len(set(names)) == len(names)
    assert (WORDS["mean_iou"].name, WORDS["mask_AP50"].name, WORDS["pq"].name) == ("mIoU", "mask AP50", "PQ")
