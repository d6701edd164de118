"""The two sides of an evaluation: classes that are matched by name, and images by image_id."""

from pathlib import Path

import pytest

from segjobs.errors import ConfigError, ManifestError
from segjobs.evaluation.inputs import match_categories
from segjobs.manifest.schema import Category
from tests.made import GREY, Picture, manifest, scored


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


@pytest.mark.parametrize("other", [{"a.png": ["s"], "b.png": ["s"]}, {}])
def test_image_ids_that_are_on_one_side_alone_are_refused(tmp_path: Path, other: dict[str, Picture]) -> None:
    truth = manifest(tmp_path / "truth", {"a.jpg": ["s"], "b.jpg": ["s"]}, cut=[1])
    found = manifest(tmp_path / "found", other)
    end = "2 such as 'a.png'" if other else "no image"
    with pytest.raises(ManifestError, match=rf"no image_id is in both: .*/truth has 2 such as 'a\.jpg', .*has {end};"):
        scored(tmp_path, truth, found)
    assert not (tmp_path / "scores").exists()


def test_one_image_id_on_both_sides_is_enough(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {name: ["s"] for name in "abc"})
    found = manifest(tmp_path / "found", {name: ["s"] for name in "0bz"})
    assert scored(tmp_path, truth, found).images == {"ok": 1, "missing": 2, "failed": 0, "no_truth": 0, "extra": 2}
