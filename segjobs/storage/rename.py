"""A file's name taken only where nobody has it, on file systems without hard links (exFAT, VFAT, many network disks).

Linux's ``renameat2`` with RENAME_NOREPLACE, which Python does not offer: as atomic as a hard link.
"""

import ctypes
import os
from pathlib import Path

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1


def rename_new(source: Path, path: Path) -> None:
    """Rename ``source`` to ``path``. Raises FileExistsError where something is there, OSError where it cannot be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
