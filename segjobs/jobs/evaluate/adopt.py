"""What an evaluation's output holds already: the report of the same, or room for it.

report.json, scores.json → adopt ─┬→ the same, finished: its report
                                  ├→ nothing, or the same, unfinished: None
                                  └→ another: taken away (overwrite=true), or refused in a line
"""

from segjobs.errors import ConflictError, ManifestError
from segjobs.evaluation.entries import BASELINE, Evaluation
from segjobs.evaluation.output import PER_CLASS, PER_IMAGE, REPORT
from segjobs.evaluation.report_types import Report
from segjobs.evaluation.scored_parts import inputs_uri
from segjobs.jobs.engine.standing import check_names, read_standing
from segjobs.manifest.parts import list_parts, part_uri
from segjobs.manifest.seal import sealed_text
from segjobs.storage import Storage, join

_WAYS = "overwrite=true replaces it, or choose a new output.uri"


def adopt(storage: Storage, evaluation: Evaluation) -> Report | None:
    """The report of the same evaluation where it is finished, else None.

    Where the config says ``overwrite``, the files of another one are taken away, and no others. Raises ConflictError
    where another one stands, and ManifestError where it is damaged.
    """
    config, places = evaluation.config, {entry.uri: entry for entry in evaluation.entries}
    if len(places) < len(evaluation.entries):
        raise ConflictError("baseline.uri is output.uri: an evaluation is not replaced by what it is compared with")
    try:
        report = _finished(storage, evaluation)
    except (ConflictError, ManifestError):
        if not config.overwrite:
            raise
        report = None
    if report is not None:
        return report
    if config.overwrite:
        for name in (REPORT, PER_CLASS, PER_IMAGE):
            storage.delete(join(config.output.uri, name))
    for uri in (config.output.uri, join(config.output.uri, BASELINE)):
        entry = places.get(uri)
        standing = read_standing(storage, inputs_uri(uri))
        if standing is None or (entry is not None and standing == sealed_text(entry.inputs.to_json())):
            continue
        if config.overwrite:
            _remove_scores(storage, uri)
        elif entry is not None:
            raise ConflictError(
                f"{inputs_uri(uri)} is of another evaluation, which is not finished: {_WAYS}, or delete its folder"
            )
    return None


def _finished(storage: Storage, evaluation: Evaluation) -> Report | None:
    uri = evaluation.config.output.uri
    where = join(uri, REPORT)
    data = read_standing(storage, where)
    if data is None:
        return None
    report = Report.from_json(data, where=where)
    check_names(f"{uri} holds a report with", report.identity.by_key(), evaluation.identity.by_key(), way=_WAYS)
    return report


def _remove_scores(storage: Storage, uri: str) -> None:
    """Take the scores away; what says whose they are goes last."""
    for number in sorted(list_parts(storage, uri, "scores")):
        storage.delete(part_uri(uri, number, "scores"))
    storage.delete(inputs_uri(uri))
