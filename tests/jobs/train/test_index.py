"""Which images are learnt from, and which are left out, held back or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segjobs.config import SourceConfig
from segjobs.jobs.train.feed import Order
from segjobs.jobs.train.index import (
    Index,
    Shown,
    _reasons,
    by_origin,
    class_index,
    class_list,
    make_index,
    open_source,
)
from segjobs.labels.splits import split_by_shares
from segjobs.manifest.collection import as_rows, create_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import footer_of, open_run, read_part
from segjobs.manifest.schema import COLLECTION_SCHEMA, Task
from segjobs.storage import Storage
from segjobs.training.examples import ExampleReader, ExampleSource
from tests.trainings import NAMES, draw, scenes

pytestmark = pytest.mark.usefixtures("ray_session")
STORAGE = Storage()
SEMANTIC = Shown("semantic", "short:520")


def source(uri: str, task: Task = "semantic", **settings: Any) -> ExampleSource:
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


def mixed(folder: Path) -> str:
    """A collection of thirty images, of which every third has a person's masks."""
    now = create_collection(STORAGE, str(folder / "street"))
    for name, scores, places in (("model", [0.4] * 30, range(30)), ("human", None, range(0, 30, 3))):
        run = open_run(STORAGE, scenes(folder / name, count=30, scores=scores))
        table = pa.concat_tables([read_part(STORAGE, run, part) for part in run.parts]).take(pa.array(places))
        rows = as_rows(table, run.info, footer_of(run), to=footer_of(run).categories)
        origin = pa.array([name] * rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index("origin"), COLLECTION_SCHEMA.field("origin"), origin)
        changes = Changes(lambda rows=rows: [rows], MARK_SCHEMA.empty_table())
        now.commit(lambda joint, changes=changes: changes, footer_of(run), app_id=name)
    return now.uri


def places_of(index: Index) -> list[int]:
    return index.rows[:, 2].tolist()


def test_rows_of_a_collection_are_taken_by_their_origin(tmp_path: Path) -> None:
    uri = mixed(tmp_path)
    human, _ = make_index([source(uri, origin="human")], STORAGE, SEMANTIC, classes=2, share=0.0)
    assert places_of(human) == list(range(0, 30, 3))
    assert human.left_out == {"with masks of origin model": (20, "01.png")}
    model, _ = make_index([source(uri, origin="model")], STORAGE, SEMANTIC, classes=2, share=0.0)
    assert sorted([*places_of(model), *places_of(human)]) == list(range(30))
    # A run is one or the other as a whole.
    plain = scenes(tmp_path / "plain", count=3)
    assert not len(make_index([source(plain, origin="model")], STORAGE, SEMANTIC, classes=2, share=0.0)[0].rows)
    # Confidence is of a model: a person's masks have none.
    sure, _ = make_index([source(uri, min_confidence=0.5)], STORAGE, SEMANTIC, classes=2, share=0.0)
    assert places_of(sure) == list(range(0, 30, 3))


def test_persons_masks_are_drawn_as_often_as_told(tmp_path: Path) -> None:
    uri = mixed(tmp_path)
    sources = by_origin([source(uri, weight=0.5, human_weight=6.0)])
    assert [(one.config.origin, one.config.weight) for one in sources] == [("human", 3.0), ("model", 0.5)]
    learnt, _ = make_index(sources, STORAGE, SEMANTIC, classes=2, share=0.0)
    assert np.bincount(learnt.rows[:, 0]).tolist() == [10, 20] and learnt.left_out == {}
    order = Order((10, 20), (3.0, 0.5), seed=1)
    seen = learnt.rows[order.take(np.arange(10 * order.epoch_size))]
    drawn = np.bincount(seen[:, 2], minlength=30)
    assert drawn[::3].tolist() == [30] * 10, "three times in each of ten epochs"
    assert np.delete(drawn, range(0, 30, 3)).sum() == 100, "half of twenty, ten times"
    (only,) = by_origin([source(uri, origin="human", human_weight=4.0)])
    assert (only.config.weight, only.half) == (4.0, False)
    assert by_origin([source(uri)]) == [source(uri)]


def test_what_is_held_back_may_be_of_one_origin(tmp_path: Path) -> None:
    uri = mixed(tmp_path)
    plain = [source(uri)]
    learnt, held = make_index(plain, STORAGE, SEMANTIC, classes=2, share=0.4)
    for sources in (plain, by_origin([source(uri, human_weight=5.0)])):
        other, scored = make_index(sources, STORAGE, SEMANTIC, classes=2, share=0.4, scored="human")
        assert sorted(places_of(other)) == sorted(places_of(learnt)), "what is in the share is never learnt"
        assert places_of(scored) == [place for place in places_of(held) if place % 3 == 0] != []
        count = len(held.rows) - len(scored.rows)
        assert scored.left_out["with masks of origin model"][0] == count


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
