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

from enum import IntEnum
from typing import Literal, get_args

from segjobs.redact import redact


class ExitCode(IntEnum):
    """Exit status of every flow."""

    DONE = 0
    BUG = 1
    USAGE = 2
    TOO_MANY_FAILED = 3
    GATE_MISSED = 4
    STOPPED = 75


ItemCode = Literal[
    "UNREADABLE",  # not an image, or no bytes
    "TRUNCATED",  # an image whose pixels end early
    "TOO_LARGE",  # the header says more than decode.max_pixels
    "UNSUPPORTED_MODE",  # a pixel format with no rule (see sources/decode.py)
    "NOT_FOUND",  # listed, but gone when it was read
    "CHANGED",  # the bytes differ from the plan's fingerprint
    "NON_FINITE",  # NaN or infinity in the model's output
    "GPU_OOM",  # out of GPU memory at batch size 1
    "CRASHED",  # its worker died on it
    "TIMEOUT",  # reading it took longer than storage.deadline_s, or its worker hung on it
    "LABEL_SHAPE",  # the label's size is not the image's
    "LABEL_VALUE",  # a label id that the class table does not know, or a mask that makes no sense
]
ITEM_CODES: tuple[ItemCode, ...] = get_args(ItemCode)


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
