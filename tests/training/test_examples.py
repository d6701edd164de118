"""Examples: one image by its place in an index, or an error that names the image."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segjobs.config import SourceConfig, StorageConfig
from segjobs.errors import ManifestError
from segjobs.manifest.parts import open_run
from segjobs.manifest.rle import paint
from segjobs.manifest.schema import make_categories
from segjobs.storage import Storage
from segjobs.training.examples import ExampleReader, ExampleSource, window_of
from tests.page.sample import write_run_of
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


def huge(folder: Path) -> tuple[ExampleReader, np.ndarray, np.ndarray]:
    """One TIFF of 300x200 pixels in a manifest, with its photo and its classes; a square is of class 1."""
    photo = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
    ids = np.zeros((300, 200), np.uint8)
    ids[100:250, 50:120] = 1
    tifffile.imwrite(folder / "a.tif", photo, photometric="rgb", tile=(32, 32), metadata=None)
    uri = write_run_of(folder / "run", {folder / "a.tif": ids}, make_categories(["ground", "square"]))
    source = ExampleSource("data.uri", SourceConfig(uri=uri), open_run(Storage(), uri), {0: 0, 1: 1})
    return ExampleReader([source], Storage(), max_pixels=40 * 40, part_px=40), photo, ids


def test_a_part_of_a_huge_image_is_an_example(tmp_path: Path) -> None:
    """Its pixels and masks are those of one place, another for another seed; the whole would be too large."""
    reader, photo, ids = huge(tmp_path)
    places = set()
    for seed in range(40):
        place = window_of((300, 200), 40, seed=seed)
        assert place is not None
        example = reader.read((0, 0, 0), seed=seed)
        inside = np.s_[place.top : place.top + 40, place.left : place.left + 40]
        assert np.array_equal(example.image, photo[inside])
        painted = paint([(index, segment.counts) for index, segment in example.segments], (40, 40))
        assert np.array_equal(painted, ids[inside])
        places.add((place.top, place.left))
    assert len(places) == 40
    assert all(0 <= top <= 260 and 0 <= left <= 160 for top, left in places)
    assert np.array_equal(reader.read((0, 0, 0)).image, reader.read((0, 0, 0)).image), "to score on: always the same"
    assert window_of((40, 40), 40, seed=1) is None
    strip = window_of((10, 400), 40, seed=1)
    assert strip is not None and strip[2:] == (10, 40)
    (tmp_path / "a.tif").write_bytes(b"other")
    with pytest.raises(ManifestError, match=r"'a.tif': CHANGED: .*its sha256 differs"):
        reader.read((0, 0, 0), seed=1)
