"""What a training leaves: its metrics, pictures of them, and the model directory, whose model.json is written last.

output.uri/metrics.jsonl        a line every ten steps, and one each validation
output.uri/curves.png           the same as a picture
output.uri/contact_sheet.png    validation images: image, truth, prediction
output.uri/tensorboard/         the same as event files, one at each checkpoint, where tensorboard is installed
output.uri/model.safetensors, model.json
"""

import importlib.util
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segjobs import __version__
from segjobs.models.base import Segmenter
from segjobs.models.learning import save
from segjobs.page.contact_sheet import evenly_spread, sheet_png, tile_of
from segjobs.page.curves import draw_curves
from segjobs.storage import Storage, join, writing
from segjobs.training.checkpoints import TrainingState
from segjobs.training.examples import ExampleReader
from segjobs.training.validate import HEADLINES, ValidationScores, image_score, predictions, truth_segments

if TYPE_CHECKING:
    from PIL import Image

    from segjobs.jobs.train.task import TrainTask

METRICS, CURVES, SHEET = "metrics.jsonl", "curves.png", "contact_sheet.png"


def publish(
    task: "TrainTask",
    segmenter: Segmenter,
    record: TrainingState,
    *,
    reader: ExampleReader | None,
    places: Sequence[np.ndarray],
) -> None:
    """Write everything below ``output.uri``; ``segmenter`` is in eval mode and has the weights to keep."""
    uri, storage = task.config.output.uri, task.storage
    lines = [json.loads(line) for line in record.lines]
    storage.put_if_absent(join(uri, METRICS), "".join(f"{line}\n" for line in record.lines).encode())
    storage.put_if_absent(join(uri, CURVES), _png(draw_curves(lines)))
    if reader is not None and task.config.validation.contact_sheet:
        storage.put_if_absent(join(uri, SHEET), _sheet(task, segmenter, reader, places))
    publish_events(record.lines, uri, storage)
    best = next((line for line in reversed(lines) if "validation" in line and line["step"] == record.best_step), None)
    training = {
        "identity": dict(task.identity),
        "digest": task.digest,
        "version": __version__,
        "steps": record.step,
        "epochs": round(record.step * task.feed.step_size / task.feed.order.epoch_size, 4),
        "seconds": round(record.seconds, 3),
        "step_of_the_weights": record.best_step or record.step,
        **task.facts,
    }
    extra = {"training": training, "validation": best and best["validation"]}
    save(segmenter, task.config.model, uri, storage, extra=extra)


def _sheet(task: "TrainTask", segmenter: Segmenter, reader: ExampleReader, places: Sequence[np.ndarray]) -> bytes:
    """Validation images, evenly spread over their ids, as a PNG."""
    config = task.config.validation
    chosen = [places[number] for number in evenly_spread(len(places), config.contact_sheet)]
    categories = segmenter.card.categories
    tiles = []
    for one in predictions(segmenter, reader, chosen, config.batch_size):
        tile = tile_of(
            one.example.image_id,
            one.example.image,
            truth=truth_segments(one.example, categories),
            prediction=one.segments,
            score=image_score(one, categories, segmenter.card.task),
            task=segmenter.card.task,
        )
        tiles.append(tile)
    title = f"{segmenter.card.name}: validation images"
    columns = ("image", "truth", "prediction", "prediction_map")
    return sheet_png(tiles, legend=categories, columns=columns, title=title)


def _png(picture: "Image.Image") -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def publish_events(lines: Sequence[str], uri: str, storage: Storage) -> None:
    """Write the lines that no event file has yet into one of its own, named by its last step.

    TensorBoard reads the files of a folder in the order of their names.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return
    folder_uri = join(uri, "tensorboard")
    last = max((int(name.rpartition(".")[2]) for name in storage.list_names(folder_uri)), default=0)
    new = [line for line in map(json.loads, lines) if line["step"] > last]
    if not new:
        return
    from torch.utils.tensorboard import SummaryWriter

    with writing(folder_uri), tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for line in new:
                values = line.get("validation", line)
                for name, value in values.items():
                    if isinstance(value, int | float) and name not in ("step", "seconds", "score"):
                        tag = f"validation/{name}" if "validation" in line else f"train/{name}"
                        writer.add_scalar(tag, value, line["step"])
        (path,) = Path(folder).iterdir()
        storage.put_file_if_absent(join(folder_uri, f"events.out.tfevents.{new[-1]['step']:08d}"), path)


def headline(figures: ValidationScores, task: str) -> str:
    """A validation's figures in a few words."""
    name = HEADLINES[task]
    return f"{name.replace('mean_iou', 'mIoU')} {figures[name]:.4f}" if figures[name] is not None else f"{name} –"
