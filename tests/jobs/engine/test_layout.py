"""How a job lies on a cluster: budgets computed by hand, and what is said where they do not fit."""

import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.layout import Layout, Resources, Share, layout


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
    assert layout(ComputeConfig.model_validate(settings), Resources((Share(*have),))) == expected


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
        layout(ComputeConfig.model_validate(settings), Resources((Share(*have),)))
    assert str(caught.value) == message


def test_a_layout_reads_as_a_line() -> None:
    assert str(Layout(2, 2, 0.75, 0, 1, "actor")) == "2 actor(s) of 1 CPU thread(s), decoding in the actors"
    assert str(Layout(1, 8, 1, 0.5, 2, "task")) == "1-8 actor(s) of 0.5 GPU, decoding in tasks"
    assert (Layout(1, 1, 1, 0.5, 1, "task").device, Layout(1, 1, 1, 0, 1, "task").device) == ("cuda", "cpu")


ONES = (Share(1),) * 8


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        (ONES, {}, Layout(8, 8, 0.75, 0, 1, "actor")),  # by all CPUs together an actor would have 1.75
        ((Share(4), Share(4)), {"cpus_per_actor": 3}, Layout(2, 2, 3, 0, 3, "actor")),
        ((Share(8), Share(1, 1)), {"decode": "task"}, Layout(1, 1, 1, 1, 2, "task")),  # decoding beside, on the other
        ((Share(0), Share(8, 2)), {"gpus_per_actor": 2}, Layout(1, 1, 1, 2, 2, "task")),
    ],
)
def test_each_actor_lies_on_one_node(nodes: tuple[Share, ...], settings: dict[str, object], expected: Layout) -> None:
    assert layout(ComputeConfig.model_validate(settings), Resources(nodes)) == expected


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        (
            ONES,
            {"threads": 2},
            "compute.actors=auto of 1.75 CPU(s) each: no node can hold one, the largest has 1 CPU(s); lower "
            "compute.cpus_per_actor, compute.threads or compute.gpus_per_actor, or start larger nodes",
        ),
        (
            (Share(4, 1), Share(4, 1), Share(16)),
            {"gpus_per_actor": 2},
            "compute.actors=auto of 1 CPU(s) and 2 GPU(s) each: no node can hold one, the largest has 4 CPU(s) and "
            "1 GPU(s); lower compute.cpus_per_actor, compute.threads or compute.gpus_per_actor, or start larger nodes",
        ),
        (
            (Share(2),) * 4,
            {"actors": 5, "cpus_per_actor": 1.5},
            "compute.actors=5 of 1.5 CPU(s) each: the 4 nodes of the cluster, one by one, have room for 4 actors: "
            "lower compute.actors or compute.cpus_per_actor",
        ),
    ],
)
def test_what_no_node_can_hold_is_said_before_the_start(
    nodes: tuple[Share, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        layout(ComputeConfig.model_validate(settings), Resources(nodes))
    assert str(caught.value) == message


def test_what_an_autoscaler_can_add_is_waited_for() -> None:
    head = (Share(0),)
    assert layout(ComputeConfig(actors="2-8"), Resources(head)) == Layout(2, 8, 0.75, 0, 1, "actor")
    assert layout(ComputeConfig(actors="2-8", gpus_per_actor=1), Resources((Share(2),))).min_actors == 2
    with pytest.raises(ClusterError, match="the cluster has 0: lower"):
        layout(ComputeConfig(actors="2"), Resources(head))
    large, two = Resources(head, (Share(16, 4),)), ComputeConfig(actors="2", gpus_per_actor=2)
    assert layout(two, large) == Layout(2, 2, 1, 2, 1, "task")
    with pytest.raises(ClusterError, match="no node can hold one, the largest has 16 CPU"):
        layout(ComputeConfig(gpus_per_actor=8), large)
