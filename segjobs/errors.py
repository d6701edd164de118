"""Every error that segjobs raises on purpose, and the process exit codes.

SegjobsError
├── ConfigError      the configuration or the command line is wrong; lists every problem   exit 2
├── StorageError     a store cannot be reached, read or written at all                     exit 2
├── WeightsError     a model's weights are missing, damaged or do not fit                  exit 2
├── ManifestError    a manifest is incomplete, damaged or of another kind than needed      exit 2
│   └── MaskSizeError  one of its masks is not of its image's size
├── ConflictError    the output already holds a run of other inputs or settings            exit 2
├── ClusterError     the cluster lacks what the job asks for, or lost it for good          exit 2
├── TrainingError    a training cannot go on: its loss is no number, or it does not fit    exit 2
└── ItemError        one image (or label) failed: becomes a row of the manifest, never a stop

A failure of the whole stops the job with one line. A failure of an item is data.
"""

import errno
from enum import IntEnum
from typing import Literal

from segjobs.redact import redact


class ExitCode(IntEnum):
    """Exit status of every flow."""

    DONE = 0
    BUG = 1
    USAGE = 2
    TOO_MANY_FAILED = 3
    GATE_MISSED = 4
    STOPPED = 75


DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk says that takes no more."""

ItemCode = Literal[
    "UNREADABLE",
    "TRUNCATED",
    "TOO_LARGE",
    "UNSUPPORTED_MODE",
    "NOT_FOUND",
    "CHANGED",
    "NON_FINITE",
    "GPU_OOM",
    "CRASHED",
    "TIMEOUT",
    "MODEL_ERROR",
    "LABEL_SHAPE",
    "LABEL_VALUE",
]
ITEM_CODES: dict[ItemCode, str] = {
    "UNREADABLE": "is no image, or cannot be read",
    "TRUNCATED": "is an image that ends early",
    "TOO_LARGE": "has more pixels than decode.max_pixels, or more bytes than storage.max_item_bytes",
    "UNSUPPORTED_MODE": "has a pixel format without a rule (segjobs/sources/decode.py)",
    "NOT_FOUND": "was gone when it was read",
    "CHANGED": "is not the one that was planned: its bytes differ",
    "NON_FINITE": "made the model give NaN or infinity",
    "GPU_OOM": "does not fit on the GPU, even alone",
    "CRASHED": "killed each process that worked on it, or took the machine's memory",
    "TIMEOUT": "took longer to read than storage.deadline_s, or its worker hung on it",
    "MODEL_ERROR": "made the model raise an error, or give what can be no mask of it",
    "LABEL_SHAPE": "has a label of another size",
    "LABEL_VALUE": "has a label with an unknown id, or a mask that makes no sense",
}
"""What each code says of its image: the one place that words them."""


class SegjobsError(Exception):
    """Root of the tree. Its text is one clear line: what, where, what was expected, how to mend it.

    Credentials that other libraries repeat in their messages are taken out of it.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __str__(self) -> str:
        return redact(super().__str__())


class ConfigError(SegjobsError):
    """The configuration is wrong. ``problems`` holds every finding, one line each."""

    def __init__(self, *problems: str) -> None:
        problems = tuple(redact(problem) for problem in problems)
        super().__init__("\n".join(problems))
        self.problems = problems


class StorageError(SegjobsError):
    """A store cannot be reached, read or written: wrong credentials, endpoint, full disk."""


class WeightsError(SegjobsError):
    """Weights are missing, damaged, of the wrong digest, or do not fit the architecture."""


class ManifestError(SegjobsError):
    """A manifest is incomplete, damaged, or not of the kind that the job needs."""


class MaskSizeError(ManifestError):
    """A mask is not of the size of its image, or its runs do not cover it."""


class ConflictError(SegjobsError):
    """The output location holds a run of other inputs, model or settings."""


class ClusterError(SegjobsError):
    """The cluster has too few CPUs or GPUs for the job, or a worker cannot start."""


class TrainingError(SegjobsError):
    """A training cannot go on as it is configured; its last checkpoint stands."""


class ItemError(SegjobsError):
    """One item failed. ``code`` and ``message`` go to the manifest's ``error`` column."""

    def __init__(self, code: ItemCode, message: str) -> None:
        message = redact(message)
        super().__init__(f"{code}: {message}")
        self.code: ItemCode = code
        self.message = message

    def __reduce__(self):
        return type(self), (self.code, self.message)
