"""The guide's first week: what happens to photos/ from night to night, and what its text blocks say of a night."""

import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

_SAID = ("night ", "gate: ", "held by ", "collection: ", "from version ", "version ", "  ", "masks of ")
_FAILED = re.compile(r"\d+ images: .*|.*\d+ images: .* gone|\d+ files, .*")


def photograph(photos: Path, number: int, *, seed: int = 0) -> Path:
    """One more, or another one of the same name."""
    photos.mkdir(exist_ok=True)
    path = photos / f"{number:03}.jpg"
    pixels = np.random.default_rng((number, seed)).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def before_night(photos: Path, number: int) -> None:
    """What has become of the photographs before the night of this number, 1 to 5."""
    match number:
        case 1:
            for one in range(12):
                photograph(photos, one)
        case 2:
            for one in (12, 13, 14):
                photograph(photos, one)
            photograph(photos, 5, seed=1)
            (photos / "007.jpg").unlink()
        case 3:
            for path in photos.iterdir():
                os.utime(path, (1_700_000_000, 1_700_000_000))
        case 4:
            for one in (15, 16, 17):
                path = photograph(photos, one)
                path.write_bytes(path.read_bytes()[: -200 if one > 15 else None])
        case 5:
            for one in (16, 17):
                photograph(photos, one, seed=1)


def shown(printed: str, folder: Path) -> list[str]:
    """The lines that a text block has of what a command printed, with what is another every time as ``…``."""
    # Lines that are too long for a page are broken.
    text = re.sub(r"([;:]) (segjobs )|(,) (and discard )", r"\1\3\n  \2\4", printed.replace(f"{folder}/", ""))
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d[-:]\d\d[-:]\d\d(\+00:00)?", "…", text)
    text = re.sub(r"…-[0-9a-f]{16}", "…", text)
    text = re.sub(r", \d+ segments", "", text)
    text = re.sub(r"\w+@[0-9a-f]{12}", "…", text)
    return [line.rstrip() for line in text.splitlines() if line.startswith(_SAID) or _FAILED.fullmatch(line)]
