"""Slices: figures of parts of the images by hand, and tables that do not fit."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.config import EvaluateConfig, SlicesConfig, load_config
from segjobs.errors import ConfigError
from segjobs.evaluation.slices import open_slices
from segjobs.storage import Storage
from tests.made import TRUTH, evaluated, manifest, scored


def test_figures_of_slices_by_hand(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["ss"], "b": ["sr"], "c": ["tt"]}, cut=[2])
    predicted = manifest(tmp_path / "predicted", {"a": ["sr"], "b": ["sr"], "c": ["tt"]}, cut=[1])
    (tmp_path / "images.csv").write_text("image_id,city,hour\na,Graz,7\nb,Graz,8\nz,Wien,9\n")
    slices = {"uri": str(tmp_path / "images.csv"), "columns": ["city"], "groups": {"ground": ["road", "tree"]}}
    rows = evaluated(tmp_path, truth, predicted, slices=slices)["slices"]
    found = [(row["column"], row["value"], row["images"], row["scores"]["mean_iou"]["value"]) for row in rows]
    # In Graz: sky 2 of 3 right (one of three predicted as road), road 1 of 2.
    assert found == [
        ("city", "(not in the table)", 1, 1.0),
        ("city", "Graz", 2, pytest.approx((2 / 3 + 1 / 2) / 2)),
        ("class group", "ground", None, pytest.approx((1 / 2 + 1) / 2)),
    ]
    assert rows[1]["scores"]["pixel_accuracy"]["value"] == 3 / 4
    assert rows[1]["scores"]["mean_iou"]["low"] < rows[1]["scores"]["mean_iou"]["high"]


def test_images_of_different_sizes_are_slices(ray_session: None, tmp_path: Path) -> None:
    pictures = {"large": ["s" * 1000] * 2000, "small": ["sr"]}
    path = manifest(tmp_path / "truth", pictures)
    rows = evaluated(tmp_path, path, path, bootstrap={"resamples": 0})["slices"]
    assert [(row["column"], row["value"], row["images"]) for row in rows] == [
        ("image size", "medium (to 2 MP)", 1),
        ("image size", "small (to 0.3 MP)", 1),
    ]
    assert rows[0]["scores"]["mean_iou"] == {"value": 1.0, "low": None, "high": None}


@pytest.mark.parametrize("rule", ["folder", r"^(\w)/", "column:video"])
def test_images_that_belong_together_are_drawn_together(tmp_path: Path, rule: str) -> None:
    """Two videos, all right and half wrong: a resample has one, the other or both; the interval's ends are these."""
    names = [f"{video}/{n}" for video in "ab" for n in range(4)]
    truth = manifest(tmp_path / "truth", {name: ["ss"] for name in names}, cut=[3])
    predicted = manifest(tmp_path / "predicted", {name: ["ss" if name[0] == "a" else "sr"] for name in names})
    table = tmp_path / "images.csv"
    table.write_text("image_id,video\n" + "".join(f"{name},{name[0]}\n" for name in names))
    settings = {"slices": {"uri": str(table), "columns": []}} if rule.startswith("column") else {}
    report = scored(tmp_path, truth, predicted, bootstrap={"group": rule, "resamples": 100}, **settings)
    figure = report.semantic.headline["mean_iou"]
    # All: sky 12 of 16, road 0 of 4. Of b alone sky 4 of 8.
    assert figure.model_dump() == {"value": 12 / 16 / 2, "low": 4 / 8 / 2, "high": 1.0}
    alone = scored(tmp_path, truth, predicted, "alone", bootstrap={"resamples": 100}).semantic.headline["mean_iou"]
    assert alone.value == figure.value and alone.low is not None and alone.low > 4 / 8 / 2
    assert alone.high is not None and alone.high < 1


@pytest.mark.parametrize(
    ("group", "message"),
    [("(", "no regular expression"), ("column:video", "names a column of slices.uri, which is not given")],
)
def test_a_group_that_makes_no_sense(group: str, message: str) -> None:
    words = ["predictions.uri=p", "truth.uri=t", "output.uri=o", f"bootstrap.group='{group}'"]
    with pytest.raises(ConfigError, match=rf"bootstrap\.group: .*{message}"):
        load_config(EvaluateConfig, None, words)


def test_tables_and_groups_that_do_not_fit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a"], "camera": ["1"]}), tmp_path / "t.parquet")
    config = SlicesConfig(uri=str(tmp_path / "t.parquet"), columns=["camra"], groups={"g": ["rode", "sky"]})
    with pytest.raises(ConfigError) as caught:
        open_slices(config, Storage(), TRUTH)
    assert caught.value.problems == (
        "slices.groups.g: 'rode' is no class of the truth; did you mean 'road'?",
        "slices.columns: 'camra' is no column of the table; did you mean 'camera'?",
    )
    many = pa.table({"image_id": [str(n) for n in range(101)], "hour": list(range(101))})
    pq.write_table(many, tmp_path / "many.parquet")
    with pytest.raises(ConfigError, match="'hour' has 101 values; name columns of at most 100"):
        open_slices(SlicesConfig(uri=str(tmp_path / "many.parquet")), Storage(), TRUTH)
    (tmp_path / "t.csv").write_text("name,city\na,Graz\n")
    with pytest.raises(ConfigError, match="no column 'image_id'; it has 'name', 'city'"):
        open_slices(SlicesConfig(uri=str(tmp_path / "t.csv")), Storage(), TRUTH)
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read"):
        open_slices(SlicesConfig(uri=str(tmp_path / "none.csv")), Storage(), TRUTH)
