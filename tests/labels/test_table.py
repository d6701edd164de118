"""The one table of formats: it and the config name the same, and each adapter's readers travel small."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import CHECKS, LabelRequest, Policy, UnknownId, policy_of, resolve
from segjobs.labels.table import ADAPTERS
from segjobs.manifest.rle import counts_from_runs
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import segment
from segjobs.storage import Storage
from tests.sources.test_decode import save

CAT, DOG = Category(1, "cat", (1, 1, 1)), Category(2, "dog", (2, 2, 2))


def test_the_config_names_the_table() -> None:
    assert set(get_args(LabelsConfig.model_fields["format"].annotation)) == set(ADAPTERS)


def test_a_reader_does_not_grow_with_the_set(tmp_path: Path) -> None:
    sizes = []
    for count in (2, 200):
        folder = tmp_path / str(count)
        folder.mkdir()
        names = [f"{number:04d}" for number in range(count)]
        for name in names:
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / f"{name}.png")
        config = LabelsConfig(format="png", uri=str(folder), categories=["a", "b"])
        labels = ADAPTERS["png"](LabelRequest(config, Storage(), [f"{name}.jpg" for name in names], 100))
        assert labels.read(str(labels.texts[0]), (2, 2)).segments[0]["area"] == 4
        sizes.append(len(pickle.dumps(ADAPTERS["png"](LabelRequest(config, Storage(), [f"{names[0]}.jpg"], 9)).read)))
    assert sizes[1] - sizes[0] < 10


def test_no_label_files_are_said_at_once(tmp_path: Path) -> None:
    for name in ("png", "rgb", "binary", "instance_ids", "yolo", "labelme"):
        config = LabelsConfig(
            format=name, uri=str(tmp_path), categories=["a"] if name in ("yolo", "instance_ids") else ["a", "b"],
            colors=[[0, 0, 0], [1, 1, 1]] if name == "rgb" else None,
        )  # fmt: skip
        with pytest.raises(ConfigError, match=r"labels\.uri: .*: no \."):
            ADAPTERS[name](LabelRequest(config, Storage(), ["a.jpg"], 9))


def test_unknown_names_by_policy() -> None:
    known = {"cat": CAT, "dog": DOG}
    keys = ["dog", "cow", "cat", "cow", "emu"]
    with pytest.raises(UnknownId, match=r"names cow \(2 annotations\), emu \(1 annotations\) are not") as caught:
        resolve(keys, known, Policy(), what="names")
    assert caught.value.code == "LABEL_VALUE"
    found, findings = resolve(keys, known, Policy("ignore"), what="names")
    assert found == [DOG, None, CAT, None, None]
    assert (findings[0].check, findings[0].count) == ("unknown_ids", 3)
    assert resolve(keys, known, Policy("map", CAT), what="names")[0] == [DOG, CAT, CAT, CAT, CAT]
    assert resolve(["cat"], known, Policy(), what="names") == ([CAT], ())


def test_an_unknown_id_stays_one_on_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnknownId("LABEL_VALUE", "ids 3")))  # noqa: S301
    assert isinstance(error, UnknownId) and isinstance(error, ItemError)
    assert (error.code, error.message) == ("LABEL_VALUE", "ids 3")


def test_a_policy_for_a_class_that_is_none() -> None:
    config = LabelsConfig(format="png", uri="x", unknown="map", unknown_class="cta")
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        policy_of(config, [CAT, DOG])


def test_a_segment_without_pixels_is_none() -> None:
    assert segment(CAT, counts_from_runs([20]), (4, 5)) is None
    row = segment(CAT, counts_from_runs([5, 2, 2, 2, 9]), (4, 5), iscrowd=True)
    assert row is not None
    assert (row["area"], row["bbox"], row["score"], row["iscrowd"]) == (4, [1.0, 1.0, 2.0, 2.0], 1.0, True)


def test_every_check_says_what_it_means() -> None:
    assert all(text and text[0].islower() for text in CHECKS.values())


def test_labels_of_unknown_ids_and_other_sizes_are_rows(read_labels: Callable[..., Any], tmp_path: Path) -> None:
    maps = {
        "fine": np.array([[0, 1, 255]], np.uint8),
        "unknown": np.array([[0, 1, 7]], np.uint8),
        "turned": np.array([[0], [1], [1]], np.uint8),
        "larger": np.zeros((2, 6), np.uint8),
        "colours": np.zeros((1, 3, 3), np.uint8),
    }
    for name, ids in maps.items():
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.png").write_bytes(save(np.zeros((1, 3, 3), np.uint8), "PNG"))
        (tmp_path / "labels" / f"{name}.png").write_bytes(save(ids, "PNG"))
    (tmp_path / "images" / "alone.png").write_bytes(save(np.zeros((1, 3, 3), np.uint8), "PNG"))
    _, found = read_labels(tmp_path / "images", format="png", uri=str(tmp_path / "labels"), categories=["sky", "road"])
    codes = {name: one.code if isinstance(one, ItemError) else one is not None for name, one in found.items()}
    assert codes == {
        "fine.png": True,
        "unknown.png": "LABEL_VALUE",
        "turned.png": "LABEL_SHAPE",
        "larger.png": "LABEL_SHAPE",
        "colours.png": "UNSUPPORTED_MODE",
        "alone.png": False,
    }
