"""Label runs through a network that breaks requests, and on a node without room: one right row per image, or a line why
not."""

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.config import StorageConfig
from segjobs.errors import ClusterError
from segjobs.manifest.parts import open_run, read_rows
from segjobs.storage import Storage, join
from tests.fault_proxy import TRANSIENT, Fault, fault_proxy
from tests.flow_process import REPOSITORY, run_here
from tests.toy_model import expected_ids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED, SHARE = 20, 0.25
STORE_BYTES = 80 * 2**20
_SMALL_NODE = """
import sys
from segjobs.cli import run_verb
from segjobs.jobs.engine.cluster import start_local

store, full = int(sys.argv[1]), float(sys.argv[2])
start_local(num_cpus=2, object_store_memory=store, _system_config={"local_fs_capacity_threshold": full})
sys.exit(run_verb("label", sys.argv[3:]))
"""


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


def test_a_shard_larger_than_the_object_store(tmp_path: Path) -> None:
    """Its decoded pixels go through the disk; where that is full too, the run stops and can be continued."""
    (tmp_path / "in").mkdir()
    for number in range(8):
        Image.fromarray(np.full((2000, 2000, 3), number, np.uint8)).save(tmp_path / "in" / f"{number}.png")
    assert STORE_BYTES < 8 * 2000 * 2000 * 3
    command = [f"input.uri={tmp_path}/in", f"output.uri={tmp_path}/out", "model.name=tests.toy_model:build"]
    command += ["compute.decode=task", "shard.images=8"]

    def run(full: float) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", _SMALL_NODE, str(STORE_BYTES), str(full), *command]
        return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    stopped = run(full=0.001)  # a disk is full from this share on
    assert stopped.returncode == ClusterError.exit_code, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == (
        "error: the disk on which a node of the cluster keeps Ray's files is full; free some space (RAY_TMPDIR); "
        "what is published stays: run the command again to continue"
    )
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["plan.parquet"]
    done = run(full=1.0)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 8
