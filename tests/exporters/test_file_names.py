"""File names of images: paired by stem, never outside their folder, never two of one name."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segjobs.exporters.file_names import plain_name, same_stem, unusual_names


def names(*image_ids: str, suffix: str = ".png") -> list[str]:
    unusual = unusual_names(image_ids, suffix=suffix)
    return [unusual.get(image_id, plain_name(image_id)) for image_id in image_ids]


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("train/a.jpg", "train/a"),
        ("a.b.jpg", "a.b"),
        ("100% real ünï.jpeg", "100% real ünï"),
        ("no extension", "no extension"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("/data/../a.jpg", "data/%2E%2E/a"),
        ("./a//b.jpg", "a/b"),
        ("s3://bucket/.a.jpg", "s3:/bucket/%2Ea"),
        ("a\\..\\b\n.jpg", "a%5C..%5Cb%0A"),
        ("..", "%2E%2E"),
        ("", "%2E"),
    ],
)
def test_names_are_paths_without_extension_made_safe(image_id: str, name: str) -> None:
    assert plain_name(image_id) == name


def test_images_of_one_stem_keep_their_extension() -> None:
    assert names("a.jpg", "a.png", "b.jpg", "c/a.jpg") == ["a.jpg", "a.png", "b", "c/a"]
    assert names("a.jpg", "a.jpg.tif", "a.png") == ["a.jpg", "a.jpg.tif", "a.png"]
    assert names("a", "a.jpg") == ["a", "a.jpg"], "'a' has none to keep"
    one, two = names("a\x00.jpg", "a%00.jpg")  # one name even with it
    assert (one[:9], two[:9]) == ("a%00.jpg~", "a%00.jpg~")
    assert one != two
    assert same_stem(["a.jpg", "a.png", "b.jpg", "c/a.jpg"]) == {"a.jpg", "a.png"}


def test_a_file_and_a_folder_of_one_name() -> None:
    assert names("a.jpg", "a.png/b.jpg") == ["a.jpg", "a.png/b"]
    assert names("a.jpg", "a.png/b.jpg", suffix=".txt") == ["a", "a.png/b"]


def test_long_components_are_cut_and_told_apart() -> None:
    one, two = names(f"{'x' * 300}1.jpg", f"{'x' * 300}2.jpg")
    assert one != two
    assert one.startswith("x" * 40 + "~")
    assert len(one) == 40 + 1 + 16


_PIECES = st.sampled_from(
    ["a", "b", ".", "..", "/", "a.png", "a.jpg", ".png", ".txt", "\\", "\x00", "~", "é", "A", "%2E"]
)


@given(st.sets(st.lists(_PIECES, max_size=5).map("".join), max_size=8), st.sampled_from([".png", ".txt"]))
@example({"a.jpg", "a.png", "a.png/b", "a.jpg.png", "a.jpg.png/x.y"}, ".png")
def test_every_image_has_a_file_of_its_own_below_the_folder(image_ids: set[str], suffix: str) -> None:
    found = names(*sorted(image_ids), suffix=suffix)
    assert unusual_names(sorted(image_ids), suffix=suffix) == unusual_names(
        sorted(image_ids, reverse=True), suffix=suffix
    )
    with TemporaryDirectory() as folder:
        root = Path(folder) / "labels"
        for name in found:
            path = root / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x"):
                assert path.resolve().is_relative_to(root.resolve())
        assert not any(part.startswith(".") for path in root.rglob("*") for part in path.relative_to(root).parts)
