"""The catalogue of hostile and broken inputs, each with what becomes of it: files, names, places and label maps.

``tests/sources/test_decode.py`` has every pixel format, the bombs by header and the truncations; this extends them.
"""

import gzip
import os
import pickle
import resource
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segjobs.config import DecodeConfig, InputConfig, ShardConfig, StorageConfig
from segjobs.errors import ItemError
from segjobs.exporters.file_names import plain_name, unusual_names
from segjobs.manifest.plan import make_plan
from segjobs.sources.decode import decode_image, image_frame
from segjobs.sources.images import list_images
from segjobs.sources.label_map import decode_color_map, decode_label_png
from segjobs.sources.read import read_item
from segjobs.storage import FileInfo, Storage, join
from tests.sources.test_decode import BOMB, BOMBS, COLOUR, GREY, SAMPLES, SMOOTH, WIDE_RGB, chunk, png, save, tiff

MAX_PIXELS = DecodeConfig().max_pixels
JPEG, PNG, BMP, WEBP = SAMPLES["jpeg grey"], save(SMOOTH, "PNG"), SAMPLES["bmp"], save(SMOOTH, "WEBP")
SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
ZEROS = zlib.compress(bytes(10**8), 9)  # 97 kB
TAGS: dict[int, tuple[int, ...]] = {256: (4,), 257: (4,), 258: (8,), 262: (1,), 277: (1,)}


def ihdr(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))


def pixels(data: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(data)) + END


def jpeg(frame: int, precision: int = 8, size_hw: tuple[int, int] = (37, 45)) -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[:at] + struct.pack(">BBHBHH", 0xFF, frame, 11, precision, *size_hw) + JPEG[at + 9 :]


def gif(width: int, height: int, body: bytes = b"") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + body + b";"


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, body: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<III", 54 + len(body), 0, 54) + head + body


def brand(name: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + name + bytes(4) + name + b"mif1" + bytes(100)


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def looped_tiff() -> bytes:
    """Its first directory names itself as the next one."""
    data = tiff(bytes(16), TAGS)
    start = int.from_bytes(data[4:8], "little")
    return patched(data, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), data[4:8])


U, T, L, M = "UNREADABLE", "TRUNCATED", "TOO_LARGE", "UNSUPPORTED_MODE"
# name → bytes, and the code or the size (height, width) of the pixels
FILES: dict[str, tuple[bytes, str | tuple[int, int]]] = {
    # no image of the list
    "empty": (b"", U),
    "one byte": (b"\xff", U),
    "text": (b"hello", U),
    "a megabyte of zeros": (bytes(10**6), U),
    "noise": (np.random.default_rng(1).bytes(10**4), U),
    "error page": (b"<!DOCTYPE html><html><body>404 Not Found", U),
    "error of a store": (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", U),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", U),
    "svg with entities": (b"<!DOCTYPE s [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>", U),
    "pdf": (b"%PDF-1.7\n", U),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n", U),
    "zip": (b"PK\x03\x04" + bytes(60), U),
    "gzipped jpeg": (gzip.compress(JPEG), U),
    "pickle": (pickle.dumps({"a": 1}), U),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", U),
    "mp4": (brand(b"isom"), U),
    "heic": (brand(b"heic"), U),
    "avif": (brand(b"avif"), U),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), U),
    "jpeg xl": (b"\xff\x0a" + bytes(50), U),
    "psd": (b"8BPS\0\x01" + bytes(40), U),
    "utf-16": ("image".encode("utf-16"), U),
    "wave": (b"RIFF\x24\0\0\0WAVEfmt ", U),
    "pam": (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n\1\2\3", U),
    "float pfm": (b"PF\n1 1\n-1.0\n" + bytes(12), U),
    # bombs: by header, and by what is packed
    **{f"bomb {name}": (data, L) for name, data in BOMBS.items()},
    "bomb png tall": (ihdr(1, 2**31 - 1) + pixels(b""), L),
    "bomb png of 2^64": (ihdr(2**32 - 1, 2**32 - 1) + pixels(b""), L),
    "bomb apng": (ihdr(BOMB, BOMB) + chunk(b"acTL", struct.pack(">II", 1, 0)) + pixels(b""), L),
    "bomb jpeg 65535": (jpeg(0xC0, size_hw=(65535, 65535)), L),
    "bomb jpeg progressive": (jpeg(0xC2, size_hw=(BOMB, BOMB)), L),
    "bomb webp canvas": (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6, L),
    "bomb png text": (png(COLOUR, 8, 2, chunk(b"zTXt", b"k\0\0" + ZEROS)), U),
    "bomb png profile": (png(COLOUR, 8, 2, chunk(b"iCCP", b"k\0\0" + ZEROS)), U),
    "bomb png pixels": (ihdr(7, 5) + chunk(b"IDAT", ZEROS) + END, (5, 7)),
    "bomb tiff deflate": (tiff(ZEROS, {**TAGS, 259: (8,)}), (4, 4)),
    # no size
    "png 0x0": (ihdr(0, 0) + pixels(b""), U),
    "jpeg 0x0": (jpeg(0xC0, size_hw=(0, 0)), U),
    "gif 0x0": (gif(0, 0), U),
    "bmp 0x0": (bmp(0, 0), U),
    "tiff 0x0": (tiff(b"", {**TAGS, 256: (0,), 257: (0,)}), U),
    "ppm 0x0": (b"P6 0 0 255\n", U),
    # JPEG
    "jpeg lossless": (jpeg(0xC3), U),
    "jpeg of 12 bits": (jpeg(0xC1, precision=12), U),
    "jpeg start": (b"\xff\xd8\xff", T),
    "jpeg without a scan": (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", U),
    "jpeg without tables": (JPEG[:2] + JPEG[JPEG.index(b"\xff\xc0") :], U),
    "jpeg without an end": (JPEG[:-2], T),
    "jpeg and more": (JPEG + b"x" * 1000, (37, 45)),
    "two jpegs": (JPEG + save(COLOUR, "JPEG"), (37, 45)),
    "jpeg with a script": (JPEG[:2] + b"\xff\xfe\x00\x12<script>x;</scr>" + JPEG[2:], (37, 45)),
    "jpeg with a broken index of pictures": (
        JPEG[:2] + b"\xff\xe2\0\x0eMPF\0II*\0\xff\xff\xff\xff" + JPEG[2:],
        (37, 45),
    ),
    # PNG
    "png with a wrong checksum of the header": (patched(PNG, 29, bytes(4)), U),
    "png with a wrong checksum of pixels": (patched(PNG, len(PNG) - 20, b"\1\2\3\4"), U),
    "png without pixels": (ihdr(7, 5) + END, U),
    "png without a header": (SIGNATURE + pixels(bytes(110)), U),
    "png of 3 bits": (ihdr(7, 5, 3) + pixels(b""), U),
    "png of garbage": (ihdr(7, 5) + chunk(b"IDAT", b"nonsense") + END, U),
    "png of an unknown filter": (ihdr(2, 1) + pixels(b"\x09" + bytes(6)), U),
    "png without its palette": (ihdr(7, 5, 8, 3) + pixels(bytes(40)), U),
    "png with a chunk of 4 GB": (patched(PNG, 33, b"\xff\xff\xff\xff"), (37, 45)),
    "png and more": (PNG + b"x" * 100, (37, 45)),
    # GIF, WebP, BMP
    "gif without a frame": (gif(7, 5), U),
    "gif of garbage": (gif(7, 5, b"," + struct.pack("<HHHHB", 0, 0, 7, 5, 0) + b"\x0c\x05" + b"\xff" * 5 + b"\0"), U),
    "gif with a frame outside": (gif(7, 5, b"," + struct.pack("<HHHHB", 6, 4, 7, 5, 0) + b"\2\2\x44\1\0"), T),
    "webp of a gigabyte": (patched(WEBP, 4, struct.pack("<I", 10**9)), T),
    "webp of garbage": (b"RIFF\x20\0\0\0WEBPVP8 \x14\0\0\0" + b"\xff" * 20, U),
    "bmp top down": (patched(BMP, 22, struct.pack("<i", -37)), (37, 45)),
    "bmp of 7 bits": (bmp(9, 9, 7), U),
    "bmp of run lengths of nothing": (bmp(9, 9, 8, 1, bytes(1024) + b"\xff" * 4), U),
    "bmp with pixels elsewhere": (patched(BMP, 10, struct.pack("<I", 10**9)), T),
    # TIFF
    "tiff of an unknown compression": (tiff(bytes(16), {**TAGS, 259: (50000,)}), U),
    "tiff with its strip outside": (tiff(bytes(16), {**TAGS, 273: (10**6,)}), T),
    "tiff without a directory": (b"II*\0\xff\xff\xff\x7f", T),
    "tiff of an empty directory": (b"II*\0\x08\0\0\0" + bytes(6), U),
    "tiff of 60000 samples": (tiff(bytes(64), {**TAGS, 277: (60000,)}), M),
    "tiff of 60000 bits": (tiff(bytes(64), {**TAGS, 258: (60000,)}), M),
    "tiff of an unknown meaning": (tiff(bytes(16), {**TAGS, 262: (999,)}), M),
    "tiff whose directories go round": (looped_tiff(), (4, 4)),
    "big tiff of nothing": (b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**60), T),
    # PPM
    "ppm without numbers": (b"P6 a b 255\n", U),
    "ppm of digits": (b"P6 " + b"9" * 5000 + b" 1 255\n", U),
    "ppm of a comment": (b"P6 #" + b"x" * 10**5, U),
    "ppm that ends early": (b"P6 9 9 255\n" + bytes(10), T),
    "pgm of no values": (b"P5 2 2 0\n" + bytes(4), U),
    # sizes that are small or long, and fine
    "1x1": (save(COLOUR[:1, :1].copy(), "PNG"), (1, 1)),
    "1x1 jpeg": (save(COLOUR[:1, :1].copy(), "JPEG"), (1, 1)),
    "30000x10": (save(Image.new("RGB", (30_000, 10)), "PNG"), (10, 30_000)),
    "10x30000": (save(Image.new("RGB", (10, 30_000)), "JPEG"), (30_000, 10)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize("name", FILES)
def test_what_becomes_of_a_file(name: str, tmp_path: Path) -> None:
    data, expected = FILES[name]
    (tmp_path / "image.jpg").write_bytes(data)
    (item,) = list_images(Storage(), InputConfig(uri=str(tmp_path)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found: Any = decode_image(read_item(Storage(), item), max_pixels=MAX_PIXELS).shape[:2]
    except ItemError as error:
        found = error.code
        assert len(error.message) < 1000
        assert "\n" not in error.message
    assert found == expected
    taken_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert taken_kib < 60_000, "a bomb of 100 MB and more went off"


def test_the_catalogue_is_as_long_as_it_should_be() -> None:
    assert len(FILES) + len(NAMES) + len(PLACES) + len(LABELS) >= 60


# --- names -----------------------------------------------------------------------------------------

NAMES = {
    "new line": b"a\nb.jpg",
    "carriage return": b"a\r.jpg",
    "tab and spaces": b" \t a .jpg",
    "quotes": b"'\"`$(x).jpg",
    "html": b"<img src=x onerror=alert(1)>.jpg",
    "climbing by percents": b"a%2f..%2f..%2fetc%2fpasswd.jpg",
    "backslashes": b"a\\..\\..\\x.jpg",
    "dots": b"a..jpg.jpg",
    "option": b"--rf.jpg",
    "glob": b"[a]*?.jpg",
    "url": b"a?b=c&d#e%25+;f.jpg",
    "scheme": b"s3:x.jpg",
    "four bytes": "🏔️.jpg".encode(),
    "right to left": "\u202egpj.a.jpg".encode(),
    "composed": "é.jpg".encode(),
    "decomposed": "e\u0301.jpg".encode(),
    "latin-1": b"caf\xe9.jpg",
    "half a character": b"\xf0\x9f.jpg",
    "surrogate": b"\xed\xa0\x80.jpg",
    "control": b"\x01\x1b[31m\x7f.jpg",
    "255 bytes": b"x" * 251 + b".jpg",
    "upper case": b"A.JPG",
    "lower case": b"a.jpg",
    "template": b"{{7*7}}${x}.jpg",
    "formula": b"=cmd|' C calc'!A0.jpg",
}


def test_every_name_is_listed_once_read_and_harmless_as_an_output(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for folder in (b"", b"/sub"):
        os.makedirs(root + folder, exist_ok=True)
        for name in NAMES.values():
            with open(root + folder + b"/" + name, "wb") as file:
                file.write(name)
    items = list(list_images(Storage(), InputConfig(uri=str(tmp_path))))
    assert len({item.path for item in items}) == len(items) == 2 * len(NAMES), "duplicate basenames are two images"
    assert sorted(read_item(Storage(), item) for item in items) == sorted(2 * list(NAMES.values()))
    for item in items:
        assert item.path.encode().decode() == item.path
        assert item.uri.encode().decode() == item.uri
    ids = [item.path for item in items]
    others = unusual_names(ids, suffix=".png")
    outputs = [join("out", others.get(one, plain_name(one)) + ".png") for one in ids]
    assert len(set(outputs)) == len(outputs)
    for output in outputs:
        assert output.isprintable() or not any(ord(c) < 32 for c in output)
        assert Path(os.path.normpath(output)).is_relative_to("out")
        assert not any(part.startswith(".") or len(part.encode()) > 255 for part in output.split("/"))


@pytest.mark.slow
def test_hostile_keys_are_listed_and_read(s3_server: StorageConfig, tmp_path: Path) -> None:
    storage, root = Storage(s3_server), f"s3://segjobs/{tmp_path.name}"
    names = [name.decode() for name in NAMES.values() if name.decode(errors="ignore").encode() == name]
    names = [name for name in names if "\\" not in name]  # refused by SeaweedFS
    for name in names:
        assert storage.put_if_absent(join(root, name), name.encode())
    items = list(list_images(storage, InputConfig(uri=root)))
    assert sorted(item.path for item in items) == sorted(names)
    assert all(read_item(storage, item) == item.path.encode() for item in items)


# --- places ----------------------------------------------------------------------------------------


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _through_a_file(path: Path) -> None:
    path.parent.joinpath("file").write_bytes(b"")
    path.symlink_to("file/x")


# what stands where a list names an image → its code
PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "NOT_FOUND"),
    "folder": (lambda path: path.mkdir(), "UNREADABLE"),
    "pipe": (_pipe, "UNREADABLE"),
    "socket": (_socket, "UNREADABLE"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "UNREADABLE"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "UNREADABLE"),
    "link to itself": (lambda path: path.symlink_to(path), "UNREADABLE"),
    "links in a ring": (
        lambda path: (path.symlink_to(f"{path}2"), Path(f"{path}2").symlink_to(path)),
        "UNREADABLE",
    ),
    "too long": (lambda path: path.with_name("list.txt").write_text("x" * 300 + ".jpg"), "UNREADABLE"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "NOT_FOUND"),
    "through a file": (_through_a_file, "NOT_FOUND"),
    "a terabyte": (_sparse, "TOO_LARGE"),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_stands_where_a_list_names_an_image(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, code = PLACES[name]
    make(tmp_path / "image.jpg")
    if not (tmp_path / "list.txt").exists():
        (tmp_path / "list.txt").write_text("image.jpg\n")
    (item,) = list_images(Storage(), InputConfig(uri=str(tmp_path / "list.txt")))
    with pytest.raises(ItemError) as caught:
        read_item(Storage(), item)
    assert caught.value.code == code


def test_a_folder_lists_files_alone_and_loops_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (make, _) in enumerate(PLACES.values()):
        folder = tmp_path / f"{number:02d}"
        folder.mkdir()
        make(folder / "image.jpg")
    (tmp_path / "up.jpg").symlink_to(tmp_path)
    (tmp_path / "up").symlink_to(tmp_path)
    items = list(list_images(Storage(), InputConfig(uri=str(tmp_path))))
    assert {item.size for item in items} == {2**40}, "the terabyte is a file, and will be a row"
    (tmp_path / "none").mkdir()
    assert not list(list_images(Storage(), InputConfig(uri=str(tmp_path / "none"))))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.unlink(), "NOT_FOUND"),
        (lambda path: path.write_bytes(JPEG + b"x"), "CHANGED"),
        (lambda path: path.write_bytes(b""), "CHANGED"),
        (lambda path: os.utime(path, ns=(1, 1)), "CHANGED"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "CHANGED"),
        (lambda path: (path.unlink(), path.mkdir()), "UNREADABLE"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "UNREADABLE"),
        (lambda path: (path.unlink(), path.parent.rmdir()), "NOT_FOUND"),
    ],
)
def test_what_happens_between_plan_and_read(change: Callable[[Path], object], code: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "image.jpg"
    path.parent.mkdir()
    path.write_bytes(JPEG)
    (item,) = list_images(Storage(), InputConfig(uri=str(tmp_path / "in")))
    change(path)
    with pytest.raises(ItemError) as caught:
        read_item(Storage(), item)
    assert caught.value.code == code


def test_a_limit_of_bytes_counts_the_file_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(JPEG)
    item = FileInfo(str(tmp_path / "image.jpg"), "image.jpg", -1, 0, "")
    assert read_item(Storage(StorageConfig(max_item_bytes=len(JPEG))), item) == JPEG
    with pytest.raises(ItemError, match=rf"TOO_LARGE.*storage.max_item_bytes is {len(JPEG) - 1}"):
        read_item(Storage(StorageConfig(max_item_bytes=len(JPEG) - 1)), item)


# --- labels ----------------------------------------------------------------------------------------

LABELS: dict[str, tuple[bytes, str]] = {
    "colours": (save(COLOUR, "PNG"), M),
    "colours with alpha": (save(np.dstack([COLOUR, GREY]), "PNG"), M),
    "16-bit colours": (png(WIDE_RGB, 16, 2), M),
    "jpeg": (save(GREY, "JPEG"), M),
    "broken jpeg": (b"\xff\xd8\xff", M),
    "cmyk tiff": (save(Image.new("CMYK", (4, 4)), "TIFF"), M),
    "fractions": (save(np.zeros((2, 2), np.float32), "TIFF"), M),
    "webp": (WEBP, U),
    "ppm": (SAMPLES["ppm"], U),
    "empty": (b"", U),
    "bomb": (BOMBS["png"], L),
    "cut": (save(GREY, "PNG")[:-30], T),
}


@pytest.mark.parametrize("name", LABELS)
def test_what_becomes_of_a_label_map(name: str) -> None:
    data, code = LABELS[name]
    with pytest.raises(ItemError) as caught:
        decode_label_png(data, max_pixels=MAX_PIXELS)
    assert caught.value.code == code


# --- damage at random ------------------------------------------------------------------------------

READERS = (decode_image, image_frame, decode_label_png, decode_color_map)
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "byte", "cut out", "repeat", "number"]),
        st.integers(0, 2**16),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=8,
)


def damaged(data: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    """Each edit at a place: a bit turned, a byte set, up to 64 bytes cut out or repeated, a number of 4 bytes set."""
    for what, place, value in edits:
        at, length = place % max(len(data), 1), value % 64
        if what == "flip" and data:
            data = patched(data, at, bytes([data[at] ^ 1 << value % 8]))
        elif what == "byte":
            data = patched(data, at, bytes([value % 256]))
        elif what == "cut out":
            data = data[:at] + data[at + length :]
        elif what == "repeat":
            data = data[: at + length] + data[at:]
        else:
            data = patched(data, at, struct.pack("<I" if value % 2 else ">I", value))
    return data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=2000)
@given(st.sampled_from(sorted(SAMPLES)), _EDITS)
def test_damage_at_random_gives_pixels_or_an_item_error(name: str, edits: list[tuple[str, int, int]]) -> None:
    data = damaged(SAMPLES[name], edits)
    for read in READERS:
        try:
            read(data, max_pixels=10**6)
        except ItemError as error:
            assert error.code in (U, T, L, M)


@pytest.mark.torture
def test_a_hundred_thousand_tiny_files_are_planned(tmp_path: Path) -> None:
    for number in range(100_000):
        if not number % 1000:
            (tmp_path / f"{number // 1000:02d}").mkdir()
        os.close(os.open(tmp_path / f"{number // 1000:02d}" / f"{number:05d}.png", os.O_CREAT | os.O_WRONLY))
    plan = make_plan(list_images(Storage(), InputConfig(uri=str(tmp_path))), ShardConfig())
    assert plan.items.num_rows == 100_000
    assert plan.num_shards == 1563  # of 64
    ids = plan.items["image_id"].to_pylist()
    assert ids == sorted(ids)
    assert (ids[0], ids[-1]) == ("00/00000.png", "99/99999.png")
