"""Learning rate, frozen layers, running mean and checkpoints, by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from segjobs.config import OptimiserConfig, ScheduleConfig
from segjobs.errors import ManifestError
from segjobs.storage import Storage
from segjobs.training.checkpoints import Checkpoints, TrainingState
from segjobs.training.optim import RunningMean, freeze, learning_rate, make_optimiser, to_train_mode


def rates(decay: str, steps: int = 12, warmup_steps: int = 3) -> list[float]:
    optimiser = OptimiserConfig(learning_rate=8.0)
    schedule = ScheduleConfig.model_validate({"decay": decay, "warmup_steps": warmup_steps, "power": 2.0})
    return [learning_rate(step, steps, optimiser, schedule) for step in range(steps)]


def test_the_rate_rises_and_falls() -> None:
    for decay in ("cosine", "poly", "constant"):
        assert rates(decay)[:4] == [2.0, 4.0, 6.0, 8.0]
    assert rates("constant")[-1] == 8.0
    assert rates("poly")[6] == pytest.approx(8 * (6 / 9) ** 2)
    assert rates("cosine")[6] == pytest.approx(4 * (1 + math.cos(math.pi / 3)))
    assert 0 < rates("cosine")[-1] < 0.3
    assert rates("cosine", steps=2, warmup_steps=50) == [4.0, 8.0], "a warm-up longer than the training ends with it"


def network() -> nn.Module:
    layers = {"encoder": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "norm": nn.BatchNorm2d(4)}
    return nn.ModuleDict(layers)


def test_what_is_frozen_does_not_learn() -> None:
    for what, learning in (
        ([], {"encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "norm.weight", "norm.bias"}),
        (["backbone"], {"norm.weight", "norm.bias"}),
        (["norm"], {"encoder.0.weight", "encoder.0.bias"}),
    ):
        module = network()
        freeze(module, what)
        assert {name for name, one in module.named_parameters() if one.requires_grad} == learning
        to_train_mode(module, what)
        modes = (module["encoder"][1].training, module["norm"].training)
        assert modes == ("backbone" not in what and "norm" not in what, "norm" not in what)


def test_biases_and_norms_have_no_weight_decay() -> None:
    optimiser = make_optimiser(network(), OptimiserConfig(weight_decay=0.5, name="sgd"))
    assert [(len(group["params"]), group["weight_decay"]) for group in optimiser.param_groups] == [(1, 0.5), (5, 0.0)]


def test_the_running_mean_forgets_its_start() -> None:
    module = nn.BatchNorm1d(1)
    mean = RunningMean(module, 0.5)
    for step, value in enumerate((10.0, 20.0)):
        module.weight.data.fill_(value)
        module.num_batches_tracked.fill_(step)
        mean.update(module, step)
    # From 1, with the decays 1/10 and 2/11.
    assert mean.tensors["weight"].item() == pytest.approx((1 * 0.1 + 10 * 0.9) * 2 / 11 + 20 * 9 / 11)
    assert mean.tensors["num_batches_tracked"].item() == 1


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_best_and_last_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path), Storage(), "one")
    assert kept.load() is None
    weights = {"w": torch.arange(3.0)}
    kept.save(TrainingState(step=1), {"module": weights})
    kept.save_best(2, weights)
    kept.save(TrainingState(step=2, best_step=2, best_score=0.5, lines=["{}"]), {"module": weights})
    kept.save(TrainingState(step=3, best_step=2, best_score=0.5), {"module": {"w": torch.ones(3)}})
    assert names(tmp_path) == ["best-00000002.pt", "step-00000003.pt"]
    # Killed between the new best weights and the state that names them: as if they had not been written.
    kept.save_best(4, weights)
    record, tensors = kept.load() or pytest.fail("there is one")
    assert (record.step, record.best_step, record.best_score) == (3, 2, 0.5)
    assert tensors["module"]["w"].tolist() == [1, 1, 1]
    assert kept.load_best(2)["w"].tolist() == [0, 1, 2]
    assert names(tmp_path) == ["best-00000002.pt", "step-00000003.pt"]
    kept.save_best(4, weights)
    kept.save(TrainingState(step=4, best_step=4), {})
    assert names(tmp_path) == ["best-00000004.pt", "step-00000004.pt"]


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    Checkpoints(str(tmp_path), Storage(), "one").save(TrainingState(step=1), {})
    with pytest.raises(ManifestError, match="a checkpoint of another training"):
        Checkpoints(str(tmp_path), Storage(), "two").load()
    (tmp_path / "checkpoints" / "step-00000002.pt").write_bytes(b"half a fi")
    with pytest.raises(ManifestError, match=r"step-00000002.pt: cannot be read .*delete it"):
        Checkpoints(str(tmp_path), Storage(), "one").load()
