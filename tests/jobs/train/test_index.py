"""Which images are learnt from, and which are left out, held back or refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segjobs.config import SourceConfig
from segjobs.jobs.train.index import Shown, _reasons, class_index, class_list, make_index, open_source
from segjobs.labels.splits import split_by_shares
from segjobs.manifest.schema import Task
from segjobs.storage import Storage
from segjobs.training.examples import ExampleReader, ExampleSource
from tests.trainings import NAMES, draw, scenes

pytestmark = pytest.mark.usefixtures("ray_session")
STORAGE = Storage()
SEMANTIC = Shown("semantic", "short:520")


def source(uri: str, task: Task = "semantic", **settings: float) -> ExampleSource:
    config = SourceConfig(uri=uri, **settings)
    run = open_source("data.uri", config, STORAGE, task)
    return ExampleSource("data.uri", config, run, class_index("data.uri", run, {}, NAMES, task))


def test_what_is_left_out_is_counted_with_an_example(tmp_path: Path) -> None:
    scores = [0.9, 0.3, 0.8, None, 0.7, 0.2]
    uri = scenes(tmp_path / "in", scores=scores, broken=[2])
    learnt, held = make_index([source(uri, min_confidence=0.5)], STORAGE, SEMANTIC, classes=2, share=0.0)
    assert learnt.rows.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]], "source, part, row; without confidence it counts"
    assert learnt.left_out == {"failed in the manifest": (1, "02.png"), "confidence below 0.5": (2, "01.png")}
    assert learnt.amounts.tolist() == [3 * (40 * 48 - 18 * 18), 3 * 18 * 18]
    assert not len(held.rows)


def test_segments_of_low_score_are_unlabelled(tmp_path: Path) -> None:
    uri = scenes(tmp_path / "in", count=3, scores=[0.9, 0.3, None])
    one = source(uri, min_score=0.5)
    learnt, _ = make_index([one], STORAGE, SEMANTIC, classes=2, share=0.0)
    assert learnt.amounts.tolist() == [3 * (40 * 48 - 18 * 18), 2 * 18 * 18]
    reader = ExampleReader([one], STORAGE, max_pixels=10**6)
    assert [[index for index, _ in reader.read(place).segments] for place in learnt.rows] == [[0, 1], [0], [0, 1]]
    np.testing.assert_array_equal(reader.read(learnt.rows[1]).image, draw(1)[0])


def test_the_share_is_held_back_from_every_source_by_hash(tmp_path: Path) -> None:
    uris = [scenes(tmp_path / name, count=30) for name in ("a", "b")]
    learnt, held = make_index([source(uri) for uri in uris], STORAGE, SEMANTIC, classes=2, share=0.3)
    ids = [f"{number:02d}.png" for number in range(30)]
    expected = np.flatnonzero(split_by_shares(ids, {"x": 0.7, "y": 0.3}, None).members["y"]).tolist()
    assert [3 * part + row for _, part, row in held.rows.tolist()] == expected
    assert 0 < len(expected) < 30 and (held.rows[:, 0] == 0).all()
    assert np.bincount(learnt.rows[:, 0]).tolist() == [30 - len(expected)] * 2
    assert not {3 * part + row for _, part, row in learnt.rows.tolist()} & set(expected)


def test_objects_are_counted_by_class(tmp_path: Path) -> None:
    one = source(scenes(tmp_path / "in", task="instance"), "instance")
    learnt, _ = make_index([one], STORAGE, Shown("instance", "short:800"), classes=2, share=0.0)
    assert learnt.amounts.tolist() == [0, 6]
    run = one.run
    assert [c.name for c in class_list(run, {"ground": None, "square": "box"}, None, "instance")] == ["box"]
    assert [c.name for c in class_list(run, {}, ["square", "ground"], "instance")] == ["square", "ground"]


def test_a_strip_that_the_model_cannot_be_shown_is_left_out(tmp_path: Path) -> None:
    sizes = {"width": [160, 30_000, None], "height": [10, 10, None]}
    table = pa.table({"status": ["ok", "ok", "failed"], **sizes, "confidence": pa.nulls(3, pa.float32())})
    one = source(scenes(tmp_path / "in", count=3))
    for shown, expected in (
        (SEMANTIC, ["", "too long a strip for model.resize=short:520", "failed in the manifest"]),
        (Shown("semantic", "long:520"), ["", "", "failed in the manifest"]),
        (Shown("instance", "short:800"), ["", "", "failed in the manifest"]),
    ):
        assert _reasons(table, np.zeros(3, bool), one, shown).tolist() == expected
