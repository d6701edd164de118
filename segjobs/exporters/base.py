"""What a writer of a format gets and gives: one labelled image in, its file and its lines of the documents out.

    row of a manifest → segments.py → Labelled → Target.write → Written → parts → the format's documents

A ``Exporter`` is pure: it neither reads nor writes files. ``jobs/export`` runs it on the cluster, publishes the file
of each image and joins the lines of all images, in the manifest's order, into the documents that the format has.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segjobs.config import ExportConfig
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment

LossKind = Literal["excluded", "covered", "hidden", "merged", "crowd", "holes", "parts", "extra", "missing", "name"]
LOSSES: dict[LossKind, str] = {
    "excluded": "segments of classes that export.categories leaves out",
    "covered": "segments partly covered by one of higher score (the format has one label per pixel)",
    "hidden": "segments wholly covered by ones of higher score, left out",
    "merged": "objects in one region with others of their class (the format has classes only)",
    "crowd": "crowd regions, left out (the format has none)",
    "holes": "holes, cut open by a bridge of no width (a line is one ring)",
    "parts": "further parts of an object, joined by a bridge of no width (a line is one ring)",
    "extra": "objects that cv2.fillPoly, with which Ultralytics reads the ring, draws with more pixels",
    "missing": "objects that cv2.fillPoly, with which Ultralytics reads the ring, draws with fewer pixels",
    "name": "images whose path without extension is another's too (the format tells them apart by nothing else)",
}
"""What a format cannot hold, in words. Each is counted, with its pixels, by class."""


@dataclass(frozen=True)
class Loss:
    """``count`` segments (holes, parts, images) of one class that an image loses, and ``pixels`` of theirs."""

    kind: LossKind
    category_id: int | None
    count: int
    pixels: int = 0


@dataclass(frozen=True)
class Setting:
    """What all images of one export share.

    ``categories``: the classes that are exported, in order. ``ids``: the manifest's category_id → the document's.
    ``by_model``: a model made the labels, so their scores say something.
    """

    task: Task
    categories: tuple[Category, ...]
    ids: dict[int, int]
    config: ExportConfig
    about: dict[str, str]
    by_model: bool = False

    @property
    def index(self) -> dict[int, int]:
        """category_id → position in ``categories``."""
        return {category.id: position for position, category in enumerate(self.categories)}


@dataclass(frozen=True)
class Labelled:
    """One image with labels. ``number``: its integer id in documents. ``name``: its file's path in the format's
    folder, without suffix. ``shares_name``: another image has the same path without extension."""

    number: int
    image_id: str
    uri: str
    name: str
    size_hw: tuple[int, int]
    segments: tuple[Segment, ...]
    confidence: float | None = None
    model: str | None = None
    shares_name: bool = False


@dataclass(frozen=True)
class Written:
    """What became of one image. ``data``: its file. ``image``, ``records``: its texts in the documents' series.

    ``segments``: how many of them the format holds.
    """

    segments: int
    data: bytes | None = None
    image: str | None = None
    records: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class Series:
    """The texts of one column of all images, between two texts. ``numbered``: each is the rest of a JSON object
    whose first key, ``id``, is its number, from 1."""

    column: Literal["image", "records"]
    before: str = ""
    separator: str = ""
    after: str = ""
    numbered: bool = False


@dataclass(frozen=True)
class Document:
    """One file of the whole export: ``text``, then every series."""

    path: str
    text: str = ""
    series: tuple[Series, ...] = ()


@dataclass(frozen=True)
class Exporter:
    """A format. ``folder`` and ``suffix``: of the files that each image has, if any.

    ``by_stem``: its reader tells images apart by their path without extension. ``check``: every reason why this
    setting cannot be exported, one line each. ``notes``: what a person should know.
    """

    write: Callable[[Labelled, Setting], Written]
    documents: Callable[[Setting], Sequence[Document]]
    folder: str | None = None
    suffix: str = ""
    by_stem: bool = False
    check: Callable[[Setting], list[str]] = lambda setting: []
    notes: Callable[[Setting], list[str]] = lambda setting: []


def to_json(value: object) -> str:
    """One line of JSON, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def exact(score: float | None) -> float:
    """A float32 score as the shortest decimal that reads back as the same float32; 1, as of human labels, for None."""
    return 1.0 if score is None else float(str(np.float32(score)))
