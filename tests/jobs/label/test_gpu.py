"""Labelling, and a job of it, with the model on a GPU. Skipped where there is none."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from segjobs.config import InputConfig, ModelConfig, PostprocessConfig, ShardConfig
from segjobs.jobs.label.decode import Decoding
from segjobs.jobs.label.predictor import Predictor, Settings
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rle import paint
from segjobs.manifest.rows import Author
from segjobs.models import nvml
from segjobs.models.registry import resolve
from segjobs.sources.images import list_images
from segjobs.sources.synthetic import write_photos
from segjobs.storage import Storage
from tests.flow_process import run_flow
from tests.trainings import draw, scenes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

STORAGE = Storage()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, count=40, seed=0)
    return folder


def model_of(**settings: Any) -> ModelConfig:
    given = {"name": "unet", "weights": "none", "options": {"encoder": "resnet18"}, "categories": ["a", "b", "c"]}
    return ModelConfig.model_validate({**given, "resize": "256x256", **settings})


def labelled(folder: Path, device: str, *, batch_size: int = 8, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a folder as one shard, in this process."""
    model = model_of(**settings)
    items = make_plan(list_images(STORAGE, InputConfig(uri=str(folder))), ShardConfig(images=1000)).items
    items = items.append_column("shard_key", pa.array([""] * len(items)))
    predictor = Predictor(
        Settings(
            decoding=Decoding(STORAGE, 10**8, 4, 600),
            author=Author("r"),
            model=model,
            card=resolve(model, STORAGE),
            postprocess=PostprocessConfig(),
            batch_size=batch_size,
            precision="fp32",
            device=device,
            threads=4,
        ),
        report=print,
    )
    return predictor.predict(items).to_pylist()


def ids_of(row: dict[str, Any]) -> np.ndarray:
    segments = [(segment["category_id"], segment["segmentation"]["counts"]) for segment in row["segments"]]
    return paint(segments, (row["height"], row["width"]))


def check_alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one["status"], other["status"]) == ("ok", "ok")
        assert (ids_of(one) == ids_of(other)).mean() > 0.98


def test_every_image_has_its_own_masks(photos: Path) -> None:
    check_alike(labelled(photos, "cuda"), labelled(photos, "cpu"))


def test_batches_that_do_not_fit_are_halved(photos: Path, little_memory: None) -> None:
    check_alike(labelled(photos, "cuda", batch_size=40, resize="512x512"), labelled(photos, "cpu", resize="512x512"))


def test_one_image_that_does_not_fit_is_a_row(photos: Path, tmp_path: Path, little_memory: None) -> None:
    for path in sorted(photos.iterdir())[:12]:
        (tmp_path / path.name).symlink_to(path)
    Image.fromarray(np.zeros((6000, 8000, 3), np.uint8)).save(tmp_path / "huge.png")
    rows = labelled(tmp_path, "cuda", batch_size=1, resize="native")
    assert [(row["image_id"], row["error"]["code"]) for row in rows if row["status"] != "ok"] == [
        ("huge.png", "GPU_OOM")
    ]
    assert len(rows) == 13


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_on_a_gpu_on_half_of_it_and_without(photos: Path, tmp_path: Path) -> None:
    settings = ["model.name=unet", "model.weights=none", "model.categories=[a,b,c]", "model.resize=256x256"]
    for name, gpus in (("gpu", 1), ("shared", 0.5), ("cpu", 0)):
        compute = [f"compute.gpus_per_actor={gpus}", *(["compute.actors=2"] if gpus == 0.5 else [])]
        code, out, err = run_flow(
            "label", f"input.uri={photos}", f"output.uri={tmp_path / name}", "shard.images=5", *settings, *compute
        )
        assert code == 0, err
        assert json.loads(out)["ok"] == 40
        assert (f"{gpus:g} GPU" if gpus else "CPU thread") in err
        if not gpus:
            assert json.loads(out)["gpus"] == {} and "GPUs: " not in err
    rows = {name: pq.read_table(tmp_path / name / "parts").to_pylist() for name in ("gpu", "shared", "cpu")}
    check_alike(rows["gpu"], rows["cpu"])
    check_alike(rows["shared"], rows["cpu"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("gpus", "actors"), [(1, 1), (0.5, 2)])
def test_a_job_says_how_busy_its_gpu_was(photos: Path, tmp_path: Path, gpus: float, actors: int) -> None:
    """Two actors of a half each are one GPU. Enough work for some seconds."""
    (tmp_path / "many").mkdir()
    for number, path in enumerate(sorted(photos.iterdir()) * 25):
        (tmp_path / "many" / f"{number:04d}.jpg").symlink_to(path)
    words = [f"input.uri={tmp_path / 'many'}", f"output.uri={tmp_path / 'out'}", "shard.images=50"]
    words += ["model.name=unet", "model.weights=none", "model.categories=[a,b,c]", "model.resize=512x512"]
    code, out, err = run_flow("label", *words, f"compute.gpus_per_actor={gpus}", f"compute.actors={actors}")
    assert code == 0, err
    if not nvml.own_gpus() or nvml.own_gpus()[0].read() is None:
        assert json.loads(out)["gpus"] == {}
        pytest.skip("this GPU does not say how busy it is")
    ((uuid, use),) = json.loads(out)["gpus"].items()
    assert uuid in {gpu.uuid for gpu in nvml.own_gpus()}
    assert 0 < use["busy_percent"] <= 100 and use["seconds"] >= 1
    assert 0 < use["used_bytes"] <= use["total_bytes"]
    assert json.loads((tmp_path / "out/run.json").read_text())["timings"]["gpus"] == {uuid: use}
    assert re.search(r"^GPUs: 1, busy \d+% of the time, [\d.]+ of \d+ GiB at most$", err, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_a_gpu_has_learnt_labels_there(tmp_path: Path, precision: str) -> None:
    manifest = scenes(tmp_path / "data")
    settings = ["model.name=unet", "model.options={encoder: resnet18}", "model.resize=native", "augment.crop_px=32"]
    settings += ["schedule.steps=60", "schedule.warmup_steps=5", "batch_size=4", "optimiser.learning_rate=0.003"]
    settings += [f"compute.precision={precision}", f"validation.uri={manifest}"]
    code, _, err = run_flow("train", f"data.uri={manifest}", f"output.uri={tmp_path / 'model'}", *settings)
    assert code == 0, err
    score = json.loads((tmp_path / "model" / "model.json").read_text())["validation"]
    model = ["model.name=unet", f"model.weights={tmp_path / 'model'}", f"compute.precision={precision}"]
    code, out, err = run_flow(
        "label", f"input.uri={tmp_path / 'data' / 'images'}", f"output.uri={tmp_path / 'out'}", *model
    )
    assert code == 0, err
    assert json.loads(out)["ok"] == 6
    rows = pq.read_table(tmp_path / "out" / "parts").to_pylist()
    correct = [(ids_of(row) == draw(number)[1]).mean() for number, row in enumerate(rows)]
    assert np.mean(correct) > 0.9, score
