"""Label maps: matched by path, ids to segments, every contradiction and every bad pixel named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import LabelRequest
from segjobs.labels.png import ClassTable, class_table, match_labels, png_labels, segments_from_ids
from segjobs.manifest.rle import decode, paint
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.storage import Storage

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")

TABLE = ClassTable((Category(0, "ground", (0, 0, 0)), Category(7, "cat", (128, 0, 0))), void_ids=(255,))


def labels(uri: str = "labels", **keys) -> LabelsConfig:
    return LabelsConfig(format="png", uri=uri, **keys)


# Matching ------------------------------------------------------------------------------------------


def test_labels_match_by_path_without_extension():
    matches = match_labels(["train/1.jpg", "val/1.jpg", "val/2.jpg"], ["val/1.png", "train/1.png", "val/9.png"])
    assert matches.label_of == {"train/1.jpg": "train/1.png", "val/1.jpg": "val/1.png"}
    assert matches.unlabelled == ("val/2.jpg",)
    assert matches.unused == ("val/9.png",)


def test_bare_names_decide_where_no_path_agrees():
    matches = match_labels(["JPEGImages/a.jpg", "JPEGImages/b.jpg"], ["Masks/b.png", "Masks/c.png"])
    assert matches.label_of == {"JPEGImages/b.jpg": "Masks/b.png"}
    assert (matches.unlabelled, matches.unused) == (("JPEGImages/a.jpg",), ("Masks/c.png",))


def test_suffix_is_behind_the_images_stem_and_other_files_are_no_labels():
    matches = match_labels(
        ["aachen/aachen_0_leftImg8bit.png"],
        ["aachen/aachen_0_gtFine_labelIds.png", "aachen/aachen_0_gtFine_color.png"],
        suffix="_gtFine_labelIds",
    )
    assert matches.label_of == {"aachen/aachen_0_leftImg8bit.png": "aachen/aachen_0_gtFine_labelIds.png"}
    assert matches.unused == ()


def test_prefix_is_before_the_images_name():
    matches = match_labels(["x/1.jpg", "x/2.jpg"], ["x/mask_1.png", "x/2.png"], prefix="mask_")
    assert (matches.label_of, matches.unused) == ({"x/1.jpg": "x/mask_1.png"}, ())
    with pytest.raises(ConfigError, match=r"labels\.prefix: none of 1 files, such as '2\.png', begins with 'mask_'"):
        match_labels(["1.jpg"], ["2.png"], prefix="mask_")


def test_a_pattern_names_what_images_and_labels_share():
    matches = match_labels(["21_training.tif", "x.tif"], ["21_manual1.gif", "22_manual1.gif"], pattern=r"^(\d+)_")
    assert matches.label_of == {"21_training.tif": "21_manual1.gif"}
    assert (matches.unlabelled, matches.unused) == (("x.tif",), ("22_manual1.gif",))


@pytest.mark.parametrize("suffix", [".tif", ".gif"])
def test_label_maps_may_be_tiff_or_gif(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(tmp_path / f"a{suffix}")
    request = LabelRequest(labels(uri=str(tmp_path), categories=["a", "b"]), Storage(), ["a.jpg"], 100)
    found = png_labels(request)
    assert [one.area for one in found.read(str(found.texts[0]), (1, 3)).segments] == [1, 2]
    Image.fromarray(np.zeros((1, 3), np.uint8)).save(tmp_path / "a.png")
    assert str(png_labels(request).texts[0]).endswith("a.png"), "where there are PNGs, these are the labels"


def test_dots_in_a_stem_stay():
    assert match_labels(["a.b.jpg", "a.jpg"], ["a.b.png"]).label_of == {"a.b.jpg": "a.b.png"}


def test_no_images_or_no_labels_is_no_error():
    assert match_labels([], ["a.png"]).unused == ("a.png",)
    assert match_labels(["a.jpg"], []).unlabelled == ("a.jpg",)


@pytest.mark.parametrize(
    ("images", "files", "named"),
    [
        (["a.jpg", "a.png"], ["a.png"], ["'a.jpg' and 'a.png'"]),
        (["a.jpg"], ["a.png", "a.tif"], ["'a.png' and 'a.tif'"]),
        (["x/a.jpg", "y/a.jpg"], ["z/a.png"], ["'x/a.jpg' and 'y/a.jpg'", "'z/a.png'"]),
        (["b.jpg"], ["a.png"], ["no label matches", "'b.jpg'", "'a.png'"]),
    ],
)
def test_ambiguous_or_no_matches_name_the_files(images, files, named):
    with pytest.raises(ConfigError) as caught:
        match_labels(images, files)
    assert all(text in str(caught.value) for text in named)


def test_many_ambiguities_are_cut_short():
    images = [f"{n}.{extension}" for n in range(8) for extension in ("jpg", "png")]
    with pytest.raises(ConfigError) as caught:
        match_labels(images, [f"{n}.png" for n in range(8)])
    assert len(caught.value.problems) == 6 and caught.value.problems[-1] == "and 3 more"


def test_suffix_that_no_file_has_is_named():
    with pytest.raises(ConfigError, match=r"none of 1 files, such as 'a.png', ends with '_mask'"):
        match_labels(["a.jpg"], ["a.png"], suffix="_mask")


# The class table -----------------------------------------------------------------------------------


def test_class_table_counts_from_zero_with_palette_colours():
    table = class_table(labels(categories=["sky", "road"], void_ids=[11], unknown="void"))
    assert table.categories == (Category(0, "sky", (0, 0, 0)), Category(1, "road", (128, 0, 0)))
    assert (table.void_ids, table.unknown) == ((11,), "void")


def test_class_table_takes_ids_of_binary_masks():
    table = class_table(labels(categories=["ground", "cell"], ids=[0, 255], void_ids=[]))
    assert [category.id for category in table.categories] == [0, 255]
    assert [category.color for category in table.categories] == [(0, 0, 0), (128, 0, 0)]


def test_every_contradiction_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        class_table(labels(categories=["a", "b", "a"], ids=[4, 4, 255, -1], void_ids=[255, 70000]))
    assert caught.value.problems == (
        "labels.categories: 'a' is named twice; each class has one name",
        "labels.ids: 4 ids for 3 labels.categories; expected one id per name",
        "labels.ids: 4 is given twice; each class has one id",
        "labels.ids: -1: expected 0 to 65535, the values of a PNG",
        "labels.void_ids: 70000: expected 0 to 65535, the values of a PNG",
        "labels.void_ids: 255 is the id of class 'a' too; take it out of one of the two",
    )


def test_missing_class_names_are_named():
    with pytest.raises(ConfigError, match=r"labels.categories: missing"):
        class_table(labels())


# Segments ------------------------------------------------------------------------------------------


def test_one_segment_per_class_and_none_where_void():
    ids = np.array([[0, 0, 7], [255, 7, 7]], np.uint8)
    ground, cat = segments_from_ids(ids, (2, 3), TABLE)
    assert ground == Segment(0, "ground", 1.0, (0.0, 0.0, 2.0, 1.0), 2, False, (2, 3), ground.counts)
    assert (cat.category_id, list(cat.bbox), cat.area) == (7, [1.0, 0.0, 2.0, 2.0], 3)
    assert cat.size_hw == (2, 3)
    assert decode(cat.counts, (2, 3)).tolist() == [[False, False, True], [False, True, True]]


def test_void_only_label_has_no_segment():
    assert segments_from_ids(np.full((2, 2), 255, np.uint8), (2, 2), TABLE) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_unknown_ids_are_listed_with_their_pixels(dtype):
    ids = np.array([[0, 3, 3], [9, 7, 255]], dtype)
    with pytest.raises(ItemError, match=r"ids 3 \(2 px\), 9 \(1 px\) are neither") as caught:
        segments_from_ids(ids, (2, 3), TABLE)
    assert caught.value.code == "LABEL_VALUE"


def test_ids_beyond_16_bits_are_unknown_not_wrapped():
    ids = np.array([[65536, -1, 65535, 0]], np.int64)
    with pytest.raises(ItemError, match=r"-1 \(1 px\), 65535 \(1 px\), 65536 \(1 px\)"):
        segments_from_ids(ids, (1, 4), TABLE)


def test_unknown_ids_may_be_void():
    table = ClassTable(TABLE.categories, unknown="void")
    (ground,) = segments_from_ids(np.array([[0, 3, 100000]], np.int32), (1, 3), table)
    assert (ground.category_id, ground.area) == (0, 1)


@pytest.mark.parametrize(("shape", "hint"), [((2, 2), ""), ((3, 2), "EXIF")])
def test_other_size_than_the_image_names_both(shape, hint):
    with pytest.raises(ItemError, match=rf"the label has 2x{shape[0]}, the image 3x2 pixels.*{hint}") as caught:
        segments_from_ids(np.zeros(shape, np.uint8), (2, 3), TABLE)
    assert caught.value.code == "LABEL_SHAPE"


# Real files ----------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("camvid/labels/val", class_table(labels(categories=[f"c{n}" for n in range(11)], void_ids=[11]))),
        ("labelme_examples/semantic_segmentation/data_dataset_voc/SegmentationClass",
         class_table(labels(categories=[f"c{n}" for n in range(21)]))),
        ("membrane/label", class_table(labels(categories=["membrane", "cell"], ids=[0, 255], void_ids=[]))),
    ],
)  # fmt: skip
def test_real_labels_paint_back_to_themselves(path, table):
    files = sorted((DATA / path).glob("*.png"))[:5]
    if not files:
        pytest.skip(f"no PNG in {path}")
    for file in files:
        with Image.open(file) as image:
            ids = np.asarray(image)
        segments = segments_from_ids(ids, ids.shape, table)
        pairs = [(segment.category_id, segment.counts) for segment in segments]
        painted = paint(pairs, ids.shape, 999)
        void = np.isin(ids, table.void_ids)
        assert (painted[void] == 999).all() and np.array_equal(painted[~void], ids[~void])


@needs_data
def test_camvid_matches_without_remainder():
    images = [file.relative_to(DATA / "camvid/images").as_posix() for file in (DATA / "camvid/images").rglob("*.jpg")]
    files = [file.relative_to(DATA / "camvid/labels").as_posix() for file in (DATA / "camvid/labels").rglob("*.png")]
    matches = match_labels(images, files)
    assert (len(matches.label_of), matches.unlabelled, matches.unused) == (len(images), (), ())


def test_a_label_that_is_a_link_to_no_file_is_no_image_without_label(tmp_path, read_labels):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "images/b.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    (tmp_path / "labels/b.png").symlink_to(tmp_path / "unmounted/b.png")
    _, found = read_labels(tmp_path / "images", format="png", uri=str(tmp_path / "labels"), categories=["sky"])
    assert len(found["a.png"].segments) == 1
    assert found["b.png"].code == "NOT_FOUND"
