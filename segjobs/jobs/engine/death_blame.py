"""Images that end their processes, or a model that ends all of them: which is to blame. Rows in; ClusterError out.

    rows of a shard ─→ one is ok, or one of a part that stands ─→ the others' own deaths
                  └─→ none is, and several died alone ─────────→ the model's, or the node's: the job stops

However few images a shard has: those of the parts that stand, of whatever attempt, are counted with it. The shard is
not published: once the cause is mended, the same command goes on with it.
"""

from collections.abc import Iterator

import pyarrow as pa

from segjobs.errors import ClusterError
from segjobs.jobs.engine.isolation import ALONE
from segjobs.manifest.parts import PART_MEND, list_parts, part_uri
from segjobs.manifest.seal import open_table
from segjobs.storage import Storage

_MANY = 4  # images; fewer may be odd ones


def check_deaths(rows: pa.Table, storage: Storage, uri: str) -> None:
    """A shard's rows. Raises ClusterError where each image of the run at ``uri`` so far ended its process, alone.

    Images that failed otherwise, such as those that cannot be read, say nothing of whoever works on the others.
    """
    deaths: list[str] = []
    for table in _with_standing(rows, storage, uri):
        if "ok" in table["status"].to_pylist():
            return
        messages = [error["message"] for error in table["error"].to_pylist()]
        deaths += [message.removesuffix(ALONE) for message in messages if message.endswith(ALONE)]
        if not deaths:  # of the shard itself, which is the first
            return
    if len(deaths) >= _MANY:
        raise ClusterError(
            f"each of the first {len(deaths)} images that were worked on ends its process: {deaths[0]}. That is not "
            "the images' fault but the model's, its libraries' or the node's memory; mend that, or raise "
            "compute.batch_deadline_s, and run the command again"
        )


def _with_standing(rows: pa.Table, storage: Storage, uri: str) -> Iterator[pa.Table]:
    """A shard's rows, and those of the parts that stand."""
    yield rows
    for number in sorted(list_parts(storage, uri)):
        where = part_uri(uri, number)
        yield open_table(storage.read(where), where, mend=PART_MEND, columns=["status", "error"])
