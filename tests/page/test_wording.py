"""What scores are called in headings."""

import pytest

from segjobs.evaluation.report_types import STATUSES
from segjobs.page import wording


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("mean_iou", "mIoU"),
        ("pixel_accuracy", "Pixel accuracy"),
        ("frequency_weighted_iou", "Frequency-weighted IoU"),
        ("iou", "IoU"),
        ("boundary_f", "Boundary F"),
        ("mask_AP50", "Mask AP50"),
        ("pq", "PQ"),
    ],
)
def test_names_begin_with_a_capital_but_for_abbreviations(key: str, name: str) -> None:
    assert wording.score(key)[0] == name


def test_columns_of_the_tables() -> None:
    assert [words for _, words, _ in wording.CLASS_COLUMNS] == [
        "IoU", "Dice", "precision", "recall", "boundary IoU", "boundary F", "truth px", "predicted px", "images",
    ]  # fmt: skip
    assert wording.OBJECT_COLUMNS[0] == ("mask_AP", "mask AP", "bar")
    assert [words for _, words, _ in wording.PANOPTIC_COLUMNS] == ["PQ", "SQ", "RQ"]


def test_without_truth_the_baseline_is_called_so() -> None:
    assert ("truth_px", "baseline px", "count") in wording.class_columns(agreement=True)
    assert wording.class_columns(agreement=False) == wording.CLASS_COLUMNS
    assert not any("truth" in words for words in wording.statuses(agreement=True).values())


def test_every_state_of_an_image_but_good_has_words() -> None:
    assert ["ok", *wording.STATUSES] == list(STATUSES)
