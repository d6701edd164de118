"""Trainings as a person runs them: stopped, killed, on two workers, and their model in ``label``."""

import json
from pathlib import Path

import numpy as np
import pytest

from segjobs.config import LabelConfig, TrainConfig, load_config
from segjobs.errors import ConflictError
from segjobs.jobs.label.job import label
from segjobs.jobs.train.job import train
from tests.flow_process import flow, run_here
from tests.trainings import scenes, trainer_of

# What is killed has a Ray of its own; the others share the session's.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), pytest.mark.usefixtures("ray_session")]

STEPS = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return scenes(tmp_path_factory.mktemp("in"), count=10)


def command(data: str, output: Path, *more: str) -> list[str]:
    """Batch norms stay as they are: their statistics would be of one worker's images."""
    words = [
        f"data.uri={data}",
        f"validation.uri={data}",
        "validation.every_epochs=4",
        "model.name=lraspp_mobilenet_v3_large",
        "model.resize=native",
        f"output.uri={output}",
        "augment.crop_px=32",
        "augment.scale=[0.9, 1.1]",
        "optimiser.freeze=[norm]",
        "optimiser.learning_rate=0.003",
        f"schedule.steps={STEPS}",
        "batch_size=4",
        "checkpoint_s=0",
        "compute.threads=1",
    ]
    others = {word.partition("=")[0] for word in more}
    return [*(word for word in words if word.partition("=")[0] not in others), *more]


@pytest.fixture(scope="module")
def whole(ray_session: None, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed training, in this process."""
    output = tmp_path_factory.mktemp("whole") / "model"
    trainer, _ = trainer_of(load_config(TrainConfig, None, command(data, output)))
    trainer.run()
    return output


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def score(output: Path) -> float:
    return json.loads((output / "model.json").read_text())["validation"]["score"]


def test_two_workers_learn_what_one_does(data: str, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    train(load_config(TrainConfig, None, command(data, output, "compute.workers=2", "batch_size=2")))
    # Sums in another order: 1e-6 in the first steps, which the training amplifies.
    np.testing.assert_allclose(losses(output), losses(whole), rtol=1e-3)
    assert score(output) == pytest.approx(score(whole), abs=5e-3)


def test_the_model_labels(data: str, whole: Path, tmp_path: Path) -> None:
    images = Path(data).parent / "images"
    arguments = [f"input.uri={images}", f"output.uri={tmp_path / 'found'}", f"model.weights={whole}"]
    result = label(load_config(LabelConfig, None, [*arguments, "model.name=lraspp_mobilenet_v3_large"]))
    assert (result.exit_code, result.ok) == (0, 10)


def last_step(output: Path) -> int:
    """Of the last checkpoint: an epoch has 2.5 steps, so that most are in the middle of one."""
    return max((int(path.stem.partition("-")[2]) for path in output.glob("checkpoints/step-*.pt")), default=0)


def test_stopped_and_killed_in_mid_epoch_it_ends_with_the_same_bits(
    ray_environment: dict[str, str], data: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    with flow("train", *command(data, output), **ray_environment) as running:
        running.wait_until(lambda: last_step(output) >= 2)
        running.process.terminate()
        code, _, err = running.wait()
    assert code == 75
    stopped = last_step(output)
    assert f"stopping; the checkpoint of step {stopped} is written" in err
    assert "what is published stays, and the same command continues:" in err
    with flow("train", *command(data, output)) as running:
        running.wait_until(lambda: last_step(output) >= stopped + 3)
        running.process.kill()
        assert running.wait()[0] == -9
        assert running.left_alive() == [], "Ray Train's processes end with their driver"
    killed = last_step(output)
    assert killed < STEPS, "the kill was in mid-training"
    assert not (output / "model.json").exists()
    with pytest.raises(ConflictError, match=r"optimiser\.learning_rate was 0\.003, is 0\.1"):
        train(load_config(TrainConfig, None, command(data, output, "optimiser.learning_rate=0.1")))
    code, stdout, err = run_here(capsys, "train", *command(data, output))
    assert code == 0, err
    assert json.loads(stdout)["steps"] == STEPS
    assert f"going on from the checkpoint of step {killed}" in err
    assert "validation mIoU" in err and "ETA" in err
    assert losses(output) == losses(whole)
    assert score(output) == score(whole)
    assert (output / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    again = train(load_config(TrainConfig, None, command(data, output)))
    assert (again.exit_code, again.score) == (0, score(whole))
    assert "nothing to do" in capsys.readouterr().err
