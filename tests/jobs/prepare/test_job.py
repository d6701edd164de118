"""Labels of every format that there is, as truth: small sets drawn here, and real ones where they are at hand."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pydantic import ValidationError

from segjobs.config import ExportConfig, PrepareConfig, SourceConfig
from segjobs.errors import ConfigError, ConflictError, ExitCode, ItemError, ManifestError
from segjobs.jobs.export.job import export
from segjobs.jobs.prepare.job import prepare as prepare_on_ray
from segjobs.jobs.train.index import open_source
from segjobs.manifest.parts import footer_of, open_run, read_rows
from segjobs.manifest.rle import paint
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import Category
from segjobs.sources.read import read_original
from segjobs.storage import Storage
from tests.in_process import prepare_in_process as prepare
from tests.made import manifest, scored


def config_of(tmp_path: Path, images: Path | str, labels: dict[str, Any], **settings: Any) -> PrepareConfig:
    return PrepareConfig.model_validate(
        {"input": {"uri": str(images)}, "labels": labels, "output": {"uri": str(tmp_path / "truth")}, **settings}
    )


def rows_of(tmp_path: Path) -> dict[str, dict[str, Any]]:
    rows = list(read_rows(Storage(), str(tmp_path / "truth")))
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    return {row["image_id"]: row for row in rows}


def ids_of(row: dict[str, Any], void: int) -> np.ndarray:
    """The label map that a semantic row holds, by category id."""
    pairs = [(segment["category_id"], segment["segmentation"]["counts"]) for segment in row["segments"]]
    ids = paint(pairs, (row["height"], row["width"]))
    return np.where(ids == 65535, void, ids)


@pytest.fixture
def png_set(tmp_path: Path) -> Path:
    """Four images with label maps of ids 1 (cat), 2 (dog) and 255 (void), two of them faulty, and one without."""
    for folder in ("images/x", "labels/x"):
        (tmp_path / folder).mkdir(parents=True)
    grey = Image.fromarray(np.zeros((2, 3, 3), np.uint8))
    for name in ("x/a", "b", "shape", "value", "alone"):
        grey.save(tmp_path / "images" / f"{name}.jpg")
    maps = {
        "x/a": [[1, 1, 2], [255, 2, 2]],
        "b": [[255, 255, 255], [255, 255, 255]],
        "shape": [[1, 1], [1, 1], [1, 1]],
        "value": [[1, 1, 77], [1, 77, 9]],
        "unused": [[1]],
    }
    for name, ids in maps.items():
        Image.fromarray(np.array(ids, np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


PNG_LABELS = {"format": "png", "categories": ["cat", "dog"], "ids": [1, 2]}


def test_label_maps(ray_session: None, png_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {**PNG_LABELS, "uri": str(png_set / "labels")}
    config = config_of(png_set, png_set / "images", labels, shard={"images": 2})
    result = prepare_on_ray(config)
    assert result.exit_code == ExitCode.TOO_MANY_FAILED
    rows = rows_of(png_set)
    assert {name: (row["status"], (row["error"] or {}).get("code")) for name, row in rows.items()} == {
        "alone.jpg": ("failed", "NOT_FOUND"),
        "b.jpg": ("ok", None),
        "shape.jpg": ("failed", "LABEL_SHAPE"),
        "value.jpg": ("failed", "LABEL_VALUE"),
        "x/a.jpg": ("ok", None),
    }
    assert rows["value.jpg"]["error"]["message"].startswith("ids 9 (1 px), 77 (2 px) are neither in labels.ids nor")
    assert rows["alone.jpg"]["error"]["message"] == "alone.jpg: no label belongs to this image"
    assert rows["b.jpg"]["segments"] == []
    first = rows["x/a.jpg"]
    assert (first["width"], first["height"], first["model"], first["confidence"]) == (3, 2, None, None)
    found = [(s["category"], s["category_id"], s["area"], s["bbox"], s["score"]) for s in first["segments"]]
    assert found == [("cat", 1, 2, [0.0, 0.0, 2.0, 1.0], 1.0), ("dog", 2, 3, [1.0, 0.0, 2.0, 2.0], 1.0)]
    assert ids_of(first, 255).tolist() == [[1, 1, 2], [255, 2, 2]]

    run = open_run(Storage(), str(png_set / "truth"))
    footer = footer_of(run)
    assert (footer.task, [(c.id, c.name) for c in footer.categories]) == ("semantic", [(1, "cat"), (2, "dog")])
    assert (run.info.verb, run.info.counts) == ("prepare", RunCounts(images=5, ok=2, failed=3, segments=2))
    err = capsys.readouterr().err
    assert (
        json.loads(result.text())["failures"] == result.failures == {"LABEL_SHAPE": 1, "LABEL_VALUE": 1, "NOT_FOUND": 1}
    )
    assert (
        "check labels_without_image: 1 (labels whose image is not in the input; left out), such as 'unused.png'" in err
    )

    checks = json.loads((png_set / "truth/checks.json").read_text())["checks"]
    assert {check: found["count"] for check, found in checks.items() if found["count"]} == {
        "images_without_label": 1,
        "labels_without_image": 1,
        "size_mismatch": 1,
        "unknown_ids": 1,
        "duplicate_images": 1,  # all five are the same picture
    }
    assert checks["size_mismatch"]["examples"] == [
        [
            "shape.jpg",
            "LABEL_SHAPE: the label has 2x3, the image 3x2 pixels "
            "(turned: has the image an EXIF orientation? see labels.frame)",
        ]
    ]
    totals = json.loads((png_set / "truth/statistics.json").read_text())
    assert totals["images"] == {"total": 5, "ok": 2, "failed": 3, "without_segments": 1}
    assert (totals["pixels"], totals["unlabelled_px"]) == (12, 7)
    assert [(entry["category"], entry["pixels"]) for entry in totals["classes"]] == [("cat", 2), ("dog", 3)]
    with Image.open(png_set / "truth/contact_sheet.png") as sheet:
        assert sheet.width > 800

    assert prepare(config).exit_code == ExitCode.TOO_MANY_FAILED
    err = capsys.readouterr().err
    assert "nothing to do" in err and "check size_mismatch: 1" in err, "a finished run tells the same"
    Image.fromarray(np.ones((2, 3), np.uint8)).save(png_set / "labels" / "b.png")
    with pytest.raises(ConflictError, match=r"holds another run .*; label files of .*Choose a new output\.uri"):
        prepare(config)
    with pytest.raises(ConflictError, match=r"labels\.void_ids was null, is"):
        prepare(config_of(png_set, png_set / "images", {**labels, "void_ids": [255, 0]}))


def test_unknown_ids_may_be_void(png_set: Path) -> None:
    labels = {**PNG_LABELS, "uri": str(png_set / "labels"), "unknown": "void"}
    assert prepare(config_of(png_set, png_set / "images", labels, max_failed_fraction=0.4)).exit_code == ExitCode.DONE
    assert ids_of(rows_of(png_set)["value.jpg"], 255).tolist() == [[1, 1, 255], [1, 255, 255]]


def test_a_dry_run_writes_nothing(png_set: Path) -> None:
    labels = {**PNG_LABELS, "uri": str(png_set / "labels")}
    assert "images:       5\n" in prepare(config_of(png_set, png_set / "images", labels), dry_run=True).text()
    assert not (png_set / "truth").exists()


def test_what_is_wrong_with_the_whole_is_said_at_once(png_set: Path, tmp_path: Path) -> None:
    images, labels = png_set / "images", str(png_set / "labels")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"format": "png", "uri": labels}, r"labels\.categories: missing"),
        ({**PNG_LABELS, "ids": [1], "uri": labels}, r"labels\.ids: 1 ids for 2 labels\.categories"),
        ({**PNG_LABELS, "uri": str(images)}, r"labels\.uri: .*images: no \.png or \.tif .* below it"),
        ({**PNG_LABELS, "uri": labels, "suffix": "_gt"}, r"labels\.suffix: none of 5 files"),
        ({**PNG_LABELS, "uri": labels, "missing": "empty"}, r"labels\.missing: an image without label is empty only"),
        ({"format": "coco", "uri": str(tmp_path / "none.json")}, r"labels\.uri: .*none\.json: cannot be read: No such"),
    ]
    for settings, message in cases:
        with pytest.raises(ConfigError, match=message):
            prepare(config_of(png_set, images, settings))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no image is found \(no file is there\)"):
        prepare(config_of(png_set, tmp_path / "empty", {**PNG_LABELS, "uri": labels}))


def checks_in(folder: Path) -> dict[str, int]:
    """The checks of a run that found something."""
    checks = json.loads((folder / "checks.json").read_text())["checks"]
    return {check: found["count"] for check, found in checks.items() if found["count"]}


def test_an_image_that_is_taken_as_empty_is_counted(png_set: Path) -> None:
    raw = {"images": [{"id": 1, "file_name": "b.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    (png_set / "c.json").write_text(json.dumps(raw))
    labels = {"format": "coco", "uri": str(png_set / "c.json"), "missing": "empty"}
    prepare(config_of(png_set, png_set / "images", labels, contact_sheet=0))
    assert all(row["status"] == "ok" and not row["segments"] for row in rows_of(png_set).values())
    assert checks_in(png_set / "truth") == {"images_without_label": 4, "duplicate_images": 1}


def test_images_without_label_may_be_left_out(png_set: Path) -> None:
    """The few that were corrected, of all that were labelled; objects become classes again."""
    square = {"image_id": 1, "category_id": 3, "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1]]}
    cover = {"image_id": 1, "category_id": 7, "segmentation": [[0, 0, 3, 0, 3, 1, 0, 1]]}
    names = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    raw = {"images": [{"id": 1, "file_name": "b.jpg"}], "categories": names, "annotations": [square, cover]}
    (png_set / "c.json").write_text(json.dumps(raw))
    labels = {"format": "coco", "uri": str(png_set / "c.json"), "missing": "skip", "task": "semantic"}
    prepare(config_of(png_set, png_set / "images", labels, contact_sheet=0))
    (row,) = rows_of(png_set).values()
    assert (row["image_id"], ids_of(row, 255).tolist()) == ("b.jpg", [[3, 3, 7], [255, 255, 255]])
    assert checks_in(png_set / "truth") == {"images_without_label": 4}
    assert footer_of(open_run(Storage(), str(png_set / "truth"))).task == "semantic"
    labels["uri"] = str(png_set / "d.json")
    (png_set / "d.json").write_text(json.dumps({**raw, "images": []}))
    with pytest.raises(ConfigError, match="none of 5 images has a label"):
        prepare(config_of(png_set, png_set / "images", labels))


def test_coco_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for name, (width, height) in {"a": (6, 4), "b": (6, 4), "turned": (4, 6), "alone": (2, 2)}.items():
        Image.new("RGB", (width, height)).save(tmp_path / "images" / f"{name}.png")
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    crowd = {"size": [4, 6], "counts": [0, 4, 20]}  # the whole first column
    entries = [(0, "a.png"), (7, "b.png"), (8, "turned.png"), (9, "elsewhere.png")]
    raw = {
        "images": [{"id": i, "file_name": name, "height": 4, "width": 6} for i, name in entries],
        "categories": [{"id": 5, "name": "nut"}, {"id": 0, "name": "bolt"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 0, "segmentation": square, "area": 99.5, "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 5, "segmentation": crowd, "iscrowd": 1},
            {"id": 3, "image_id": 8, "category_id": 5, "segmentation": square},
            {"id": 4, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]},
            {"id": 5, "image_id": 66, "category_id": 5, "segmentation": square},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(raw))
    labels = {"format": "coco", "uri": str(tmp_path / "coco.json")}
    assert prepare(config_of(tmp_path, tmp_path / "images", labels, max_failed_fraction=0.5)).exit_code == ExitCode.DONE
    rows = rows_of(tmp_path)
    assert {name: (row["error"] or {}).get("code") for name, row in rows.items()} == {
        "a.png": None,
        "alone.png": "NOT_FOUND",
        "b.png": None,
        "turned.png": "LABEL_SHAPE",
    }
    bolt, nut = rows["a.png"]["segments"]
    assert (bolt["category_id"], bolt["category"], bolt["area"], bolt["iscrowd"]) == (0, "bolt", 6, False)
    assert bolt["bbox"] == [1.0, 1.0, 3.0, 2.0]
    assert (nut["category_id"], nut["category"], nut["area"], nut["iscrowd"]) == (5, "nut", 4, True)
    assert coco_mask.decode(nut["segmentation"])[:, 0].tolist() == [1, 1, 1, 1]
    assert rows["b.png"]["segments"] == []
    footer = footer_of(open_run(Storage(), str(tmp_path / "truth")))
    assert (footer.task, [(c.id, c.name) for c in footer.categories]) == ("instance", [(5, "nut"), (0, "bolt")])
    notes = [line.split(" (")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("check ")]
    assert notes == [
        "check images_without_label: 1",
        "check labels_without_image: 1",
        "check size_mismatch: 1",
        "check crowds: 1",
        "check without_mask: 1",
        "check orphans: 1",
        "check duplicate_images: 1",
    ]


def test_truth_without_the_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and sizes are the JSON's; what needs pixels says so where it is asked for."""
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    names = ["val/a.jpg", "val\\b.jpg", "unsized.jpg"]
    sizes = [{"height": 4, "width": 6}, {"height": 5, "width": 7}, {}]
    raw = {
        "images": [{"id": n, "file_name": name, **sizes[n]} for n, name in enumerate(names)],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "segmentation": square}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(raw))
    settings = {"input": {"uri": None}, "max_failed_fraction": 0.5, "output": {"uri": str(tmp_path / "truth")}}
    labels = {"format": "coco", "uri": str(tmp_path / "coco.json")}

    def config(labels: dict[str, Any] = labels, **keys: Any) -> PrepareConfig:
        return PrepareConfig.model_validate({**settings, "labels": labels, **keys})

    assert prepare(config()).exit_code == ExitCode.DONE
    rows = rows_of(tmp_path)
    assert list(rows) == ["unsized.jpg", "val/a.jpg", "val/b.jpg"]
    found = [(row["uri"], row["height"], row["width"], row["source"]["sha256"]) for row in rows.values()]
    assert found == [("", None, None, None), ("", 4, 6, None), ("", 5, 7, None)]
    assert rows["unsized.jpg"]["error"]["code"] == "LABEL_SHAPE" and "no width and height" in capsys.readouterr().err
    assert [segment["area"] for segment in rows["val/a.jpg"]["segments"]] == [6] and rows["val/b.jpg"]["segments"] == []
    with pytest.raises(
        ConfigError, match=r"prepared without photographs \(input.uri=null\), which a training looks at"
    ):
        open_source("data.uri", SourceConfig(uri=str(tmp_path / "truth")), Storage(), "instance")
    found = ["......", ".nnn..", ".nnn..", "......"]
    predicted = manifest(tmp_path / "found", {"val/a.jpg": found}, [Category(4, "nut", (1, 1, 1))], task="instance")
    report = scored(tmp_path, str(tmp_path / "truth"), predicted, bootstrap={"resamples": 0})
    assert report.instance is not None and report.instance.mask["AP"].value == pytest.approx(1.0), "met by image_id"
    with pytest.raises(ItemError, match="prepared without photographs"):
        read_original(Storage(), rows["val/a.jpg"]["uri"], sha256=None)
    for message, labels, images in (
        ("only coco; name the photographs", {"format": "yolo", "categories": ["a"]}, {}),
        ("stored needs the photographs", {"frame": "stored"}, {}),
        ("has no effect with input.uri=null", {}, {"include": ["*.png"]}),
    ):
        with pytest.raises(ValidationError, match=message):
            config({**config().labels.model_dump(include={"format", "uri"}), **labels}, input={"uri": None, **images})


def test_boxes_alone_are_truth_for_scores_by_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.5, 0, 2, 3], "segmentation": []}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(raw))
    labels = {"format": "coco", "uri": str(tmp_path / "coco.json")}
    settings = {"input": {"uri": None}, "output": {"uri": str(tmp_path / "truth")}}
    prepare(PrepareConfig.model_validate({**settings, "labels": labels}))
    (segment,) = rows_of(tmp_path)["a.jpg"]["segments"]
    assert (segment["area"], segment["stated_bbox"], segment["stated_area"]) == (0, [1.5, 0, 2, 3], 6)
    assert "check boxes_alone: 1 (" in capsys.readouterr().err
    assert footer_of(open_run(Storage(), str(tmp_path / "truth"))).boxes_only
    with pytest.raises(ConfigError, match="has boxes alone, and a training needs masks"):
        open_source("data.uri", SourceConfig(uri=str(tmp_path / "truth")), Storage(), "instance")
    exporting = {"manifest": {"uri": str(tmp_path / "truth")}, "format": "yolo", "output": {"uri": str(tmp_path / "x")}}
    with pytest.raises(ManifestError, match="has boxes alone, and an export writes masks"):
        export(ExportConfig.model_validate(exporting))
    for key, value in (("task", "semantic"), ("frame", "stored")):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / "a.jpg")
        with pytest.raises(ConfigError, match=f"labels.{key}: .*has boxes alone"):
            prepare(config_of(tmp_path / key, tmp_path / "images", {**labels, key: value}))


def test_unknown_and_missing_labels_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / f"{name}.png")
    outline = [[1, 1, 4, 1, 4, 3, 1, 3]]
    raw = {
        "images": [{"id": 0, "file_name": "a.png", "height": 4, "width": 6}],
        "categories": [{"id": 5, "name": "nut"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 5, "segmentation": outline},
            {"id": 2, "image_id": 0, "category_id": 6, "segmentation": outline},
            {"id": 3, "image_id": 0, "category_id": 5, "segmentation": [[-3, 1, 4, 1, 4, 3, -3, 3]]},
            {"id": 4, "image_id": 0, "category_id": 5, "segmentation": [[1, 1, 1.2, 1, 1.2, 1.2]]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(raw))
    labels = {"format": "coco", "uri": str(tmp_path / "coco.json"), "unknown": "ignore", "missing": "empty"}
    result = prepare(config_of(tmp_path, tmp_path / "images", labels))
    assert result.exit_code == ExitCode.DONE
    rows = rows_of(tmp_path)
    assert [(segment["area"], segment["bbox"]) for segment in rows["a.png"]["segments"]] == [
        (6, [1.0, 1.0, 3.0, 2.0]),
        (8, [0.0, 1.0, 4.0, 2.0]),
    ]
    assert rows["b.png"]["segments"] == []
    checks = json.loads((tmp_path / "truth/checks.json").read_text())["checks"]
    found = {check: (one["count"], one["examples"]) for check, one in checks.items() if one["count"]}
    del found["duplicate_images"]
    assert found == {
        "images_without_label": (1, [["b.png", "taken as empty: labels.missing=empty"]]),
        "unknown_ids": (1, [["a.png", "category ids 6 (1 annotations): left out"]]),
        "empty_masks": (1, [["a.png", "annotation 4"]]),
        "outside_frame": (1, [["a.png", "annotation 3"]]),
    }
    assert json.loads((tmp_path / "truth/statistics.json").read_text())["left_out"] == {"empty_masks": 1}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """30 images in 10 folders, their classes 0 to 2 in bands; two of different folders are the same bytes."""
    rng = np.random.default_rng(0)
    for clip in range(10):
        for kind in ("images", "labels"):
            (tmp_path / kind / f"clip{clip}").mkdir(parents=True)
        for number in range(3):
            name = f"clip{clip}/{number}.png"
            noise = rng.integers(0, 255, (6, 4, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / name)
            Image.fromarray(np.repeat(np.array([0, 0, 1, 1, 2, 2], np.uint8)[:, None], 4, 1)).save(
                tmp_path / "labels" / name
            )
    return tmp_path


def test_splits_and_classes(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"format": "png", "uri": str(clips / "labels"), "categories": ["sky", "car", "truck"]}
    settings = {
        "splits": {"train": 0.5, "val": 0.5},
        "group": "folder",
        "classes": {"car": "vehicle", "truck": "vehicle", "sky": None},
        "shard": {"images": 5},
    }
    train_only = next(clip for clip in range(10) if hashlib.sha256(f"clip{clip}".encode()).digest()[0] < 128)
    val_only = next(clip for clip in range(10) if hashlib.sha256(f"clip{clip}".encode()).digest()[0] >= 128)
    one, other = (clips / f"images/clip{clip}/0.png" for clip in (train_only, val_only))
    other.write_bytes(one.read_bytes())
    config = config_of(clips, clips / "images", labels, **settings)
    result = prepare(config)
    assert result.exit_code == ExitCode.DONE
    records = [json.loads(line) for line in result.text().splitlines()]
    assert [record["output"] for record in records] == [str(clips / "truth" / name) for name in ("train", "val")]
    found = {}
    for name in ("train", "val"):
        rows = list(read_rows(Storage(), str(clips / "truth" / name)))
        found[name] = {row["image_id"] for row in rows}
        for row in rows:
            assert [(s["category"], s["category_id"], s["area"]) for s in row["segments"]] == [("vehicle", 1, 16)]
    assert len(found["train"]) + len(found["val"]) == len(found["train"] | found["val"]) == 30
    folders = [{image_id.split("/")[0] for image_id in ids} for ids in found.values()]
    assert not folders[0] & folders[1] and all(folders)
    totals = json.loads((clips / "truth/train/statistics.json").read_text())
    assert totals["left_out"] == {"dropped_classes": len(found["train"])}
    assert totals["unlabelled_px"] == 8 * len(found["train"])
    checks = json.loads((clips / "truth/checks.json").read_text())
    assert checks["splits"] == {name: len(ids) for name, ids in found.items()}
    (example, _), *_ = checks["checks"]["in_two_splits"]["examples"]
    assert checks["checks"]["in_two_splits"]["count"] == 1
    assert example == f"train: clip{train_only}/0.png = val: clip{val_only}/0.png"

    assert prepare(config).exit_code == ExitCode.DONE
    err = capsys.readouterr().err
    assert err.count("nothing to do") == 2 and "check in_two_splits: 1" in err


def test_splits_by_lists(clips: Path) -> None:
    (clips / "train.txt").write_text("clip0/0\nclip0/1.png\n")
    (clips / "val.txt").write_text("clip1/0\nclip0/1\nnone/0\n")
    labels = {"format": "png", "uri": str(clips / "labels"), "categories": ["sky", "car", "truck"]}
    splits = {name: str(clips / f"{name}.txt") for name in ("train", "val")}
    assert (
        prepare(config_of(clips, clips / "images", labels, splits=splits, contact_sheet=0)).exit_code == ExitCode.DONE
    )
    assert [row["image_id"] for row in read_rows(Storage(), str(clips / "truth/val"))] == ["clip0/1.png", "clip1/0.png"]
    checks = json.loads((clips / "truth/checks.json").read_text())["checks"]
    assert (checks["in_two_splits"]["count"], checks["in_two_splits"]["examples"]) == (1, [["clip0/1.png", ""]])
    assert (checks["in_no_split"]["count"], checks["listed_without_image"]["count"]) == (27, 1)
    assert not (clips / "truth/val/contact_sheet.png").exists()
    with pytest.raises(ConfigError, match=r"splits\.a: 'train': expected a list of names \(\.txt\)"):
        prepare(config_of(clips, clips / "images", labels, splits={"a": "train"}))


def test_a_run_that_is_continued_tells_the_same(clips: Path) -> None:
    labels = {"format": "png", "uri": str(clips / "labels"), "categories": ["sky", "car", "truck"]}
    config = config_of(clips, clips / "images", labels, shard={"images": 6})
    assert prepare(config).exit_code == ExitCode.DONE
    names = ("checks.json", "statistics.json", "contact_sheet.png")
    before = [(clips / "truth" / name).read_bytes() for name in names]
    # As a kill leaves it: some parts stand, nothing that comes last does.
    for name in (*names, "run.json", "parts/part-00001.parquet", "parts/part-00003.parquet"):
        (clips / "truth" / name).unlink()
    assert prepare(config).exit_code == ExitCode.DONE
    assert [(clips / "truth" / name).read_bytes() for name in names] == before
    assert json.loads(before[1])["images"]["ok"] == 30


@pytest.mark.parametrize("splits", [{}, {"train": 0.5, "val": 0.5}])
def test_images_that_came_and_went_with_their_labels_leave_a_begun_run_to_be_finished(
    clips: Path, splits: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"format": "png", "uri": str(clips / "labels"), "categories": ["sky", "car", "truck"]}
    config = config_of(clips, clips / "images", labels, shard={"images": 6}, splits=splits)
    prepare(config)
    folder = clips / "truth" / ("val" if splits else "")
    for name in ("run.json", "parts/part-00001.parquet"):
        (folder / name).unlink()
    gone = pq.read_table(folder / "parts/part-00000.parquet")["image_id"][0].as_py()  # its part stands
    (clips / "images" / gone).unlink()
    for kind in ("images", "labels"):
        (clips / kind / "clip0/new.png").write_bytes((clips / kind / "clip1/1.png").read_bytes())
    capsys.readouterr()
    prepare(config)
    run = open_run(Storage(), str(folder))
    assert run.info.counts.failed == 0 and (splits or run.info.counts.images == 30)
    told = capsys.readouterr().err
    assert (
        "1 image(s) added (such as 'clip0/new.png'), 1 image(s) gone" in told and "finished as it was planned" in told
    )

    (folder / "run.json").unlink()
    (clips / "labels/clip2/1.png").write_bytes(b"another label")
    with pytest.raises(ConflictError, match=r"label files of its images came, went or changed .* this command goes on"):
        prepare(config)


CAMVID = ["sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def test_camvid(shared_data: Path, tmp_path: Path) -> None:
    labels = {"format": "png", "uri": str(shared_data / "camvid/labels/val"), "categories": CAMVID, "void_ids": [11]}
    config = config_of(tmp_path, shared_data / "camvid/images/val", labels, shard={"images": 40})
    assert prepare(config).exit_code == ExitCode.DONE
    rows = rows_of(tmp_path)
    assert len(rows) == 101
    assert {row["status"] for row in rows.values()} == {"ok"}
    for name, row in list(rows.items())[::25]:
        truth = np.array(Image.open(shared_data / "camvid/labels/val" / f"{Path(name).stem}.png"))
        assert np.array_equal(ids_of(row, 11), truth)


@pytest.mark.parametrize(
    ("images", "labels", "count"),
    [("coco_mini/train2017", "coco_mini/instances_train2017.json", 80), ("nuts_coco", "nuts_coco/trainval.json", 18)],
)
def test_real_coco(shared_data: Path, tmp_path: Path, images: str, labels: str, count: int) -> None:
    settings = {"format": "coco", "uri": str(shared_data / labels)}
    assert prepare(config_of(tmp_path, shared_data / images, settings)).exit_code == ExitCode.DONE
    rows = {Path(name).name: row for name, row in rows_of(tmp_path).items()}
    assert len(rows) == count
    assert {row["status"] for row in rows.values()} == {"ok"}
    reference = COCO(str(shared_data / labels))
    checked = 0
    for image in reference.loadImgs(reference.getImgIds()):
        annotations = reference.loadAnns(reference.getAnnIds(image["id"]))
        masks = [reference.annToMask(annotation) for annotation in annotations if annotation.get("segmentation")]
        masks = [mask for mask in masks if mask.any()]
        segments = rows[Path(image["file_name"]).name]["segments"]
        assert [segment["area"] for segment in segments] == [int(mask.sum()) for mask in masks]
        for segment, mask in list(zip(segments, masks, strict=True))[:2]:
            assert np.array_equal(coco_mask.decode(segment["segmentation"]), mask)
            checked += 1
    assert checked >= math.ceil(count / 2)


def test_panoptic_segments_never_overlap(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "panoptic_sample"
    labels = {"format": "coco_panoptic", "uri": str(folder / "panoptic_examples.json")}
    classes = {"person": "rider", "horse": "horse", "tree-merged": "plants", "grass-merged": "plants", "*": None}
    config = config_of(tmp_path, folder / "input_images", labels, classes=classes)
    assert prepare(config).exit_code == ExitCode.DONE
    footer = footer_of(open_run(Storage(), str(tmp_path / "truth")))
    kinds = {category.name: category.isthing for category in footer.categories}
    assert (footer.task, kinds) == ("panoptic", {"rider": True, "horse": True, "plants": False})
    original = json.loads((folder / "panoptic_examples.json").read_text())
    named = {category["id"]: category["name"] for category in original["categories"]}
    by_image = {f"{entry['image_id']:012d}.jpg": entry["segments_info"] for entry in original["annotations"]}
    for image_id, row in rows_of(tmp_path).items():
        infos = [(named[info["category_id"]], info["area"]) for info in by_image[image_id]]
        assert [s["area"] for s in row["segments"] if s["category"] == "rider"] == [
            a for n, a in infos if n == "person"
        ]
        plants = [s["area"] for s in row["segments"] if s["category"] == "plants"]
        assert plants == [sum(a for n, a in infos if n in ("tree-merged", "grass-merged"))]
        paint([(number, s["segmentation"]["counts"]) for number, s in enumerate(row["segments"])],
              (row["height"], row["width"]))  # fmt: skip  # raises where two overlap


def test_voc_splits_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "labelme_examples/semantic_segmentation/data_dataset_voc"
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).symlink_to(real / name)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2011_000003\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2011_000025\n")
    config = config_of(
        tmp_path,
        tmp_path / "JPEGImages",
        {"format": "voc", "uri": str(tmp_path)},
        splits={"train": "train", "val": "val"},
    )
    assert prepare(config).exit_code == ExitCode.DONE
    (row,) = read_rows(Storage(), str(tmp_path / "truth/val"))
    assert (row["image_id"], [s["category"] for s in row["segments"]]) == (
        "2011_000025.jpg",
        ["background", "bus", "car"],
    )
    checks = json.loads((tmp_path / "truth/checks.json").read_text())["checks"]
    assert checks["not_listed"]["examples"] == [["2011_000006.jpg", ""]]
