"""A label run whose every request goes through a proxy that breaks a share of them: one right row per image."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.config import StorageConfig
from segjobs.manifest.parts import open_run, read_rows
from segjobs.storage import Storage, join
from tests.fault_proxy import TRANSIENT, Fault, fault_proxy
from tests.flow_process import run_here
from tests.toy_model import expected_ids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED, SHARE = 20, 0.25


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 250, (6, 8, 3), np.uint8)


def test_a_run_through_a_broken_network(
    s3_server: StorageConfig, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, root = Storage(s3_server), f"s3://segjobs/{tmp_path.name}"
    names = [f"{number:02d} ü#?.png" for number in range(40)]
    for number, name in enumerate(names):
        file = io.BytesIO()
        Image.fromarray(pixels(number)).save(file, "PNG")
        storage.put_if_absent(join(root, "in", name), file.getvalue())
    assert s3_server.s3.endpoint_url
    with fault_proxy(s3_server.s3.endpoint_url) as proxy:
        command = [
            f"storage.s3.endpoint_url={proxy.url}",
            f"input.uri={root}/in",
            f"output.uri={root}/out",
            "model.name=tests.toy_model:build",
            "compute.actors=1",
            "shard.images=4",
        ]
        # These are written and their replies are lost, whatever the dice say.
        proxy.faults = [Fault("lost", "PUT", name) for name in ("part-00003", "part-00009", "run.json")]
        proxy.chaos(SEED, SHARE)
        code, out, err = run_here(capsys, "label", *command)
        assert code == 0, err
        assert json.loads(out)["ok"] == len(names)
        met = Counter(kind for *_, kind in proxy.seen)
        assert all(met[kind] for kind in TRANSIENT), met
        assert not [fault for fault in proxy.faults if fault.times], "the lost replies were met"

    rows = list(read_rows(storage, join(root, "out")))  # checks each part against run.json's sha256
    assert [row["image_id"] for row in rows] == names
    for number, row in enumerate(rows):
        classes, areas = np.unique(expected_ids(pixels(number)), return_counts=True)
        found = [(segment["category_id"], segment["area"]) for segment in row["segments"]]
        assert found == list(zip(classes.tolist(), areas.tolist(), strict=True))
    run = open_run(storage, join(root, "out"))
    assert {f"parts/{part.name}" for part in run.parts} | {"plan.parquet", "run.json"} == {
        file.path for file in storage.walk(join(root, "out")) if not file.path.startswith("attempts/")
    }
