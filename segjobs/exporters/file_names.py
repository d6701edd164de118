"""File names for images: image_ids in, relative paths out that are safe, one for each and never another's.

An image_id is text from a listing or from a user's table: it may be absolute, climb (``../``), or hold a byte that
no file name should. The path that comes out stays below its folder on every store, and pairs with the image by its
path without extension, as label files do:

| image_id | name | why |
|---|---|---|
| ``train/a.jpg`` | ``train/a`` | |
| ``a.jpg`` and ``a.png`` | ``a.jpg``, ``a.png`` | one name for two images |
| ``a.jpg`` and ``a.png/b.jpg`` (suffix ``.png``) | ``a.jpg``, ``a.png/b`` | a file and a folder of one name |
| ``/data/../a.jpg`` | ``data/%2E%2E/a`` | climbs |
| ``s3://bucket/.a.jpg`` | ``s3:/bucket/%2Ea`` | hidden files are listed by nothing |
| 300 letters | 150 letters ``~`` 16 digits of the SHA-256 | file systems take 255 bytes |
"""

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
_MOST_BYTES = 200  # of one component; suffixes and temporary names need the rest of 255
_KEPT_CHARACTERS = 40  # of a component that is too long; UTF-8 takes up to four bytes for each


def plain_name(image_id: str) -> str:
    """The name that an image has unless it clashes: its path without extension, made safe."""
    return _safe(posixpath.splitext(image_id)[0])


def unusual_names(image_ids: Sequence[str], *, suffix: str) -> dict[str, str]:
    """The images whose file ``<plain_name><suffix>`` would clash → the name that each has instead.

    Images of one name keep their extension; what clashes even then gets 16 digits of its id's SHA-256. Depends on
    the set of ids only, not on their order.
    """
    forms: tuple[Callable[[str], str], ...] = (plain_name, _safe, _digested)
    names = [plain_name(image_id) for image_id in image_ids]
    form = [0] * len(names)
    while rows := _clashing(names, form, suffix):
        for row in rows:
            form[row] += 1
            names[row] = forms[form[row]](image_ids[row])
    return {image_ids[row]: names[row] for row, level in enumerate(form) if level}


def same_stem(image_ids: Sequence[str]) -> set[str]:
    """The images whose path without extension is another's too."""
    counts = Counter(posixpath.splitext(image_id)[0] for image_id in image_ids)
    return {image_id for image_id in image_ids if counts[posixpath.splitext(image_id)[0]] > 1}


def _clashing(names: Sequence[str], form: Sequence[int], suffix: str) -> list[int]:
    """Rows that have to take their next form: of one name those of the lowest, and files where a folder is."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    found = set()
    for rows in rows_of.values():
        if len(rows) > 1:
            lowest = min(form[row] for row in rows)
            found.update(row for row in rows if form[row] == lowest)
    for folder in _folders(rows_of):
        if folder.endswith(suffix):
            found.update(rows_of.get(folder.removesuffix(suffix), ()))
    assert all(form[row] < 2 for row in found), "two ids of one SHA-256"  # noqa: S101
    return sorted(found)


def _folders(names: Sequence[str] | dict[str, list[int]]) -> set[str]:
    folders: set[str] = set()
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders


def _safe(path: str) -> str:
    """A relative path of harmless components; never empty."""
    return "/".join(_component(part) for part in path.split("/") if part not in ("", ".")) or "%2E"


def _component(part: str) -> str:
    text = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    if text.startswith("."):  # hidden, or the folder above
        text = text.replace(".", "%2E") if text.strip(".") == "" else f"%2E{text[1:]}"
    if len(text.encode()) > _MOST_BYTES:
        return f"{text[:_KEPT_CHARACTERS]}~{_digits(part)}"
    return text


def _digested(image_id: str) -> str:
    return f"{_safe(image_id)}~{_digits(image_id)}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
