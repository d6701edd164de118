"""``flows/collection.py``."""

import json
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import JobConfig, Section, StorageConfig
from segjobs.config.uris import OutputUri, Uri, absolute, meant

_ARGUMENTS = {
    "add": (1, None, "the runs to add, such as out/run1"),
    "publish": (1, 1, "the run of the night that its gate holds, such as out/street/runs/2026-01-31T02-00-00-…"),
    "discard": (1, 1, "the run of the night that its gate holds, such as out/street/runs/2026-01-31T02-00-00-…"),
    "diff": (2, 2, "two versions, such as 6 7"),
    "restore": (1, 1, "a version, such as 6"),
}
"""What is done → least and most words behind it, and which."""


class CollectionPlace(Section):
    uri: OutputUri = Field(
        description="the collection: a folder or s3://bucket/prefix that holds masks/ (its table), runs/ and nights/"
    )


class ReadCollection(Section):
    uri: Uri = Field(description="the collection, or a version of it: out/street@7")


class CollectionConfig(JobConfig):
    """Look at a collection, add runs to it, compare or restore versions, tidy its files: segjobs collection DO WORD …"""

    collection: ReadCollection
    do: Literal["status", "history", "diff", "add", "publish", "discard", "restore", "compact", "vacuum"] = Field(
        default="status", description="what is done; on the command line the first word: segjobs collection history"
    )
    words: list[str] = Field(
        default_factory=list, validate_default=True, description="the words behind it: runs to add, versions"
    )
    keep_days: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="vacuum: versions of the last so many days stay readable; files that only older ones have go",
    )
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @field_validator("words")
    @classmethod
    def _check_words(cls, value: list[str], info: ValidationInfo) -> list[str]:
        do = info.data.get("do", "status")
        least, most, what = _ARGUMENTS.get(do, (0, 0, "no more words"))
        if len(value) < least or (most is not None and len(value) > most):
            raise contradiction(f"segjobs collection {do} takes {what}; got {len(value)} word(s)")
        if do in ("diff", "restore"):
            for word in value:
                if not word.isdecimal():
                    raise contradiction(f"{word!r} is no version; expected a number that `history` shows")
        return [absolute(meant(word)) for word in value] if do in ("add", "publish", "discard") else value


def placed(words: Sequence[str]) -> list[str]:
    """``add out/run1 collection.uri=…`` as keys: ``do=add``, ``words=["out/run1"]``, and the rest as it is."""
    bare: list[str] = []
    rest: list[str] = []
    for number, word in enumerate(words):
        option = word.startswith("-") or (number > 0 and words[number - 1] == "--config")
        (rest if option or "=" in word else bare).append(word)
    keys = [f"do={bare[0]}"] if bare else []
    if bare[1:]:
        keys.append(f"words={json.dumps(bare[1:], ensure_ascii=False)}")
    return [*keys, *rest]
