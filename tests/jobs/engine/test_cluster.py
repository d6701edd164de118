"""How a job lies on a cluster: budgets computed by hand, and what is said where they do not fit."""

import signal
import subprocess
import sys

import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine import cluster
from segjobs.jobs.engine.cluster import Layout, Resources, connect, expected, layout
from segjobs.jobs.engine.ray_private import this_machine

import ray  # isort: skip  # after segjobs.jobs, which sets its environment


@pytest.mark.parametrize(
    ("have", "settings", "expected"),
    [
        # (min, max actors), CPUs and GPUs of one, torch threads, where decoding happens
        ((1, 0), {}, Layout(1, 1, 0.75, 0, 1, "actor")),
        ((2, 0), {}, Layout(2, 2, 0.75, 0, 1, "actor")),
        ((4, 0), {}, Layout(4, 4, 0.75, 0, 1, "actor")),
        ((8, 0), {}, Layout(4, 4, 1.75, 0, 2, "actor")),
        ((2, 0), {"decode": "task"}, Layout(1, 1, 0.75, 0, 1, "task")),
        ((4, 0), {"decode": "task"}, Layout(4, 4, 0.75, 0, 1, "task")),
        ((8, 0), {"threads": 4}, Layout(2, 2, 3.75, 0, 4, "actor")),
        ((16, 0), {"cpus_per_actor": 4}, Layout(4, 4, 4, 0, 4, "actor")),
        ((16, 0), {"cpus_per_actor": 0.5}, Layout(16, 16, 0.5, 0, 1, "actor")),
        ((16, 1), {}, Layout(1, 1, 1, 1, 2, "task")),
        ((16, 1), {"decode": "actor"}, Layout(1, 1, 1, 1, 2, "actor")),
        ((8, 2), {"gpus_per_actor": 0.5}, Layout(4, 4, 1, 0.5, 2, "task")),
        ((16, 2), {"gpus_per_actor": 0.4}, Layout(4, 4, 1, 0.4, 2, "task")),  # of each GPU a fifth is left
        ((16, 1), {"gpus_per_actor": 0.1}, Layout(10, 10, 1, 0.1, 2, "task")),
        ((4, 4), {}, Layout(3, 3, 1, 1, 1, "task")),  # a fourth actor would leave no CPU for decoding
        ((16, 1), {"gpus_per_actor": 0}, Layout(8, 8, 1.75, 0, 2, "actor")),
        ((8, 0), {"actors": 2}, Layout(2, 2, 1.75, 0, 2, "actor")),
        ((8, 0), {"actors": "1-3"}, Layout(1, 3, 1.75, 0, 2, "actor")),
        ((4, 0), {"actors": "2-99"}, Layout(2, 99, 0.75, 0, 1, "actor")),  # a cluster may grow
    ],
)
def test_a_cluster_is_divided(have: tuple[float, float], settings: dict[str, object], expected: Layout) -> None:
    assert layout(ComputeConfig.model_validate(settings), Resources(*have)) == expected


@pytest.mark.parametrize(
    ("have", "settings", "message"),
    [
        (
            (16, 1),
            {"actors": 2},
            "compute.actors=2 of 1 GPU each: the cluster's 1 GPUs have room for 1; "
            "lower compute.actors or set compute.gpus_per_actor=0",
        ),
        (
            (4, 0),
            {"gpus_per_actor": 1},
            "compute.actors=auto of 1 GPU each: the cluster's 0 GPUs have room for 0; "
            "lower compute.actors or set compute.gpus_per_actor=0",
        ),
        (
            (16, 2),
            {"actors": 5, "gpus_per_actor": 0.4},
            "compute.actors=5 of 0.4 GPU each: the cluster's 2 GPUs have room for 4; "
            "lower compute.actors or set compute.gpus_per_actor=0",
        ),
        (
            (2, 0),
            {"actors": "3-4"},
            "compute.actors=3-4 of 0.75 CPUs each need 2.25 CPUs, the cluster has 2: "
            "lower compute.actors or compute.cpus_per_actor",
        ),
        (
            (2, 0),
            {"actors": 2, "decode": "task"},
            "compute.actors=2 of 0.75 CPUs each and 1 for a decoding task need 2.5 CPUs, the cluster has 2: "
            "lower compute.actors or compute.cpus_per_actor, or set compute.decode=actor",
        ),
        (
            (1, 1),
            {},
            "compute.actors=auto of 1 CPUs each and 1 for a decoding task need 2 CPUs, the cluster has 1: "
            "lower compute.actors or compute.cpus_per_actor, or set compute.decode=actor",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_start(
    have: tuple[float, float], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        layout(ComputeConfig.model_validate(settings), Resources(*have))
    assert str(caught.value) == message


def test_a_layout_reads_as_a_line() -> None:
    assert str(Layout(2, 2, 0.75, 0, 1, "actor")) == "2 actor(s) of 1 CPU thread(s), decoding in the actors"
    assert str(Layout(1, 8, 1, 0.5, 2, "task")) == "1-8 actor(s) of 0.5 GPU, decoding in tasks"
    assert (Layout(1, 1, 1, 0.5, 1, "task").device, Layout(1, 1, 1, 0, 1, "task").device) == ("cuda", "cpu")


def test_a_ray_that_runs_is_used_as_it_is(ray_session: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert connect(ComputeConfig()) == Resources(2.0, 0.0)
    assert connect(ComputeConfig(address="10.0.0.1:6379")) == Resources(2.0, 0.0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_local_ray_will_have_is_known_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_start", started.append)
    monkeypatch.setattr(cluster, "total_resources", lambda: {"CPU": 7.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert expected(ComputeConfig()) == Resources(*this_machine())
    assert started == []
    assert expected(ComputeConfig(address="auto")) == Resources(7.0, 0.0)
    assert started == ["auto"], "a cluster's is asked of it"


def test_an_address_where_no_ray_answers_is_a_clear_error() -> None:
    script = (  # a process without the session's Ray
        "from segjobs.config import ComputeConfig\nfrom segjobs.jobs.engine.cluster import connect\n"
        "connect(ComputeConfig(address='127.0.0.1:1'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "segjobs.errors.ClusterError: Ray at '127.0.0.1:1' cannot be reached: [Errno 111] Connection refused; "
        "start it there or correct compute.address"
    )
