"""What a person sees of a training that runs elsewhere: messages of the workers in, progress lines out.

    workers ─→ Mailbox (an actor) ─→ driver, twice a second ─→ Progress
       ↑          ↓
       └── stop? ─┴── driver, on a signal: rank 0 saves a checkpoint, then the signal has its usual effect

The module is small, since the actor's process imports it.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypedDict, cast

import ray

from segjobs.jobs.engine.first_signal import FirstSignal
from segjobs.jobs.engine.progress import Progress, clock
from segjobs.jobs.engine.ray_calls import Asked

_POLL_S = 0.5


class Place(TypedDict):
    """How far a training is: its step, its epoch, and the seconds of all attempts."""

    step: int
    epoch: float
    seconds: float


class ScoreMessage(Place):
    """A validation: its headline's name and value, None where undefined."""

    name: str
    value: float | None
    better: bool


class RateMessage(Place):
    """Where a training stands, its learning rate and its speed."""

    lr: float
    images_per_s: float


class StepMessage(RateMessage):
    """A step that was made."""

    loss: float
    step_size: int


class Message(TypedDict, total=False):
    """What a worker says: a line for a person, a score, a step, or the step of the checkpoint it ends with.

    ``placed``: Ray found room for it and all others.
    """

    placed: bool
    note: str
    scores: ScoreMessage
    step: StepMessage
    saved: int


class Mailbox:
    """An actor: what the workers tell, until the driver asks, and whether they are to stop."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stopping = False

    def put(self, message: Message) -> bool:
        """Whether the training is being stopped."""
        self._messages.append(message)
        return self._stopping

    def stop(self) -> None:
        """Say so to whoever tells something from now on."""
        self._stopping = True

    def take(self) -> list[Message]:
        """Everything since the last call."""
        taken, self._messages = self._messages, []
        return taken


class MailboxHandle(Protocol):
    """The actor as other processes have it."""

    put: Asked[[Message], bool]
    stop: Asked[[], None]
    take: Asked[[], list[Message]]


def open_mailbox() -> MailboxHandle:
    """The actor."""
    return cast("MailboxHandle", ray.remote(num_cpus=0)(Mailbox).remote())


def follow(
    run: Callable[[], object], mailbox: MailboxHandle, progress: Progress, *, steps: int, grace_s: float
) -> None:
    """Run the training on a thread of its own and tell what its workers say; raises what ``run`` raises.

    A signal has its usual effect when the step in progress is saved, or after ``grace_s``.
    """
    outcome: list[BaseException] = []

    def catch() -> None:
        try:
            run()
        except BaseException as error:  # raised below, on the thread that waits
            outcome.append(error)

    # Not on this thread: Ray Train would take SIGINT over, and a stopped training would not end with 75.
    thread = threading.Thread(target=catch, name="ray-train", daemon=True)
    told = _Told(steps)
    progress.start(total=steps, done=0, unit="steps")
    progress.begin()
    try:
        with FirstSignal() as stop:
            thread.start()
            end = None
            while thread.is_alive():
                thread.join(_POLL_S)
                told.tell(ray.get(mailbox.take.remote()), progress)
                if stop.number is None:
                    continue
                if end is None:
                    end = time.monotonic() + grace_s
                    ray.get(mailbox.stop.remote())
                # Before the first step there is nothing to save.
                if told.saved or not told.started or time.monotonic() > end:
                    stop.leave()
        told.tell(ray.get(mailbox.take.remote()), progress)
    finally:
        progress.stop()
    if outcome:
        raise outcome[0]


class _Told:
    """What the workers said, as lines for a person."""

    def __init__(self, steps: int) -> None:
        self.started = self.saved = False
        self._steps = steps
        self._score = ""

    def tell(self, messages: Iterable[Message], progress: Progress) -> None:
        for message in messages:
            if "placed" in message:
                progress.counted(0, ok=0, failed=0)
            if "note" in message:
                progress.note(f"train: {message['note']}")
            if "saved" in message:
                self.saved = True
                progress.note(f"train: stopping; the checkpoint of step {message['saved']} is written")
            if "scores" in message:
                self._tell_score(message["scores"], progress)
            if "step" in message:
                self._tell_step(message["step"], progress)

    def _tell_score(self, scores: ScoreMessage, progress: Progress) -> None:
        name = str(scores["name"]).replace("mean_iou", "mIoU")
        value = "–" if scores["value"] is None else f"{scores['value']:.4f}"
        self._score = f" · {name} {value}"
        best = ", the best so far" if scores["better"] else ""
        progress.note(f"train: epoch {scores['epoch']:.1f}, step {scores['step']}: validation {name} {value}{best}")

    def _tell_step(self, step: StepMessage, progress: Progress) -> None:
        self.started = True
        per_step = step["images_per_s"]
        left = (self._steps - step["step"]) * step["step_size"] / per_step if per_step else 0.0
        progress.show(
            step["step"],
            f"epoch {step['epoch']:.1f} · loss {step['loss']:.4f} · lr {step['lr']:.2g}{self._score} · "
            f"{per_step:.1f} images/s · ETA {clock(left)}",
        )
