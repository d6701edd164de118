"""Small trainings: scenes of squares with their manifest, and a trainer in this process, fed by the session's Ray."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from segjobs.config import TrainConfig
from segjobs.errors import ItemError
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.train.division import Division
from segjobs.jobs.train.job import make_task, open_start
from segjobs.manifest.parts import Run, part_bytes, part_uri, publish_part, receipt_of, write_run
from segjobs.manifest.rows import Author, failed_row, ok_row
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, Footer, Task, make_categories
from segjobs.storage import FileInfo, Storage
from tests.manifests import info_of, segment_of

import ray  # isort: skip  # after segjobs.jobs, which sets its environment

NAMES = ("ground", "square")
SIZE_HW = (40, 48)


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on dark ground, at a place of its own: uint8 (40, 48, 3) and bool (40, 48)."""
    rng = np.random.default_rng(number)
    image = rng.integers(20, 60, (*SIZE_HW, 3), np.uint8)
    mask = np.zeros(SIZE_HW, bool)
    top, left = rng.integers(0, 20), rng.integers(0, 28)
    mask[top : top + 18, left : left + 18] = True
    image[mask] = rng.integers(180, 255, (int(mask.sum()), 3), np.uint8)
    return image, mask


def scenes(
    folder: Path,
    count: int = 6,
    *,
    task: Task = "semantic",
    names: Sequence[str] = NAMES,
    scores: Sequence[float | None] | None = None,
    broken: Sequence[int] = (),
) -> str:
    """Images below ``folder`` and their manifest, whose URI is returned; three images a part.

    ``scores``: confidence of each image and score of its square; ``broken``: images that failed.
    """
    (folder / "images").mkdir(parents=True)
    categories = make_categories(names)
    rows = []
    for number in range(count):
        image, mask = draw(number)
        path = folder / "images" / f"{number:02d}.png"
        Image.fromarray(image).save(path)
        item, author = FileInfo(str(path), path.name, path.stat().st_size, 0, ""), Author("0" * 16)
        score = scores[number] if scores else None
        if number in broken:
            rows.append(failed_row(item, author, ItemError("UNREADABLE", "no image")))
            continue
        segments = [segment_of(mask, categories[1], score=1.0 if score is None else score)]
        if task == "semantic":
            segments.insert(0, segment_of(~mask, categories[0]))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(ok_row(item, author, sha256=sha256, size_hw=SIZE_HW, segments=segments, confidence=score))
    storage, uri = Storage(), str(folder / "truth")
    footer = Footer(task, categories, "0" * 64)
    receipts = []
    for number, start in enumerate(range(0, count, 3)):
        part = rows[start : start + 3]
        data, _ = publish_part(storage, uri, number, part_bytes(pa.Table.from_pylist(part, MANIFEST_SCHEMA), footer))
        receipts.append(
            receipt_of(part_uri(uri, number), data, [row["image_id"] for row in part], run_id=part[0]["run_id"]).part
        )
    info = info_of(footer, RunCounts(count, count - len(broken), len(broken), 0))
    write_run(storage, Run(uri, tuple(receipts), info))
    return uri


def config_of(uri: str, output: Path | str, **sections: Any) -> TrainConfig:
    """A training of some seconds; ``sections`` are laid over it, key by key."""
    raw: dict[str, Any] = {
        "data": {"uri": uri},
        "validation": {"share": 0.0},
        "model": {"name": "lraspp_mobilenet_v3_large", "resize": "native"},
        "output": {"uri": str(output)},
        "augment": {"crop_px": 32, "scale": [0.9, 1.1]},
        "optimiser": {"learning_rate": 0.003},
        "schedule": {"steps": 12, "warmup_steps": 2},
        "batch_size": 2,
    }
    for name, section in sections.items():
        raw[name] = {**raw[name], **section} if isinstance(section, dict) and name in raw else section
    return TrainConfig.model_validate(raw)


class Ear:
    """The driver's side: keeps what a worker tells, and answers whether it is to stop."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.stopping = False
        self.put = self

    def remote(self, message: dict[str, Any]) -> ray.ObjectRef:
        self.heard.append(message)
        return ray.put(self.stopping)


def trainer_of(config: TrainConfig) -> tuple[Any, Ear]:
    """The trainer of ``config`` in this process, on one thread, and what listens to it."""
    import torch

    from segjobs.jobs.train.task import WorkerRank
    from segjobs.jobs.train.worker import Trainer

    torch.set_num_threads(1)
    storage, ear = Storage(config.storage), Ear()
    start = open_start(config, storage)
    task = make_task(config, storage, start, Division(1, 1.0, 0.0, 1), (ear, Progress("train")))
    return Trainer(task, WorkerRank(0, 1, "cpu")), ear
