"""prepare → label → evaluate with everything on a real S3 server: images, labels, weights and all outputs."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.config import ModelConfig, StorageConfig
from segjobs.manifest.parts import footer_of, open_run, read_rows
from segjobs.storage import Storage, join
from tests.flow_process import run_here
from tests.toy_model import expected_ids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("ray_session")]

NAMES = ["plain", "a/b/c d", "ünï ∆ 漢", "hash#?%25+&=", "quote'\"", "x/[0]"]
SIZE_HW = (4, 5)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 250, (*SIZE_HW, 3), np.uint8)


def test_from_labels_to_scores_on_s3(
    s3_server: StorageConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"s3://segjobs/{tmp_path.name}/a ü#1"
    storage = Storage(s3_server)
    for number, name in enumerate(NAMES):
        truth = expected_ids(image(number)).astype(np.uint8)
        if number == 0:
            truth[0, 0] = (truth[0, 0] + 1) % 3  # one pixel wrong
        if number == 1:
            truth[0, 0] = 255  # one pixel void
        assert storage.put_if_absent(join(root, "images", f"{name}.png"), png(image(number)))
        assert storage.put_if_absent(join(root, "labels", f"{name}.png"), png(truth))
    common = [f"storage.s3.endpoint_url={s3_server.s3.endpoint_url}", f"input.uri={root}/images"]
    prepare = [*common, f"output.uri={root}/truth", "labels.format=png", f"labels.uri={root}/labels"]
    label = [*common, f"output.uri={root}/masks", "model.name=tests.toy_model:build", "shard.images=4"]
    evaluate = [common[0], f"truth.uri={root}/truth", f"predictions.uri={root}/masks", f"output.uri={root}/scores"]

    code, _, err = run_here(capsys, "prepare", *prepare, "labels.categories=[dark, mid, bright]", "shard.images=2")
    assert code == 0, err
    code, out, err = run_here(capsys, "label", *label, "compute.actors=1")
    assert code == 0, err
    assert json.loads(out)["ok"] == 6
    code, out, err = run_here(capsys, "evaluate", *evaluate)
    assert code == 0, err
    assert json.loads(out)["pixel_accuracy"] == 118 / 119
    report = json.loads(storage.read(f"{root}/scores/report.json"))
    assert report["images"] == {"ok": 6, "missing": 0, "failed": 0, "no_truth": 0, "extra": 0}
    labelled = report["semantic"]["confusion"][:-1]  # the last row is the unlabelled pixel
    assert sum(map(sum, labelled)) == 119
    code, out, err = run_here(capsys, "report", common[0], f"evaluation.uri={root}/scores", f"output.uri={root}/scores")
    assert code == 0, err
    page = storage.read(f"{root}/scores/report.html").decode()
    assert page.count("data:image/") >= 6, "every image is shown, read from the store"

    rows = {row["image_id"]: row for row in read_rows(storage, f"{root}/masks")}
    assert list(rows) == sorted(f"{name}.png" for name in NAMES)
    for name in NAMES:
        info = storage.info(f"{root}/images/{name}.png")
        assert info is not None
        row = rows[f"{name}.png"]
        assert row["uri"] == info.uri
        assert (row["source"]["etag"], row["source"]["size"]) == (info.etag, info.size)

    standing = {file.path: file.mtime_us for file in storage.walk(root)}
    for verb, arguments in (("label", label), ("evaluate", evaluate)):
        code, _, err = run_here(capsys, verb, *arguments)
        assert (code, "nothing to do" in err) == (0, True), err
    storage.put_if_absent(f"{root}/images/new.png", png(image(9)))
    code, _, err = run_here(capsys, "label", *label)
    assert code == 2
    assert "the input differs: 1 image(s) added (such as 'new.png')" in err
    assert standing.items() <= {file.path: file.mtime_us for file in storage.walk(root)}.items()


def test_weights_on_s3(s3_server: StorageConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segjobs.models.registry import build
    from segjobs.models.tensors import save_model

    root = f"s3://segjobs/{tmp_path.name}"
    storage = Storage(s3_server)
    options = {"encoder": "resnet18", "decoder_channels": [64, 32, 16, 16, 16]}
    model = build(ModelConfig(name="unet", weights="none", options=options, seed=3), storage, device="cpu")
    save_model(model, f"{root}/model", storage)
    for number in range(2):
        storage.put_if_absent(f"{root}/images/{number}.png", png(image(number)))
    code, out, err = run_here(
        capsys,
        "label",
        f"storage.s3.endpoint_url={s3_server.s3.endpoint_url}",
        f"input.uri={root}/images",
        f"output.uri={root}/masks",
        "model.name=unet",
        f"model.weights={root}/model",
        "compute.actors=1",
    )
    assert code == 0, err
    assert json.loads(out)["ok"] == 2
    run = open_run(storage, f"{root}/masks")
    card = footer_of(run).model
    assert card is not None
    assert (card["weights"], card["options"]) == (f"{root}/model", options)
    predictions = model.predict([image(number) for number in range(2)])
    for row, prediction in zip(read_rows(storage, f"{root}/masks"), predictions, strict=True):
        classes, areas = np.unique(prediction.ids, return_counts=True)
        assert [(segment["category_id"], segment["area"]) for segment in row["segments"]] == list(
            zip(classes.tolist(), areas.tolist(), strict=True)
        )
