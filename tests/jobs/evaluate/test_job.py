"""The evaluator on manifests whose every pixel is counted by hand, and against plain numpy on random ones."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segjobs.config import EvaluateConfig, load_config
from segjobs.errors import ConfigError, ConflictError, ExitCode, ItemError, ManifestError
from segjobs.jobs.evaluate.console import headlines, status_words, tables
from segjobs.jobs.evaluate.job import evaluate, exit_code
from segjobs.manifest.schema import Category
from tests.conftest import REPOSITORY
from tests.made import GONE, GREY, PREDICTED, Picture, class_values, classes_of, evaluated, manifest, scored

TRUTH_PICTURES: dict[str, Picture] = {
    "a": ["ss.", "rrt"],
    "b": ["st"],  # has no prediction
    "c": ["rr"],  # its prediction failed
    "d": GONE,  # its truth failed
    "f": ["rs."],  # its prediction has another size
}
PREDICTED_PICTURES: dict[str, Picture] = {
    "a": ["srs", "rr."],
    "c": ItemError("NON_FINITE", "NaN"),
    "d": ["s"],
    "e": ["rr"],  # has no truth
    "f": ["r", "s", "s"],
}


def labelled(report: dict[str, Any]) -> list[list[int]]:
    """The confusion without the row of unlabelled pixels."""
    return report["semantic"]["confusion"][:-1]


def scores_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "scores").iterdir()) for row in pq.read_table(path).to_pylist()]


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_every_number_by_hand(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labelled pixels: 4 sky (a2 b1 f1), 5 road (a2 c2 f1), 2 tree (a1 b1). Right: 1 sky and 2 road, all in a.

    In a, one sky is taken for road, the tree is not predicted, and the sky on the void pixel counts nowhere.
    """
    truth = manifest(tmp_path / "truth", TRUTH_PICTURES, cut=[2, 3])
    predicted = manifest(tmp_path / "predicted", PREDICTED_PICTURES, PREDICTED, cut=[1])
    report = evaluated(tmp_path, truth, predicted)
    assert report["images"] == {"ok": 1, "missing": 1, "failed": 2, "no_truth": 1, "extra": 1}
    assert report["examples"] == {"missing": ["b"], "failed": ["c", "f"], "no_truth": ["d"], "extra": ["e"]}
    assert [category["name"] for category in report["categories"]] == ["sky", "road", "tree", "car"]
    assert labelled(report) == [[1, 1, 0, 0, 2], [0, 2, 0, 0, 3], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]
    assert report["semantic"]["confusion"][4] == [1, 0, 0, 0, 1], "unlabelled pixels: one in a, one in f"
    counts = [[row[name] for name in ("truth_px", "predicted_px", "correct_px")] for row in classes_of(report)]
    assert counts == [[4, 1, 1], [5, 3, 2], [2, 0, 0], [0, 0, 0]]
    assert class_values(report, "iou") == [1 / 4, 2 / 6, 0.0, None]
    assert class_values(report, "dice") == [2 / 5, 4 / 8, 0.0, None]
    assert class_values(report, "precision") == [1.0, 2 / 3, None, None]
    assert class_values(report, "recall") == [1 / 4, 2 / 5, 0.0, None]
    headline = {name: figure["value"] for name, figure in report["semantic"]["headline"].items()}
    assert headline == {
        "mean_iou": pytest.approx(7 / 36, rel=1e-15),
        "pixel_accuracy": 3 / 11,
        "mean_accuracy": pytest.approx(13 / 60, rel=1e-15),
        "frequency_weighted_iou": pytest.approx(8 / 33, rel=1e-15),
        "mean_dice": pytest.approx(3 / 10, rel=1e-15),
    }
    assert (report["convention"], report["missing"]) == ("dataset", "worst")
    assert (report["truth"]["run_id"], report["predictions"]["model"]) == ("truth", "predicted@1")

    err = capsys.readouterr().err
    assert re.search(r"^mIoU 19\.44 \[\d.*], pixel accuracy 27\.27 \[", err, re.MULTILINE)
    assert "images: 1 ok, 1 missing, 2 failed, 1 no_truth, 1 extra" in err
    assert "  failed: 'c', 'f'" in err

    classes = pq.read_table(tmp_path / "scores" / "per_class.parquet").to_pylist()
    assert [row["category_id"] for row in classes] == [3, 7, 9, 11]
    kept = ("category", "iou", "dice", "precision", "recall", "truth_px", "predicted_px", "correct_px", "images")
    assert [classes[1][name] for name in kept] == ["road", 2 / 6, 4 / 8, 2 / 3, 2 / 5, 5, 3, 2, 3]
    assert classes[1]["iou_low"] < 2 / 6 < classes[1]["iou_high"]
    images = {row["image_id"]: row for row in pq.read_table(tmp_path / "scores" / "per_image.parquet").to_pylist()}
    assert list(images) == ["a", "b", "c", "d", "e", "f"]
    assert {name: row["status"] for name, row in images.items()} == {
        "a": "ok",
        "b": "missing",
        "c": "failed",
        "d": "no_truth",
        "e": "extra",
        "f": "failed",
    }
    assert (images["a"]["labelled_px"], images["a"]["correct_px"], images["a"]["pixel_accuracy"]) == (5, 3, 3 / 5)
    assert images["a"]["mean_iou"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    counts = {row["image_id"]: row for row in scores_of(tmp_path / "scores")}
    cells = {(cell["truth"], cell["predicted"]): cell["pixels"] for cell in counts["a"]["confusion"]}
    assert cells == {(3, 3): 1, (3, 7): 1, (7, 7): 2, (9, None): 1, (None, 3): 1}, "by the truth's category ids"
    assert images["c"]["message"] == "NON_FINITE: NaN"
    assert images["d"]["message"] == "NOT_FOUND: no such file"
    assert images["f"]["message"] == "LABEL_SHAPE: the prediction is 1x3, the truth 3x1 pixels"
    assert counts["d"]["confusion"] is counts["e"]["confusion"] is None


def test_what_is_missing_can_be_left_out_or_stop_the_job(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", TRUTH_PICTURES)
    predicted = manifest(tmp_path / "predicted", PREDICTED_PICTURES, PREDICTED)
    report = evaluated(tmp_path, truth, predicted, missing="skip")
    assert report["images"] == {"ok": 1, "missing": 1, "failed": 2, "no_truth": 1, "extra": 1}, "counted all the same"
    assert labelled(report) == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert class_values(report, "iou") == [1 / 2, 2 / 3, 0.0, None]
    assert report["semantic"]["headline"]["pixel_accuracy"]["value"] == 3 / 5
    with pytest.raises(ManifestError, match=r"^3 image\(s\) of the truth have no prediction, such as 'b' \(missing\)"):
        evaluated(tmp_path, truth, predicted, "strict", missing="error")
    assert not (tmp_path / "strict" / "report.json").exists()


CUTS = [((), ()), ((1, 2, 3, 4), (1, 2, 3, 4)), ((4,), (1,)), ((), (2, 3)), ((2, 3), ())]


def test_any_cut_into_parts_gives_the_same_report(ray_session: None, tmp_path: Path) -> None:
    reports, tables = [], []
    for number, (truth_cut, predicted_cut) in enumerate(CUTS):
        truth = manifest(tmp_path / f"truth{number}", TRUTH_PICTURES, cut=truth_cut)
        predicted = manifest(tmp_path / f"predicted{number}", PREDICTED_PICTURES, PREDICTED, cut=predicted_cut)
        report = evaluated(tmp_path, truth, predicted, f"scores{number}")
        for side in ("truth", "predictions", "identity"):
            del report[side]
        reports.append(json.dumps(report))
        tables.append(pq.read_table(tmp_path / f"scores{number}" / "per_image.parquet"))
    assert set(reports) == {reports[0]}
    assert all(table.equals(tables[0]) for table in tables)


def test_random_maps_against_plain_numpy(ray_session: None, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    letters = np.array(list("srtc."))
    names = [f"{number:02d}" for number in range(12)]
    sizes = [tuple(random.integers(1, 9, 2)) for _ in names]
    sides = [[letters[random.integers(0, 5, size)] for size in sizes] for _ in range(2)]
    truth, predicted = (
        manifest(tmp_path / side, {n: ["".join(r) for r in m] for n, m in zip(names, maps, strict=True)}, cut=cut)
        for side, maps, cut in (("truth", sides[0], [5]), ("predicted", sides[1], [3, 4, 9]))
    )
    counted = np.zeros((4, 5), int)
    for one, two in zip(*sides, strict=True):
        for t, p in zip(one.flat, two.flat, strict=True):
            if t != ".":
                counted["srtc".index(t), "srtc.".index(p)] += 1
    report = evaluated(tmp_path, truth, predicted)
    assert labelled(report) == counted.tolist()
    both = counted[:, :4].sum(0) + counted.sum(1)
    right = counted.diagonal()
    assert class_values(report, "iou") == pytest.approx((right / (both - right)).tolist(), rel=1e-15)


def test_a_second_run_does_nothing_and_other_inputs_conflict(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["sr"]})
    predicted = manifest(tmp_path / "predicted", {"a": ["ss"]})
    other = manifest(tmp_path / "other", {"a": ["rr"]})
    first = evaluated(tmp_path, truth, predicted)
    before = files_of(tmp_path / "scores")
    tables = {"report.json", "per_class.parquet", "per_image.parquet"}
    assert set(before) == {*tables, "scores.json", "scores/part-00000.parquet"}
    config = {"predictions": {"uri": predicted}, "truth": {"uri": truth}, "output": {"uri": str(tmp_path / "scores")}}
    capsys.readouterr()
    again = evaluate(EvaluateConfig.model_validate(config))
    line = json.loads(again.text())
    assert (line["output"], line["images"], line["gate"]) == (str(tmp_path / "scores"), first["images"], {})
    assert (line["pixel_accuracy"], again.scores["pixel_accuracy"]) == (0.5, 0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"nothing to do: {tmp_path}/scores/report.json is there" in err
    with pytest.raises(ConflictError, match="holds a report with other scored: overwrite=true replaces it, or choose"):
        evaluated(tmp_path, truth, other)
    with pytest.raises(ConflictError, match="holds a report with other missing: overwrite=true replaces it, or choose"):
        evaluated(tmp_path, truth, predicted, missing="skip")
    assert files_of(tmp_path / "scores") == before


def test_what_is_printed_where_nothing_was_scored_and_where_too_much_failed(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {name: ["sr"] for name in "abc"})
    bad = ItemError("UNREADABLE", "no image")
    report = scored(tmp_path, truth, manifest(tmp_path / "bad", dict.fromkeys("abc", bad)), "one")
    assert list(headlines(report)) == [], "no figure, no headline"
    assert [status_words(one) for one in report.failures] == [
        "prediction failed, UNREADABLE: 3 image(s), such as 'a': no image"
    ]
    assert exit_code(report, 1.0) == ExitCode.TOO_MANY_FAILED
    some = manifest(tmp_path / "some", {"a": bad, "b": ["sr"], "c": ["sr"]})
    report = scored(tmp_path, truth, some, "two")
    assert [exit_code(report, most) for most in (0.3, 0.34, 1.0)] == [ExitCode.TOO_MANY_FAILED, *[ExitCode.DONE] * 2]
    gated = scored(tmp_path, truth, some, "three", gate=["miou >= 1"])
    assert exit_code(gated, 0.3) == ExitCode.GATE_MISSED


def test_agreement_of_two_models_wears_no_words_of_truth(tmp_path: Path) -> None:
    old, new = (manifest(tmp_path / name, {"a": [row]}) for name, row in (("old", "ssrr"), ("new", "srrr")))
    report = scored(tmp_path, None, new, baseline={"uri": old})
    assert next(headlines(report)).startswith("agreement of two models (no truth): mIoU ")
    assert [column.header for column in next(tables(report)).columns][-1] == "baseline px"


def test_predictions_that_are_no_label_map_are_failures_and_such_truth_stops(ray_session: None, tmp_path: Path) -> None:
    def overlap(rows: list[dict[str, Any]]) -> None:
        rows[0]["segments"].append(rows[0]["segments"][0])

    def strange(rows: list[dict[str, Any]]) -> None:
        rows[1]["segments"][0]["category_id"] = 99

    truth = manifest(tmp_path / "truth", {"a": ["sr"], "b": ["ss"]})
    broken = manifest(
        tmp_path / "broken", {"a": ["sr"], "b": ["ss"]}, change=lambda rows: (overlap(rows), strange(rows))
    )
    report = evaluated(tmp_path, truth, broken, ends=ExitCode.TOO_MANY_FAILED)
    assert report["images"]["failed"] == 2
    assert not any(map(any, labelled(report))), "nothing could be scored"
    messages = pq.read_table(tmp_path / "scores" / "per_image.parquet")["message"].to_pylist()
    assert messages[0].startswith("LABEL_VALUE: segments of classes 0 and 0 overlap at x=0, y=0")
    assert messages[1] == "LABEL_VALUE: category ids [99] are not in the manifest's categories"
    with pytest.raises(ManifestError, match=r"^truth: 'a': segments of classes 0 and 0 overlap"):
        evaluated(tmp_path, broken, truth, "turned")


def test_manifests_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["s"]})
    spelled = manifest(tmp_path / "spelled", {"a": ["r"]}, [Category(0, "raod", GREY), Category(1, "treee", GREY)])
    with pytest.raises(ConfigError) as caught:
        evaluated(tmp_path, truth, spelled)
    end = "(rename.{0}=NAME says which it is, =null that it is none; rename.*=null: all such)"
    assert caught.value.problems == (
        f"predictions: class 'raod' is not in the truth; did you mean 'road'? {end.format('raod')}",
        f"predictions: class 'treee' is not in the truth; did you mean 'tree'? {end.format('treee')}",
    )
    with pytest.raises(ManifestError, match=r"none: no manifest here; expected a folder with run\.json and parts/"):
        evaluated(tmp_path, truth, str(tmp_path / "none"))
    (tmp_path / "truth" / "run.json").unlink()
    with pytest.raises(ManifestError, match="truth: the run is not finished"):
        evaluated(tmp_path, truth, truth)


WITH_CPUS = """
import sys
from segjobs.cli import run_verb
from segjobs.jobs.engine.cluster import start_local
start_local(num_cpus=int(sys.argv[1]))
sys.exit(run_verb("evaluate", sys.argv[2:]))
"""


@pytest.mark.slow
def test_any_number_of_workers_and_a_kill_give_the_same_bytes(ray_session: None, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    names = [f"{number:04d}" for number in range(3000)]  # 12 ranges

    def pictures() -> dict[str, Picture]:
        return {name: ["".join(row) for row in random.choice(list("srtc."), (5, 6))] for name in names}

    truth = manifest(tmp_path / "truth", pictures(), cut=range(20, 3000, 20))
    predicted = manifest(tmp_path / "predicted", pictures(), cut=range(77, 3000, 77))

    def words(name: str) -> list[str]:
        places = [f"predictions.uri={predicted}", f"truth.uri={truth}", f"output.uri={tmp_path / name}"]
        return [*places, "boundary.enabled=true"]

    def started(cpus: int, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WITH_CPUS, str(cpus), *words(name)]
        return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def published(name: str) -> int:
        return len(list((tmp_path / name).glob("scores/part-*.parquet")))

    victim = started(1, "killed")
    while published("killed") < 2:
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    assert published("killed") < 12 and not (tmp_path / "killed" / "report.json").exists()
    said = started(4, "killed").communicate()[1]
    assert (tmp_path / "killed" / "report.json").exists(), said
    evaluate(load_config(EvaluateConfig, None, words("whole")))  # on two CPUs
    for file in ("report.json", "per_image.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
