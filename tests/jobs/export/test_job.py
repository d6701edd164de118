"""Exports of real and of faulty labels: through each tool's reader, ``prepare`` and back, twice, and after a kill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjobs.config import ExportConfig, PrepareConfig
from segjobs.errors import ConfigError, ConflictError, ExitCode, ItemError, ManifestError
from segjobs.jobs.export.job import export
from segjobs.jobs.prepare.job import prepare
from segjobs.labels.yolo import masks_of
from segjobs.manifest.parts import footer_of, open_run, read_rows
from segjobs.manifest.rows import segments_of
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.storage import Storage, join
from tests.collections_made import GONE_AT, commit, marks_of
from tests.manifests import segment_of, write_manifest

CAT, DOG = Category(3, "cat", (255, 0, 0)), Category(7, "dog", (0, 128, 0))


def config_of(root: Path, name: str, manifest: str = "manifest", **settings: Any) -> ExportConfig:
    places = {"manifest": {"uri": str(root / manifest)}, "output": {"uri": str(root / name)}}
    return ExportConfig.model_validate({**places, "format": name, **settings})


def report_of(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / name / "export.json").read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_segments(uri: Path) -> dict[str, list[Segment]]:
    return {row["image_id"]: segments_of(row) for row in read_rows(Storage(), str(uri))}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Five images in three parts: two of one stem, one that failed, one whose mask is broken, one empty."""
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    cat, dog = segment_of(mask, CAT, score=0.75), segment_of(~mask, DOG, score=0.25, iscrowd=True)
    rows = {
        "a.jpg": ((2, 3), [cat, dog]),
        "a.png": ((2, 3), [dog, cat]),
        "b/broken.jpg": ((2, 4), [cat]),
        "b/empty.jpg": ((2, 3), []),
        "c.jpg": ((2, 3), ItemError("TRUNCATED", "it ends early")),
    }
    write_manifest(str(tmp_path / "manifest"), rows, [CAT, DOG], model="toy@123")
    return tmp_path


def test_failures_are_listed_and_nothing_is_done_twice(
    ray_session: None, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(small, "coco_instances")
    result = export(config)
    assert result.exit_code == ExitCode.TOO_MANY_FAILED
    out, err = capsys.readouterr()
    assert out == ""
    record = json.loads(result.text())
    assert {key: record[key] for key in ("images", "ok", "failed", "failures", "segments", "exit_code")} == {
        "images": 5,
        "ok": 3,
        "failed": 2,
        "failures": {"LABEL_SHAPE": 1, "TRUNCATED": 1},
        "segments": 4,
        "exit_code": 3,
    }
    assert "TRUNCATED 1: 'c.jpg': it ends early" in err
    assert "coco_instances holds all of the other 3 images" in err
    failures = [json.loads(line) for line in (small / "coco_instances/failures.jsonl").read_text().splitlines()]
    assert [(line["image_id"], line["code"]) for line in failures] == [
        ("b/broken.jpg", "LABEL_SHAPE"),
        ("c.jpg", "TRUNCATED"),
    ]
    document = json.loads((small / "coco_instances/instances.json").read_text())
    assert [(entry["id"], entry["file_name"]) for entry in document["images"]] == [
        (1, "a.jpg"),
        (2, "a.png"),
        (4, "b/empty.jpg"),
    ]
    assert [(a["id"], a["image_id"], a["category_id"], a["score"]) for a in document["annotations"]] == [
        (1, 1, 3, 0.75),
        (2, 1, 7, 0.25),
        (3, 2, 7, 0.25),
        (4, 2, 3, 0.75),
    ]
    assert document["annotations"][0]["segmentation"] == {"size": [2, 3], "counts": "033"}
    before = files_of(small / "coco_instances")
    assert export(config).exit_code == ExitCode.TOO_MANY_FAILED
    assert "nothing to do" in capsys.readouterr().err
    assert files_of(small / "coco_instances") == before
    assert export(config_of(small, "coco_instances", max_failed_fraction=0.4)).exit_code == ExitCode.DONE
    with pytest.raises(ConflictError, match=r"holds another export; categories was null, is \[\"cat\"\]"):
        export(config_of(small, "coco_instances", categories=["cat"]))
    (small / "coco_instances/own.txt").write_text("not the export's")
    only_cats = config_of(small, "coco_instances", categories=["cat"], overwrite=True)
    assert export(only_cats).exit_code == ExitCode.TOO_MANY_FAILED
    document = json.loads((small / "coco_instances/instances.json").read_text())
    assert {a["category_id"] for a in document["annotations"]} == {3}
    assert sorted(files_of(small / "coco_instances")) == sorted([*before, "own.txt"])
    whole = files_of(small / "coco_instances")
    assert export(only_cats).exit_code == ExitCode.TOO_MANY_FAILED
    assert files_of(small / "coco_instances") == whole, "there is nothing to replace"
    (small / "coco_instances/instances.json").unlink()
    with pytest.raises(ManifestError, match=r"instances\.json: export\.json names it, and it is not there; overwrite"):
        export(config_of(small, "coco_instances", categories=["cat"]))


def test_images_that_are_gone_from_a_collection_are_not_exported(ray_session: None, tmp_path: Path) -> None:
    """The first and the last of a file of the table, whose bounds they stay."""
    uri, storage = tmp_path / "manifest", Storage()
    commit(storage, uri, {name: ["sr"] for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")}, app_id="one")
    commit(storage, uri, {}, app_id="two", marks=marks_of(("a.jpg", GONE_AT), ("d.jpg", GONE_AT)))
    assert export(config_of(tmp_path, "coco_instances", components=True)).exit_code == ExitCode.DONE
    document = json.loads((tmp_path / "coco_instances/instances.json").read_text())
    assert [(entry["id"], entry["file_name"]) for entry in document["images"]] == [(1, "b.jpg"), (2, "c.jpg")]
    assert report_of(tmp_path, "coco_instances")["source"] == f"{uri}@2"


@pytest.mark.parametrize("name", ["coco_instances", "coco_panoptic", "yolo"])
def test_a_killed_export_is_continued_to_the_same_bytes(ray_session: None, small: Path, name: str) -> None:
    config = config_of(small, name, max_failed_fraction=1.0)
    assert export(config).exit_code == ExitCode.DONE
    whole = files_of(small / name)
    assert not [path for path in whole if path.startswith(".")], "nothing temporary stays"
    document = {"coco_instances": "instances.json", "coco_panoptic": "panoptic.json", "yolo": "images.txt"}[name]
    for lost in ("export.json", document, "parts/part-00001.parquet"):
        (small / name / lost).unlink()
    assert export(config).exit_code == ExitCode.DONE
    again = files_of(small / name)
    assert again.keys() == whole.keys()
    assert {path for path in whole if again[path] != whole[path]} <= {"export.json"}  # it says how long it took
    (small / name / "export.json").unlink()
    (small / name / document).write_text("something else")
    with pytest.raises(ConflictError, match=f"{document} is there and differs"):
        export(config)


def test_each_image_has_a_file_of_its_own(ray_session: None, small: Path) -> None:
    assert export(config_of(small, "png", max_failed_fraction=1.0)).exit_code == ExitCode.DONE
    rows = pq.read_table(small / "png/parts").to_pylist()
    assert [row["file"] for row in rows] == ["labels/a.jpg.png", "labels/a.png.png", None, "labels/b/empty.png", None]
    for row in rows[:2]:
        with Image.open(small / "png" / row["file"]) as picture:
            assert np.array(picture).tolist() == [[3, 3, 7], [3, 7, 7]]
    assert export(config_of(small, "cvat", max_failed_fraction=1.0)).exit_code == ExitCode.DONE
    losses = report_of(small, "cvat")["losses"]
    assert losses == [{"kind": "name", "category_id": None, "category": None, "count": 2, "pixels": 0}]
    entry = json.loads((small / "cvat/annotations/instances_default.json").read_text())["annotations"][0]
    assert entry["attributes"] == {"occluded": False, "source": "auto", "score": 0.75}


def test_label_studio_gets_tasks_and_a_config(ray_session: None, small: Path) -> None:
    prefix = {"image_prefix": "/data/local-files/?d=x/"}
    assert (
        export(config_of(small, "label_studio", max_failed_fraction=1.0, label_studio=prefix)).exit_code
        == ExitCode.DONE
    )
    tasks = json.loads((small / "label_studio/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d=x/{name}" for name in ("a.jpg", "a.png", "b/empty.jpg")
    ]
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("toy@123", 0.5)
    region = prediction["result"][0]
    assert (region["value"]["brushlabels"], region["score"], region["original_width"]) == (["cat"], 0.75, 3)
    config = (small / "label_studio/label_config.xml").read_text()
    assert '<Label value="cat" background="#ff0000"/>' in config


def test_results_take_the_ids_of_the_file_they_are_scored_against(ray_session: None, small: Path) -> None:
    reference = {
        "images": [{"id": 900, "file_name": "a.png"}, {"id": 5, "file_name": "b/empty.jpg"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (small / "truth.json").write_text(json.dumps(reference))
    settings = {"ids_from": str(small / "truth.json"), "max_failed_fraction": 1.0}
    assert export(config_of(small, "coco_results", **settings)).exit_code == ExitCode.DONE
    results = json.loads((small / "coco_results/results.json").read_text())
    assert [(r["image_id"], r["category_id"], r["score"]) for r in results] == [(900, 2, 0.75)]
    assert "bbox" not in results[0], "pycocotools would take its area for the mask's"
    boxes = json.loads((small / "coco_results/boxes.json").read_text())
    assert boxes == [{"image_id": 900, "category_id": 2, "bbox": [0, 0, 2, 2], "score": 0.75}]
    report = report_of(small, "coco_results")
    assert report["failures"] == {"NOT_FOUND": 2, "TRUNCATED": 1}
    assert report["examples"]["NOT_FOUND"][0] == "a.jpg"
    assert report["losses"] == [{"kind": "crowd", "category_id": 7, "category": "dog", "count": 1, "pixels": 3}]
    (small / "truth.json").write_text(json.dumps({**reference, "categories": [{"id": 1, "name": "dogs"}]}))
    with pytest.raises(ConfigError, match="has no class 'dog'; did you mean 'dogs'"):
        export(config_of(small, "coco_results", **settings))


def test_what_is_wrong_with_the_whole_is_said_at_once(small: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"categories": ["cat", "dig"]}, "categories: 'dig' is no class of it; did you mean 'dog'"),
        ({"categories": ["cat", "cat"]}, "categories: 'cat' is named twice"),
        ({"components": True}, "its segments are objects already"),
        ({"png": {"void_id": 3}}, r"png\.void_id: 3 is the id of class 'cat' too"),
    ]
    for settings, message in cases:
        with pytest.raises(ConfigError, match=message):
            export(config_of(small, "png", **settings))
    with pytest.raises(ConfigError, match="expected COCO JSON with images and categories"):
        export(config_of(small, "coco_results", ids_from=str(small / "none.json")))
    with pytest.raises(ManifestError, match="no manifest here"):
        export(config_of(small, "png", manifest="nowhere"))
    here = ExportConfig.model_validate(
        {"manifest": {"uri": str(small / "manifest")}, "output": {"uri": str(small / "manifest")}, "format": "png"}
    )
    with pytest.raises(ConflictError, match=r"holds a manifest: choose another output\.uri"):
        export(here)


def test_a_dry_run_writes_nothing(small: Path) -> None:
    planned = export(config_of(small, "yolo"), dry_run=True)
    assert planned.exit_code == ExitCode.DONE
    out = planned.text()
    assert "images:       5\n" in out
    assert "files:        data.yaml, images.txt, labels/*.txt\n" in out
    assert not (small / "yolo").exists()


# Real labels: prepare → export → the tool's reader → prepare -------------------------------------------


def prepare_real(root: Path, images: Path, labels: dict[str, Any], name: str = "manifest") -> dict[str, Any]:
    config = {"input": {"uri": str(images)}, "labels": labels, "output": {"uri": str(root / name)}}
    assert prepare(PrepareConfig.model_validate(config)).exit_code == ExitCode.DONE
    return manifest_segments(root / name)


@pytest.mark.parametrize(
    ("folder", "file", "count"),
    [
        ("coco_mini/train2017", "coco_mini/instances_train2017.json", 739),
        ("nuts_coco/images", "nuts_coco/trainval.json", 165),
    ],
)
def test_coco_survives_as_instances(
    ray_session: None, shared_data: Path, tmp_path: Path, folder: str, file: str, count: int
) -> None:
    root, images = tmp_path, shared_data / folder
    truth = prepare_real(root, images, {"format": "coco", "uri": str(shared_data / file)})
    for name in ("coco_instances", "cvat", "coco_results", "yolo"):
        assert export(config_of(root, name)).exit_code == ExitCode.DONE
    paths = (root / "coco_instances/instances.json", root / "cvat/annotations/instances_default.json")
    for number, path in enumerate(paths):
        assert prepare_real(root, images, {"format": "coco", "uri": str(path)}, f"again{number}") == truth
        theirs = COCO(str(path))
        masks = 0
        for entry in theirs.dataset["images"]:
            own = truth[entry["file_name"]]
            for annotation, segment in zip(theirs.imgToAnns[entry["id"]], own, strict=True):
                assert np.array_equal(theirs.annToMask(annotation), coco_mask.decode(segment.segmentation))
                assert (annotation["area"], annotation["iscrowd"]) == (segment.stated_area, segment.iscrowd)
                masks += 1
        assert masks == count
    # Detections that are the truth itself are perfect, whatever the crowds.
    truth_file = COCO(str(paths[0]))
    scores = COCOeval(truth_file, truth_file.loadRes(str(root / "coco_results/results.json")), "segm")
    scores.evaluate()
    scores.accumulate()
    precision = scores.eval["precision"][:, :, :, 0, 2]
    assert precision[precision >= 0].min() == pytest.approx(1)
    # YOLO's files hold the same masks, without crowds.
    categories = footer_of(open_run(Storage(), str(root / "manifest"))).categories
    for image_id, segments in truth.items():
        with Image.open(images / image_id) as picture:
            size_hw = (picture.height, picture.width)
        text = (root / "yolo/labels" / image_id).with_suffix(".txt").read_text()
        assert masks_of(text, size_hw, categories).segments == [s for s in segments if not s.iscrowd]
    lost = sum(loss["count"] for loss in report_of(root, "yolo")["losses"] if loss["kind"] == "crowd")
    assert lost == sum(segment.iscrowd for segments in truth.values() for segment in segments)


def test_camvid_survives_as_label_maps_panoptic_and_components(
    ray_session: None, shared_data: Path, tmp_path: Path
) -> None:
    names = ["sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    folder = shared_data / "camvid"
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((folder / "images/val").iterdir())[:12]:
        (images / path.name).symlink_to(path)
    labels = {"format": "png", "uri": str(folder / "labels/val"), "categories": names, "void_ids": [11]}
    truth = prepare_real(tmp_path, images, labels)
    assert export(config_of(tmp_path, "png", png={"void_id": 11})).exit_code == ExitCode.DONE
    assert report_of(tmp_path, "png")["losses"] == []
    for image_id in truth:
        stem = Path(image_id).stem
        with (
            Image.open(tmp_path / f"png/labels/{stem}.png") as ours,
            Image.open(folder / f"labels/val/{stem}.png") as theirs,
        ):
            assert np.array_equal(np.array(ours), np.array(theirs))
    again = {**labels, "uri": str(tmp_path / "png/labels")}
    assert prepare_real(tmp_path, images, again, "from_png") == truth
    assert export(config_of(tmp_path, "coco_panoptic")).exit_code == ExitCode.DONE
    panoptic = {"format": "coco_panoptic", "uri": str(tmp_path / "coco_panoptic/panoptic.json")}
    assert prepare_real(tmp_path, images, panoptic, "from_panoptic") == truth
    assert export(config_of(tmp_path, "coco_instances", components=True)).exit_code == ExitCode.DONE
    document = COCO(str(tmp_path / "coco_instances/instances.json"))
    for entry in document.dataset["images"]:
        for segment in truth[entry["file_name"]]:
            own = [a for a in document.imgToAnns[entry["id"]] if a["category_id"] == segment.category_id]
            union = coco_mask.merge([a["segmentation"] for a in own])
            assert np.array_equal(coco_mask.decode(union), coco_mask.decode(segment.segmentation))
            assert sum(a["area"] for a in own) == segment.area, "no two components share a pixel"


def test_panoptic_sample_survives(ray_session: None, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "panoptic_sample"
    labels = {"format": "coco_panoptic", "uri": str(folder / "panoptic_examples.json")}
    truth = prepare_real(tmp_path, folder / "input_images", labels)
    assert export(config_of(tmp_path, "coco_panoptic")).exit_code == ExitCode.DONE
    own = {"format": "coco_panoptic", "uri": str(tmp_path / "coco_panoptic/panoptic.json")}
    assert prepare_real(tmp_path, folder / "input_images", own, "again") == truth
    ours, theirs = (json.loads(Path(uri["uri"]).read_text()) for uri in (own, labels))
    kept = ("id", "name", "isthing")
    assert [[c[key] for key in kept] for c in ours["categories"]] == [
        [c[key] for key in kept] for c in theirs["categories"]
    ]
    for one, two in zip(ours["annotations"], theirs["annotations"], strict=True):
        fields = ("category_id", "iscrowd", "area", "bbox")
        assert [[s[f] for f in fields] for s in one["segments_info"]] == [
            [s[f] for f in fields] for s in two["segments_info"]
        ]
    # As instances: the sample's own detection format holds the same masks.
    assert export(config_of(tmp_path, "coco_instances")).exit_code == ExitCode.DONE
    detections = COCO(str(folder / "panoptic_coco_detection_format.json"))
    instances = COCO(str(tmp_path / "coco_instances/instances.json"))
    for entry in instances.dataset["images"]:
        (number,) = [i["id"] for i in detections.dataset["images"] if i["file_name"] == entry["file_name"]]

        def masks(coco: COCO, image: int) -> set[tuple[int, str]]:
            return {(a["category_id"], a["segmentation"]["counts"]) for a in coco.imgToAnns[image]}

        assert masks(instances, entry["id"]) == masks(detections, number)


@pytest.mark.slow
def test_export_from_s3_to_s3(ray_session: None, s3_server: Any, tmp_path: Path) -> None:
    root = f"s3://segjobs/{tmp_path.name}/a ü#1"
    storage = Storage(s3_server)
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    rows = {f"{name}.jpg": ((2, 3), [segment_of(mask, CAT)]) for name in ("a", "ü b/c", "d#1?")}
    write_manifest(f"{root}/manifest", rows, [CAT, DOG], storage=storage)
    for name in ("coco_instances", "yolo"):
        places = {"manifest": {"uri": f"{root}/manifest"}, "output": {"uri": f"{root}/{name}"}}
        config = ExportConfig.model_validate({**places, "format": name, "storage": s3_server.model_dump()})
        assert export(config).exit_code == ExitCode.DONE
        assert export(config).exit_code == ExitCode.DONE
    document = json.loads(storage.read(join(root, "coco_instances/instances.json")))
    assert [entry["file_name"] for entry in document["images"]] == sorted(rows)
    assert len(document["annotations"]) == 3
    assert storage.read(join(root, "yolo/labels/ü b/c.txt")).startswith(b"0 0 0 ")
