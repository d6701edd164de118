"""A finished manifest or a collection for whoever looks at it from Python: rows, masks as arrays, the whole as a table.

uri ─→ Manifest ─┬→ Row ─→ mask("car"): bool (H, W); label_map(): uint16 (H, W)
                 └→ to_arrow(), to_pandas()
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.manifest.parts import Run, footer_of, open_run, read_part
from segjobs.manifest.rle import VOID, decode, paint
from segjobs.manifest.rows import segments_of
from segjobs.manifest.schema import COLLECTION_SCHEMA, MANIFEST_SCHEMA, Category, Task
from segjobs.manifest.segments import Segment
from segjobs.storage import Storage
from segjobs.text import nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row(Mapping[str, Any]):
    """One image of a manifest. ``row["uri"]`` is a column's value as Python has it (see ``MANIFEST_SCHEMA``)."""

    columns: Mapping[str, Any]
    categories: tuple[Category, ...]
    task: Task

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def image_id(self) -> str:
        """The image's path relative to the input."""
        return self.columns["image_id"]

    @property
    def ok(self) -> bool:
        """Whether the image has masks; if not, ``row["error"]`` has ``code`` and ``message``."""
        return self.columns["status"] == "ok"

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels, after the image's EXIF orientation. Raises ManifestError of a failed image."""
        self._check()
        return self.columns["height"], self.columns["width"]

    @property
    def segments(self) -> list[Segment]:
        """The image's masks, in the manifest's order. Raises ManifestError of a failed image."""
        self._check()
        return segments_of(self.columns)

    def mask(self, category: str) -> np.ndarray:
        """bool (H, W), True where a segment of this class is; all False where the image shows none.

        Raises ManifestError where the manifest has no such class, or the image failed.
        """
        names = [one.name for one in self.categories]
        if category not in names:
            raise ManifestError(f"{category!r} is no class of the manifest; {nearest(category, names)}")
        found = np.zeros(self.size_hw, bool)
        for segment in self.segments:
            if segment.category == category:
                found |= decode(segment.counts, self.size_hw)
        return found

    def label_map(self) -> np.ndarray:
        """uint16 (H, W): each pixel's category id, 65535 where no segment lies.

        Raises ManifestError of instances, which may overlap (take ``mask``), and of a failed image.
        """
        if self.task == "instance":
            raise ManifestError(
                f"{self.image_id!r}: instances may overlap, and have no label map; take row.mask(class)"
            )
        size_hw = self.size_hw
        return paint([(segment.category_id, segment.counts) for segment in self.segments], size_hw, VOID)

    def _check(self) -> None:
        if not self.ok:
            error = self.columns["error"]
            raise ManifestError(f"{self.image_id!r} has no masks: {error['code']}: {error['message']}")


class Manifest:
    """A finished manifest, or a version of a collection, which stays the same while the collection goes on.

    ``len`` is its images'; iterating gives a ``Row`` each, in order of image_id.

    One part is in memory at a time, read through ``storage`` and checked against the SHA-256 that run.json has.
    """

    def __init__(self, storage: Storage, uri: str) -> None:
        """Raises ManifestError where no manifest is, or its run is not finished."""
        self.storage = storage
        self._run: Run = open_run(storage, uri)
        self._footer = footer_of(self._run)

    def __repr__(self) -> str:
        return f"<Manifest {self.uri}: {len(self)} images, {self.task}, {len(self.categories)} classes>"

    def __len__(self) -> int:
        return sum(part.rows for part in self._run.parts)

    def __iter__(self) -> Iterator[Row]:
        for part in self._run.parts:
            for columns in read_part(self.storage, self._run, part).to_pylist():
                yield Row(columns, self.categories, self.task)

    @property
    def uri(self) -> str:
        """Where it lies; of a collection with its version: ``out/street@7``."""
        return self._run.uri

    @property
    def task(self) -> Task:
        """What its masks are: ``semantic``, ``instance`` or ``panoptic``."""
        return self._footer.task

    @property
    def categories(self) -> tuple[Category, ...]:
        """Its classes: id, name and colour."""
        return self._footer.categories

    @property
    def counts(self) -> Mapping[str, int]:
        """``images``, ``ok``, ``failed``, ``segments``."""
        return asdict(self._run.info.counts)

    @property
    def failures(self) -> Mapping[str, int]:
        """Error code → how many images."""
        return self._run.info.failures

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or some of their columns, in memory at once. ``polars.from_arrow`` and DuckDB take it."""
        schema = MANIFEST_SCHEMA if self._run.table is None else COLLECTION_SCHEMA
        names = list(columns) if columns else schema.names
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            raise ManifestError(f"{unknown[0]!r} is no column; {nearest(unknown[0], schema.names)}")
        if not self._run.parts:
            return pa.schema([schema.field(name) for name in names]).empty_table()
        return pa.concat_tables(
            read_part(self.storage, self._run, part, columns=names).replace_schema_metadata()
            for part in self._run.parts
        )

    def to_pandas(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """``to_arrow`` as a data frame: a row an image."""
        return self.to_arrow(columns).to_pandas()
