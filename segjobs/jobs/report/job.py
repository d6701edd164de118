"""The page of a run: an evaluation, or a manifest alone, in; one report.html out.

    report.json, run.json × 2 → tasks: rank images, tally → pick → tasks: fetch, draw → render → put if absent

Images are ranked from small columns by tasks that hand on only what could be shown. Then each picked image
is one task, which reads its row's part, fetches the image where the cluster can, and gives back thumbnails:
the driver never holds a mask or a photograph.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from segjobs.config import ReportConfig, digest, later
from segjobs.errors import ConfigError, ConflictError, ManifestError
from segjobs.evaluation.foreign import Foreign
from segjobs.evaluation.report_types import Report, ScoredRun
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_names, check_writable, publish_same, read_standing
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.engine.waits import TASK, Waits
from segjobs.jobs.report.label_pngs import mapping_of, open_scored_pngs
from segjobs.jobs.report.tasks import Drawing, drawn, ranked, tallied
from segjobs.manifest.parts import Run, find_manifest, footer_of, open_run
from segjobs.manifest.schema import Category, Task
from segjobs.page.contents import Group, ManifestSummary, Page
from segjobs.page.page import about_of, render
from segjobs.page.picks import Pick, Wanted, choose
from segjobs.page.pictures import common_categories
from segjobs.results import ReportResult
from segjobs.sources.bands import Bands
from segjobs.storage import Storage, join

_WAYS = "overwrite=true replaces it, or choose a new output.uri"


@dataclass(frozen=True)
class Sources:
    """What the page is made of. ``report`` is None for a manifest alone; a run is None where it cannot be opened.

    ``pngs``: predictions that are no run, but label PNGs of another tool.
    """

    storage: Storage
    about: dict[str, object]
    report: Report | None
    truth: Run | None
    predictions: Run | None
    sides: tuple[ManifestSummary, ...]
    notes: tuple[str, ...]
    pngs: Foreign | None = None


def report(config: ReportConfig) -> ReportResult:
    """Write ``report.html`` under ``config.output.uri``, or tell that it is there.

    Raises ConfigError, ManifestError, or ConflictError where a page of something else stands there.
    """
    progress = Progress("report")
    storage = Storage(config.storage)
    sources = open_sources(config, storage)
    uri = join(config.output.uri, "report.html")
    standing = _standing_page(storage, uri)
    if standing is not None and (standing.about == sources.about or not config.overwrite):
        check_names(f"{uri} is the page of", standing.about, sources.about, way=_WAYS)
        progress.note(f"nothing to do: {uri} is there")
        return _told(uri, standing.size_bytes)
    check_writable(config.output.uri)
    connect(config.compute, progress)
    check_shared(storage, config.output.uri, {f"{side.name}.uri": side.uri for side in sources.sides})
    with Waits(progress, [TASK]):
        page = make_page(config, sources, progress)
    data = render(page, max_bytes=config.max_bytes).encode()
    if standing is not None:
        storage.delete(uri)
    publish_same(storage, uri, data, "was written by somebody else meanwhile")
    for note in page.notes:
        progress.note(f"report: {note}")
    return _told(uri, len(data))


def _told(uri: str, size_bytes: int) -> ReportResult:
    Terminal().print(f"page: {uri}, {size_bytes / 1e6:.2f} MB")
    return ReportResult(uri, size_bytes)


# --- what there is -----------------------------------------------------------------------------


def open_sources(config: ReportConfig, storage: Storage) -> Sources:
    """Read report.json and both run.json. A run that an evaluation names and that is gone is a note, not an error."""
    given = {"predictions": config.predictions.uri, "truth": config.truth.uri}
    if config.evaluation.uri is None:
        assert given["predictions"] is not None, "the config has one of them"  # noqa: S101
        run = open_run(storage, given["predictions"])
        about = {"predictions": _parts_digest(run), **_settings(config)}
        return Sources(storage, about, None, None, run, (_side("manifest", run),), ())
    where = join(config.evaluation.uri, "report.json")
    try:
        data = storage.read(where)
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestError(f"{where}: not there; expected the folder that evaluate wrote") from None
    scored = Report.from_json(data, where=where)
    runs: dict[str, Run | None] = {}
    sides, notes = [], []
    for name, expected in (("predictions", scored.predictions), ("truth", scored.truth)):
        uri = given[name] or expected.uri
        foreign = expected.run_id is None  # another tool's
        run = None if foreign else _run_of(storage, uri, expected, required=given[name] is not None)
        if run is None and not foreign:
            notes.append(f"{uri}: no run is there any more, or another one: its masks ({name}) are not shown.")
        runs[name] = run
        # Without truth another model's masks are in its place.
        shown = "baseline" if scored.agreement and name == "truth" else name
        sides.append(_side(shown, run) if run else _side_without_run(shown, uri, expected))
    pngs = None
    if scored.predictions.run_id is None:
        uri = given["predictions"] or scored.predictions.uri
        pngs = open_scored_pngs(storage, scored, uri, runs["truth"]) if runs["truth"] else None
        if pngs is None:
            notes.append(f"{uri}: no label PNGs, or not those that were scored: the predictions are not shown.")
    about = {
        "evaluation": hashlib.sha256(data).hexdigest(),
        **{name: _parts_digest(run) if run else None for name, run in runs.items()},
        **({"predictions": pngs.digest} if pngs else {}),
        **_settings(config),
    }
    return Sources(storage, about, scored, runs["truth"], runs["predictions"], tuple(sides), tuple(notes), pngs)


def _run_of(storage: Storage, uri: str, expected: ScoredRun, *, required: bool) -> Run | None:
    """The run that an evaluation scored, at ``uri``; None where it is gone or is another one.

    Raises ManifestError for these where the config names the place (``required``).
    """
    try:
        run = open_run(storage, uri) if required else find_manifest(storage, uri)
    except ConfigError:  # the report's own uri, of a scheme that this release does not open
        run = None
    same = run is not None and expected.parts_digest == _parts_digest(run)
    if required and not same:
        raise ManifestError(f"{uri}: not the run that was scored ({expected.run_id}): its parts are others")
    return run if same else None


def _parts_digest(run: Run) -> str:
    return digest([part.sha256 for part in run.parts])


def _settings(config: ReportConfig) -> dict[str, object]:
    own = config.model_dump(mode="json", include={"title", "images", "thumb_px", "max_bytes", "decode"})
    return {**own, **later(config, "storage.max_item_bytes")}


def _side(name: str, run: Run) -> ManifestSummary:
    return ManifestSummary(name, run.uri, run.info.model_label, run.info.to_json(), _parts_digest(run))


def _side_without_run(name: str, uri: str, scored: ScoredRun) -> ManifestSummary:
    return ManifestSummary(name, uri, scored.model, {"run_id": scored.run_id}, scored.parts_digest)


@dataclass(frozen=True)
class _StandingPage:
    """A page of ours that is there: what it is made of."""

    about: dict[str, object]
    size_bytes: int


def _standing_page(storage: Storage, uri: str) -> _StandingPage | None:
    data = read_standing(storage, uri)
    if data is None:
        return None
    about = about_of(data.decode(errors="replace"))
    if about is None:
        raise ConflictError(f"{uri} is there and is no page of segjobs: choose a new output.uri")
    return _StandingPage(about, len(data))


# --- the driver --------------------------------------------------------------------------------


def make_page(config: ReportConfig, sources: Sources, progress: Progress) -> Page:
    """Pick the images, have them drawn on the cluster, and put all together."""
    images = config.images
    wanted = Wanted(images.worst, images.best, images.random, images.seed)
    categories, mapping, task = _categories(sources)
    tally = None
    if sources.report is None:
        assert sources.predictions is not None  # noqa: S101
        found, tally = tallied(sources.storage, sources.predictions, wanted)
    else:
        assert config.evaluation.uri is not None  # noqa: S101
        found = ranked(sources.storage, config.evaluation.uri, wanted)
    picked = choose(found, wanted)
    if sources.report is not None:
        scores = {pick.image_id: pick.score for pick in found}
        disputed = list(dict.fromkeys(row.image_id for row in sources.report.disputes))
        picked["disputes"] = [Pick(one, scores.get(one)) for one in disputed[: images.disputes]]
    drawing = Drawing(
        sources.storage,
        sources.truth,
        sources.predictions,
        categories,
        mapping,
        task,
        config.thumb_px,
        config.decode.max_pixels,
        sources.pngs.read if sources.pngs else None,
        _bands(sources),
    )
    image_ids = sorted({pick.image_id for group in picked.values() for pick in group})
    with progress.phase("drawing", f"drawing {len(image_ids)} images"):
        cards = drawn(drawing, image_ids, sources.pngs.texts if sources.pngs else {})
    return Page(
        title=config.title or _title(sources),
        about=sources.about,
        categories=categories,
        task=task,
        sides=sources.sides,
        report=sources.report,
        tally=tally,
        groups=tuple(
            Group(key, tuple(replace(cards[pick.image_id], score=pick.score) for pick in group))
            for key, group in picked.items()
            if group
        ),
        notes=sources.notes,
    )


def _bands(sources: Sources) -> Bands | None:
    """As the predictions' images were read, else the truth's."""
    given = [footer_of(run).pixels for run in (sources.predictions, sources.truth) if run is not None]
    return Bands.of(next((pixels for pixels in given if pixels is not None), None))


def _title(sources: Sources) -> str:
    side = sources.sides[0]
    return side.model or side.uri


def _categories(sources: Sources) -> tuple[tuple[Category, ...], Mapping[int, int | None], Task]:
    """The classes of the page, predicted id → id among them, and the task."""
    predicted = footer_of(sources.predictions).categories if sources.predictions else ()
    if sources.report is None:
        assert sources.predictions is not None  # noqa: S101
        return predicted, {category.id: category.id for category in predicted}, footer_of(sources.predictions).task
    if sources.pngs is not None:
        return tuple(sources.report.categories), mapping_of(sources.pngs, sources.report), "semantic"
    task: Task = footer_of(sources.truth).task if sources.truth else sources.report.task
    rename = sources.report.identity.rename
    return *common_categories(sources.report.categories, predicted, rename=rename), task
