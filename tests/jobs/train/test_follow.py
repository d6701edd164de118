"""What follows a training: its words to a person, and a signal that waits for a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import ray

from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.train.follow import follow, open_mailbox

pytestmark = pytest.mark.usefixtures("ray_session")

STEP = {"step": 3, "step_size": 4, "epoch": 0.5, "loss": 1.25, "lr": 0.01, "images_per_s": 9.0}


class Stopped(BaseException):
    """The usual effect of a signal."""


@pytest.fixture
def terminated() -> Any:
    """SIGTERM as flows take it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def stopped_training(mailbox: Any, *, steps: bool, saves: bool) -> tuple[Callable[[], None], threading.Event]:
    """A training that is stopped after its first step, or before it, and saves when it hears so; and its end."""
    over = threading.Event()

    def run() -> None:
        if steps:
            ray.get(mailbox.put.remote({"step": STEP}))
            time.sleep(1)  # the driver has heard of it
        os.kill(os.getpid(), signal.SIGTERM)
        while not over.wait(0.1):
            if ray.get(mailbox.put.remote({"note": "still here"})) and saves:
                ray.get(mailbox.put.remote({"saved": 4}))

    return run, over


@pytest.mark.parametrize(
    ("steps", "saves", "grace_s"),
    [(True, True, 300.0), (True, False, 1.0), (False, False, 300.0)],
    ids=["a step is saved", "the grace time is over", "there is nothing to save"],
)
def test_a_signal_waits_for_a_checkpoint(
    terminated: None, capsys: pytest.CaptureFixture[str], *, steps: bool, saves: bool, grace_s: float
) -> None:
    mailbox = open_mailbox()
    run, over = stopped_training(mailbox, steps=steps, saves=saves)
    try:
        with pytest.raises(Stopped):
            follow(run, mailbox, Progress("train"), steps=10, grace_s=grace_s)
    finally:
        over.set()
    assert ("stopping; the checkpoint of step 4 is written" in capsys.readouterr().err) == saves
    assert ray.get(mailbox.put.remote({"note": "later"})), "whoever asks is told to stop"


def test_what_stops_a_training_is_raised_after_all_that_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    mailbox = open_mailbox()

    def run() -> None:
        scores = {"step": 3, "epoch": 0.5, "name": "mean_iou", "value": 0.25, "better": True}
        ray.get([mailbox.put.remote(message) for message in ({"step": STEP}, {"scores": scores}, {"note": "one"})])
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number"):
        follow(run, mailbox, Progress("train"), steps=10, grace_s=0)
    err = capsys.readouterr().err
    assert "train: epoch 0.5, step 3: validation mIoU 0.2500, the best so far" in err
    assert "train: one" in err
