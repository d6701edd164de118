"""The label job on Ray: every image a row, exact masks, every failure its code, and nothing done twice.

The model is ``tests/toy_model.py``, whose answer to every drawn image is known to the pixel.
"""

import csv
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segjobs.config import LabelConfig
from segjobs.errors import ConfigError, ConflictError, ExitCode, SegjobsError
from segjobs.jobs.engine.layout import Resources, Share
from segjobs.jobs.label import job
from segjobs.jobs.label.job import label
from tests.in_process import label_in_process
from tests.toy_model import NOT_FINITE, expected_ids

TOY = "tests.toy_model:build"


def config_of(images: Path | str, output: Path | str, **settings: Any) -> LabelConfig:
    model = {"name": TOY, **settings.pop("model", {})}
    compute = {"actors": 1, **settings.pop("compute", {})}
    given = {"uri": str(images), **settings.pop("input", {})}
    return LabelConfig.model_validate(
        {"input": given, "output": {"uri": str(output)}, "model": model, "compute": compute, **settings}
    )


def picture(number: int, size_hw: tuple[int, int] = (12, 16)) -> np.ndarray:
    """uint8 (H, W, 3): red and green in blocks and noise, the number in the first pixel's blue."""
    random = np.random.default_rng(number)
    image = random.integers(0, 256, (*size_hw, 3), np.uint8)
    image[: size_hw[0] // 2, : size_hw[1] // 2, 0] = 200
    image[0, 0, 2] = number % NOT_FINITE
    return image


def save(path: Path, image: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return image


def rows_of(output: Path) -> list[dict[str, Any]]:
    """The rows as any reader of Parquet gets them: run.json names the parts."""
    names = [part["name"] for part in json.loads((output / "run.json").read_text())["parts"]]
    return [row for name in names for row in pq.read_table(output / "parts" / name).to_pylist()]


def parts_of(output: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (output / "parts").iterdir()}


def files_below(folder: Path) -> dict[str, tuple[str, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in found}


def check_masks(row: dict[str, Any], image: np.ndarray) -> None:
    """The row's segments, decoded by pycocotools, are the toy's classes of this image."""
    ids = expected_ids(image)
    assert (row["status"], row["error"], row["height"], row["width"]) == ("ok", None, *ids.shape)
    assert [segment["category_id"] for segment in row["segments"]] == np.unique(ids).tolist()
    for segment in row["segments"]:
        mask = coco_mask.decode(segment["segmentation"])
        assert np.array_equal(mask == 1, ids == segment["category_id"])
        assert segment["area"] == int(mask.sum())
        assert segment["bbox"] == coco_mask.toBbox(segment["segmentation"]).tolist()
        assert segment["category"] == ("dark", "mid", "bright")[segment["category_id"]]
        assert segment["score"] == pytest.approx(image[..., 1][mask == 1].mean() / 255, rel=1e-5)
    assert row["confidence"] == pytest.approx(image[..., 1].mean() / 255, rel=1e-5)


NAMES = ["plain.png", "a/b/c d.png", "ünï ∆ 漢.png", "hash#?%25+&=.png", "new\nline.png", "quote'\".png", "UPPER.PNG"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder of 20 images with names and formats of all kinds, and their pixels by image_id."""
    root = tmp_path_factory.mktemp("drawn")
    images = {name: save(root / name, picture(n)) for n, name in enumerate(NAMES)}
    for n in range(10):
        images[f"more/{n}.png"] = save(root / f"more/{n}.png", picture(20 + n, (5 + n % 3, 9)))
    images["deep.tif"] = save(root / "deep.tif", picture(40, (3, 70)))
    stored = save(root / "turned.png", picture(41, (6, 10)), exif=_orientation(6))
    images["turned.png"] = np.ascontiguousarray(np.rot90(stored, -1))  # 6: show it turned clockwise
    stored = save(root / "mirrored.tiff", picture(42, (6, 10)))
    images["mirrored.tiff"] = stored
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"no image")
    return root, images


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture(scope="module")
def labelled(
    ray_session: None, drawn: tuple[Path, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The drawn folder labelled, decoding in the actor, in batches of 5."""
    output = tmp_path_factory.mktemp("labelled") / "run"
    settings = {"shard": {"images": 6}, "compute": {"decode": "actor", "batch_size": 5}}
    assert label(config_of(drawn[0], output, **settings)).exit_code == ExitCode.DONE
    return output


def test_one_sorted_row_per_image_with_exact_masks(labelled: Path, drawn: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, images = drawn
    rows = rows_of(labelled)
    assert [row["image_id"] for row in rows] == sorted(images)
    for row in rows:
        check_masks(row, images[row["image_id"]])
        path = root / row["image_id"]
        assert row["uri"] == str(path)
        source = row["source"]
        assert (source["size"], source["etag"]) == (path.stat().st_size, None)
        assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert int(source["mtime"].timestamp() * 1e6) == pytest.approx(path.stat().st_mtime_ns // 1000, abs=2)
    turned = next(row for row in rows if row["image_id"] == "turned.png")
    assert (turned["width"], turned["height"]) == (6, 10)


def test_the_manifest_names_its_run_and_its_model(labelled: Path) -> None:
    info = json.loads((labelled / "run.json").read_text())
    assert info["counts"] == {"images": 20, "ok": 20, "failed": 0, "segments": sum(_segment_counts(labelled))}
    assert {part["name"]: part["sha256"] for part in info["parts"]} == parts_of(labelled)
    assert [part["rows"] for part in info["parts"]] == [6, 6, 6, 2]
    footers = [
        json.loads(pq.read_schema(labelled / "parts" / part["name"]).metadata[b"segjobs"]) for part in info["parts"]
    ]
    assert all(footer == info["footer"] for footer in footers)
    footer = info["footer"]
    assert (footer["task"], footer["schema_version"]) == ("semantic", 1)
    assert [category["name"] for category in footer["categories"]] == ["dark", "mid", "bright"]
    assert {(row["run_id"], row["model"]) for row in rows_of(labelled)} == {(info["run_id"], footer["model"]["label"])}
    assert footer["model"]["label"].startswith("toy@")
    assert info["config"]["model"]["name"] == TOY


def _segment_counts(output: Path) -> list[int]:
    return [len(row["segments"]) for row in rows_of(output)]


def test_neither_ray_nor_the_place_of_decoding_nor_the_batch_size_changes_a_byte(
    labelled: Path, drawn: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    in_tasks = config_of(drawn[0], tmp_path / "tasks", shard={"images": 6}, compute={"decode": "task"})
    assert label(in_tasks).exit_code == ExitCode.DONE
    one_by_one = config_of(drawn[0], tmp_path / "here", shard={"images": 6}, compute={"batch_size": 1})
    assert label_in_process(one_by_one).exit_code == ExitCode.DONE
    assert parts_of(tmp_path / "tasks") == parts_of(tmp_path / "here") == parts_of(labelled)


def test_a_second_run_does_nothing_and_changes_nothing(
    labelled: Path, drawn: tuple[Path, dict[str, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(labelled)
    again = label(config_of(drawn[0], labelled))
    assert files_below(labelled) == before
    out, err = capsys.readouterr()
    assert out == "", "whoever calls it has its own standard output"
    assert "nothing to do: run " in err
    assert again.exit_code == ExitCode.DONE
    assert {key: json.loads(again.text())[key] for key in ("images", "ok", "already_done")} == {
        "images": 20,
        "ok": 20,
        "already_done": 20,
    }


def test_other_inputs_or_settings_under_the_same_output_say_what_differs(
    labelled: Path, drawn: tuple[Path, dict[str, np.ndarray]]
) -> None:
    root, _ = drawn
    before = files_below(labelled)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": {"options": {"seed": 1}}}, r'model was "toy@\w{12}", is "toy@\w{12}"\. Choose a new output\.uri'),
        ({"postprocess": {"min_area_px": 3}}, r"postprocess\.min_area_px was 0, is 3\. Choose"),
        ({"decode": {"max_pixels": 7}}, r"decode\.max_pixels was 100000000, is 7\. Choose"),
        ({"compute": {"precision": "bf16"}}, r'precision was "fp32", is "bf16"'),
        ({"input": {"limit": 19}}, r"the input differs: 1 image\(s\) gone \(such as 'ünï ∆ 漢\.png'\)"),
    ]
    for settings, message in cases:
        with pytest.raises(ConflictError, match=message):
            label(config_of(root, labelled, **settings))
    times = os.stat(root / "plain.png")
    os.utime(root / "plain.png", ns=(0, 0))
    try:
        with pytest.raises(ConflictError, match=r"the input differs: 1 image\(s\) changed \(such as 'plain\.png'\)"):
            label(config_of(root, labelled))
    finally:
        os.utime(root / "plain.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files_below(labelled) == before


def test_a_dry_run_writes_nothing(
    labelled: Path, drawn: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(labelled.parent)
    settings = {"shard": {"images": 6}, "compute": {"actors": "1-2"}}
    planned = label(config_of(drawn[0], tmp_path / "none", **settings), dry_run=True)
    assert planned.exit_code == ExitCode.DONE
    assert not (tmp_path / "none").exists()
    shown = dict(line.split(":", 1) for line in planned.text().splitlines())
    assert {key: value.strip() for key, value in shown.items() if key in ("images", "shards", "already done")} == {
        "images": "20",
        "shards": "4",
        "already done": "0 shards, 0 images",
    }
    size = sum((drawn[0] / name).stat().st_size for name in drawn[1])
    assert (shown["bytes"].strip(), shown["device"].strip()) == (
        str(size),
        "1-2 actor(s) of 1 CPU thread(s), decoding in the actors",
    )
    assert "already done: 4 shards, 20 images\n" in label(config_of(drawn[0], labelled), dry_run=True).text()
    assert files_below(labelled.parent) == before


def test_postprocessing_reaches_the_manifest_and_the_input_can_be_chosen(
    drawn: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    root, images = drawn
    settings = {
        "postprocess": {"classes": ["bright", "dark"], "min_confidence": 0.5, "top_k": 1},
        "input": {"exclude": ["3.png", "more/4.*"], "limit": 5},
    }
    assert label_in_process(config_of(f"{root}/more/*.png", tmp_path / "run", **settings)).exit_code == ExitCode.DONE
    rows = rows_of(tmp_path / "run")
    assert [row["image_id"] for row in rows] == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    for row in rows:
        image = images[f"more/{row['image_id']}"]
        sure = image[..., 1] / np.float32(255) >= 0.5
        masks = {n: sure & (expected_ids(image) == n) for n in (0, 2)}
        scores = {n: image[..., 1][mask].mean() for n, mask in masks.items()}
        best = max(scores, key=lambda n: scores[n])
        (segment,) = row["segments"]
        assert segment["category_id"] == best
        assert np.array_equal(coco_mask.decode(segment["segmentation"]) == 1, masks[best])


def test_no_images(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no image")
    with pytest.raises(
        ConfigError, match=r"in: no image is found \(left out: 1 that fit no input\.include \(1 \*\.txt"
    ):
        label(config_of(tmp_path / "in", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert label(config_of(tmp_path / "in", tmp_path / "out", fail_on_empty=False)).images == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["images"] == 0


def test_what_cannot_run_says_so_before_a_ray_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*_: object) -> Resources:
        raise AssertionError("a Ray is asked for")

    monkeypatch.setattr(job, "connect", no_ray)
    monkeypatch.setattr(job, "expected", lambda *_: Resources((Share(2.0),)))
    save(tmp_path / "in" / "a.png", picture(1))
    model_dir = {"weights": str(tmp_path / "in")}
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"model": {"name": "unet", "weights": "none", "options": {"encoder": "resnet19"}}},
            "'resnet19' is no encoder",
        ),
        ({"model": {"name": "unet", "weights": "nope.pth"}}, r"nope\.pth: no such weights file"),
        ({"model": {"name": "unet", **model_dir}}, r"no model\.json there"),
        ({"model": {"name": "unet", "weights": "default"}}, "there are no published weights for unet"),
        ({"model": {"name": "fcn_resnet50", "weights": "torchvision:COCO"}}, "it has COCO_WITH_VOC_LABELS_V1"),
        ({"compute": {"actors": 3}}, "the cluster has 2: lower compute.actors"),
        ({"input": {"uri": str(tmp_path / "photos")}}, "photos"),
        ({"model": {"name": "tests.toy_model:bild"}}, r"'tests\.toy_model:bild' cannot be imported: .*'bild'"),
        ({"model": {"name": "no_such:build"}}, r"'no_such:build' cannot be imported: No module named 'no_such'"),
        ({"model": {"name": "unett"}}, r"model\.name 'unett' is no model; did you mean 'unet'"),
        ({"postprocess": {"classes": ["brigth"]}}, r"'brigth' is no class of toy@\w+; did you mean 'bright'\?"),
    ]
    for settings, message in cases:
        with pytest.raises(SegjobsError, match=message):
            label(config_of(tmp_path / "in", tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()
    planned = label(config_of(tmp_path / "in", tmp_path / "out"), dry_run=True)
    assert "device:       1 actor(s) of 1 CPU thread(s)" in planned.text()


def broken_files(root: Path) -> Iterator[tuple[str, str]]:
    """Ten files that fail, each in its own way: (name, code)."""
    (root / "empty.jpg").write_bytes(b"")
    yield "empty.jpg", "UNREADABLE"
    (root / "text.jpg").write_text("no image at all")
    yield "text.jpg", "UNREADABLE"
    (root / "folder.jpg").mkdir()
    yield "folder.jpg", "UNREADABLE"
    save(root / "cut.jpg", picture(1, (64, 64)))
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:-900])
    yield "cut.jpg", "TRUNCATED"
    save(root / "cut.png", picture(2, (64, 64)))
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:-900])
    yield "cut.png", "TRUNCATED"
    (root / "vast.png").write_bytes(_png_header(100_000, 100_000))
    yield "vast.png", "TOO_LARGE"
    Image.fromarray(np.ones((4, 4), np.float32)).save(root / "float.tif")
    yield "float.tif", "UNSUPPORTED_MODE"
    yield "gone.png", "NOT_FOUND"
    image = picture(3)
    image[0, 0, 2] = NOT_FINITE
    save(root / "nan.png", image)
    yield "nan.png", "NON_FINITE"
    save(root / "z-changed.png", picture(4))  # the toy's actor appends to it before it reads
    yield "z-changed.png", "CHANGED"


def _png_header(width: int, height: int) -> bytes:
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 99)]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_ten_kinds_of_broken_files_among_two_hundred(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    images = {f"{n:03d}.png": save(root / f"{n:03d}.png", picture(n, (6, 8 + n % 3))) for n in range(190)}
    codes = dict(broken_files(root))
    planned = (0, (root / "z-changed.png").stat().st_mtime_ns)
    with (tmp_path / "in" / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image"], *([name] for name in [*codes, *images])])
    config = config_of(
        root / "list.csv",
        tmp_path / "out",
        input={"column": "image"},
        model={"options": {"spoil": str(root / "z-changed.png")}},
        shard={"images": 10},
        decode={"max_pixels": 1_000_000},
        max_failed_fraction=0.05,
    )
    result = label_in_process(config)
    assert result.exit_code == ExitCode.DONE, "10 of 200 are within the budget of 5%"
    rows = rows_of(tmp_path / "out")
    assert [row["image_id"] for row in rows] == sorted([*images, *codes])
    assert {row["image_id"]: row["error"]["code"] for row in rows if row["status"] == "failed"} == codes
    for row in rows:
        if row["status"] == "ok":
            check_masks(row, images[row["image_id"]])
        else:
            assert row["error"]["message"]
            assert row["segments"] is row["confidence"] is row["width"] is None
    unread = {row["image_id"] for row in rows if row["source"]["sha256"] is None}
    assert unread == {"gone.png", "folder.jpg", "z-changed.png"}

    counts = {"CHANGED": 1, "NON_FINITE": 1, "NOT_FOUND": 1, "TOO_LARGE": 1, "TRUNCATED": 2}
    counts |= {"UNREADABLE": 3, "UNSUPPORTED_MODE": 1}
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["failures"] == counts
    assert (info["counts"]["images"], info["counts"]["ok"], info["counts"]["failed"]) == (200, 190, 10)
    err = capsys.readouterr().err
    assert json.loads(result.text())["failures"] == counts
    assert "  TRUNCATED 2: 'cut.jpg': " in err
    assert "  NON_FINITE 1: 'nan.png': toy gave NaN" in err

    changed = root / "z-changed.png"  # as it was planned, so that the same command finds its run
    changed.write_bytes(changed.read_bytes().removesuffix(b"more"))
    os.utime(changed, ns=planned)
    stricter = config.model_copy(update={"max_failed_fraction": 0.049})
    assert label_in_process(stricter).exit_code == ExitCode.TOO_MANY_FAILED
    assert "more than max_failed_fraction=0.049 of the images failed" in capsys.readouterr().err


@pytest.mark.slow
def test_images_that_kill_their_workers_are_rows_and_the_rest_is_as_ever(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{n}.png": save(tmp_path / "in" / f"{n}.png", picture(n, (6, 8))) for n in range(4)}
    settings = {
        "shard": {"images": 3},
        "compute": {"actors": 1, "batch_size": 1, "batch_deadline_s": 4},
        "model": {"options": {"poison": {"1": "hang", "2": "crash"}}},
        "max_failed_fraction": 0.5,
    }
    assert label(config_of(tmp_path / "in", tmp_path / "out", **settings)).exit_code == ExitCode.DONE
    rows = rows_of(tmp_path / "out")
    assert [row["image_id"] for row in rows] == list(images)
    assert {row["image_id"]: row["error"] for row in rows if row["error"]} == {
        "1.png": {
            "code": "TIMEOUT",
            "message": "its worker came to no end within compute.batch_deadline_s, twice while alone in a process",
        },
        "2.png": {"code": "CRASHED", "message": "its worker died of SIGSEGV, twice while alone in a process"},
    }
    for number in (0, 3):
        check_masks(rows[number], images[f"{number}.png"])
    told = capsys.readouterr().err
    assert told.count("hung for longer than compute.batch_deadline_s on ['1.png']: it is ended") == 3
    assert "labelling of shard 0: 3 workers died on it; its images are tried in child processes" in told
