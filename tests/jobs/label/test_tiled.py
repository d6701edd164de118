"""Huge images in tiles: the masks of the whole image, bit by bit; memory that does not grow; what fails is a row."""

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch

from segjobs.config import LabelConfig, ModelConfig, PostprocessConfig, TilesConfig
from segjobs.errors import ConfigError, ConflictError
from segjobs.jobs.engine.watchdog import Watchdog
from segjobs.jobs.label import decode
from segjobs.jobs.label import tiled as job_tiled
from segjobs.jobs.label.decode import decoding_tasks
from segjobs.jobs.label.predictor import Predictor, Settings
from segjobs.manifest.parts import footer_of, open_run, read_part
from segjobs.manifest.rle import paint
from segjobs.manifest.rows import Uncertainty
from segjobs.models import tiling
from segjobs.models.base import GivesLogits
from segjobs.models.registry import build, resolve
from segjobs.models.uncertainty import pixels_of, summed_up
from tests.in_process import label_in_process
from tests.jobs.label.test_job import save
from tests.jobs.label.test_predictor import SETTINGS, STORAGE, items_of
from tests.toy_model import Blobs, Field5

MODEL = ModelConfig.model_validate({"name": "tests.toy_model:field5"})


def tiled(blend: str = "gaussian", **others: Any) -> Settings:
    tiles = TilesConfig.model_validate({"size": 32, "overlap": 0.5, "blend": blend, **others})
    decoding = replace(SETTINGS.decoding, most_whole_pixels=tiles.most_whole_pixels)
    card = resolve(MODEL, STORAGE)
    return replace(SETTINGS, model=MODEL, card=card, tiles=tiles, decoding=decoding)


def whole() -> Settings:
    return replace(tiled(), tiles=TilesConfig(), decoding=SETTINGS.decoding)


def drawn(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Blots of a few pixels, so that masks have an inside."""
    small = np.random.default_rng(seed).integers(0, 256, (size_hw[0] // 4 + 1, size_hw[1] // 4 + 1, 3), np.uint8)
    return np.kron(small, np.ones((4, 4, 1), np.uint8))[: size_hw[0], : size_hw[1]]


def scene(path: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    options = {"photometric": "rgb", "metadata": None, "tile": (16, 16), "compression": "zlib", **options}
    tifffile.imwrite(path, pixels, **options)
    return pixels


def rows_of(settings: Settings, items: pa.Table) -> list[dict[str, Any]]:
    return Predictor(settings, print).predict(items).to_pylist()


def check_same(row: dict[str, Any], other: dict[str, Any]) -> None:
    assert (row["status"], row["height"], row["width"]) == ("ok", other["height"], other["width"])
    assert row["source"]["sha256"] == other["source"]["sha256"]
    assert [(one["category"], one["segmentation"], one["bbox"], one["area"]) for one in row["segments"]] == [
        (one["category"], one["segmentation"], one["bbox"], one["area"]) for one in other["segments"]
    ]
    assert [one["score"] for one in row["segments"]] == pytest.approx([one["score"] for one in other["segments"]])
    assert row["confidence"] == pytest.approx(other["confidence"])


def test_margin_and_entropy_are_those_of_the_blended_logits(tmp_path: Path) -> None:
    image = scene(tmp_path / "a.tif", drawn(3, (70, 90)))
    (row,) = rows_of(replace(tiled(), uncertainty=True), items_of(tmp_path))
    segmenter = build(MODEL, STORAGE, device="cpu", precision="fp32", threads=1)
    assert isinstance(segmenter, GivesLogits)
    (output,) = segmenter.forward([segmenter.preprocess(image)])
    every = summed_up(*pixels_of(segmenter.logits(output, (70, 90)), 1))
    found = [row[name] for name in Uncertainty._fields]
    assert found == pytest.approx(every, abs=0.1) and found[1] < found[0] and found[3] > found[2]
    (row,) = rows_of(replace(tiled("none"), uncertainty=True), items_of(tmp_path))
    assert row["entropy"] is None


def test_of_a_larger_image_no_more_pixels_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(tmp_path / "a.tif", drawn(3, (170, 290)))
    seen, settings = [], replace(tiled(), uncertainty=True)
    monkeypatch.setattr(
        job_tiled, "summed_up", lambda margin, entropy: seen.append(len(margin)) or summed_up(margin, entropy)
    )
    (row,) = rows_of(settings, items_of(tmp_path))
    monkeypatch.setattr(job_tiled, "_UNSURE_PX", 170 * 290 // 256)
    (other,) = rows_of(settings, items_of(tmp_path))
    assert seen[1] < 0.5 * seen[0]  # each tile begins its own grid: more than a sixteenth pixel each way
    assert [other[name] for name in Uncertainty._fields] == pytest.approx(
        [row[name] for name in Uncertainty._fields], abs=0.05
    )


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    scene(tmp_path / "a.tif", drawn(1, (100, 75)))
    scene(tmp_path / "b.tif", drawn(2, (100, 75)), extratags=[(274, 3, 1, 6, True)])
    scene(tmp_path / "c.tif", drawn(3, (40, 9)), tile=None, rowsperstrip=5)  # one tile across
    save(tmp_path / "d.png", drawn(4, (20, 30)))  # as small as a tile
    save(tmp_path / "e.png", drawn(5, (33, 35)))
    return tmp_path


@pytest.mark.parametrize("blend", ["gaussian", "linear", "none"])
def test_a_network_of_five_pixels_gives_the_whole_images_masks_bit_by_bit(scenes: Path, blend: str) -> None:
    """Half of 32 pixels overlap: two pixels at a tile's edge, which saw padding, are left out."""
    items = items_of(scenes)
    for row, other in zip(rows_of(tiled(blend), items), rows_of(whole(), items), strict=True):
        check_same(row, other)


@pytest.mark.parametrize("blend", ["gaussian", "linear", "none"])
def test_blocks_of_columns_give_the_same_bits(tmp_path: Path, blend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven columns of tiles in blocks of two, and of one: the seam between two blocks is as any other."""
    scene(tmp_path / "a.tif", drawn(1, (70, 130)))
    items = items_of(tmp_path)
    (expected,) = rows_of(whole(), items)
    monkeypatch.setattr(tiling, "_BLOCK_BYTES", 1)
    for least in (2, 1):
        monkeypatch.setattr(tiling, "_LEAST_OF_BLOCK", least)
        (row,) = rows_of(tiled(blend), items)
        check_same(row, expected)


@pytest.mark.parametrize("blend", ["gaussian", "none"])
def test_strips_and_lines_are_tiled_too(tmp_path: Path, blend: str) -> None:
    for name, size_hw in (("a", (1, 2000)), ("b", (3000, 10)), ("c", (33, 32))):
        scene(tmp_path / f"{name}.tif", drawn(1, size_hw))
    items = items_of(tmp_path)
    for row, other in zip(rows_of(tiled(blend), items), rows_of(whole(), items), strict=True):
        check_same(row, other)


def test_with_too_little_overlap_it_does_not(scenes: Path) -> None:
    rows = [rows_of(settings, items_of(scenes))[0] for settings in (tiled(overlap=0), whole())]
    assert rows[0]["segments"] != rows[1]["segments"]


def test_post_processing_that_needs_no_whole_is_that_of_the_whole(scenes: Path) -> None:
    chosen = PostprocessConfig(min_confidence=0.6, score_threshold=0.5, classes=["class 1", "class 2"], top_k=1)
    items = items_of(scenes)
    for settings in (replace(tiled(), postprocess=chosen), replace(tiled("none"), postprocess=chosen)):
        for row, other in zip(
            rows_of(settings, items), rows_of(replace(whole(), postprocess=chosen), items), strict=True
        ):
            check_same(row, other)
    two = MODEL.model_copy(update={"options": {"classes": 2}})
    settings = replace(
        tiled(), model=two, card=resolve(two, STORAGE), postprocess=PostprocessConfig(mask_threshold=0.7)
    )
    other = replace(settings, tiles=TilesConfig(), decoding=SETTINGS.decoding)
    check_same(rows_of(settings, items)[0], rows_of(other, items)[0])


def test_a_step_edge_has_no_seam(tmp_path: Path) -> None:
    """Black above a slope, white below: the boundary of the masks is that of the whole image in every column."""
    y, x = np.mgrid[:150, :200]
    scene(tmp_path / "edge.tif", np.repeat(np.where(y > 40 + x // 3, 255, 0)[..., None], 3, axis=2).astype(np.uint8))
    row, other = (rows_of(settings, items_of(tmp_path))[0] for settings in (tiled(), whole()))
    check_same(row, other)
    ids = paint([(one["category_id"], one["segmentation"]["counts"]) for one in row["segments"]], (150, 200))
    inside = ids[5:145, 5:195]
    steps = np.abs(np.diff(np.argmax(inside != inside[0], axis=0)))
    assert len(np.unique(inside)) > 1 and steps.max() <= 1


def test_objects_that_tiles_cut_are_whole(tmp_path: Path) -> None:
    """Lines through many tiles, a ring around some, specks within what two share, a comb whose teeth part: by runs."""
    pixels = np.zeros((150, 200, 3), np.uint8)
    cv2.line(pixels, (3, 140), (190, 60), (200, 250, 0), 1)
    cv2.line(pixels, (2, 3), (197, 20), (30, 240, 0), 3)
    cv2.circle(pixels, (60, 70), 35, (100, 230, 0), 4)
    cv2.rectangle(pixels, (22, 31), (25, 34), (100, 90, 0), -1)
    for left in (110, 120, 130, 140):
        cv2.rectangle(pixels, (left, 30), (left + 4, 70), (100, 200, 0), -1)
    cv2.rectangle(pixels, (110, 28), (144, 30), (100, 200, 0), -1)
    scene(tmp_path / "a.tif", pixels)
    model = ModelConfig.model_validate({"name": "tests.toy_model:blobs"})
    card = resolve(model, STORAGE)
    for size in (32, 64, 100):
        settings = replace(tiled(size=size, overlap=0.25), model=model, card=card)
        (row,) = rows_of(settings, items_of(tmp_path))
        (other,) = rows_of(replace(settings, tiles=TilesConfig(), decoding=SETTINGS.decoding), items_of(tmp_path))
        check_same(row, other)
        assert len(row["segments"]) == 5
        assert [one["stated_bbox"] for one in row["segments"]] == [one["stated_bbox"] for one in other["segments"]]


def test_objects_over_blocks_of_columns_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((90, 200, 3), np.uint8)
    cv2.line(pixels, (3, 80), (190, 10), (200, 250, 0), 2)
    cv2.line(pixels, (3, 5), (190, 86), (30, 200, 0), 2)  # down to the right: its other tile may come first
    scene(tmp_path / "a.tif", pixels)
    model = ModelConfig.model_validate({"name": "tests.toy_model:blobs"})
    settings = replace(tiled(overlap=0.25), model=model, card=resolve(model, STORAGE))
    (expected,) = rows_of(settings, items_of(tmp_path))
    monkeypatch.setattr(tiling, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(tiling, "_LEAST_OF_BLOCK", 1)
    (row,) = rows_of(settings, items_of(tmp_path))
    check_same(row, expected)


@pytest.mark.parametrize("most", [1, 2, 5, 7])
def test_objects_of_tiles_out_of_memory_are_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A device that holds so many tiles gives what one that holds eight does, each tile once; one that has no room for
    a tile fails its image, and no other."""
    pixels = np.zeros((90, 300, 3), np.uint8)
    cv2.line(pixels, (3, 80), (290, 10), (200, 250, 0), 2)
    cv2.circle(pixels, (150, 45), 30, (100, 230, 0), 4)
    scene(tmp_path / "a.tif", pixels)
    marked = pixels.copy()
    marked[40, 200] = (90, 90, 77)
    scene(tmp_path / "b.tif", marked)
    scene(tmp_path / "c.tif", pixels[:, ::-1])
    model = ModelConfig.model_validate({"name": "tests.toy_model:blobs"})
    settings = replace(tiled(overlap=0.25), model=model, card=resolve(model, STORAGE), batch_size=8)
    items, forward = items_of(tmp_path), Blobs.forward
    seen: list[bytes] = []
    asked: list[int] = []
    room_for_marked = True

    def short(self: Blobs, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        asked.append(len(batch))
        if len(batch) > room or (not room_for_marked and any((one[2] == 77).any() for one in batch)):
            raise torch.OutOfMemoryError("no room")
        seen.extend(one.numpy().tobytes() for one in batch)
        return forward(self, batch)

    monkeypatch.setattr(Blobs, "forward", short)
    room = 8
    expected = rows_of(settings, items)
    assert max(asked) == 8 and all(len(row["segments"]) > 1 for row in expected)
    tiles = sorted(seen)
    seen.clear()
    asked.clear()
    room = most
    for row, other in zip(rows_of(settings, items), expected, strict=True):
        check_same(row, other)
    assert max(asked) == 8 and sorted(seen) == tiles
    room_for_marked = False
    first, failed, last = rows_of(settings, items)
    check_same(first, expected[0])
    check_same(last, expected[2])
    assert (failed["status"], failed["error"]["code"], failed["segments"]) == ("failed", "GPU_OOM", None)


def test_huge_files_are_read_at_their_turn_and_small_images_in_them_labelled_whole(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(scenes)
    expected = rows_of(tiled(), items)
    monkeypatch.setattr(decode, "LARGE_BYTES", 10)
    for row, other in zip(rows_of(tiled(), items), expected, strict=True):
        check_same(row, other)


def test_tasks_leave_huge_images_to_the_actor(scenes: Path) -> None:
    items = items_of(scenes)
    block = decoding_tasks(tiled().decoding, print).work(items)
    assert block["huge"].to_pylist() == [True, True, False, False, True]
    assert [pixels is None for pixels in block["pixels"].to_pylist()] == [True, True, False, False, True]
    for row, other in zip(rows_of(tiled(), block), rows_of(tiled(), items), strict=True):
        check_same(row, other)


def test_above_pixels_says_which_images_are_tiled(scenes: Path) -> None:
    settings = tiled(above_pixels=33 * 35)
    assert decoding_tasks(settings.decoding, print).work(items_of(scenes))["huge"].to_pylist() == [
        *(True, True, False, False, False)
    ]


def test_what_fails_is_a_row_beside_the_others(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (scenes / "b.tif").read_bytes()
    items = items_of(scenes)
    (scenes / "b.tif").write_bytes(data[:-700])
    cut = items_of(scenes)
    rows = rows_of(tiled(), cut)
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "TRUNCATED", None, None, None]
    monkeypatch.setattr(decode, "LARGE_BYTES", 10)
    rows = rows_of(tiled(), items)
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "CHANGED", None, None, None]
    (scenes / "a.tif").unlink()
    assert rows_of(tiled(), items)[0]["error"]["code"] == "NOT_FOUND"
    small = replace(tiled(), decoding=replace(tiled().decoding, max_pixels=35 * 33 - 1))
    rows = {row["image_id"]: row["error"] for row in rows_of(small, cut)}
    assert rows["e.png"]["code"] == "TOO_LARGE"


def test_a_damaged_tile_fails_its_image_by_name(tmp_path: Path) -> None:
    """Deflate, LZW and JPEG inside the file, and a strip that lies behind its end."""
    for name, options in (("a", {}), ("b", {"compression": "lzw"}), ("c", {"compression": "jpeg"}), ("d", {})):
        scene(tmp_path / f"{name}.tif", drawn(1, (100, 75)), **options)
        data = bytearray((tmp_path / f"{name}.tif").read_bytes())
        middle = len(data) // 2
        if name != "d":
            data[middle : middle + 2000] = b"\xff" * 2000
            (tmp_path / f"{name}.tif").write_bytes(data)
    for row in rows_of(tiled(), items_of(tmp_path)):
        whole_row = row["image_id"] == "d.tif"
        assert row["status"] == ("ok" if whole_row else "failed"), row["image_id"]
        if not whole_row:
            assert row["error"]["code"] in ("UNREADABLE", "TRUNCATED") and "TIFF" in row["error"]["message"]


def test_bands_and_ranges_are_labelled_in_tiles_as_whole(tmp_path: Path) -> None:
    """Of five bands, 16 bits; a file of fewer bands is a row, and they are part of the run."""
    (tmp_path / "in").mkdir()
    pixels = np.dstack([drawn(seed, (70, 90)) for seed in (1, 2)]).astype(np.uint16)[..., :5] * 12
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    scene(tmp_path / "in" / "a.tif", pixels, **options)
    scene(tmp_path / "in" / "b.tif", drawn(3, (70, 90)))
    asked = {"uri": str(tmp_path / "in"), "bands": [5, 3, 2], "range": [0, 3060]}
    given = {"input": asked, "model": {"name": MODEL.name}, "max_failed_fraction": 1}
    rows = []
    for name, tiles in (("whole", {}), ("tiled", {"size": 32, "overlap": 0.5})):
        output = {"uri": str(tmp_path / name)}
        label_in_process(LabelConfig.model_validate({**given, "tiles": tiles, "output": output}))
        run = open_run(STORAGE, output["uri"])
        assert footer_of(run).pixels == {"bands": [5, 3, 2], "range": [0, 3060]}
        rows.append([row for part in run.parts for row in read_part(STORAGE, run, part).to_pylist()])
    for row, other in zip(*[[one for one in some if one["image_id"] == "a.tif"] for some in rows], strict=True):
        check_same(row, other)
    errors = [one["error"] for some in rows for one in some if one["image_id"] == "b.tif"]
    assert (
        errors
        == [{"code": "UNSUPPORTED_MODE", "message": "3 bands, and input.bands asks for band 5 (counted from 1)"}] * 2
    )
    plain = tmp_path / "plain"
    plain.mkdir()
    scene(plain / "a.tif", np.rint(pixels[..., [4, 2, 1]] / 12).astype(np.uint8))
    (row,) = rows_of(whole(), items_of(plain))
    assert [one["segmentation"] for one in row["segments"]] == [
        one["segmentation"] for one in next(one for one in rows[0] if one["image_id"] == "a.tif")["segments"]
    ]
    with pytest.raises(ConflictError, match=r"input.bands"):
        label_in_process(
            LabelConfig.model_validate(
                {**given, "input": {**asked, "bands": [1]}, "output": {"uri": str(tmp_path / "whole")}}
            )
        )


def test_a_tile_of_nonsense_fails_its_image(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Field5, "logits", lambda self, output, size_hw: output[:, 1:])
    row = rows_of(tiled(), items_of(scenes))[0]
    assert row["error"] == {
        "code": "MODEL_ERROR",
        "message": "logits gave torch.float32 (4, 31, 32), expected floats (4, 32, 32)",
    }


class Counting(Watchdog):
    """Counts how often an image was held."""

    times = 0

    @contextmanager
    def holding(self, names: Sequence[str]) -> Iterator[None]:
        Counting.times += list(names) == ["a.tif"]
        with super().holding(names):
            yield


def test_the_watchdog_counts_by_tile(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segjobs.jobs.label.predictor.Watchdog", Counting)
    rows_of(replace(tiled(), batch_size=1), items_of(scenes).slice(0, 1))
    tiles = 6 * 4
    assert Counting.times > 2 * tiles  # the network, and what is made of its output


def test_memory_does_not_grow_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene sixteen times as high, or as wide: what is held at once is that of one row of a block's tiles."""
    monkeypatch.setattr(tiling, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(tiling, "_LEAST_OF_BLOCK", 2)
    peaks, settings = [], tiled(size=256, overlap=0)
    for name, size_hw in (("small", (1024, 512)), ("high", (16 * 1024, 512)), ("wide", (1024, 8 * 1024))):
        (tmp_path / name).mkdir()
        scene(tmp_path / name / "a.tif", np.zeros((*size_hw, 3), np.uint8), tile=(256, 256))
        predictor, items = Predictor(settings, print), items_of(tmp_path / name)
        tracemalloc.start()
        try:
            assert predictor.predict(items)["status"].to_pylist() == ["ok"]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert max(peaks[1:]) < 1.3 * peaks[0]
    assert max(peaks) < 16 * 1024 * 512  # a byte a pixel; the image has three, its label map two, the logits sixteen


class Died(BaseException):
    """The end of a process at a crash point; a true SIGKILL there: tests/jobs/engine/test_crash_points.py."""


@pytest.mark.parametrize("blend", ["gaussian", "none"])
def test_dead_as_it_publishes_and_run_again_it_is_the_same_to_the_byte(
    scenes: Path, blend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scene a part; the run dies before a part has its name, or right behind it, or before run.json."""
    tiles = {"size": 32, "overlap": 0.5, "blend": blend}
    given = {"input": {"uri": str(scenes)}, "model": {"name": MODEL.name}, "tiles": tiles, "shard": {"images": 1}}

    def label(name: str) -> int:
        output = {"uri": str(scenes.parent / f"{scenes.name}-{name}")}
        return label_in_process(LabelConfig.model_validate({**given, "output": output})).already_done

    def published(name: str) -> dict[str, bytes]:
        folder = scenes.parent / f"{scenes.name}-{name}" / "parts"
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".parquet"}

    assert label("unbroken") == 0
    expected = published("unbroken")
    assert len(expected) == 5
    for point, standing in (("part-1:before", 1), ("part-1:after", 2), ("run:before", 5)):

        def die(here: str, point: str = point) -> None:
            if here == point:
                raise Died

        with monkeypatch.context() as dying:
            dying.setattr("segjobs.manifest.parts.crash_at", die)
            with pytest.raises(Died):
                label(point)
        assert len(published(point)) == standing and published(point).items() <= expected.items()
        assert label(point) == standing
        assert published(point) == expected


def test_what_tiles_do_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    save(tmp_path / "a.png", drawn(1, (20, 20)))
    given = {"input": {"uri": str(tmp_path)}, "output": {"uri": str(tmp_path / "out")}, "tiles": {"size": 32}}
    post = {"min_area_px": 9, "fill_holes": True}
    with pytest.raises(ConfigError) as caught:
        label_in_process(LabelConfig.model_validate({**given, "model": {"name": MODEL.name}, "postprocess": post}))
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "postprocess.min_area_px",
        "postprocess.fill_holes",
    ]
    whole_tiles = {**given, "tiles": {"size": 32, "overlap": 0}}
    with pytest.raises(ConfigError, match=r"tiles.overlap: objects are merged by the pixels that two tiles see"):
        label_in_process(LabelConfig.model_validate({**whole_tiles, "model": {"name": "tests.toy_model:blobs"}}))
    with pytest.raises(
        ConfigError, match=r"tiles.blend=gaussian: toy@[0-9a-f]{12} has no method logits .*tiles.blend=none"
    ):
        label_in_process(LabelConfig.model_validate({**given, "model": {"name": "tests.toy_model:build"}}))


def test_tiles_are_part_of_the_run_where_there_are_any(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", drawn(1, (40, 40)))
    given = {
        "input": {"uri": str(tmp_path / "in")},
        "output": {"uri": str(tmp_path / "out")},
        "model": {"name": MODEL.name},
    }
    label_in_process(LabelConfig.model_validate(given))
    assert not [key for key in open_run(STORAGE, str(tmp_path / "out")).info.identity if "tiles" in key]
    with pytest.raises(ConflictError, match=r"tiles.size"):
        label_in_process(LabelConfig.model_validate({**given, "tiles": {"size": 32}}))
    other = {**given, "tiles": {"size": 32}, "output": {"uri": str(tmp_path / "tiled")}}
    label_in_process(LabelConfig.model_validate(other))
    assert open_run(STORAGE, str(tmp_path / "tiled")).info.identity["tiles.size"] == 32
