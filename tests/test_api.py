"""The verbs from Python, in a process that has a Ray of its own, as a notebook has: results and errors."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segjobs
from segjobs.errors import ConfigError, ConflictError, ExitCode, ManifestError

TOY = "tests.toy_model:build"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of the toy's: left dark, right bright. The fourth is none."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.full((4, 6, 3), 200, np.uint8)
    pixels[:, :2, 0] = 10
    for number in range(3):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_from_photos_to_a_page(
    ray_session: None,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    from ray.data import DataContext

    from tests.process_state import OURS, process

    block_size = DataContext.get_current().target_max_block_size = 123 * 2**20
    for name in OURS:
        monkeypatch.delenv(name, raising=False)  # which the import has set
    before = process()
    node = ray.get_runtime_context().get_node_id()
    keys: dict[str, Any] = {"compute.actors": 1, "shard.images": 2}
    run = segjobs.label(input=photos, model=TOY, output=tmp_path / "run", max_failed_fraction=0.5, **keys)
    assert (run.images, run.ok, run.failed, run.failures, run.segments) == (4, 3, 1, {"UNREADABLE": 1}, 6)
    assert (run.exit_code, run.uri, len(run.run_id)) == (ExitCode.DONE, str(tmp_path / "run"), 16)
    manifest = segjobs.open_manifest(run.uri)
    assert (len(manifest), dict(manifest.failures)) == (4, {"UNREADABLE": 1})
    row = next(iter(manifest))
    expected = np.zeros((4, 6), bool)
    expected[:, :2] = True
    np.testing.assert_array_equal(row.mask("dark"), expected)
    assert segjobs.draw_row(row, manifest.categories).size == (6, 4)
    assert [one["status"] for one in segjobs.read_rows(run.uri, columns=["status"])] == ["ok", "ok", "ok", "failed"]

    few = segjobs.label(input=photos, model=TOY, output=tmp_path / "run", **keys)
    assert (few.exit_code, few.already_done) == (ExitCode.TOO_MANY_FAILED, 4), "data, not an exception"
    with pytest.raises(ConflictError, match="holds another run"):
        segjobs.label(input={"uri": photos, "limit": 2}, model=TOY, output=tmp_path / "run", **keys)

    config = {"predictions": {"uri": run.uri}, "bootstrap": {"resamples": 0}}
    gate = ["miou >= 0.9", "pixel_accuracy <= 0.1"]
    scores = segjobs.evaluate(config=config, truth=run.uri, output=tmp_path / "scores", gate=gate[:1])
    assert (scores.exit_code, scores.gate, scores.images["ok"]) == (ExitCode.DONE, {gate[0]: True}, 3)
    assert scores.scores["mean_iou"] == 1.0
    page = segjobs.report(evaluation=scores.uri, output=tmp_path / "page")
    assert Path(page.uri).stat().st_size == page.bytes
    coco = segjobs.export(manifest=run.uri, format="coco_instances", output=tmp_path / "coco", max_failed_fraction=1)
    assert (coco.exit_code, coco.segments, coco.failed) == (ExitCode.DONE, 6, 1)

    assert capsys.readouterr().out == ""
    assert ray.is_initialized() and ray.get_runtime_context().get_node_id() == node, "the caller's Ray goes on"
    assert DataContext.get_current().target_max_block_size == block_size, "and so do its settings"
    assert process() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prepare_and_train_in_a_thread(ray_session: None, tmp_path: Path) -> None:
    """Signals reach the main thread only: a verb in another one does without."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    ids = np.zeros((64, 64), np.uint8)
    ids[:, 32:] = 1
    for number in range(6):
        Image.fromarray(np.stack([ids * 200] * 3, axis=-1)).save(tmp_path / f"images/{number}.png")
        Image.fromarray(ids).save(tmp_path / f"labels/{number}.png")
    results: list[Any] = []

    def work() -> None:
        truth = segjobs.prepare(
            input=tmp_path / "images",
            labels={"uri": tmp_path / "labels", "format": "png", "categories": ["left", "right"]},
            output=tmp_path / "truth",
            splits={"train": 0.5, "val": 0.5},
            contact_sheet=0,
        )
        results.append(truth)
        results.append(
            segjobs.train(
                data=truth.manifests["train"].uri,
                validation=truth.manifests["val"].uri,
                model={"name": "unet", "options": {"encoder": "resnet18"}, "weights": "none"},
                output=tmp_path / "model",
                **{"schedule.steps": 2, "schedule.warmup_steps": 0, "batch_size": 2, "augment.crop_px": 32},
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    truth, model = results
    assert (truth.images, truth.ok, truth.failures, truth.exit_code) == (6, 6, {}, ExitCode.DONE)
    assert list(truth.manifests) == ["train", "val"]
    assert model.steps == 2 and 0 <= model.score <= 1
    assert (Path(model.uri.removeprefix("file://")) / "model.safetensors").is_file()


def test_what_is_wrong_is_an_exception_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"label\(\): postprocess\.fill_hole: unknown key; did you mean 'fill_holes'\?"
    ):
        segjobs.label(input="photos", model="unet", output=tmp_path, **{"postprocess.fill_hole": True})
    with pytest.raises(ConfigError, match=r"storage: s3\.endpoint: unknown key; did you mean 'endpoint_url'\?"):
        segjobs.open_manifest(tmp_path, storage={"s3": {"endpoint": "http://x"}})
    with pytest.raises(ManifestError, match="no manifest here"):
        segjobs.open_manifest(tmp_path)
