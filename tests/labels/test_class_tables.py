"""Class tables: the published ones against their sources, files of names, and contradictions."""

from pathlib import Path

import numpy as np
import pytest

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError
from segjobs.labels.class_tables import BUILT_IN, UNKNOWN, class_table, with_class_names
from segjobs.labels.png import masks_from_ids
from segjobs.manifest.rle import VOID
from segjobs.storage import Storage


def labels(**keys) -> LabelsConfig:
    return LabelsConfig.model_validate({"format": "png", "uri": "labels", **keys})


def test_cityscapes_ids_and_train_ids_mean_the_same_classes() -> None:
    ids, train = class_table(labels(table="cityscapes_ids")), class_table(labels(table="cityscapes_train_ids"))
    assert ids.categories == train.categories
    assert [(c.id, c.name) for c in ids.categories][::6] == [
        (0, "road"),
        (6, "traffic light"),
        (12, "rider"),
        (18, "bicycle"),
    ]
    assert (ids.index_of[7], ids.index_of[33], ids.index_of[4], ids.index_of[34]) == (0, 18, VOID, UNKNOWN)
    assert (train.index_of[0], train.index_of[18], train.index_of[255], train.index_of[19]) == (0, 18, VOID, UNKNOWN)
    assert sorted([*BUILT_IN["cityscapes_ids"].pixel_ids, *BUILT_IN["cityscapes_ids"].void_ids]) == list(range(34))
    full = np.array([[7, 8, 26, 3]], np.uint8)
    trained = np.array([[0, 1, 13, 255]], np.uint8)
    assert masks_from_ids(full, (1, 4), ids) == masks_from_ids(trained, (1, 4), train)


def test_voc_has_its_21_classes_in_its_colours() -> None:
    table = class_table(labels(table="voc"))
    assert [category.name for category in table.categories][::10] == ["background", "cow", "tvmonitor"]
    assert (table.categories[15].color, table.categories[20].color) == ((192, 128, 128), (0, 64, 128))
    assert table.index_of[255] == VOID


def test_a_table_may_have_other_void_ids() -> None:
    with pytest.raises(ConfigError, match=r"labels\.void_ids: 3 is an id of labels\.table=voc"):
        class_table(labels(table="voc", void_ids=[3]))
    assert class_table(labels(table="voc", void_ids=[99])).index_of[255] == UNKNOWN


def test_unknown_ids_become_a_class() -> None:
    table = class_table(labels(categories=["ground", "cat"], unknown="map", unknown_class="ground"))
    masks = masks_from_ids(np.array([[1, 9, 9, 255, 77]], np.uint8), (1, 5), table)
    assert [(row.category, row.area) for row in masks.segments] == [("ground", 3), ("cat", 1)]
    assert [(one.check, one.count, one.detail) for one in masks.findings] == [
        ("unknown_ids", 2, "ids 9 (2 px), 77 (1 px): taken as 'ground'")
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\ufeffcat\r\n\n big dog \n"),
        ("data.yaml", "path: x\nnames: [cat, big dog]\n"),
        ("data.yml", "names: {1: big dog, 0: cat}\n"),
    ],
)
def test_files_of_class_names(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = with_class_names(labels(class_file=str(tmp_path / name)), Storage())
    assert config.categories == ["cat", "big dog"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [0, 1, 2]", ["0", "1", "2"]),
        ("names: {'1': b, '0': a}", ["a", "b"]),
        ("names: [yes, no, 1.0, 2020-99-99]", ["yes", "no", "1.0", "2020-99-99"]),
    ],
)
def test_names_are_texts_whatever_they_look_like(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert with_class_names(labels(class_file=str(tmp_path / "data.yaml")), Storage()).categories == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: 3", "expected 'names', a list of texts or a table of 0, 1, 2"),
        ("names: {1: a}", "expected 'names'"),
        ("- a", "expected 'names'"),
        ("names: [", "not readable"),
        ("names: [a, '']", "expected 'names'"),
        ("names: [[a]]", "expected 'names'"),
        ("names: {0: a, b: c}", "expected 'names'"),
        ("names: &a [*a]", "not readable"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_files_that_name_no_classes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        with_class_names(labels(class_file=str(tmp_path / "data.yaml")), Storage())


def test_a_file_of_class_names_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.class_file: .*none.*cannot be read"):
        with_class_names(labels(class_file=str(tmp_path / "none.txt")), Storage())
