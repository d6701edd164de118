"""A disk of a few MB that is really full: a file that leaves so many bytes of it free."""

import os
from pathlib import Path


def fill(filler: Path, free: int) -> None:
    """Make ``filler`` of such a size that its disk has about ``free`` bytes left."""
    filler.unlink(missing_ok=True)
    with filler.open("wb") as file:
        while os.statvfs(filler).f_bavail * os.statvfs(filler).f_bsize > free:
            file.write(b"x" * 4096)
            file.flush()
