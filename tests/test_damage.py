"""Every kind of file that segjobs writes and reads again, with bits flipped and ends missing: one line that names it.

Each is read by what reads it in use.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from segjobs.config import ModelConfig
from segjobs.errors import ManifestError, WeightsError
from segjobs.evaluation.report_types import Inputs, Report
from segjobs.evaluation.scores import Scores
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.shards import shards_of, verify
from segjobs.jobs.engine.standing import read_standing_json
from segjobs.jobs.prepare.label_checks import read_checks
from segjobs.jobs.report.tasks import rank_scores
from segjobs.manifest.parts import find_run, image_ids_of, open_run, read_part
from segjobs.manifest.seal import sealed_json
from segjobs.models.tensors import save_model
from segjobs.models.weights import locate
from segjobs.page.picks import Wanted
from segjobs.storage import Storage, join
from segjobs.training.checkpoints import Checkpoints
from tests import toy_model
from tests.jobs.engine.test_run import job_of, listing, run
from tests.made import TRUTH, manifest, scored

STORAGE = Storage()
FLIPS, ENDS = 60, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that died, an evaluation, candidates of a page, checks, an export's plan, a model."""
    root = tmp_path_factory.mktemp("made")
    for name in ("run", "died"):
        run(job_of(root / name, listing(7)), root / "log")
    (root / "died" / "run.json").unlink()
    scored(root, manifest(root / "truth", {"a": ["sr"], "b": ["tt"]}), manifest(root / "predicted", {"a": ["ss"]}))
    (root / "run" / "checks.json").write_bytes(sealed_json({"checks": {"orphans": {"count": 3}}}))
    (root / "run" / "export.json").write_bytes(sealed_json({"images": {"ok": 3}}))
    checkpoints(root / "model").save_best(3, {"weight": torch.ones(4)})
    toy: Any = toy_model.build()
    toy.module = torch.nn.Conv2d(3, 3, 1)
    save_model(toy, str(root / "model"), STORAGE)
    return root


def checkpoints(uri: Path) -> Checkpoints:
    return Checkpoints(str(uri), STORAGE, "an identity")


def _verified(root: Path) -> Any:
    job = job_of(root / "died", listing(7))
    return [done.receipt for done in verify(InProcess(), STORAGE, job, shards_of(job))]


def _rows(root: Path) -> Any:
    finished = open_run(STORAGE, str(root / "run"))
    return [read_part(STORAGE, finished, part).to_pylist() for part in finished.parts]


def _ranked(root: Path) -> Any:
    block = pa.table({"uri": [str(root / "scores/per_image.parquet")]})
    return rank_scores(block, storage=STORAGE, wanted=Wanted(2, 2, 2, 0)).to_pylist()


def _weights(root: Path) -> Any:
    return locate(ModelConfig(name="toy", weights=str(root / "model")), None, STORAGE).sha256


def _json(kind: Any, root: Path, name: str) -> Any:
    where = str(root / "scores" / name)
    return kind.from_json(STORAGE.read(where), where=where)


READERS: Mapping[str, Callable[[Path], Any]] = {
    "run/plan.parquet": lambda root: image_ids_of(STORAGE, open_run(STORAGE, str(root / "run"))),
    "run/parts/part-00001.parquet": _rows,
    "run/run.json": lambda root: find_run(STORAGE, str(root / "run")),
    "run/checks.json": lambda root: read_checks(STORAGE, str(root / "run")),
    "run/export.json": lambda root: read_standing_json(STORAGE, join(str(root), "run/export.json")),
    "died/plan.parquet": lambda root: adopt_run(STORAGE, job_of(root / "died", listing(7))).job.plan.items,
    "died/parts/part-00001.parquet": _verified,
    "scores/scores/part-00000.parquet": lambda root: [
        table.to_pylist() for table in Scores(STORAGE, str(root / "scores"), 1, TRUTH).whole("image_id", "confusion")
    ],
    "scores/scores.json": lambda root: _json(Inputs, root, "scores.json"),
    "scores/report.json": lambda root: _json(Report, root, "report.json"),
    "scores/per_image.parquet": _ranked,
    "model/checkpoints/best-00000003.pt": lambda root: checkpoints(root / "model").load_best(3)["weight"].tolist(),
    "model/model.json": _weights,
    "model/model.safetensors": _weights,
}


@pytest.mark.parametrize("name", READERS)
def test_damage_is_one_line_that_names_the_file(made: Path, name: str) -> None:
    path, read = made / name, READERS[name]
    whole = path.read_bytes()
    read(made)
    draw = np.random.default_rng(0)
    broken = [whole[:end] for end in draw.choice(len(whole), ENDS, replace=False).tolist()]
    for bit in draw.choice(8 * len(whole), FLIPS, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        broken.append(bytes(flipped))
    try:
        for data in broken:
            path.write_bytes(data)
            with pytest.raises((ManifestError, WeightsError), match=rf"^\S*{path.name}\S* .*; \w[^\n]*$"):
                read(made)
    finally:
        path.write_bytes(whole)
