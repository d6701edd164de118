"""Whose a part of scores is: scores.json, which says what is scored, in; the mark that its parts carry, out; checked.

scores.json → scored_digest → part_of → the footer of scores/part-00012.parquet → read_scores
"""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.manifest.parts import part_uri
from segjobs.manifest.seal import open_table
from segjobs.storage import Storage, join

OF_KEY = b"segjobs_scores"
MEND = "move it away and run the command of its evaluation again"


def inputs_uri(uri: str) -> str:
    """Where an evaluation says what its scores are of."""
    return join(uri, "scores.json")


def scored_digest(storage: Storage, uri: str) -> str | None:
    """SHA-256 of the scores.json at ``uri``; None where there is none."""
    try:
        return hashlib.sha256(storage.read(inputs_uri(uri))).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def part_of(digest: str | None, number: int) -> bytes:
    """The mark of one part of the scores of that digest."""
    return f"{number} of {digest}".encode()


def read_scores(
    storage: Storage, uri: str, number: int, *, digest: str | None, columns: Sequence[str] | None = None
) -> pa.Table:
    """One part of the scores at ``uri``. Raises ManifestError where it is missing, damaged or of other scores.

    A part of an earlier release has no mark.
    """
    where = part_uri(uri, number, "scores")
    try:
        data = storage.read(where)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(f"{where}: not there; run the command of its evaluation again") from error
    table = open_table(data, where, mend=MEND, columns=columns)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    mark = metadata.get(OF_KEY)
    if mark is not None and mark != part_of(digest, number):
        raise ManifestError(f"{where} holds scores of other manifests or settings than {inputs_uri(uri)}; {MEND}")
    return table
