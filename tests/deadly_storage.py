"""A storage that hands out one file that kills whoever reads it, as a hole in a decoder would."""

import os
import signal

from segjobs.storage import FileInfo, Storage


class DeadlyStorage(Storage):
    """``deadly.png`` is a death by SIGSEGV."""

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        if uri.endswith("deadly.png"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read_item(uri)
