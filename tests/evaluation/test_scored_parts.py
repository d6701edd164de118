"""A part of scores counts only beside the scores.json that it was made for, whole, and as the part that it was."""

import shutil
from pathlib import Path

import pytest

from segjobs.errors import ManifestError
from segjobs.evaluation.scored_parts import read_scores, scored_digest
from segjobs.evaluation.scores import Scores
from segjobs.storage import Storage
from tests.made import TRUTH, manifest, scored

STORAGE = Storage()


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``scores`` and ``other`` are of the same truth and of other predictions; 600 images in three ranges."""
    folder = tmp_path_factory.mktemp("scored")
    names = [f"{n:03d}" for n in range(600)]
    one, two = ["sr"], ["rr"]
    cut = (256, 512)
    truth = manifest(folder / "truth", dict.fromkeys(names, one), cut=cut)
    for name, picture in (("scores", one), ("other", two)):
        predicted = manifest(folder / f"of_{name}", dict.fromkeys(names, picture), cut=cut)
        scored(folder, truth, predicted, name, bootstrap={"resamples": 0})
    return folder


def read(uri: Path, number: int = 0) -> list[str]:
    return read_scores(STORAGE, str(uri), number, digest=scored_digest(STORAGE, str(uri)))["status"].to_pylist()


def part(uri: Path, number: int) -> Path:
    return uri / "scores" / f"part-{number:05d}.parquet"


def test_a_part_belongs_to_its_evaluation_and_to_its_place(evaluations: Path, tmp_path: Path) -> None:
    uri = tmp_path / "scores"
    shutil.copytree(evaluations / "scores", uri)
    assert read(uri) == ["ok"] * 256
    for stranger in (part(evaluations / "other", 0), part(uri, 1)):
        shutil.copy(stranger, part(uri, 0))
        with pytest.raises(
            ManifestError, match=r"part-00000\.parquet holds scores of other manifests .*; move it away"
        ):
            list(Scores(STORAGE, str(uri), 3, TRUTH).whole("status"))
    part(uri, 0).unlink()
    with pytest.raises(ManifestError, match=r"part-00000\.parquet: not there; run the command"):
        read(uri)


def test_an_altered_part_is_damaged(evaluations: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluations / "scores", tmp_path / "scores")
    path = part(tmp_path / "scores", 2)
    whole = path.read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ManifestError, match=r"part-00002\.parquet is damaged: .*; move it away and run"):
            read(tmp_path / "scores", 2)
