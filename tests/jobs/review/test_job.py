"""Images picked for people: by each strategy, never twice, whatever dies; and back by ``edits``, bit by bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pydantic import ValidationError

from segjobs.config import EditsConfig, ReviewConfig
from segjobs.errors import ConfigError, ExitCode, ManifestError
from segjobs.exporters.label_studio_rle import encode_mask
from segjobs.jobs.edits.job import edits
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.review import job
from segjobs.jobs.review.candidates import Sent, candidates_of, rank
from segjobs.jobs.review.job import review
from segjobs.labels.label_studio_rle import decode_mask
from segjobs.manifest.collection import open_collection
from segjobs.manifest.manifest import Manifest
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.reviews import open_review, reviews_of
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.manifest.segments import Segment
from segjobs.results import DryRun, EditsResult, ReviewResult
from segjobs.storage import Storage
from tests.jobs.nightly.test_job import night

SIZE = (32, 36)


def config_of(folder: Path, **settings: Any) -> ReviewConfig:
    return ReviewConfig.model_validate({"collection": {"uri": str(folder / "street")}, "count": 3, **settings})


def picked(folder: Path, **settings: Any) -> ReviewResult:
    result = review(config_of(folder, **settings))
    assert isinstance(result, ReviewResult)
    return result


def ids(folder: Path, number: int | None) -> list[str]:
    assert number is not None
    rows = open_review(Storage(), str(folder / "street"), number).rows
    by_score = sorted(rows.to_pylist(), key=lambda row: -(row["score"] or 0))
    return [row["image_id"] for row in by_score]


def paint(folder: Path, name: str, seed: int, *, green: int = 128) -> np.ndarray:
    """A picture of large blots of the toy's three classes, whose confidence is its green."""
    blots = np.random.default_rng(seed).integers(0, 3, (4, 4)).astype(np.uint8)
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = np.kron(blots, np.full((8, 9), 1, np.uint8)) * 80 + 40
    image[..., 1] = green
    image[0, 0, 2] = seed
    path = folder / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Ten images, the later the more certain; 4.png is 3.png again, a little brighter."""
    for number in range(10):
        paint(tmp_path, f"{number}.png", 3 if number == 4 else number, green=40 + 20 * number)
    assert night(tmp_path, shard={"images": 4}).version == 1
    return tmp_path


# --- which ---------------------------------------------------------------------------------------


def test_the_least_certain_come_first_and_no_image_twice(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = picked(street)
    assert ids(street, first.review) == ["0.png", "1.png", "2.png"]
    assert "10 image(s) have no entropy, and come last, by confidence" in capsys.readouterr().err
    second = picked(street)
    assert ids(street, second.review) == ["3.png", "5.png", "6.png"], "4.png is nearly 3.png"
    assert (first.review, second.review) == (1, 2)
    assert second.left_out == {"sent": 3, "near_duplicates": 1}
    third = picked(street, near_duplicates=None, count=2)
    assert ids(street, third.review) == ["4.png", "7.png"]
    last = picked(street)
    assert (last.images, ids(street, last.review)) == (2, ["8.png", "9.png"])
    assert "2 of 3 images" in capsys.readouterr().err
    nothing = picked(street)
    assert (nothing.review, nothing.images, nothing.files) == (None, 0, ())
    assert nothing.left_out == {"sent": 10} and "nothing to send" in capsys.readouterr().err
    # Other bytes are another picture.
    paint(street, "0.png", 99)
    assert night(street).counts["changed"] == 1
    assert ids(street, picked(street).review) == ["0.png"]


def test_a_near_duplicate_of_what_was_sent_is_left_out(street: Path) -> None:
    assert ids(street, picked(street, count=4).review) == ["0.png", "1.png", "2.png", "3.png"]
    second = picked(street, count=1)
    assert ids(street, second.review) == ["5.png"] and second.left_out["near_duplicates"] == 1


def test_by_the_columns_where_rows_have_them(street: Path) -> None:
    now = open_collection(Storage(), str(street / "street"))
    with pytest.raises(ConfigError, match=r"measure=margin: no image of .* has it; uncertainty=true"):
        picked(street, measure="margin")
    values = {f"{n}.png": {"margin": n / 10, "entropy": 1 - n / 10} for n in (5, 6, 7)}
    changed_rows(street, {name: lambda row: row.update(values[row["image_id"]]) for name in values})
    assert open_collection(Storage(), str(street / "street")).version == now.version + 1
    assert ids(street, picked(street, measure="margin", count=2).review) == ["5.png", "6.png"]
    assert picked(street, count=2).review == 2
    rows = open_review(Storage(), str(street / "street"), 2).rows.to_pylist()
    assert {row["image_id"] for row in rows} == {"7.png", "0.png"}, "entropy first, then confidence"


def changed_rows(folder: Path, changes: dict[str, Callable[[dict[str, Any]], object]]) -> None:
    """Commit rows of the table anew, changed."""
    now = open_collection(Storage(), str(folder / "street"))
    rows = [row for file in now.files for row in now.read(file).to_pylist() if row["image_id"] in changes]
    for row in rows:
        changes[row["image_id"]](row)
    table = pa.Table.from_pylist(rows, COLLECTION_SCHEMA)
    now.commit(
        lambda joint: Changes(lambda: [table], MARK_SCHEMA.empty_table()), now.footer, app_id=f"version {now.version}"
    )


def test_new_ones_are_of_the_last_nights(street: Path) -> None:
    for name in ("x.png", "y.png"):
        paint(street, name, ord(name[0]))
    assert night(street).counts == {"new": 2, "same": 10}
    assert night(street).counts == {"same": 12}, "a night that labels nothing is none of the last"
    first = picked(street, strategy="new", count=5)
    assert sorted(ids(street, first.review)) == ["x.png", "y.png"]
    assert picked(street, strategy="new").review is None
    assert picked(street, strategy="new", nights=2, count=4).images == 4


def test_by_lot_it_is_the_seed_that_decides(street: Path) -> None:
    found = candidates_of(open_collection(Storage(), str(street / "street")), Sent())

    def of(seed: int) -> list[str]:
        places = rank(config_of(street, strategy="random", seed=seed), Storage(), found).places
        return [found.image_ids[place] for place in places]

    assert of(1) == of(1) != of(2) and sorted(of(1)) == sorted(of(2)) == sorted(found.image_ids)
    result = picked(street, strategy="random", seed=1, near_duplicates=None)
    assert sorted(ids(street, result.review)) == sorted(of(1)[:3])


def test_diverse_ones_are_far_from_each_other_and_from_what_was_sent(tmp_path: Path) -> None:
    for number in range(6):
        image = paint(tmp_path, f"a{number}.png", 1)
        image[:2, number : number + 2] = 200  # all but the same
        Image.fromarray(image).save(tmp_path / "photos" / f"a{number}.png")
    paint(tmp_path, "b.png", 2)
    paint(tmp_path, "c.png", 5)
    night(tmp_path)
    first = picked(tmp_path, strategy="diverse", near_duplicates=None)
    assert {name[0] for name in ids(tmp_path, first.review)} == {"a", "b", "c"}
    paint(tmp_path, "d.png", 7)
    night(tmp_path)
    assert ids(tmp_path, picked(tmp_path, strategy="diverse", count=1, near_duplicates=None).review) == ["d.png"]


def test_disagreement_is_with_the_masks_of_before(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert picked(street, strategy="disagree").review is None, "nothing was labelled twice"
    assert "no image of them had other masks in an earlier version" in capsys.readouterr().err
    before = {name: _label_map(street, name) for name in ("2.png", "6.png", "8.png")}
    # Another class map of three images: all of it, half of it, an eighth of it.
    for name, share in (("2.png", 1), ("6.png", 2), ("8.png", 8)):
        _relabelled(street, name, share)
    expected = [
        name for name, _ in sorted(before.items(), key=lambda item: _miou(item[1], _label_map(street, item[0])))
    ]
    one_by_one = ids(street, picked(street, strategy="disagree", against={"uri": f"{street}/street@1"}).review)
    assert one_by_one == expected and f"compared with {street}/street@1" in capsys.readouterr().err
    scores = open_review(Storage(), str(street / "street"), 1).rows.to_pylist()
    for row in scores:
        assert row["score"] == pytest.approx(1 - _miou(before[row["image_id"]], _label_map(street, row["image_id"])))


def test_disagreement_finds_the_version_itself(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _relabelled(street, "6.png", 2)
    assert night(street).version == 3
    assert ids(street, picked(street, strategy="disagree").review) == ["6.png"]
    assert f"compared with {street}/street@1" in capsys.readouterr().err


def _relabelled(folder: Path, name: str, share: int) -> None:
    """Commit the image's row anew, by another run, with other classes in its first rows."""
    pixels = _label_map(folder, name).astype(int)
    pixels[: SIZE[0] // share] = (pixels[: SIZE[0] // share] + 1) % 3
    classes = open_collection(Storage(), str(folder / "street")).filled.categories
    segments = [Segment.from_mask(one, pixels == one.id).to_row() for one in classes if (pixels == one.id).any()]
    changed_rows(folder, {name: lambda row: row.update(segments=segments, run_id=f"another-{name}")})


def _label_map(folder: Path, name: str) -> np.ndarray:
    (row,) = (row for row in Manifest(Storage(), str(folder / "street")) if row.image_id == name)
    return row.label_map()


def _miou(one: np.ndarray, other: np.ndarray) -> float:
    ious = [((one == c) & (other == c)).sum() / ((one == c) | (other == c)).sum() for c in np.union1d(one, other)]
    return float(np.mean(ious))


def test_pictures_that_cannot_be_shown_are_left_out(street: Path) -> None:
    (street / "photos" / "0.png").unlink()
    paint(street, "1.png", 55)
    result = picked(street)
    assert ids(street, result.review) == ["2.png", "3.png", "5.png"]
    assert result.left_out == {"NOT_FOUND": 1, "CHANGED": 1, "near_duplicates": 1}


def test_masks_that_make_no_sense_are_told_and_not_exit_code_0(street: Path) -> None:
    def spoilt(row: dict[str, Any]) -> None:
        row["segments"][0]["segmentation"]["counts"] = "no"

    changed_rows(street, {"0.png": spoilt})
    result = picked(street)
    assert (result.exit_code, result.images, result.left_out) == (ExitCode.TOO_MANY_FAILED, 2, {"not_written": 1})
    assert '"image_id": "0.png"' in (street / "street/reviews/00001/failures.jsonl").read_text()
    assert picked(street, max_failed_fraction=0.5).exit_code == ExitCode.DONE


def test_the_pool_bounds_what_is_read(street: Path) -> None:
    result = picked(street, pool=3)
    assert result.images == 3 and result.left_out == {}
    (street / "photos" / "3.png").unlink()
    assert picked(street, pool=3).left_out == {"sent": 3, "NOT_FOUND": 1}


# --- back again ----------------------------------------------------------------------------------


def in_label_studio(folder: Path, corner: np.ndarray) -> dict[str, Any]:
    """A person submits 0.png with the corner as dark, accepts 1.png as it is, and never opens 2.png."""
    tasks = json.loads((folder / "street" / "reviews" / "00001" / "tasks.json").read_text())
    for task in tasks[:2]:
        (prediction,) = task["predictions"]
        assert prediction["model_version"].startswith("toy@")
        task["annotations"] = [{**prediction, "completed_by": 7, "updated_at": "2026-02-03T04:05:06Z"}]
    for result in tasks[0]["annotations"][0]["result"]:
        value = result["value"]
        mask = decode_mask(value["rle"], SIZE)
        value["rle"] = encode_mask(mask | corner if value["brushlabels"] == ["dark"] else mask & ~corner)
    (folder / "answers.json").write_text(json.dumps(tasks))
    return {"format": "label_studio", "uri": str(folder / "answers.json")}


def in_cvat(folder: Path, corner: np.ndarray) -> dict[str, Any]:
    """The same; 2.png is in a job that is not finished, and so not in the export."""
    path = folder / "street" / "reviews" / "00001" / "annotations" / "instances_default.json"
    document = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in document["categories"]}
    images = {one["file_name"]: one["id"] for one in document["images"]}
    assert {one["attributes"]["source"] for one in document["annotations"]} == {"auto"}
    for one in document["annotations"]:
        if one["image_id"] == images["0.png"]:
            mask = coco_mask.decode(one["segmentation"]).astype(bool)
            mask = mask | corner if names[one["category_id"]] == "dark" else mask & ~corner
            code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            one["segmentation"] = {"size": list(SIZE), "counts": code["counts"].decode()}
    document["images"] = [one for one in document["images"] if one["file_name"] != "2.png"]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] != images["2.png"]]
    (folder / "answers.json").write_text(json.dumps(document))
    return {"format": "coco", "uri": str(folder / "answers.json")}


@pytest.mark.parametrize(("name", "tool"), [("label_studio", in_label_studio), ("cvat", in_cvat)])
def test_people_answer_and_their_masks_are_the_collections(
    street: Path, name: str, tool: Callable[[Path, np.ndarray], dict[str, Any]]
) -> None:
    result = picked(street, format=name)
    assert (street / "street" / "reviews" / "00001" / "images.txt").read_text().splitlines() == [
        str(street / "photos" / f"{number}.png") for number in range(3)
    ]
    assert [Path(file).is_file() for file in result.files] == [True] * len(result.files)
    corner = np.zeros(SIZE, bool)
    corner[4:, 3:] = True
    wanted = {f"{number}.png": _label_map(street, f"{number}.png") for number in range(3)}
    wanted["0.png"][corner] = 0
    config = {"collection": {"uri": str(street / "street")}, "labels": tool(street, corner), "by": "ann"}
    taken = edits(EditsConfig.model_validate(config), executor=InProcess())
    assert isinstance(taken, EditsResult)
    assert taken.counts == {"taken": 2, "accepted": 1, "not_in_collection": 0}
    for image_id, ids_ in wanted.items():
        assert np.array_equal(_label_map(street, image_id), ids_), image_id
    now = open_collection(Storage(), str(street / "street"))
    rows = {row["image_id"]: row for file in now.files for row in now.read(file).to_pylist()}
    origins = [rows[f"{number}.png"]["origin"] for number in range(4)]
    assert origins == ["human", "human", "model", "model"]
    assert rows["0.png"]["annotated_by"] == ("7" if name == "label_studio" else "ann")
    second = picked(street, format=name)
    assert second.left_out == {"human": 2, "sent": 1, "near_duplicates": 1}


def test_urls_and_polygons_are_as_told(street: Path) -> None:
    picked(street, count=1, label_studio={"image_prefix": "/data/local-files/?d=photos/"})
    (task,) = json.loads((street / "street/reviews/00001/tasks.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=photos/0.png"
    assert 'value="dark"' in (street / "street/reviews/00001/label_config.xml").read_text()
    picked(street, count=1, format="cvat", coco={"segmentation": "polygons"})
    document = json.loads((street / "street/reviews/00002/annotations/instances_default.json").read_text())
    assert isinstance(document["annotations"][0]["segmentation"], list)


# --- twice, at once, and dead ---------------------------------------------------------------------


_KILLED = """
import sys
from segjobs.config import ReviewConfig
from segjobs.jobs.review.job import review
review(ReviewConfig.model_validate({"collection": {"uri": sys.argv[1]}, "count": 3}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["picked:before", "picked:after", "review:before", "review:after"])
def test_a_review_that_died_is_ended_by_the_same_command(street: Path, point: str) -> None:
    environment = {**os.environ, "SEGJOBS_CRASH_AT": point}
    died = subprocess.run([sys.executable, "-c", _KILLED, str(street / "street")], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    if point == "review:after":  # it was ended, and the next is another one
        assert ids(street, picked(street).review) == ["3.png", "5.png", "6.png"]
        return
    result = picked(street)
    assert (result.review, ids(street, result.review)) == (1, ["0.png", "1.png", "2.png"])
    assert reviews_of(Storage(), str(street / "street")) == ([1], [])
    assert ids(street, picked(street).review) == ["3.png", "5.png", "6.png"]


def test_one_of_other_settings_ends_it_and_then_does_its_own(
    street: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as then:
        then.setattr(job, "_end", dies)
        with pytest.raises(KeyboardInterrupt):
            picked(street)
    result = picked(street, count=2)
    assert (result.review, ids(street, 1), ids(street, 2)) == (2, ["0.png", "1.png", "2.png"], ["3.png", "5.png"])
    assert reviews_of(Storage(), str(street / "street")) == ([1, 2], [])
    assert "review 1 is begun: it is ended as it was begun" in capsys.readouterr().err


def test_two_at_once_send_different_images(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one commits its review between this one's picking and its claim."""
    claim, others = job.claim, [{"count": 2}]

    def hasty(storage: Storage, own: Any) -> bool:
        if others:
            assert picked(street, **others.pop()).review == own.number
        return claim(storage, own)

    monkeypatch.setattr(job, "claim", hasty)
    mine = picked(street)
    assert (mine.review, ids(street, 1)) == (2, ["0.png", "1.png"])
    assert ids(street, mine.review) == ["2.png", "3.png", "5.png"]


def test_what_does_not_fit_is_refused(street: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names a version"):
        picked(street, collection={"uri": f"{street}/street@1"})
    with pytest.raises(ManifestError, match="no collection here"):
        picked(street, collection={"uri": str(tmp_path / "nowhere")})
    for settings, message in (
        ({"strategy": "random", "measure": "margin"}, "has no effect with strategy=random"),
        ({"against": {"uri": "x"}}, "has no effect with strategy=uncertain, only with disagree"),
        ({"coco": {"segmentation": "polygons"}}, "has no effect with format=label_studio"),
        ({"pool": 2}, "less than count"),
    ):
        with pytest.raises(ValidationError, match=message):
            config_of(street, **settings)
    planned = review(config_of(street), dry_run=True)
    assert isinstance(planned, DryRun) and planned.tables[0]["to pick from"] == 10
    assert not (street / "street" / "reviews").exists()
