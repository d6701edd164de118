"""Listing: folders, globs and files; what is left out is counted, what cannot be looked at stops."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from segjobs.config import IMAGE_GLOBS, InputConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.sources.images import list_images
from segjobs.sources.left_out import LeftOut
from segjobs.storage import Storage, join, local_walk, refuse

Store = tuple[Storage, str]
FILES = ["a/1.jpg", "a/2.PNG", "a/b/3.tif", "a/notes.txt", "c/4.jpeg", "[x]/5.jpg"]


def fill(storage: Storage, root: str) -> None:
    for name in FILES:
        storage.put_if_absent(join(root, name), name.encode())


def listed(storage: Storage, uri: str, **options: object) -> list[str]:
    return sorted(file.path for file in list_images(storage, InputConfig.model_validate({"uri": uri, **options})))


def test_a_folder_a_glob_and_a_file(store: Store) -> None:
    storage, root = store
    fill(storage, root)
    assert listed(storage, root) == ["[x]/5.jpg", "a/1.jpg", "a/2.PNG", "a/b/3.tif", "c/4.jpeg"]
    assert listed(storage, root, include=["*.jp*g"]) == ["[x]/5.jpg", "a/1.jpg", "c/4.jpeg"]
    assert listed(storage, root, exclude=["a/*", "5.JPG"]) == ["c/4.jpeg"]
    assert listed(storage, f"{root}/a/**/*.*", exclude=["*.txt"]) == ["1.jpg", "2.PNG", "b/3.tif"]
    assert listed(storage, f"{root}/?/*.jp*") == ["a/1.jpg", "c/4.jpeg"]
    assert listed(storage, join(root, "a/1.jpg")) == ["1.jpg"]
    assert listed(storage, join(root, "[x]/5.jpg")) == ["5.jpg"], "a name that exists is no glob"


def test_nothing_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        listed(Storage(), str(tmp_path / "none"))


# --- what is left out --------------------------------------------------------------------------


def left_out_of(uri: str, **options: object) -> tuple[list[str], list[str]]:
    """What is listed, and the lines about the rest."""
    left_out = LeftOut()
    config = InputConfig.model_validate({"uri": uri, **options})
    return sorted(file.path for file in list_images(Storage(), config, left_out)), left_out.lines()


def test_all_that_is_decoded_is_taken_and_the_rest_is_counted(tmp_path: Path) -> None:
    taken = [f"{number:02d}{glob[1:]}" for number, glob in enumerate(IMAGE_GLOBS)]
    for name in [*taken, "x.avif", "y.AVIF", "z.heic", "README", ".hidden.jpg", "old.jpg"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "old.png").symlink_to(tmp_path / "old.png")
    names, lines = left_out_of(str(tmp_path), exclude=["old.*", "*.zzz"])
    assert names == taken
    assert sorted(lines) == [
        "left out: 1 that are links to no file, such as 'gone.jpg'",
        "left out: 2 that input.exclude 'old.*' names, such as 'old.jpg'",
        "left out: 4 that fit no input.include (2 *.avif, 1 without suffix, 1 *.heic), such as 'README'",
    ]


def test_every_suffix_of_a_format_that_is_decoded_is_taken() -> None:
    Image.init()
    read = {"JPEG", "MPO", "PNG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM"}
    known = {suffix for suffix, kind in Image.EXTENSION.items() if kind in read} - {".pfm"}  # floats are refused
    assert known <= {glob[1:] for glob in IMAGE_GLOBS}


ERRNOS = [getattr(errno, name) for name in ("EIO", "EACCES", "ESTALE", "ETIMEDOUT", "ENOMEM", "ENAMETOOLONG", "EPERM")]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, int], None]:
    """Lets a function of ``os`` fail on the paths that end so."""

    def fail(function: str, end: str, number: int) -> None:
        real = getattr(os, function)

        def instead(path: object, *args: object, **options: object) -> object:
            if str(path).endswith(end):
                raise OSError(number, os.strerror(number), path)
            return real(path, *args, **options)

        monkeypatch.setattr(os, function, instead)

    return fail


@pytest.mark.parametrize("number", ERRNOS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize(("function", "end"), [("stat", "/b"), ("stat", "b/2.jpg"), ("listdir", "/b")])
def test_what_cannot_be_looked_at_is_never_left_out_in_silence(
    function: str, end: str, number: int, tmp_path: Path, failing: Callable[[str, str, int], None]
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "b/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    failing(function, end, number)
    with pytest.raises(StorageError, match=rf"{end}: cannot be looked at: .*input\.skip_unreadable=true$"):
        left_out_of(str(tmp_path))
    names, lines = left_out_of(str(tmp_path), skip_unreadable=True)
    assert names == (["a/1.jpg", "b/3.jpg"] if end == "b/2.jpg" else ["a/1.jpg"])
    assert lines == [f"left out: 1 that cannot be looked at, such as {'b/2.jpg' if end == 'b/2.jpg' else 'b'!r}"]
    assert left_out_of(str(tmp_path), exclude=["b/*"])[0] == ["a/1.jpg"]
    with pytest.raises(StorageError, match=r"cannot be looked|no such folder"):
        list(Storage().walk(str(tmp_path / "b")))


def test_folders_nested_deeper_than_pythons_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the disk, where whoever cleans up after tests would fail on them."""
    deep = 1500

    def status(path: str) -> SimpleNamespace:
        kind = stat.S_IFREG if path.endswith(".jpg") else stat.S_IFDIR
        return SimpleNamespace(st_mode=kind, st_ino=path.count("/"), st_dev=1, st_size=3, st_mtime_ns=0)

    def names(path: str) -> list[str]:
        return ["d"] if path.count("/d") < deep else ["1.jpg"]

    monkeypatch.setattr(local_walk, "os", SimpleNamespace(stat=status, listdir=names))
    assert [file.path for file in local_walk.walk_folder("/root", refuse, None)] == ["d/" * deep + "1.jpg"]


def test_a_glob_of_the_root_lists_the_root_and_goes_no_deeper(failing: Callable[[str, str, int], None]) -> None:
    failing("listdir", "/etc", errno.EIO)
    assert listed(Storage(), "/et[c]") == []
