"""The whole product in three minutes, offline: draw scenes, prepare, train, label, evaluate, look.

    synthetic scenes ─→ prepare ─→ truth ─→ train ─→ model ─→ label ─→ predictions ─→ evaluate ─→ report
                                     └──────────────────────────────────┴─→ contact sheet

Each step is the job that works on real collections. What an earlier call finished is kept.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.config import DemoConfig, EvaluateConfig, LabelConfig, PrepareConfig, TrainConfig, load_config
from segjobs.evaluation.report_types import Report
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.evaluate.job import evaluate
from segjobs.jobs.label.job import label
from segjobs.jobs.prepare.job import prepare
from segjobs.jobs.train.job import train
from segjobs.manifest.manifest import Manifest
from segjobs.page.contact_sheet import evenly_spread, sheet_png, tile_of
from segjobs.results import DemoResult, Result
from segjobs.sources.decode import decode_image
from segjobs.sources.synthetic import CLASSES, write_dataset
from segjobs.storage import Storage, local_path

_MAX_PIXELS = 10**6  # scenes are small
_SHEET_ROWS = 8


def demo(config: DemoConfig) -> DemoResult:
    """Run the demonstration into ``config.output.uri``, a local folder."""
    steps: list[Result] = []
    folder = local_path(config.output.uri)
    check_writable(config.output.uri)
    console = Terminal()
    for part, count, seed in (
        ("train", config.train_images, config.seed),
        ("test", config.test_images, config.seed + 1),
    ):
        if not (folder / part).exists():
            console.print(f"[bold]draw[/] {count} scenes for {part}", markup=True)
            write_dataset(folder / f".{part}", count=count, seed=seed)
            (folder / f".{part}").rename(folder / part)  # complete, or not there
        console.print(f"[bold]prepare[/] the labels of {part}", markup=True)
        steps.append(prepare(_prepare_config(folder, part)))
    console.print(f"[bold]train[/] a U-Net ({config.encoder}, random weights) on the scenes", markup=True)
    steps.append(train(_train_config(config, folder)))
    console.print("[bold]label[/] the held-out scenes", markup=True)
    steps.append(label(_label_config(folder)))
    console.print("[bold]evaluate[/]", markup=True)
    steps.append(evaluate(_evaluate_config(folder)))
    miou = _mean_iou(folder)
    sheet = _draw_sheet(folder, miou)
    console.print(f"look at {sheet}: image, truth and prediction side by side")
    for line in (
        "next, the whole evaluation as a page:",
        f"  segjobs report evaluation.uri={folder}/report output.uri={folder}/report",
        "your own photographs with this model, or with a published one (downloads its weights):",
        f"  segjobs label input.uri=PHOTOS/ output.uri=out/mine model.name=unet model.weights={folder}/model",
        "  segjobs label input.uri=PHOTOS/ output.uri=out/run1 model.name=deeplabv3_resnet50",
    ):
        console.print(line)
    return DemoResult(tuple(steps), miou, str(sheet))


def _prepare_config(folder: Path, part: str) -> PrepareConfig:
    return load_config(
        PrepareConfig,
        None,
        [
            f"input.uri={folder / part / 'images'}",
            f"labels.uri={folder / part / 'labels'}",
            "labels.format=png",
            f"labels.categories=[{','.join(CLASSES)}]",
            f"output.uri={folder / 'truth' / part}",
        ],
    )


def _label_config(folder: Path) -> LabelConfig:
    return load_config(
        LabelConfig,
        None,
        [
            f"input.uri={folder / 'test' / 'images'}",
            f"output.uri={folder / 'predictions'}",
            "model.name=unet",
            f"model.weights={folder / 'model'}",
            "shard.images=16",
        ],
    )


def _evaluate_config(folder: Path) -> EvaluateConfig:
    return load_config(
        EvaluateConfig,
        None,
        [
            f"predictions.uri={folder / 'predictions'}",
            f"truth.uri={folder / 'truth' / 'test'}",
            f"output.uri={folder / 'report'}",
        ],
    )


def _train_config(config: DemoConfig, folder: Path) -> TrainConfig:
    return load_config(
        TrainConfig,
        None,
        [
            f"data.uri={folder / 'truth' / 'train'}",
            "validation.share=0",  # the held-out scenes are scored below
            "model.name=unet",
            f"model.options.encoder={config.encoder}",
            f"model.seed={config.seed}",
            f"output.uri={folder / 'model'}",
            "augment.crop_px=128",
            "augment.scale=[1, 1]",
            "augment.vertical_flip=0.5",
            "optimiser.learning_rate=0.003",
            f"schedule.steps={config.steps}",
            f"schedule.warmup_steps={config.steps // 10}",
            f"seed={config.seed}",
        ],
    )


def _mean_iou(folder: Path) -> float:
    where = str(folder / "report" / "report.json")
    value = Report.from_json(Storage().read(where), where=where).semantic.headline["mean_iou"].value
    assert value is not None  # noqa: S101  # the scenes have labels
    return value


def _draw_sheet(folder: Path, miou: float) -> Path:
    """Held-out scenes from the worst to the best by their own mIoU, evenly spread."""
    storage = Storage()
    scores = pq.read_table(pa.BufferReader(storage.read(str(folder / "report" / "per_image.parquet"))))
    ranked = sorted(zip(scores["mean_iou"].to_pylist(), scores["image_id"].to_pylist(), strict=True))
    picked = [ranked[n] for n in evenly_spread(len(ranked), _SHEET_ROWS)]
    right = Manifest(storage, str(folder / "truth" / "test"))
    truth = {row.image_id: row for row in right}
    predicted = {row.image_id: row for row in Manifest(storage, str(folder / "predictions"))}
    tiles = [
        tile_of(
            image_id,
            decode_image(storage.read(truth[image_id]["uri"]), max_pixels=_MAX_PIXELS),
            truth=truth[image_id].segments,
            prediction=predicted[image_id].segments,
            score=score,
        )
        for score, image_id in picked
    ]
    title = f"Held-out scenes, worst to best: mIoU {100 * miou:.1f}"
    path = folder / "contact_sheet.png"
    columns = ("image", "truth", "prediction", "prediction_map")
    path.write_bytes(sheet_png(tiles, legend=right.categories, columns=columns, title=title))
    return path
