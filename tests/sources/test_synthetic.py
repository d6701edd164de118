"""The drawn data set: deterministic, exactly labelled, and the files that readers expect."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.sources.synthetic import CLASSES, VOID_ID, _coverage, _hsv, draw_scene, write_dataset, write_photos


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_scene_has_image_and_labels_of_the_size_asked_for():
    image, ids = draw_scene(0, (96, 130))
    assert (image.shape, image.dtype) == ((96, 130, 3), np.uint8)
    assert (ids.shape, ids.dtype) == ((96, 130), np.uint8)
    assert ids.max() < len(CLASSES)


def test_same_seed_same_pixels_other_seed_or_index_other_pixels():
    image, ids = draw_scene(3, (64, 80), index=5)
    again, ids_again = draw_scene(3, (64, 80), index=5)
    assert np.array_equal(image, again) and np.array_equal(ids, ids_again)
    assert not np.array_equal(image, draw_scene(4, (64, 80), index=5)[0])
    assert not np.array_equal(image, draw_scene(3, (64, 80), index=6)[0])


def test_every_class_occurs_and_background_does_not_drown_them():
    pixels = np.zeros(len(CLASSES))
    for index in range(40):
        pixels += np.bincount(draw_scene(1, (120, 120), index=index)[1].ravel(), minlength=len(CLASSES))
    share = pixels / pixels.sum()
    assert share[1:].min() > 0.015
    assert 0.4 < share[0] < 0.85


def test_label_edges_are_image_edges():
    """Mean brightness steps are several times larger across a label edge than elsewhere."""
    at_edge, elsewhere = [], []
    for index in range(10):
        image, ids = draw_scene(2, (160, 160), index=index)
        step = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=2)
        edge = np.diff(ids.astype(int), axis=1) != 0
        at_edge.append(step[edge].mean())
        elsewhere.append(step[~edge].mean())
    assert np.mean(at_edge) > 2.5 * np.mean(elsewhere)


def test_coverage_counts_the_part_of_a_pixel_and_leaves_holes():
    square = np.array([[1.0, 1.0], [2.95, 1.0], [2.95, 2.95], [1.0, 2.95]])
    assert np.allclose(_coverage([square], (4, 4)), [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], atol=0.01)
    half = np.array([[1.5, 0.0], [4.0, 0.0], [4.0, 1.0], [1.5, 1.0]])
    assert np.allclose(_coverage([half], (1, 4)), [[0, 0.5, 1, 1]], atol=0.01)
    outer = np.array([[0.0, 0.0], [5.0, 0.0], [5.0, 5.0], [0.0, 5.0]])
    hole = np.array([[0.95, 0.95], [4.05, 0.95], [4.05, 4.05], [0.95, 4.05]])
    assert _coverage([outer, hole], (5, 5))[2].tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("hue", "rgb"), [(0, (1, 0, 0)), (1 / 3, (0, 1, 0)), (2 / 3, (0, 0, 1)), (1 / 6, (1, 1, 0)), (1.5, (0, 1, 1))]
)
def test_hue_turns_through_the_colours(hue, rgb):
    assert np.allclose(_hsv(hue, 1, 1), rgb, atol=1e-6)
    assert np.allclose(_hsv(hue, 0, 0.5), 0.5)


def test_dataset_is_pairs_of_jpeg_and_palette_png(tmp_path):
    write_dataset(tmp_path, count=3, seed=7, edge_px=(40, 60))
    assert list(digests(tmp_path)) == [
        *(f"images/scene_0000{n}.jpg" for n in range(3)),
        *(f"labels/scene_0000{n}.png" for n in range(3)),
    ]
    for n in range(3):
        with (
            Image.open(tmp_path / f"images/scene_0000{n}.jpg") as image,
            Image.open(tmp_path / f"labels/scene_0000{n}.png") as label,
        ):
            assert (image.format, image.mode, label.mode) == ("JPEG", "RGB", "P")
            assert image.size == label.size and all(40 <= edge <= 60 for edge in image.size)
            assert set(np.unique(np.asarray(label))) <= {*range(len(CLASSES)), VOID_ID}
            assert label.getpalette()[:6] == [0, 0, 0, 128, 0, 0]


def test_more_scenes_leave_the_first_ones_as_they_are(tmp_path):
    write_dataset(tmp_path / "few", count=1, seed=7, edge_px=(40, 60))
    write_dataset(tmp_path / "more", count=2, seed=7, edge_px=(40, 60))
    write_dataset(tmp_path / "other", count=1, seed=8, edge_px=(40, 60))
    few, more, other = (digests(tmp_path / name) for name in ("few", "more", "other"))
    assert few.items() < more.items()
    assert few["images/scene_00000.jpg"] != other["images/scene_00000.jpg"]


def test_void_border_lies_on_both_sides_of_a_class_edge(tmp_path):
    for border_px, name in ((0, "exact"), (1, "bordered")):
        write_dataset(tmp_path / name, count=1, seed=9, edge_px=(64, 64), void_border_px=border_px)
    exact = np.asarray(Image.open(tmp_path / "exact/labels/scene_00000.png"))
    bordered = np.asarray(Image.open(tmp_path / "bordered/labels/scene_00000.png"))
    assert np.array_equal(exact, draw_scene(9, (64, 64))[1])
    void = bordered == VOID_ID
    assert np.array_equal(bordered[~void], exact[~void])
    edge = exact[:, 1:] != exact[:, :-1]
    assert edge.any() and void[:, 1:][edge].all() and void[:, :-1][edge].all()


def test_photos_take_the_sizes_by_turns(tmp_path):
    write_photos(tmp_path, count=3, seed=0, sizes_hw=[(48, 65), (50, 40)])
    sizes = []
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            sizes.append((path.name, image.size))
    assert sizes == [("photo_00000.jpg", (65, 48)), ("photo_00001.jpg", (40, 50)), ("photo_00002.jpg", (65, 48))]
