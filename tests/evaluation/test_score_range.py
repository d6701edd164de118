"""A range joins the two sides by image_id and publishes its counts once."""

from pathlib import Path

import pyarrow.parquet as pq

from segjobs.config import EvaluateConfig
from segjobs.evaluation.inputs import open_pairing
from segjobs.evaluation.pairing import SCORES_SCHEMA, Range
from segjobs.evaluation.score_range import publish_range, score_rows
from segjobs.storage import Storage
from tests.made import GONE, manifest


def test_images_of_a_range_by_hand(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"b": ["sr"], "c": ["rr"], "d": GONE, "e": ["ss"]}, cut=[2])
    predicted = manifest(tmp_path / "predicted", {"a": ["s"], "b": ["ss"], "d": ["s"], "e": ["ss"]}, cut=[1, 3])
    sides = {"truth": {"uri": truth}, "predictions": {"uri": predicted}, "output": {"uri": str(tmp_path / "scores")}}
    config = EvaluateConfig.model_validate(sides)
    pairing, (span,), inputs = open_pairing(config, Storage(), config.predictions, truth)
    assert inputs.parts == 1
    statuses = {row["image_id"]: row["status"] for row in score_rows(span, pairing)}
    assert statuses == {"a": "extra", "b": "ok", "c": "missing", "d": "no_truth", "e": "ok"}
    late = Range("c", None, span.truth, span.predictions)
    assert [row["image_id"] for row in score_rows(late, pairing)] == ["c", "d", "e"]

    uri = str(tmp_path / "scores")
    assert publish_range(4, span, pairing, uri) == (2, 2), "an image without truth is neither"
    path = tmp_path / "scores" / "scores" / "part-00004.parquet"
    table = pq.read_table(path)
    assert table.schema.equals(SCORES_SCHEMA) and table["image_id"].to_pylist() == ["a", "b", "c", "d", "e"]
    before = path.stat().st_mtime_ns
    publish_range(4, span, pairing, uri)
    assert path.stat().st_mtime_ns == before, "what is published stays"
