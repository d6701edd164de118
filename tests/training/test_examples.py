"""Examples: one image by its place in an index, or an error that names the image."""

from pathlib import Path

import numpy as np
import pytest

from segjobs.config import SourceConfig, StorageConfig
from segjobs.errors import ManifestError
from segjobs.manifest.parts import open_run
from segjobs.storage import Storage
from segjobs.training.examples import ExampleReader, ExampleSource
from tests.trainings import draw, scenes


def reader_of(folder: Path, storage: Storage) -> ExampleReader:
    uri = scenes(folder)
    config = SourceConfig(uri=uri, min_score=0.5)
    source = ExampleSource("data.uri", config, open_run(Storage(), uri), {0: None, 1: 0})
    return ExampleReader([source], storage, max_pixels=10_000)


def test_a_place_gives_pixels_and_the_masks_that_are_learnt(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, Storage())
    example = reader.read((0, 1, 2))  # the third image of the second part of three
    assert example.image_id == reader.image_id((0, 1, 2)) == "05.png"
    assert np.array_equal(example.image, draw(5)[0])
    ((index, square),) = example.segments
    assert (index, square.category, square.area) == (0, "square", 18 * 18)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "NOT_FOUND: {path}: no such file"),
        (b"other", "CHANGED: {path}: not the file that was labelled (its sha256 differs); prepare or label it anew"),
        (bytes(9000), "TOO_LARGE: {path}: 9000 bytes, storage.max_item_bytes is 8000"),
    ],
    ids=["gone", "changed", "large"],
)
def test_an_image_that_cannot_be_had_is_named(tmp_path: Path, data: bytes | None, problem: str) -> None:
    reader = reader_of(tmp_path, Storage(StorageConfig(max_item_bytes=8000)))
    path = tmp_path / "images" / "01.png"
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        reader.read((0, 0, 1))
    assert str(caught.value) == f"data.uri: image '01.png': {problem.format(path=path)}"
