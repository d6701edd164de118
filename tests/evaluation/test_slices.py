"""Slices: figures of parts of the images by hand, and tables that do not fit."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.config import SlicesConfig
from segjobs.errors import ConfigError
from segjobs.evaluation.slices import open_slices
from segjobs.storage import Storage
from tests.made import TRUTH, evaluated, manifest


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
    with pytest.raises(ConfigError, match="no column 'image_id'; it has name, city"):
        open_slices(SlicesConfig(uri=str(tmp_path / "t.csv")), Storage(), TRUTH)
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read"):
        open_slices(SlicesConfig(uri=str(tmp_path / "none.csv")), Storage(), TRUTH)
