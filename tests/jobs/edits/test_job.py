"""People's corrections: exported, altered as a person would, taken back, and there bit by bit; once, and for good."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as coco_mask

from segjobs.cli import run_verb
from segjobs.config import EditsConfig, ExportConfig
from segjobs.errors import ConfigError, ExitCode, ManifestError
from segjobs.exporters.label_studio_rle import encode_mask
from segjobs.jobs.edits.job import edits
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.export.job import export
from segjobs.labels.label_studio_rle import decode_mask
from segjobs.manifest.collection import open_collection
from segjobs.manifest.manifest import Manifest
from segjobs.results import DryRun, EditsResult
from segjobs.storage import Storage
from tests.jobs.nightly.test_job import draw, night

SIZE = (8, 9)


def config_of(folder: Path, labels: dict[str, Any], **settings: Any) -> EditsConfig:
    about = {"collection": {"uri": str(folder / "street")}, "by": "ann", "max_failed_fraction": 1, **settings}
    return EditsConfig.model_validate({"labels": labels, **about})


def taken(folder: Path, labels: dict[str, Any], **settings: Any) -> EditsResult:
    result = edits(config_of(folder, labels, **settings), executor=InProcess())
    assert isinstance(result, EditsResult)
    return result


def exported(folder: Path, name: str) -> Path:
    about = {"manifest": {"uri": str(folder / "street")}, "format": name, "output": {"uri": str(folder / name)}}
    assert export(ExportConfig.model_validate(about)).exit_code == ExitCode.DONE
    return folder / name


def label_map(folder: Path, image_id: str) -> np.ndarray:
    (row,) = (row for row in Manifest(Storage(), str(folder / "street")) if row.image_id == image_id)
    return row.label_map()


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Every row of the table as it is, by image_id."""
    now = open_collection(Storage(), str(folder / "street"))
    return {row["image_id"]: row for file in now.files for row in now.read(file).to_pylist()}


def altered(mask: np.ndarray, corner: np.ndarray, *, mine: bool) -> np.ndarray:
    return mask | corner if mine else mask & ~corner


def in_label_studio(folder: Path, corner: np.ndarray) -> dict[str, Any]:
    """1.png with the corner as dark, 2.png as it is, 0.png not looked at, and an image that came from elsewhere."""
    tasks = json.loads((exported(folder, "label_studio") / "tasks.json").read_text())
    for task in tasks[1:]:
        task["annotations"] = task.pop("predictions")
    for result in tasks[1]["annotations"][0]["result"]:
        value = result["value"]
        mask = decode_mask(value["rle"], SIZE)
        value["rle"] = encode_mask(altered(mask, corner, mine=value["brushlabels"] == ["dark"]))
    tasks.append({"data": {"image": "elsewhere.png"}, "annotations": tasks[1]["annotations"]})
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return {"format": "label_studio", "uri": str(folder / "tasks.json")}


def in_cvat(folder: Path, corner: np.ndarray) -> dict[str, Any]:
    """The same in CVAT's COCO, whose export has finished jobs alone."""
    path = exported(folder, "cvat") / "annotations" / "instances_default.json"
    document = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in document["categories"]}
    images = {one["file_name"]: one["id"] for one in document["images"]}
    for one in document["annotations"]:
        mask = coco_mask.decode(one["segmentation"]).astype(bool)
        if one["image_id"] == images["1.png"]:
            mask = altered(mask, corner, mine=names[one["category_id"]] == "dark")
        flat = mask.flatten(order="F")
        ends = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *ends, flat.size]).tolist()
        one["segmentation"] = {"size": list(SIZE), "counts": [0, *counts] if flat[0] else counts}
    document["images"] = [one for one in document["images"] if one["file_name"] != "0.png"]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] != images["0.png"]]
    document["images"].append({"id": 99, "file_name": "elsewhere.png", "height": 8, "width": 9})
    (folder / "cvat.json").write_text(json.dumps(document))
    return {"format": "coco", "uri": str(folder / "cvat.json")}


@pytest.fixture
def street(ray_session: None, tmp_path: Path) -> Path:
    """A collection of three images that the toy has labelled."""
    for number in range(3):
        draw(tmp_path, f"{number}.png", number)
    assert night(tmp_path).version == 1
    return tmp_path


@pytest.mark.parametrize("tool", [in_label_studio, in_cvat])
def test_masks_come_back_bit_by_bit_and_stay(
    street: Path, tool: Callable[[Path, np.ndarray], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    corner = np.zeros(SIZE, bool)
    corner[4:, 3:] = True
    before = rows(street)
    wanted = {name: label_map(street, name) for name in before}
    wanted["1.png"][corner] = 0
    labels = tool(street, corner)
    planned = edits(config_of(street, labels), dry_run=True)
    assert isinstance(planned, DryRun) and planned.tables[0]["corrections"] == 2 and rows(street) == before
    first = taken(street, labels)
    assert (first.version, first.new, first.exit_code) == (2, True, ExitCode.DONE)
    assert first.counts == {"taken": 2, "accepted": 1, "not_in_collection": 1}
    assert "does not have: 1, such as 'elsewhere.png'; left out" in capsys.readouterr().err
    after = rows(street)
    assert {name: row["origin"] for name, row in after.items()} == {
        "0.png": "model",
        "1.png": "human",
        "2.png": "human",
    }
    assert after["1.png"]["labelled_at"] >= before["1.png"]["labelled_at"]
    assert [after["1.png"][name] for name in ("source", "uri")] == [before["1.png"][name] for name in ("source", "uri")]
    assert (after["1.png"]["model"], after["1.png"]["processing"], after["0.png"]) == (None, None, before["0.png"])

    again = taken(street, labels)
    assert (again.version, again.new, again.counts) == (2, False, first.counts)
    other = night(street, model={"options": {"seed": 2}}, stale="relabel")
    assert other.counts == {"stale": 1, "same": 2}, "a better model labels what no person has"
    for name, ids in wanted.items():
        assert np.array_equal(label_map(street, name), ids), name


def test_the_history_says_who(street: Path, capfd: pytest.CaptureFixture[str], default_signals: None) -> None:
    labels = in_label_studio(street, np.zeros(SIZE, bool))
    taken(street, labels)
    assert run_verb("collection", ["history", f"collection.uri={street}/street"]) == ExitCode.DONE
    newest = json.loads(capfd.readouterr().out)["versions"][0]["what"]
    assert newest == f"edits of {labels['uri']} by ann: accepted 2, taken 2"


def test_a_correction_of_other_bytes_is_not_taken(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = in_label_studio(street, np.ones(SIZE, bool))
    draw(street, "1.png", 77)
    before = rows(street)
    result = taken(street, labels)
    assert result.counts == {"taken": 1, "accepted": 1, "changed": 1, "not_in_collection": 1} and not result.failures
    assert "1 image(s) have other bytes" in capsys.readouterr().err
    assert rows(street)["1.png"] == before["1.png"]


def test_a_touched_image_is_the_same_image(street: Path) -> None:
    labels = in_label_studio(street, np.ones(SIZE, bool))
    os.utime(street / "photos" / "1.png", (5, 5))
    assert taken(street, labels).counts == {"taken": 2, "accepted": 1, "not_in_collection": 1}
    row = rows(street)["1.png"]
    assert (row["origin"], row["source"]["mtime"]) == ("human", datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC))
    assert not label_map(street, "1.png").any(), "all of it is dark"
    assert night(street).counts == {"same": 3}, "its fingerprint is the new one"
    draw(street, "1.png", 78)
    assert night(street).counts == {"held": 1, "same": 2}
    assert rows(street)["1.png"]["origin"] == "human"


def test_the_same_labels_do_not_come_again_over_later_ones(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = in_label_studio(street, np.ones(SIZE, bool))
    path = Path(labels["uri"])
    assert taken(street, labels).counts["taken"] == 2
    tasks = json.loads(path.read_text())
    (street / "bob.json").write_text(json.dumps([one for one in tasks if one["data"]["image"].endswith("1.png")]))
    theirs = {**labels, "uri": str(street / "bob.json")}
    assert taken(street, theirs, by="bob").counts == {"taken": 1, "not_in_collection": 0}, (
        "the later command's masks stay"
    )
    after = rows(street)
    assert (after["1.png"]["annotated_by"], after["2.png"]["annotated_by"]) == ("bob", "ann")
    for name in ("1.png", "2.png"):
        os.utime(street / "photos" / name, (9, 9))
    capsys.readouterr()
    again = taken(street, labels)
    assert again.counts == {"newer": 1, "there": 1, "not_in_collection": 1}
    assert "1 image(s) have a person's masks of a later command, which stay" in capsys.readouterr().err
    assert rows(street) == after


def test_masks_left_as_they_were_may_stay_the_models(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corner = np.zeros(SIZE, bool)
    corner[4:, 3:] = True
    before = rows(street)
    labels = in_cvat(street, corner)
    result = taken(street, labels, unaltered="leave")
    assert result.counts == {"taken": 1, "unaltered": 1, "not_in_collection": 1}
    assert "1 image(s) have the model's masks unaltered" in capsys.readouterr().err
    after = rows(street)
    assert after["1.png"]["origin"] == "human" and after["2.png"] == before["2.png"]
    assert taken(street, labels).counts == {"taken": 1, "accepted": 1, "there": 1, "not_in_collection": 1}
    assert rows(street)["2.png"]["origin"] == "human"


def test_a_row_says_who_drew_it_and_when(street: Path) -> None:
    labels = in_label_studio(street, np.zeros(SIZE, bool))
    path = Path(labels["uri"])
    tasks = json.loads(path.read_text())
    tasks[1]["annotations"][0] |= {"completed_by": {"email": "eve@x.org"}, "updated_at": "2026-02-03T04:05:06Z"}
    path.write_text(json.dumps(tasks))
    taken(street, labels)
    found = {name: (row["annotated_by"], row["annotated_at"]) for name, row in rows(street).items()}
    moment = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert found == {"0.png": (None, None), "1.png": ("eve@x.org", moment), "2.png": ("ann", None)}


def test_classes_meet_by_name(street: Path) -> None:
    labels = in_label_studio(street, np.zeros(SIZE, bool))
    path = Path(labels["uri"])
    path.write_text(path.read_text().replace('["bright"]', '["light"]'))
    with pytest.raises(ConfigError, match=r"'light' is no class of .*`classes` gives it another name"):
        taken(street, labels)
    assert taken(street, labels, classes={"light": "bright"}).counts["taken"] == 2
    bright = {
        one["category_id"] for row in rows(street).values() for one in row["segments"] if one["category"] == "bright"
    }
    assert bright == {2}


def test_what_cannot_be_taken_is_refused_before_the_start(street: Path, tmp_path: Path) -> None:
    labels = in_label_studio(street, np.zeros(SIZE, bool))
    with pytest.raises(ConfigError, match=r"instance labels, and .* holds semantic masks"):
        taken(street, {**labels, "task": "instance"})
    with pytest.raises(ConfigError, match="names a version"):
        taken(street, labels, collection={"uri": f"{street}/street@1"})
    with pytest.raises(ManifestError, match="no collection here"):
        taken(street, labels, collection={"uri": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="keeps its masks"):
        config_of(street, {**labels, "missing": "empty"})


# --- other formats ---------------------------------------------------------------------------------

_LEFT, _RIGHT = [[0, 0], [4, 0], [4, 8], [0, 8]], [[4, 0], [9, 0], [9, 8], [4, 8]]


def png(folder: Path, ids: np.ndarray) -> dict[str, Any]:
    (folder / "labels").mkdir()
    Image.fromarray(ids.astype(np.uint8)).save(folder / "labels" / "1.png")
    return {"format": "png", "uri": str(folder / "labels"), "categories": ["dark", "mid", "bright"]}


def label_studio_polygons(folder: Path, ids: np.ndarray) -> dict[str, Any]:
    results = [
        {
            "type": "polygonlabels",
            "value": {"points": [[x * 100 / 9, y * 100 / 8] for x, y in points], "polygonlabels": [name]},
        }
        for name, points in (("dark", _LEFT), ("bright", _RIGHT))
    ]
    image = {"image": "/data/upload/1/0123abcd-1.png"}
    (folder / "tasks.json").write_text(json.dumps([{"data": image, "annotations": [{"result": results}]}]))
    return {"format": "label_studio", "uri": str(folder / "tasks.json")}


def cvat_xml(folder: Path, ids: np.ndarray) -> dict[str, Any]:
    who = "<assignee><username>eve</username></assignee><updated>2026-02-03 04:05:06+00:00</updated>"
    masks = (
        '<mask label="dark" rle="0,32" left="0" top="0" width="4" height="8"/>'
        '<mask label="bright" rle="0,40" left="4" top="0" width="5" height="8"/>'
    )
    image = f'<image id="0" name="1.png" width="9" height="8">{masks}</image>'
    (folder / "a.xml").write_text(f"<annotations><meta><job>{who}</job></meta>{image}</annotations>")
    return {"format": "cvat", "uri": str(folder / "a.xml")}


def coco_polygons(folder: Path, ids: np.ndarray) -> dict[str, Any]:
    annotations = [
        {"id": place, "image_id": 5, "category_id": place, "segmentation": [np.ravel(points).tolist()]}
        for place, points in ((1, _LEFT), (2, _RIGHT))
    ]
    document = {
        "images": [{"id": 5, "file_name": "1.png", "height": 8, "width": 9}],
        "categories": [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}],
        "annotations": annotations,
    }
    (folder / "a.json").write_text(json.dumps(document))
    return {"format": "coco", "uri": str(folder / "a.json")}


def kaggle(folder: Path, ids: np.ndarray) -> dict[str, Any]:
    (folder / "a.csv").write_text("ImageId,EncodedPixels,Class\n1.png,1 32,dark\n1.png,33 40,bright\n")
    return {"format": "kaggle", "uri": str(folder / "a.csv")}


@pytest.mark.parametrize("tool", [png, label_studio_polygons, cvat_xml, coco_polygons, kaggle])
def test_every_tools_masks_become_a_persons(tmp_path: Path, tool: Callable[[Path, np.ndarray], dict[str, Any]]) -> None:
    for number in range(3):
        draw(tmp_path, f"{number}.png", number)
    night(tmp_path)
    before = rows(tmp_path)
    ids = np.zeros(SIZE, int)
    ids[:, 4:] = 2
    assert taken(tmp_path, tool(tmp_path, ids)).counts == {"taken": 1, "not_in_collection": 0}
    assert np.array_equal(label_map(tmp_path, "1.png"), ids)
    after = rows(tmp_path)
    assert (after["0.png"], after["2.png"]) == (before["0.png"], before["2.png"])
    assert after["1.png"]["annotated_by"] == ("eve" if tool is cvat_xml else "ann")


def test_a_collection_of_many_bands_is_read_by_its_own(tmp_path: Path) -> None:
    """A night reads bands 5, 4 and 1 of scenes of five; corrections lie on the same images, without being told."""
    (tmp_path / "photos").mkdir()
    bands = np.random.default_rng(1).integers(0, 3000, (*SIZE, 5), np.uint16)
    look = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "photos" / "a.tif", bands, **look)
    asked = {"uri": str(tmp_path / "photos"), "bands": [5, 4, 1], "range": [0, 3000]}
    assert night(tmp_path, input=asked).exit_code == ExitCode.DONE
    pixels = {"bands": [5, 4, 1], "range": [0, 3000]}
    assert open_collection(Storage(), str(tmp_path / "street")).filled.pixels == pixels
    red = np.rint(np.float32(bands[..., 4]) * (np.float32(255) / 3000)).astype(int)
    assert np.array_equal(label_map(tmp_path, "a.tif"), red // 86)

    (tmp_path / "labels").mkdir()
    Image.fromarray(np.full(SIZE, 2, np.uint8)).save(tmp_path / "labels" / "a.png")
    labels = {"format": "png", "uri": str(tmp_path / "labels"), "categories": ["dark", "mid", "bright"]}
    assert taken(tmp_path, labels).exit_code == ExitCode.DONE
    assert (label_map(tmp_path, "a.tif") == 2).all()
    assert open_collection(Storage(), str(tmp_path / "street")).filled.pixels == pixels
