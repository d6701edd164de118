"""Images that are labelled again, as the table had them before: the night's changes in; rows with masks out.

    changes: stale ─→ the version that the night was compared with, a file at a time ─→ rows_of(a part's images)

Of many images some are drawn, by their ids' digests, so that a night of a new model takes no hour to be looked at.
"""

import hashlib
import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.errors import ManifestError
from segjobs.manifest.collection import Collection, find_collection
from segjobs.manifest.nights import Night
from segjobs.manifest.schema import Category
from segjobs.storage import Storage

MOST = 5_000
"""So many images at most are compared with their earlier masks."""


class Earlier:
    """Rows that the table had of images that are labelled again; ``lost``: images whose rows cannot be had any more.

    Asked for in order of image_id, it reads each file of the table once.
    """

    def __init__(self, table: Collection | None, image_ids: Sequence[str], *, most: int = MOST) -> None:
        self.lost = 0
        self._table = table
        self._drawn = set(heapq.nsmallest(most, image_ids, key=_draw)) if table else set[str]()
        self._files = table.files if table and self._drawn else ()
        self._lasts = [file.part.last_id for file in self._files]
        self._kept: tuple[int, pa.Table] | None = None

    @property
    def categories(self) -> tuple[Category, ...]:
        footer = self._table.footer if self._table else None
        return footer.categories if footer else ()

    def rows_of(self, image_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The earlier rows of those of these images, in order, that were drawn and had masks."""
        wanted = [image_id for image_id in image_ids if image_id in self._drawn]
        found: dict[str, Mapping[str, Any]] = {}
        while wanted:
            place = bisect_left(self._lasts, wanted[0])
            end = bisect_right(wanted, self._lasts[place])
            here, wanted = wanted[:end], wanted[end:]
            try:
                rows = self._read(place)
            except ManifestError:  # a vacuum has taken it; what is damaged, and in the table still, the commit tells
                self.lost += len(here)
                continue
            chosen = rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(here, pa.string())))
            found |= {row["image_id"]: row for row in chosen.to_pylist() if row["status"] == "ok"}
        return found

    def _read(self, place: int) -> pa.Table:
        if self._kept is None or self._kept[0] != place:
            assert self._table is not None, "without a table nothing is drawn"  # noqa: S101
            self._kept = place, self._table.read(self._files[place])
        return self._kept[1]


def earlier_of(storage: Storage, night: Night) -> Earlier:
    """What the night labels again, in the version that it was compared with."""
    again = night.of("stale")["image_id"].to_pylist()
    return Earlier(find_collection(storage, f"{night.uri}@{night.version}") if again else None, again)


def _draw(image_id: str) -> str:
    return hashlib.sha256(image_id.encode()).hexdigest()
