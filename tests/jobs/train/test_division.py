"""How a training lies on a cluster: by hand, and what is said where it does not fit."""

import pytest

from segjobs.config import TrainComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.layout import Resources, Share
from segjobs.jobs.train.division import Division, divide


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ((Share(2),), {}, Division(1, 1, 0, 2)),
        ((Share(16),), {}, Division(1, 14, 0, 16)),
        ((Share(4), Share(4)), {"workers": 2}, Division(2, 3, 0, 4)),
        ((Share(8, 2),), {}, Division(2, 1, 1, 1)),
        ((Share(8), Share(1, 1), Share(1, 1)), {}, Division(2, 1, 1, 1)),
        ((Share(8, 2),), {"gpus_per_worker": 2}, Division(1, 1, 2, 1)),
    ],
)
def test_workers_are_laid_out(nodes: tuple[Share, ...], settings: dict[str, object], expected: Division) -> None:
    assert divide(TrainComputeConfig.model_validate(settings), Resources(nodes)) == expected


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        ((Share(1),), {}, r"the cluster has 1 CPU\(s\), and a training needs more than 1: .* --num-cpus=2"),
        ((Share(1),) * 4, {"cpus_per_worker": 1.75}, r"workers=1 of 1.75 CPU\(s\) each: no node can hold one"),
        ((Share(4, 1),) * 2, {"gpus_per_worker": 2}, r"2 GPU\(s\) each: no node can hold one, the largest has 4 CPU"),
        ((Share(4),), {"workers": 2, "cpus_per_worker": 2}, "workers=2 of 2 CPUs .* do not fit: the cluster has 4"),
    ],
)
def test_what_does_not_fit_is_said_before_the_start(
    nodes: tuple[Share, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        divide(TrainComputeConfig.model_validate(settings), Resources(nodes))
