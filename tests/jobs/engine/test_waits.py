"""A line that says what a job waits for: by hand for clusters of a few nodes, and when it comes."""

import threading

import pytest

from segjobs.jobs.engine import waits as module
from segjobs.jobs.engine.layout import Share
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.waits import TASK, Due, Need, NodeNow, Now, Waits, lacking

ACTOR = Need("an actor (labelling)", Share(1.75))
ON_GPU = Need("an actor (labelling)", Share(1, 1))


def node(cpus: float, free: float, gpus: tuple[float, float] = (0, 0)) -> NodeNow:
    return NodeNow(Share(cpus, gpus[0]), Share(free, gpus[1]))


@pytest.mark.parametrize(
    ("needs", "nodes", "others", "line"),
    [
        ([ACTOR], [node(4, 0.25), node(4, 1.75)], 1, None),  # Ray will start it
        ([ACTOR], [node(4, 0.25)], 0, None),  # this job holds the rest itself
        ([ACTOR], [], 1, None),  # nothing is known
        (
            [ACTOR],
            [node(4, 0.25), node(2, 1), node(1, 1)],
            1,
            "an actor (labelling) needs 1.75 CPU(s) on one node, and the freest of 3 has 1 of 2 CPU(s) free: "
            "1 other driver(s) are at work on the cluster",
        ),
        (
            [ON_GPU],
            [node(8, 8), node(8, 6, (2, 0))],
            2,
            "an actor (labelling) needs 1 CPU(s) and 1 GPU(s) on one node, and the freest of 2 has 6 of 8 CPU(s) and "
            "0 of 2 GPU(s) free: 2 other driver(s) are at work on the cluster",
        ),
        (
            [ON_GPU],
            [node(0, 0), node(8, 8)],
            0,
            "an actor (labelling) needs 1 CPU(s) and 1 GPU(s) on one node, and the largest of 2 has 8 CPU(s): a node "
            "that can hold it has to join the cluster",
        ),
        (
            [ACTOR, TASK],
            [node(2, 2), node(2, 0.5)],
            1,
            None,
        ),
        (
            [Need("a task (decoding)", Share(1)), ACTOR],
            [node(2, 0.5)],
            1,
            "a task (decoding) needs 1 CPU(s) on one node, and the freest of 1 has 0.5 of 2 CPU(s) free: "
            "1 other driver(s) are at work on the cluster",
        ),
    ],
)
def test_what_is_waited_for(needs: list[Need], nodes: list[NodeNow], others: int, line: str | None) -> None:
    assert lacking(needs, Now(tuple(nodes), others)) == line


def test_lines_come_after_ten_seconds_and_ever_more_rarely() -> None:
    due, told = Due(), []
    for quiet_s in range(2_000):
        if due.at(quiet_s):
            due.told(quiet_s)
            told.append(quiet_s)
    assert told == [10, 70, 370, 1870]
    assert not due.at(5) and due.at(10), "something was heard meanwhile"


def test_a_job_that_hears_nothing_says_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr(module, "_FIRST_S", 0.0)
    progress, said = Progress("label"), threading.Event()
    lines: list[str] = []
    progress.note = lambda text: (lines.append(text), said.set())
    with Waits(progress, [ACTOR], look=lambda: Now((node(1, 1),), 0)):
        assert said.wait(60)
    assert lines[0].startswith("label: waiting for 0 s: an actor (labelling) needs 1.75 CPU(s) on one node")
    progress.start(total=4, done=0)
    progress.begin()
    progress.counted(0, ok=0, failed=0)
    assert progress.quiet_s() == 0, "a shard is at work, however long its first image takes"
    progress.advance(ok=4, failed=0, shard=0)
    assert progress.quiet_s() > 0
    progress.stop()
