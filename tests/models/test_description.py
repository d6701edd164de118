"""model.json of a stranger: what stands in it is checked before memory is laid out by it, in one line with the file."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.errors import WeightsError
from segjobs.manifest.seal import sealed_json
from segjobs.models.description import parse_description

WHERE = "out/model/model.json"
WHOLE: dict[str, Any] = {
    "name": "unet",
    "task": "semantic",
    "options": {"encoder": "resnet18"},
    "categories": [{"id": 0, "name": "road", "color": [1, 2, 3]}, {"id": 7, "name": "car", "color": [4, 5, 6]}],
    "preprocessing": {"resize": "short:64", "mean": [0, 0.5, 0.5], "std": [1, 0.2, 0.2]},
    "licence": None,
    "sha256": "0" * 64,
    "training": {"steps": 3},
}


def with_value(path: str, value: object) -> dict[str, Any]:
    """The whole description with another value at a dotted path."""
    whole = json.loads(json.dumps(WHOLE))
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = whole
    for part in above:
        place = place[part]
    place[last] = value
    return whole


def test_a_whole_one_is_taken_as_it_is() -> None:
    for data in (json.dumps(WHOLE).encode(), sealed_json(WHOLE, indent=2)):
        found = parse_description(data, WHERE)
        assert found.preprocessing == WHOLE["preprocessing"]
        assert [(category.id, category.name, category.color) for category in found.categories] == [
            (0, "road", (1, 2, 3)),
            (7, "car", (4, 5, 6)),
        ]
    assert parse_description(json.dumps(with_value("preprocessing", {})).encode(), WHERE).preprocessing == {}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("name", 3, "name: Input should be a valid string ('3')"),
        ("task", "depth", "task: "),
        ("options", [], "options: "),
        ("categories", [], "categories: "),
        ("categories.1.id", 0, "categories: Value error, the id 0 stands there twice"),
        ("categories.1.name", "road", "the name 'road' stands there twice"),
        ("categories.1.name", "", "categories.1.name: "),
        ("categories.0.id", 10**12, "categories.0.id: "),
        ("categories.0.id", -1, "categories.0.id: "),
        ("categories.0.id", True, "categories.0.id: "),
        ("categories.0.id", "0", "categories.0.id: "),
        ("categories.0.color", [1, 2], "categories.0.color.2: Field required"),
        ("categories.0.color", [1, 2, 256], "categories.0.color.2: "),
        ("preprocessing.resize", "200000x200000", "sides are at most 16384 pixels"),
        ("preprocessing.resize", "short:" + "9" * 5000, "sides are at most 16384 pixels"),
        ("preprocessing.resize", 64, "preprocessing.resize: "),
        ("preprocessing.mean", [0.5], "preprocessing.mean: "),
        ("preprocessing.mean", [0.5, 0.5, float("nan")], "preprocessing.mean.2"),
        ("preprocessing.mean", [0.5, 0.5, 10**400], "preprocessing.mean.2"),
        ("preprocessing.std", [0.5, 0.5, 0], "preprocessing.std.2"),
        ("preprocessing.std", [0.5, 0.5, float("inf")], "preprocessing.std.2"),
        ("preprocessing.std", "111", "preprocessing.std: "),
        ("sha256", "abc", "sha256: "),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        parse_description(json.dumps(with_value(path, value)).encode(), WHERE)
    text = str(caught.value)
    assert text.startswith(f"{WHERE} is no model description of segjobs: ")
    assert words in text
    assert "; mend it, or save the model again" in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("number", [0, 65_535, 10**9])
def test_ids_of_an_instance_model_are_its_channels(number: int) -> None:
    raw = {**WHOLE, "task": "instance", "categories": [{"id": number, "name": "car", "color": [1, 2, 3]}]}
    with pytest.raises(WeightsError, match=rf"ids from {number} to {number}, where those of an instance model"):
        parse_description(json.dumps(raw).encode(), WHERE)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 10**5, b'{"a":' * 10**5, b"null", b'{"name": "\\ud800"}'])
def test_what_is_hardly_json(data: bytes) -> None:
    with pytest.raises(WeightsError, match=rf"^{WHERE} [^\n]*; mend it"):
        parse_description(data, WHERE)


PLACES = ["name", "task", "options", "categories", "categories.0", "categories.0.id", "categories.0.name"]
PLACES += ["categories.0.color", "categories.0.color.0", "categories.0.isthing", "preprocessing", "preprocessing.mean"]
PLACES += ["preprocessing.mean.0", "preprocessing.std.1", "preprocessing.resize", "licence", "sha256"]


@given(place=st.sampled_from(PLACES), value=st.recursive(
    st.sampled_from([None, True, -1, 0, 7, 10**30, 1e300, float("nan"), float("-inf"), "", "x", "1x1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "name", "mean"]), inner),
    max_leaves=6,
))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere(place: str, value: object) -> None:
    try:
        parse_description(json.dumps(with_value(place, value)).encode(), WHERE)
    except WeightsError as error:
        assert str(error).startswith(WHERE)
        assert "\n" not in str(error)
