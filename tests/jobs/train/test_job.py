"""A training in this process: it learns, its model is read back bit by bit, it goes on where it was broken off."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segjobs.config import ModelConfig
from segjobs.errors import ConfigError, ManifestError, SegjobsError, TrainingError
from segjobs.jobs.train import feed, job, worker
from segjobs.jobs.train.worker import Trainer
from segjobs.manifest.seal import sealed_json
from segjobs.models.registry import build
from segjobs.storage import Storage, join
from segjobs.training.checkpoints import Checkpoints
from tests.trainings import config_of, draw, scenes, trainer_of

pytestmark = pytest.mark.usefixtures("ray_session")

_READ_BACK = """
import sys
import numpy as np
import torch
from PIL import Image
from segjobs.config import ModelConfig
from segjobs.models.registry import build
from segjobs.storage import Storage
model = ModelConfig(name="lraspp_mobilenet_v3_large", weights=sys.argv[1])
segmenter = build(model, Storage(), device="cpu", threads=1)
(found,) = segmenter.predict([np.array(Image.open(sys.argv[2]))])
np.savez(sys.argv[3], ids=found.ids, confidence=found.confidence)
"""


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_a_fresh_process_predicts_the_same_bits(tmp_path: Path) -> None:
    data, output = scenes(tmp_path / "in", broken=[4]), tmp_path / "out"
    settings = {"validation": {"uri": data, "every_epochs": 2}, "optimiser": {"ema_decay": 0.9}}
    trainer, ear = trainer_of(config_of(data, output, model={"licence": "CC0-1.0"}, **settings))
    trainer.run()

    lines = lines_of(output)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and losses[1] < losses[0], "a line every ten steps, and one at the end"
    scored = [line for line in lines if "validation" in line]
    assert [line["step"] for line in scored] == [5, 10, 12]
    best = max(scored, key=lambda line: line["validation"]["mean_iou"])
    assert sum("scores" in message for message in ear.heard) == 3

    description = json.loads((output / "model.json").read_text())
    assert [category["name"] for category in description["categories"]] == ["ground", "square"]
    assert description["licence"] == "CC0-1.0"
    assert description["training"]["step_of_the_weights"] == best["step"]
    assert description["validation"] == best["validation"]
    assert description["training"]["images"] == 5
    with Image.open(output / "contact_sheet.png") as sheet, Image.open(output / "curves.png") as curves:
        assert min(*sheet.size, *curves.size) > 200
    kept = {path.name for path in (output / "checkpoints").iterdir()}
    assert kept == {"step-00000012.pt", f"best-{best['step']:08d}.pt"}

    image = tmp_path / "in" / "images" / "00.png"
    command = [sys.executable, "-c", _READ_BACK, str(output), str(image), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True)
    (mine,) = trainer.segmenter.predict([draw(0)[0]])
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["ids"], mine.ids)
        np.testing.assert_array_equal(found["confidence"], mine.confidence)


def test_what_cannot_run_says_so_before_a_ray_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*_: object) -> None:
        raise AssertionError("a Ray is asked for")

    monkeypatch.setattr(job, "connect", no_ray)
    data, output = scenes(tmp_path / "in"), tmp_path / "out"
    config = config_of(data, output)
    standing = {"identity": job._identity(config, job.open_start(config, Storage()), 8)}
    Storage().put_if_absent(join(str(output), job.PLAN), sealed_json(standing))
    cases = [
        ({"model": {"name": "tests.toy_model:build"}}, "model.resize: not passed on; tests.toy_model:build has no"),
        ({"model": {"name": "unett"}}, "'unett' is no model; did you mean 'unet'"),
        ({"model": {"name": "unet", "options": {"encoder": "resnet19"}}}, "'resnet19' is no encoder"),
        ({"model": {"weights": str(tmp_path / "none.pth")}}, r"none\.pth: no such weights file"),
        ({"seed": 7}, r"holds another training; seed was 0, is 7"),
    ]
    for settings, message in cases:
        with pytest.raises(SegjobsError, match=message):
            job.train(config_of(data, output, **settings))


def test_broken_off_and_started_again_it_ends_with_the_same_bits(
    tmp_path: Path, shared_store: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, root = shared_store
    data, output = scenes(tmp_path / "in"), join(root, "model")
    settings = {"checkpoint_s": 0.0, "optimiser": {"ema_decay": 0.9}, "accumulate": 2, "schedule": {"steps": 8}}
    settings["storage"] = storage.config.model_dump()
    whole, _ = trainer_of(config_of(data, tmp_path / "whole", **settings))
    whole.run()

    broken, _ = trainer_of(config_of(data, output, **settings))
    step = Trainer._step

    def stop(self: Trainer, number: int, examples: list) -> float:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number, examples)

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    monkeypatch.undo()
    assert storage.list_names(join(output, "checkpoints")) == {"step-00000005.pt"}

    again, ear = trainer_of(config_of(data, output, **settings))
    again.run()
    assert {"note": "going on from the checkpoint of step 5"} in ear.heard[:2]
    for key, value in whole.segmenter.module.state_dict().items():
        assert torch.equal(again.segmenter.module.state_dict()[key], value), key
    lines = [json.loads(line) for line in storage.read(join(output, "metrics.jsonl")).splitlines()]
    assert [line["loss"] for line in lines] == [line["loss"] for line in lines_of(tmp_path / "whole")]
    tensors = storage.read(join(output, "model.safetensors"))
    assert tensors == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_stop_is_answered_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SPOKEN_S", 0)
    config = config_of(
        scenes(tmp_path), tmp_path / "model", checkpoint_s=1000.0, schedule={"steps": 3}, compute={"grace_s": 0}
    )
    trainer, ear = trainer_of(config)
    saved: list[set[str]] = []
    save = Checkpoints.save

    def watch(self: Checkpoints, *state: object) -> None:
        save(self, *state)
        saved.append({path.name for path in (tmp_path / "model" / "checkpoints").iterdir()})

    monkeypatch.setattr(Checkpoints, "save", watch)
    ear.stopping = True
    trainer.run()
    assert saved == [{f"step-{step:08d}.pt"} for step in (1, 2, 3)]
    assert [one["saved"] for one in ear.heard if "saved" in one] == [1, 2], "the last step is the end anyway"


def test_a_scheduler_that_waits_for_the_training_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    class Counted(feed.Rest):
        def on_execution_step(self, executor: object) -> None:
            rounds.append(time.perf_counter())
            super().on_execution_step(executor)

    monkeypatch.setattr(feed, "Rest", Counted)
    monkeypatch.setattr(feed, "_READ_AHEAD_BYTES", 1)
    trainer, _ = trainer_of(config_of(scenes(tmp_path), tmp_path / "model", schedule={"steps": 40}))
    steps = trainer.task.feed.batches(0, 1, first_step=0)
    next(steps)
    time.sleep(0.5)
    while len(rounds) <= 2:  # on a busy machine
        time.sleep(0.05)
    assert np.diff(rounds).min() >= 0.01
    steps.close()


def test_a_loss_that_is_no_number_names_step_and_images(tmp_path: Path) -> None:
    data = scenes(tmp_path / "in", count=2)
    settings = {
        "optimiser": {"learning_rate": 1e30, "name": "sgd"},
        "checkpoint_s": 0.0,
        "schedule": {"warmup_steps": 0},
    }
    trainer, _ = trainer_of(config_of(data, tmp_path / "out", **settings))
    with pytest.raises(TrainingError, match=r"at step \d+, on the images '0[01].png', '0[01].png'.*step-0") as caught:
        trainer.run()
    kept = [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()]
    assert len(kept) == 1 and kept[0] in str(caught.value), "the last good one"
    assert not (tmp_path / "out" / "model.json").exists()


def test_early_stopping_and_frozen_tensors(tmp_path: Path) -> None:
    data = scenes(tmp_path / "in", count=4)
    settings = {
        "validation": {"uri": data, "every_epochs": 0.5, "contact_sheet": 0},
        "optimiser": {"freeze": ["backbone", "norm"], "learning_rate": 1e-9},
        "schedule": {"early_stopping": 2},
    }
    trainer, _ = trainer_of(config_of(data, tmp_path / "out", **settings))
    before = {key: value.clone() for key, value in trainer.segmenter.module.state_dict().items()}
    trainer.run()
    assert trainer.record.step == 3, "one validation is the best, two are no better"
    frozen = [key for key, value in trainer.segmenter.module.state_dict().items() if torch.equal(value, before[key])]
    learnt = before.keys() - set(frozen)
    assert learnt and all(key.startswith("classifier.") and ".1." not in key for key in learnt)


def test_other_classes_replace_the_head(tmp_path: Path) -> None:
    first = scenes(tmp_path / "in")
    trainer, _ = trainer_of(config_of(first, tmp_path / "one", schedule={"steps": 1}))
    trainer.run()
    other = scenes(tmp_path / "other", names=("field", "house"))
    weights = {"weights": str(tmp_path / "one")}
    again, _ = trainer_of(config_of(other, tmp_path / "two", model=weights, classes={"field": "land"}))
    assert set(again.transfer.skipped) == {
        f"classifier.{head}_classifier.{kind}" for head in ("low", "high") for kind in ("weight", "bias")
    }
    assert [category.name for category in again.segmenter.card.categories] == ["land", "house"]
    same, _ = trainer_of(config_of(first, tmp_path / "three", model=weights))
    assert not same.transfer.skipped
    for key, value in trainer.segmenter.module.state_dict().items():
        assert torch.equal(same.segmenter.module.state_dict()[key], value), key


def test_what_cannot_be_learnt_is_said(tmp_path: Path) -> None:
    data = scenes(tmp_path / "in", scores=[0.2] * 6)
    void = {"ground": None}
    for settings, message in (
        ({"data": {"min_confidence": 0.5}}, r"nothing to learn from: 6 confidence below 0.5 \(such as '00.png'\)"),
        ({"classes": {"square": "x", "grond": None}}, r"classes.grond: no class.*did you mean 'ground'"),
        ({"model": {"categories": ["ground", "disc"]}}, "model.categories: 'disc' is no class"),
        ({"classes": void}, "needs more to tell apart"),
        ({"validation": {"share": 0.001}}, r"validation.share=0.001: no image to score on"),
        ({"model": {"name": "maskrcnn_resnet50_fpn"}}, "data.uri: .* is a manifest of semantic masks"),
        ({"model": {"name": "tests.toy_model:build"}}, "model.resize: not passed on; tests.toy_model:build has no"),
        ({"model": {"name": "unett"}}, "did you mean 'unet'"),
        ({"loss": {"class_weights": {"squar": 2}}}, "did you mean 'square'"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer_of(config_of(data, tmp_path / "out", **settings))
    other = scenes(tmp_path / "other", names=("ground", "disc"))
    with pytest.raises(ConfigError, match=r"data.mix.0.uri: .* has a class 'disc', which the model has not"):
        trainer_of(config_of(data, tmp_path / "out", data={"mix": [{"uri": other}]}))


def test_an_image_that_changed_stops_the_training_and_is_named(tmp_path: Path) -> None:
    data = scenes(tmp_path / "in")
    Image.new("RGB", (48, 40)).save(tmp_path / "in" / "images" / "03.png")
    trainer, _ = trainer_of(config_of(data, tmp_path / "out"))
    with pytest.raises(ManifestError, match=r"data.uri: image '03.png': CHANGED"):
        trainer.run()


# --- models of other families --------------------------------------------------------------------


@pytest.fixture
def guides_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model of one's own that the guide shows: a network that normalises before it resizes."""
    guide = (Path(__file__).parents[3] / "flows" / "README.md").read_text()
    (tmp_path / "code").mkdir()
    code = guide.partition("# my_models.py\n")[2].partition("```")[0]
    (tmp_path / "code" / "trained_models.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    sys.modules.pop("trained_models", None)
    return "trained_models:water"


def losses_of(output: Path) -> list[float]:
    return [line["loss"] for line in lines_of(output) if "loss" in line]


def test_a_model_of_ones_own_learns_and_starts_from_what_it_learnt(tmp_path: Path, guides_model: str) -> None:
    data, output = scenes(tmp_path / "in"), tmp_path / "out"
    model = {"name": guides_model, "resize": None, "options": {"seed": 3}}
    settings = {"model": model, "validation": {"uri": data}, "optimiser": {"learning_rate": 0.05}}
    trainer, _ = trainer_of(config_of(data, output, **settings))
    trainer.run()
    assert losses_of(output)[-1] < losses_of(output)[0]
    built = build(ModelConfig(name=guides_model, weights=str(output), options={"seed": 3}), Storage(), device="cpu")
    (mine,), (found,) = trainer.segmenter.predict([draw(0)[0]]), built.predict([draw(0)[0]])
    np.testing.assert_array_equal(found.ids, mine.ids)
    assert [one.name for one in built.card.categories] == ["ground", "square"]
    description = json.loads((output / "model.json").read_text())
    assert (description["name"], description["options"]) == (guides_model, {"seed": 3})
    assert description["validation"]["mean_iou"] > 0.5

    weights = {**model, "weights": str(output)}
    again, _ = trainer_of(config_of(data, tmp_path / "again", **{**settings, "model": weights}))
    for key, value in trainer.segmenter.module.state_dict().items():
        assert torch.equal(again.segmenter.module.state_dict()[key], value)
    other = scenes(tmp_path / "other", names=("floor", "square"))
    settings |= {"model": weights, "validation": {"share": 0}}
    with pytest.raises(SegjobsError, match="other classes: 'ground' there, 'floor' here"):  # its one layer is its head
        trainer_of(config_of(other, tmp_path / "third", **settings))


def test_what_a_model_of_ones_own_raises_is_one_line_with_its_traceback_in_a_file(
    tmp_path: Path, guides_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scenes(tmp_path / "in")
    module = importlib.import_module("trained_models")
    monkeypatch.setattr(module.Water, "loss", lambda self, images, targets: {}["no such key"])
    trainer, _ = trainer_of(config_of(data, tmp_path / "out", model={"name": guides_model, "resize": None}))
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    message = str(caught.value)
    assert message.startswith(f"model.name '{guides_model}': its loss failed on the images '0")
    assert "KeyError: 'no such key' (traceback: " in message and "\n" not in message
    written = Path(message.partition("(traceback: ")[2].rstrip(")"))
    assert "KeyError" in written.read_text()
    written.unlink()
