"""What run.json says of a finished run: its parts, and besides them a typed value in, JSON out, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from segjobs.manifest.schema import Footer, FooterJson


@dataclass(frozen=True)
class RunCounts:
    """Images of a run by status, and the segments of those that are ok."""

    images: int
    ok: int
    failed: int
    segments: int


@dataclass(frozen=True)
class GpuUse:
    """One GPU in a run, read once a second for so many ``seconds``, by all of its processes.

    ``busy_percent``: of the time, in which it computed anything. ``used_bytes``: of its memory, at most.
    """

    busy_percent: float
    seconds: int
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Timings:
    """Seconds of the attempt that finished the run, of its stages, summed over workers, and of its start, by phase.

    ``start``: None where the release that made the run did not keep it. ``gpus``: by UUID; None where none was read.
    """

    seconds: float
    stages: dict[str, float]
    start: dict[str, float] | None = None
    gpus: dict[str, GpuUse] | None = None

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> "Timings":
        others = {name: value for name, value in raw.items() if name != "gpus"}
        gpus = raw.get("gpus")
        return Timings(**others, gpus=None if gpus is None else {uuid: GpuUse(**one) for uuid, one in gpus.items()})


class RunJson(TypedDict, total=False):
    """run.json without its parts, as JSON holds it; of a run that cannot be opened, what is known."""

    run_id: str | None
    verb: str
    version: str
    finished: str
    counts: dict[str, int]
    failures: dict[str, int]
    examples: Mapping[str, tuple[str, str]]
    timings: Mapping[str, object]
    identity: dict[str, object]
    footer: FooterJson
    config: dict[str, object]


@dataclass(frozen=True)
class RunInfo:
    """Who made a run, of what, how it went.

    ``finished``: ISO 8601, UTC. ``failures``: error code → images; ``examples``: error code → (image_id, message) of
    one of them. ``identity``: component → JSON value, of which the run_id is made. ``footer``: that of every part.
    ``config``: as the command had it.
    """

    run_id: str
    verb: str
    version: str
    finished: str
    counts: RunCounts
    failures: dict[str, int]
    examples: dict[str, tuple[str, str]]
    timings: Timings
    identity: dict[str, object]
    footer: Footer
    config: dict[str, object]

    @property
    def model_label(self) -> str | None:
        """``name@sha256[:12]`` of the model that made the masks; None of human labels."""
        return None if self.footer.model is None else self.footer.model.get("label")

    def to_json(self) -> RunJson:
        """The keys of run.json in their order, without ``parts``."""
        return {
            "run_id": self.run_id,
            "verb": self.verb,
            "version": self.version,
            "finished": self.finished,
            "counts": asdict(self.counts),
            "failures": self.failures,
            "examples": self.examples,
            "timings": self.timings.to_json(),
            "identity": self.identity,
            "footer": self.footer.to_json(),
            "config": self.config,
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> "RunInfo":
        """The inverse of ``to_json``; keys that this release does not know are left out.

        Raises KeyError, TypeError, ValueError or AttributeError where it is none, and ManifestError where the footer is
        of another schema version.
        """
        return RunInfo(
            run_id=raw["run_id"],
            verb=raw["verb"],
            version=raw["version"],
            finished=raw["finished"],
            counts=RunCounts(**raw["counts"]),
            failures=dict(raw["failures"]),
            examples={code: (name, message) for code, (name, message) in raw["examples"].items()},
            timings=Timings.from_json(raw["timings"]),
            identity=dict(raw["identity"]),
            footer=Footer.from_json(raw["footer"]),
            config=dict(raw["config"]),
        )


@dataclass(frozen=True)
class PartInfo:
    """One part as run.json lists it. ``first_id`` and ``last_id`` bound its image_ids.

    Of a collection, a file of its table: ``rows`` are those of images that are not gone.
    """

    name: str
    rows: int
    sha256: str
    first_id: str
    last_id: str


@dataclass(frozen=True)
class Run:
    """A finished manifest as run.json describes it, or a version of a collection.

    ``table``: the folder of a collection's table, whose files its parts are; None of a run, whose parts lie in
    ``uri/parts``. A collection's ``uri`` names the version: ``out/street@7``.
    """

    uri: str
    parts: tuple[PartInfo, ...]
    info: RunInfo
    table: str | None = None
