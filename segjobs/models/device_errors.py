"""What torch raises where the device fails, and not the image; known without importing torch, in whose absence nothing
raises it."""

import sys


def out_of_memory() -> tuple[type[BaseException], ...]:
    """For ``except``: the device has no room."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError,)


def of_the_device() -> tuple[type[BaseException], ...]:
    """For ``except``: the device has no room, or fails."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError, torch.AcceleratorError)
