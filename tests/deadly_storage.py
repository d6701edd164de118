"""A storage that hands out one file that kills whoever reads it, as a hole in a decoder would."""

import os
import signal
import time

from segjobs.storage import FileInfo, Storage


class DeadlyStorage(Storage):
    """``deadly.png`` is a death by SIGSEGV."""

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        if uri.endswith("deadly.png"):
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(1000)  # Ray's handler is at it in another thread: this image is not read meanwhile
        return super().read_item(uri)
