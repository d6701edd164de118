"""What was sent to people, on disk: a review's picked rows in, whole and once; who was sent what out.

    <collection>/reviews/00007/picked.parquet   the picked rows with their masks, and why   written first
    <collection>/reviews/00007/…                task files, made of them alone               in any order
    <collection>/reviews/00007/review.json      how many, and the files with their sha256    written last

Reviews are numbered. A review is one when picked.parquet stands, which is put if absent: of two who picked at once one
has the number, and the other picks again without what the first has sent. Whoever comes before review.json ends it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.schema import COLLECTION_SCHEMA, FOOTER_KEY, Footer
from segjobs.manifest.seal import open_json, open_table, sealed_json, sealed_table
from segjobs.storage import Storage, is_remote, join

PICKED_SCHEMA = pa.schema(
    [
        *COLLECTION_SCHEMA,
        ("score", pa.float64()),  # by which it was picked: the larger, the earlier; null where by lot
        ("hash", pa.uint64()),  # sources/perceptual_hash.py; null where the image is too large to be read whole
    ]
)
_PICKED, _SEAL = "picked.parquet", "review.json"
_MEND = "bring it back from a copy; with the folder moved away its images can be sent again"


@dataclass(frozen=True)
class Review:
    """``rows``: ``PICKED_SCHEMA``, by image_id. ``settings``: the keys that it was picked and is written by, as JSON.

    ``version``: of the table; ``footer``: what its masks are; ``written_by``: the release, as its files say it.
    """

    uri: str
    number: int
    rows: pa.Table
    settings: Mapping[str, Any]
    version: int
    footer: Footer
    written_by: str
    left_out: Mapping[str, int]

    @property
    def folder(self) -> str:
        return review_uri(self.uri, self.number)


def review_uri(uri: str, number: int) -> str:
    return join(uri, "reviews", f"{number:05d}")


def reviews_of(storage: Storage, uri: str) -> tuple[list[int], list[int]]:
    """The numbers of a collection's reviews: those that are ended, and those that are begun only."""
    root = join(uri, "reviews")
    found = {_PICKED: set[int](), _SEAL: set[int]()}
    for file in storage.walk(root) if storage.is_folder(root) or is_remote(root) else ():
        name, _, rest = file.path.partition("/")
        if rest in found and name.isdecimal():
            found[rest].add(int(name))
    return sorted(found[_SEAL]), sorted(found[_PICKED] - found[_SEAL])


def claim(storage: Storage, review: Review) -> bool:
    """Publish what is sent; False where another review has the number."""
    about = {
        "settings": review.settings,
        "version": review.version,
        "footer": review.footer.to_json(),
        "written_by": review.written_by,
        "left_out": review.left_out,
    }
    metadata = {FOOTER_KEY: json.dumps(about, sort_keys=True).encode()}
    where = join(review.folder, _PICKED)
    data = sealed_table(review.rows.select(PICKED_SCHEMA.names).cast(PICKED_SCHEMA), metadata=metadata)
    crash_at("picked:before")
    # Where a reply was lost, what stands there may be this very review.
    new = storage.put_if_absent(where, data) or storage.read(where) == data
    crash_at("picked:after")
    return new


def open_review(storage: Storage, uri: str, number: int) -> Review:
    """A review that is begun. Raises ManifestError where its file is damaged."""
    where = join(review_uri(uri, number), _PICKED)
    table = open_table(storage.read(where), where, mend=_MEND)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    about: dict[str, Any] = json.loads(metadata[FOOTER_KEY])
    footer = Footer.from_json(about["footer"])
    rows = table.replace_schema_metadata()
    return Review(
        uri, number, rows, about["settings"], about["version"], footer, about["written_by"], about["left_out"]
    )


def sent_rows(storage: Storage, uri: str, numbers: list[int], columns: list[str]) -> Iterator[pa.Table]:
    """Columns of what earlier reviews have sent, a review at a time."""
    for number in numbers:
        where = join(review_uri(uri, number), _PICKED)
        yield open_table(storage.read(where), where, mend=_MEND, columns=columns).replace_schema_metadata()


def seal(storage: Storage, review: Review, record: Mapping[str, object]) -> bool:
    """Publish that the review's files stand; False where that is said."""
    crash_at("review:before")
    new = storage.put_if_absent(join(review.folder, _SEAL), sealed_json(record))
    crash_at("review:after")
    return new


def read_seal(storage: Storage, uri: str, number: int) -> dict[str, Any]:
    """How a review ended."""
    where = join(review_uri(uri, number), _SEAL)
    return open_json(storage.read(where), where, mend="delete it and run the command again, which writes it anew")
