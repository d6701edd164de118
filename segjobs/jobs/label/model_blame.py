"""Images that fail at the model, or a model that fails at every image: which is to blame. Rows in; ConfigError out.

    rows of a shard ─→ one is ok ──────────────────────────────→ the others' own failures, from then on
                  └─→ none is, nor one before, of many images ─→ the model's: the job stops, with the model's words

A folder of a million images is not labelled "failed" by a model that cannot work. The shard is not published: once the
model is mended, the same command labels it.
"""

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from segjobs.errors import ConfigError, ItemCode

_OF_THE_MODEL: tuple[ItemCode, ...] = ("MODEL_ERROR", "NON_FINITE", "GPU_OOM")
_MANY = 8  # images; fewer may be odd ones


class ModelBlame:
    """Of one process, over all its shards. ``label``: the model's. Thread-safe."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._works = False
        self._failed = 0
        self._lock = Lock()

    def judge(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """A shard's rows. Raises ConfigError where the model has failed at every image that it was shown so far."""
        errors = [None if row["status"] == "ok" else row["error"] for row in rows]
        of_the_model = [error for error in errors if error and error["code"] in _OF_THE_MODEL]
        with self._lock:
            self._works = self._works or None in errors
            self._failed += len(of_the_model)
            if self._works or self._failed < _MANY or not of_the_model:
                return
        first = of_the_model[0]
        raise ConfigError(
            f"model.name: {self._label} fails at each of the first {self._failed} images that it was shown "
            f"({first['code']}: {first['message']}): that is not the images' fault but the model's; mend it, its "
            "weights or compute.precision, and run the command again, or leave these images out by input.exclude at a "
            "new output.uri"
        )
