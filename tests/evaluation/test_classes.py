"""Classes are matched by name."""

import pytest

from segjobs.errors import ConfigError
from segjobs.evaluation.classes import match_categories
from segjobs.manifest.schema import Category
from tests.made import GREY


def classes(*names: str) -> tuple[Category, ...]:
    return tuple(Category(10 + number, name, GREY) for number, name in enumerate(names))


def test_classes_are_matched_by_name_whatever_the_spelling() -> None:
    truth = classes("traffic light", "Sky", "road")
    assert match_categories(classes("sky", "Traffic_Light", "road"), truth, {}) == {10: 1, 11: 0, 12: 2}
    # The exact name goes first where two differ by spelling only.
    assert match_categories(classes("Car", "car"), classes("car", "Car"), {}) == {10: 1, 11: 0}
    assert match_categories(classes("street", "dog"), truth, {"street": "road", "dog": None}) == {10: 2, 11: None}
    with pytest.raises(ConfigError) as caught:
        match_categories(classes("rode", "CAR"), classes("road", "Car", "car"), {"skies": "sky"})
    skies, rode, car = caught.value.problems
    assert skies.startswith("rename: 'skies' is no class of the predictions")
    assert rode.startswith("predictions: class 'rode' is not in the truth; did you mean 'road'?")
    assert car.startswith("predictions: class 'CAR' is not in the truth"), "two classes are spelled like it"


def test_a_star_stands_for_all_classes_that_the_truth_does_not_have() -> None:
    truth = classes("Sky", "road", "other")
    predicted = classes("sky", "street", "dog", "cat")
    assert match_categories(predicted, truth, {"street": "road", "*": None}) == {10: 0, 11: 1, 12: None, 13: None}
    assert match_categories(predicted, truth, {"*": "other"}) == {10: 0, 11: 2, 12: 2, 13: 2}
    with pytest.raises(ConfigError, match=r"class 'rest' is not in the truth"):
        match_categories(predicted, truth, {"*": "rest"})
