"""The event files of a training, read back by TensorBoard's own reader."""

import json

import pytest

from segjobs.jobs.train import output
from segjobs.storage import Storage


def test_what_tensorboard_reads(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    lines = [
        {"step": 10, "epoch": 0.5, "seconds": 3.0, "loss": 1.5, "lr": 0.001, "images_per_s": 9.0},
        {"step": 20, "epoch": 1.0, "seconds": 5.0, "loss": 1.25, "lr": 0.0005, "images_per_s": 9.0},
        {"step": 20, "epoch": 1.0, "validation": {"score": 0.25, "mean_iou": 0.25, "AP": None, "iou": {"cat": 0.5}}},
    ]
    texts = [json.dumps(line) for line in lines]
    for count in (1, 1, 3, 3):  # at each checkpoint, after a restart too, what no file has yet
        output.publish_events(texts[:count], str(tmp_path), Storage())
    names = [path.name for path in sorted((tmp_path / "tensorboard").iterdir())]
    assert names == ["events.out.tfevents.00000010", "events.out.tfevents.00000020"]
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "validation/mean_iou"} <= set(events.Tags()["scalars"])
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 1.5), (20, 1.25)]
    assert [(event.step, event.value) for event in events.Scalars("validation/mean_iou")] == [(20, 0.25)]
