"""A model on a device of this process: planned items in, rows out, to the pixel; in the order of the plan; no Ray."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segjobs.config import InputConfig, ModelConfig, PostprocessConfig, ShardConfig
from segjobs.errors import ConfigError, ItemError, WeightsError
from segjobs.jobs.engine.shards import TIMES_SCHEMA
from segjobs.jobs.engine.watchdog import Watchdog
from segjobs.jobs.label.decode import Decoding, decoding_tasks
from segjobs.jobs.label.predictor import Predictor, Settings
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rle import paint
from segjobs.manifest.rows import Author, Uncertainty
from segjobs.models.preparing import preparing_of
from segjobs.models.registry import build, resolve
from segjobs.models.uncertainty import of_logits
from segjobs.sources.images import list_images
from segjobs.storage import FileInfo, Storage
from tests.jobs.label.test_job import picture, save
from tests.toy_model import ANSWERS, NOT_FINITE, expected_ids

STORAGE = Storage()
MODEL = ModelConfig.model_validate({"name": "tests.toy_model:build"})
SETTINGS = Settings(
    decoding=Decoding(STORAGE, max_pixels=10**6, threads=2, deadline_s=600),
    author=Author("run", "toy"),
    model=MODEL,
    card=resolve(MODEL, STORAGE),
    postprocess=PostprocessConfig(),
    batch_size=2,
    precision="fp32",
    device="cpu",
    threads=1,
)


def items_of(folder: Path) -> pa.Table:
    """The images of a folder as one shard."""
    items = make_plan(list_images(STORAGE, InputConfig(uri=str(folder))), ShardConfig(images=1000)).items
    return items.append_column("shard_key", pa.array(["key"] * items.num_rows))


def check_masks(row: dict[str, Any], image: np.ndarray) -> None:
    segments = [(segment["category_id"], segment["segmentation"]["counts"]) for segment in row["segments"]]
    assert np.array_equal(paint(segments, (row["height"], row["width"])), expected_ids(image))


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, np.ndarray]:
    """Images of two sizes by turns, in batches of two: one of each size is left over."""
    sizes = [(12, 16), (9, 7)]
    return {f"{n}.png": save(tmp_path / f"{n}.png", picture(n, sizes[n % 2])) for n in range(6)}


def test_every_image_its_masks_in_the_order_of_the_plan(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    items = items_of(tmp_path)
    rows = Predictor(SETTINGS, print).predict(items)
    assert rows["image_id"].to_pylist() == sorted(photos)
    assert rows["shard_key"].to_pylist() == ["key"] * 6
    assert set(TIMES_SCHEMA.names) < set(rows.column_names)
    for row in rows.to_pylist():
        assert (row["status"], row["run_id"], row["model"]) == ("ok", "run", "toy")
        check_masks(row, photos[row["image_id"]])


def test_margin_and_entropy_where_they_are_asked_for(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    model = ModelConfig.model_validate({"name": "lraspp_mobilenet_v3_large", "weights": "none", "resize": "64x96"})
    plain = replace(SETTINGS, model=model, card=resolve(model, STORAGE))
    items = items_of(tmp_path)
    without = Predictor(plain, print).predict(items).to_pylist()
    rows = Predictor(replace(plain, uncertainty=True), print).predict(items).to_pylist()
    names = Uncertainty._fields
    assert {row[name] for row in without for name in names} == {None}
    segmenter = build(model, STORAGE, device="cpu", precision="fp32", threads=1)
    for row, other in zip(rows, without, strict=True):
        assert (row["segments"], row["confidence"]) == (other["segments"], other["confidence"])
        image = photos[row["image_id"]]
        (logits,) = segmenter.forward([segmenter.preprocess(image)])
        assert [row[name] for name in names] == pytest.approx(of_logits(logits), abs=1e-3)
    pixels = Predictor(replace(plain, uncertainty=True, postprocess=PostprocessConfig(min_area_px=2)), print)
    assert pixels._by_runs is None, "the way by label maps"
    assert [[row[name] for name in names] for row in pixels.predict(items).to_pylist()] == [
        [row[name] for name in names] for row in rows
    ]
    toy = Predictor(replace(SETTINGS, uncertainty=True), print).predict(items).to_pylist()
    assert {row["entropy"] for row in toy} == {None}, "a model of one's own without logits"


def test_each_row_is_shown_once_as_it_is_made(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    shown: list[tuple[str, str]] = []
    Predictor(SETTINGS, print).predict(items_of(tmp_path), lambda row: shown.append((row["image_id"], row["status"])))
    assert sorted(shown) == [("0.png", "failed"), *((f"{n}.png", "ok") for n in range(1, 6))]


def test_what_fails_is_a_row_beside_the_others(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    not_finite = picture(1, (9, 7))
    not_finite[0, 0, 2] = NOT_FINITE
    save(tmp_path / "1.png", not_finite)
    items = items_of(tmp_path)
    (tmp_path / "2.png").unlink()
    rows = {row["image_id"]: row for row in Predictor(SETTINGS, print).predict(items).to_pylist()}
    codes = {name: row["error"] and row["error"]["code"] for name, row in rows.items()}
    assert codes == {
        "0.png": "UNREADABLE",
        "1.png": "NON_FINITE",
        "2.png": "NOT_FOUND",
        **dict.fromkeys(("3.png", "4.png", "5.png")),
    }
    for name in ("3.png", "4.png", "5.png"):
        check_masks(rows[name], photos[name])


def test_an_answer_that_can_be_no_mask_fails_its_image_alone(tmp_path: Path) -> None:
    """Batches of two: the image beside the bad one has its masks."""
    answers = ["raise", *ANSWERS]
    photos = {f"{n:02d}.png": save(tmp_path / f"{n:02d}.png", picture(n, (9, 7))) for n in range(2 * len(answers))}
    model = MODEL.model_copy(update={"options": {"poison": {2 * n: what for n, what in enumerate(answers)}}})
    rows = Predictor(replace(SETTINGS, model=model), print).predict(items_of(tmp_path)).to_pylist()
    for row in rows[1::2]:
        check_masks(row, photos[row["image_id"]])
    assert {row["error"]["code"] for row in rows[::2]} == {"MODEL_ERROR"}
    told = {what: row["error"]["message"] for what, row in zip(answers, rows[::2], strict=True)}
    assert told == {
        "raise": "ValueError: the toy does not like 0",
        "transposed": "ids is uint16 (7, 9), expected integers (9, 7) as the image has it",
        "smaller": "ids is uint16 (8, 7), expected integers (9, 7) as the image has it",
        "halves": "ids is float32 (9, 7), expected integers (9, 7) as the image has it",
        "another class": told["another class"],
        "no number": "confidence holds nan to nan, expected probabilities in [0, 1]",
        "a list": "postprocess gave a list, expected a LabelMap of a semantic model",
    }
    assert told["another class"].endswith("and the model has 3 classes (0 to 2; 65535 for none)")


def test_a_model_that_fails_at_every_image_stops_the_job(tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / f"{number}.png", picture(number, (9, 7)))
    model = MODEL.model_copy(update={"options": {"poison": dict.fromkeys(range(8), "raise")}})
    with pytest.raises(ConfigError, match=r"at each of the first 8 images .*ValueError: the toy does not like 0"):
        Predictor(replace(SETTINGS, model=model), print).predict(items_of(tmp_path))


def test_images_that_tasks_have_decoded_give_the_same_rows(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    items = items_of(tmp_path)
    predictor = Predictor(SETTINGS, print)
    read = predictor.predict(items)
    given = predictor.predict(decoding_tasks(SETTINGS.decoding, print).work(items))
    columns = [name for name in read.column_names if name not in TIMES_SCHEMA.names]
    assert given.select(columns) == read.select(columns)


def test_images_that_tasks_have_prepared_give_the_same_rows(tmp_path: Path) -> None:
    """They cross the object store at the network's size."""
    for number, size_hw in enumerate([(90, 70), (50, 120), (90, 70)]):
        save(tmp_path / f"{number}.png", picture(number, size_hw))
    (tmp_path / "3.png").write_bytes(b"no image")
    save(tmp_path / "4.png", np.zeros((2, 200, 3), np.uint8))
    items = items_of(tmp_path)
    given = {"name": "lraspp_mobilenet_v3_large", "weights": "none", "resize": "short:32"}
    model = ModelConfig.model_validate(given)
    settings = replace(SETTINGS, model=model, card=resolve(model, STORAGE))
    tasks = replace(settings.decoding, preparing=preparing_of(model, settings.card))
    block = decoding_tasks(tasks, print).work(items)
    assert [len(one) if one else None for one in block["pixels"].to_pylist()] == [
        *(3 * 32 * 41, 3 * 32 * 76, 3 * 32 * 41),
        *(None, None),
    ]
    read = Predictor(settings, print).predict(items)
    prepared = Predictor(replace(settings, decoding=tasks), print).predict(block)
    columns = [name for name in read.column_names if name not in TIMES_SCHEMA.names]
    assert prepared.select(columns) == read.select(columns)
    assert read["status"].to_pylist() == ["ok"] * 3 + ["failed"] * 2


def test_each_read_is_under_the_watchdog(
    tmp_path: Path, photos: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, holding = threading.local(), Watchdog.holding

    @contextmanager
    def noted(self: Watchdog, names: Sequence[str]) -> Iterator[None]:
        with holding(self, names):
            held.names = list(names)
            yield
            held.names = []

    class Watched(Storage):
        def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
            assert getattr(held, "names", []) == [Path(uri).name]
            return super().read_item(uri)

    monkeypatch.setattr(Watchdog, "holding", noted)
    settings = replace(SETTINGS, decoding=replace(SETTINGS.decoding, storage=Watched()))
    items = items_of(tmp_path)
    for rows in (Predictor(settings, print).predict(items), decoding_tasks(settings.decoding, print).work(items)):
        assert rows["sha256" if "sha256" in rows.column_names else "source"].null_count == 0


def test_shards_of_several_threads_keep_to_themselves(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    items = items_of(tmp_path)
    shards = [items.slice(0, 3), items.slice(3)] * 4
    predictor = Predictor(SETTINGS, print)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(predictor.predict, shards))
    for shard, rows in zip(shards, made, strict=True):
        assert rows["image_id"] == shard["image_id"]
        for row in rows.to_pylist():
            check_masks(row, photos[row["image_id"]])


def test_a_model_that_cannot_be_built_says_so_at_the_first_shard(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    weights = ModelConfig.model_validate({"name": "fcn_resnet50", "weights": str(tmp_path / "none.safetensors")})
    predictor = Predictor(replace(SETTINGS, model=weights), print)
    for use in (partial(predictor.predict, items_of(tmp_path)), predictor.set_aside().__enter__):
        with pytest.raises(WeightsError, match=r"none\.safetensors"):
            use()


def test_the_row_of_an_image_that_killed_its_process(tmp_path: Path, photos: dict[str, np.ndarray]) -> None:
    item = items_of(tmp_path).slice(2, 1)
    (row,) = Predictor(SETTINGS, print).failed(item, ItemError("CRASHED", "its worker died")).to_pylist()
    assert (row["image_id"], row["status"]) == ("2.png", "failed")
    assert row["error"] == {"code": "CRASHED", "message": "its worker died"}


def test_neither_ray_nor_torch_is_imported_for_it() -> None:
    script = (
        "import sys, segjobs.jobs.label.predictor\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'ray', 'torch'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
