"""The training worker: batches in, steps, validations and checkpoints out. One process a device.

    feed → micro-batches: loss, backward → [all workers' mean] → clip → optimiser → running mean
         └→ every validation: score, checkpoint, early stopping

The loss of a step is the mean over the labelled pixels of all workers' images, so that the number of workers does
not change what is learnt (but for batch norms, whose statistics are of one worker's images). Random numbers of a step
come from the seed, the step and the rank: a checkpoint need not hold a generator.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Unpack

import numpy as np
import ray
import torch
import torch.distributed as dist
from ray.train import get_context
from ray.train.torch import get_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segjobs.errors import ItemError, TrainingError
from segjobs.jobs.train import output
from segjobs.jobs.train.feed import Augmented
from segjobs.jobs.train.follow import Message, Place, RateMessage, StepMessage
from segjobs.jobs.train.task import TrainTask, WorkerRank
from segjobs.models.base import VOID, LabelMap, Segmenter, Target
from segjobs.models.factories import words_of_a_training
from segjobs.models.learning import start
from segjobs.training.batch_norms import is_too_small, too_small
from segjobs.training.checkpoints import Checkpoints, CheckpointTensors, TrainingState
from segjobs.training.examples import ExampleReader
from segjobs.training.optim import RunningMean, freeze, learning_rate, make_optimiser, to_train_mode
from segjobs.training.validate import HEADLINES, score

_SPOKEN_S = 1.0  # between two messages to the driver
_LINE_STEPS = 10  # steps of one line of metrics.jsonl


def train_loop(settings: dict[str, TrainTask]) -> None:
    """Train from the last checkpoint to the end; rank 0 writes."""
    torch.set_num_threads(settings["task"].threads)
    context, device = get_context(), get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where objects that workers exchange travel
    Trainer(settings["task"], WorkerRank(context.get_world_rank(), context.get_world_size(), str(device))).run()


class _Clock:
    """Seconds of training, of all attempts; it starts with the first batch."""

    def __init__(self, before_s: float, first_step: int) -> None:
        self.first_step = first_step
        self._before_s = before_s
        self._start = time.monotonic()

    def since_start(self) -> float:
        return time.monotonic() - self._start

    def seconds(self) -> float:
        return self._before_s + self.since_start()


class LossModule(nn.Module):
    """The network with its loss as one module, which is what DistributedDataParallel wraps."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.module = segmenter.module
        self._segmenter = segmenter

    def forward(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """Images uint8 (h, w, 3) and their targets → scalar loss."""
        return self._segmenter.loss(images, targets)


class Trainer:
    """One worker's model, optimiser and place in the schedule."""

    def __init__(self, task: TrainTask, place: WorkerRank) -> None:
        config = task.config
        self.task, self.config = task, config
        self.rank, self.world, self.device = place.rank, place.world, place.device
        self._heard: ray.ObjectRef | None = None
        self._say(placed=True)
        self.segmenter, self.transfer = start(
            config.model,
            task.card,
            task.weights,
            task.storage,
            device=self.device,
            precision=config.compute.precision,
        )
        if choose := getattr(self.segmenter, "set_loss", None):  # a user's own may have one loss alone
            with words_of_a_training(config.model, "its set_loss failed"):
                choose(config.loss, task.amounts)
        self.checkpoints = Checkpoints(config.output.uri, task.storage, task.digest)
        module = self.segmenter.module
        freeze(module, config.optimiser.freeze)
        self.optimiser = make_optimiser(module, config.optimiser)
        self.scaler = torch.amp.GradScaler(
            "cuda", enabled=config.compute.precision == "fp16" and self.device.startswith("cuda")
        )
        self.mean = RunningMean(module, config.optimiser.ema_decay) if config.optimiser.ema_decay else None
        self.record = self._restore()
        loss = LossModule(self.segmenter)
        self.loss: nn.Module = loss
        if self.world > 1:
            self.loss = DistributedDataParallel(loss)
        self.reader = None
        if task.validation and task.places is not None:
            self.reader = ExampleReader(
                [task.validation], task.storage, max_pixels=config.decode.max_pixels, part_px=config.tiles.size
            )
            self.places = ray.get(task.places)
        self._spoken = self._saved = 0.0
        self._clock: _Clock | None = None

    def run(self) -> None:
        """All steps that are left, then the model directory."""
        task, record = self.task, self.record
        if self.rank == 0 and self.transfer and not record.step:
            self._say(note=str(self.transfer))
        if self.rank == 0 and record.step:
            self._say(note=f"going on from the checkpoint of step {record.step}")
        self._saved = time.monotonic()
        if not self._patience_is_over():
            for step, examples in task.feed.batches(self.rank, self.world, first_step=record.step):
                self._clock = self._clock or _Clock(record.seconds, step)
                loss = self._step(step, examples)
                record.step = step + 1
                record.seconds = self._clock.seconds()
                self._note_step(loss)
                self._look_after()
                if self._patience_is_over():
                    break
        self._finish()

    def _look_after(self) -> None:
        """After a step: validation or checkpoint, where it is time for one."""
        record, task = self.record, self.task
        if record.step % task.validation_steps == 0 or record.step == task.feed.steps:
            self._validate()
        elif time.monotonic() - self._saved > self.config.checkpoint_s:
            self._save()
        if record.step < task.feed.steps and self._stop_is_asked():
            self._save()
            self._say(saved=record.step)
            time.sleep(self.config.compute.grace_s)  # the driver ends this process when it hears of the checkpoint

    # --- one step -------------------------------------------------------------------------------

    def _step(self, step: int, examples: Sequence[Augmented]) -> float:
        config = self.config
        torch.manual_seed(_seed(config.seed, step, self.rank))
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        to_train_mode(self.segmenter.module, config.optimiser.freeze)
        batches = [examples[at : at + config.batch_size] for at in range(0, len(examples), config.batch_size)]
        weights = [_weight(batch) for batch in batches]
        total = self._sum(sum(weights))
        value = 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for batch, weight in zip(batches, weights, strict=True):
            # Gradients of workers are averaged: their number makes a sum of it again.
            share = weight * self.world / max(total, 1.0)
            last = batch is batches[-1]
            wait = self.loss.no_sync() if isinstance(self.loss, DistributedDataParallel) and not last else nullcontext()
            with wait:
                value += self._backward(batch, share)
        value = self._sum(value) / self.world
        if not math.isfinite(value):  # so it is on every worker
            self._stop(step, value, examples)
        if config.optimiser.clip_norm:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.segmenter.module.parameters(), config.optimiser.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.mean:
            self.mean.update(self.segmenter.module, step)
        return value

    def _backward(self, batch: Sequence[Augmented], share: float) -> float:
        """Add the gradients of a micro-batch; its share of the step's loss."""
        try:
            names = ", ".join(repr(one.image_id) for one in batch)
            with words_of_a_training(self.config.model, f"its loss failed on the images {names}"):
                loss = self.loss([one.image for one in batch], [one.target for one in batch]) * share
                self.scaler.scale(loss).backward()
        except torch.OutOfMemoryError as error:
            sizes = {"x".join(map(str, one.image.shape[:2])) for one in batch}
            raise TrainingError(
                f"{len(batch)} images of {', '.join(sorted(sizes))} pixels do not fit on the device: lower batch_size "
                f"(and raise accumulate) or augment.crop_px ({str(error).splitlines()[0]})"
            ) from error
        except ValueError as error:
            if not is_too_small(error):
                raise
            tall, wide = (max(one.image.shape[axis] for one in batch) for axis in (0, 1))
            raise TrainingError(f"batch_size: {too_small(len(batch), (tall, wide))}") from error
        except ItemError as error:
            names = ", ".join(repr(one.image_id) for one in batch)
            raise TrainingError(f"one of the images {names} cannot be learnt from: {error}") from error
        return float(loss.detach())

    def _sum(self, value: float) -> float:
        """Over all workers."""
        if self.world == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(number)
        return float(number)

    def _stop(self, step: int, value: float, examples: Sequence[Augmented]) -> None:
        names: list[list[str]] = [[one.image_id for one in examples]]
        if self.world > 1:
            names = [[]] * self.world
            dist.all_gather_object(names, [one.image_id for one in examples])
        listed = ", ".join(repr(name) for share in names for name in share)
        kept = self.checkpoints.storage.list_names(f"{self.config.output.uri.rstrip('/')}/checkpoints")
        raise TrainingError(
            f"the loss is {value} at step {step + 1}, on the images {listed}: lower optimiser.learning_rate "
            f"(now {self.config.optimiser.learning_rate:g}) or set optimiser.clip_norm=1; "
            + (f"the checkpoint before it is kept ({max(kept)})" if kept else "no checkpoint was written yet")
        )

    # --- validation and checkpoints ---------------------------------------------------------------

    def _validate(self) -> None:
        """Score the weights that would be saved, and publish best and last."""
        record = self.record
        if self.reader is None:
            self._save()
            return
        kept = None
        if self.mean:
            kept = {key: value.clone() for key, value in self.segmenter.module.state_dict().items()}
            self.segmenter.module.load_state_dict(self.mean.tensors)
        self._same_everywhere()
        self.segmenter.module.eval()
        begun = time.monotonic()
        with words_of_a_training(self.config.model, "it failed on images to score on"):
            figures = score(
                self.segmenter,
                self.reader,
                self.places[self.rank :: self.world],
                batch_size=self.config.validation.batch_size,
                device=self.device,
            )
        figures["seconds"] = round(time.monotonic() - begun, 3)
        value = figures["score"]
        better = value is not None and (record.best_score is None or value > record.best_score)
        record.stale = 0 if better else record.stale + 1
        if better:
            record.best_step, record.best_score = record.step, value
        record.lines.append(json.dumps({**self._place(), "validation": figures}, ensure_ascii=False))
        if self.rank == 0 and better:
            self.checkpoints.save_best(record.step, self.segmenter.module.state_dict())
        if kept is not None:
            self.segmenter.module.load_state_dict(kept)
        self._save()
        self._say(scores={**self._place(), "name": HEADLINES[self.task.card.task], "value": value, "better": better})

    def _same_everywhere(self) -> None:
        """Rank 0's statistics of batch norms, which are saved, are what all workers score."""
        if self.world > 1:
            for tensor in self.segmenter.module.state_dict().values():
                dist.broadcast(tensor, 0)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self.rank == 0:
            tensors: CheckpointTensors = {
                "module": self.segmenter.module.state_dict(),
                "mean": self.mean.tensors if self.mean else {},
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            self.checkpoints.save(self.record, tensors)
            output.publish_events(self.record.lines, self.config.output.uri, self.task.storage)

    def _restore(self) -> TrainingState:
        found = self.checkpoints.load() if self.rank == 0 else None
        if self.world > 1:
            shared = [found]
            dist.broadcast_object_list(shared, 0)
            found = shared[0]
        if found is None:
            return TrainingState()
        record, tensors = found
        self.segmenter.module.load_state_dict(tensors["module"])
        self.optimiser.load_state_dict(tensors["optimiser"])
        self.scaler.load_state_dict(tensors["scaler"])
        if self.mean:
            for key, value in tensors["mean"].items():
                self.mean.tensors[key].copy_(value)
        return record

    def _patience_is_over(self) -> bool:
        patience = self.config.schedule.early_stopping
        return patience is not None and self.record.stale >= patience

    # --- telling ----------------------------------------------------------------------------------

    def _place(self) -> Place:
        feed = self.task.feed
        return {
            "step": self.record.step,
            "epoch": round(self.record.step * feed.step_size / feed.order.epoch_size, 4),
            "seconds": round(self.record.seconds, 3),
        }

    def _note_step(self, loss: float) -> None:
        """A line of metrics.jsonl every ten steps, and a word to the driver every second."""
        assert self._clock is not None  # noqa: S101  # a step has been made
        record, step_size = self.record, self.task.feed.step_size
        record.losses.append(loss)
        rate = (record.step - self._clock.first_step) * step_size / self._clock.since_start()
        about: RateMessage = {**self._place(), "lr": self._rate(record.step - 1), "images_per_s": round(rate, 3)}
        if record.step % _LINE_STEPS == 0 or record.step == self.task.feed.steps:
            mean = sum(record.losses) / len(record.losses)
            record.lines.append(json.dumps({**about, "loss": mean}))
            record.losses = []
        if time.monotonic() - self._spoken >= _SPOKEN_S:
            self._spoken = time.monotonic()
            said: StepMessage = {**about, "loss": loss, "step_size": step_size}
            self._say(step=said)

    def _rate(self, step: int) -> float:
        return learning_rate(step, self.task.feed.steps, self.config.optimiser, self.config.schedule)

    def _say(self, **message: Unpack[Message]) -> None:
        if self.rank == 0:
            self._heard = self.task.mailbox.put.remote(message)

    def _stop_is_asked(self) -> bool:
        """By what the driver's mailbox answered to the last message; only rank 0 sends any."""
        if self._heard is None or not ray.wait([self._heard], timeout=0)[0]:
            return False
        heard, self._heard = self._heard, None
        return ray.get(heard)

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Rank 0: the best weights (the last ones, without validation) and all that belongs to them."""
        if self.rank != 0:
            return
        module, record = self.segmenter.module, self.record
        if record.best_step is not None:
            module.load_state_dict(self.checkpoints.load_best(record.best_step))
        elif self.mean:
            module.load_state_dict(self.mean.tensors)
        module.eval()
        places = self.places if self.reader else ()
        output.publish(self.task, self.segmenter, record, reader=self.reader, places=places)


def _weight(batch: Sequence[Augmented]) -> float:
    """By how much a micro-batch counts: its labelled pixels, or its images where objects are learnt."""
    targets = [one.target for one in batch]
    return float(sum((t.ids != VOID).sum() if isinstance(t, LabelMap) else 1 for t in targets))


def _seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} step {step} rank {rank}".encode()).digest()[:6], "big")
