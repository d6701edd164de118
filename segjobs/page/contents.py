"""What a page is made of: plain values from the job in, for ``page.render``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from segjobs.evaluation.report_types import Report
from segjobs.manifest.run_info import RunJson
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.statistics import Counts


@dataclass(frozen=True)
class Card:
    """One image of the page. ``pictures``: WebP bytes by name (see ``pictures.draw_card``); ``absent``:
    why a picture that should be there is not, by name; ``classes``: ids of what is drawn."""

    image_id: str
    uri: str
    score: float | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    classes: frozenset[int] = frozenset()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Cards that belong together: ``key`` of ``wording.GROUPS``."""

    key: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class ManifestSummary:
    """One manifest. ``info``: its run.json without the parts, empty where it could not be read."""

    name: str
    uri: str
    model: str | None
    info: RunJson = field(default_factory=RunJson)
    parts_digest: str | None = None


@dataclass(frozen=True)
class ManifestTally:
    """What a manifest holds, without any truth: ``counts`` of ``manifest.statistics``, and ``confidence``:
    images that are ok by their confidence, in equal bins from 0 to 1."""

    counts: Counts
    confidence: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """Everything that a page shows. ``about`` names its inputs (JSON values); ``report`` is of an evaluation,
    ``tally`` of a manifest without one: one of the two is None."""

    title: str
    about: Mapping[str, object]
    categories: tuple[Category, ...]
    task: Task
    sides: tuple[ManifestSummary, ...]
    report: Report | None = None
    tally: ManifestTally | None = None
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
