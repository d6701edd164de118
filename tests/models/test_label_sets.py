"""Label sets that are known by their names, in the spellings that repositories have."""

import json
from pathlib import Path

import pytest

from segjobs.config import ModelConfig
from segjobs.models.label_sets import LABEL_SETS, things_of
from segjobs.models.registry import resolve
from segjobs.storage import Storage
from tests.conftest import SHARED_DATA
from tests.tiny_hf import save_tiny

COCO, ADE20K, CITYSCAPES = (list(known.names) for known in LABEL_SETS)


def test_so_many_are_things() -> None:
    assert [(len(known.names), len(known.stuff)) for known in LABEL_SETS] == [(133, 53), (150, 50), (19, 11)]
    assert all(known.stuff < set(known.names) for known in LABEL_SETS)


@pytest.mark.skipif(not (SHARED_DATA / "panoptic_sample").is_dir(), reason="no panoptic sample there")
def test_cocos_own_list() -> None:
    theirs = json.loads((SHARED_DATA / "panoptic_sample" / "panoptic_examples.json").read_text())["categories"]
    assert things_of([one["name"] for one in theirs]) == [bool(one["isthing"]) for one in theirs]


def test_other_spellings_are_the_same_set() -> None:
    """As transformers' conversions of OneFormer and Mask2Former name them."""
    short = [name.removesuffix("-merged").removesuffix("-other").removesuffix("-stuff") for name in COCO]
    short[short.index("wall-wood")] = "wall"
    numbered = [f"{name} ({place})" if name in short[:place] else name for place, name in enumerate(short)]
    assert things_of(numbered) == [True] * 80 + [False] * 53
    ade = {"window": "windowpane", "tub": "bathtub", "bed": "bed ", "tv": "television receiver", "road": "road, route"}
    flags = things_of([ade.get(name, name) for name in ADE20K])
    assert flags is not None
    assert [name for name, thing in zip(ADE20K[:10], flags, strict=False) if thing] == ["bed", "window"]
    cityscapes = things_of([name.title() for name in CITYSCAPES])
    assert cityscapes is not None
    assert [name for name, thing in zip(CITYSCAPES, cityscapes, strict=True) if thing] == [
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ]


@pytest.mark.parametrize("names", [CITYSCAPES[:18], [*CITYSCAPES, "sky"], CITYSCAPES[::-1], ["a"] * 19, []])
def test_others_are_not_known(names: list[str]) -> None:
    assert things_of(names) is None


def test_a_repository_of_known_names_knows_its_things(tmp_path: Path) -> None:
    """Unless model.options.stuff says otherwise, [] too."""
    folder = save_tiny(tmp_path, "mask2former", labels=CITYSCAPES)
    options = {"task": "panoptic"}
    card = resolve(ModelConfig(name="hf", weights=str(folder), options=options), Storage())
    assert [one.isthing for one in card.categories] == [False] * 11 + [True] * 8
    named = ModelConfig(name="hf", weights=str(folder), options=options, categories=[f"c{n}" for n in range(19)])
    assert [one.isthing for one in resolve(named, Storage()).categories] == [False] * 11 + [True] * 8
    for stuff, expected in (([], None), (["sky"], False)):
        given = ModelConfig(name="hf", weights=str(folder), options={**options, "stuff": stuff})
        assert resolve(given, Storage()).categories[10].isthing is expected
    instance = ModelConfig(name="hf", weights=str(folder), options={"task": "instance"})
    assert resolve(instance, Storage()).categories[0].isthing is None
