"""Another tool's label PNGs on the page: what an evaluation says that it scored in, the very same masks out, or None.

report.json: predictions.uri, predictions.ids, … ─→ open_scored_pngs ─→ Foreign: the files by image_id, how to read them
"""

from typing import Any

from segjobs.config import EXTRA_SCHEMES, EvaluateConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.evaluation.foreign import Foreign, Reference, open_label_pngs
from segjobs.evaluation.report_types import Report
from segjobs.manifest.parts import Run, image_ids_of
from segjobs.storage import Storage


def open_scored_pngs(storage: Storage, scored: Report, uri: str, truth: Run) -> Foreign | None:
    """The masks at ``uri`` that were scored against ``truth``; None where they are gone, are others now, or no PNGs."""
    config = _config_of(scored, uri, truth.uri)
    if config.predictions.format != "png":
        return None
    reference = Reference(tuple(scored.categories), "semantic", image_ids_of(storage, truth))
    try:
        found = open_label_pngs(config, config.predictions, storage, reference)
    except (ConfigError, StorageError, FileNotFoundError):
        return None
    return found if found.digest == scored.predictions.parts_digest else None


def mapping_of(found: Foreign, scored: Report) -> dict[int, int | None]:
    """Value of a mask → class of the report: they are given in the order of its classes."""
    return {theirs.id: ours.id for theirs, ours in zip(found.categories, scored.categories, strict=True)}


def _config_of(scored: Report, uri: str, truth: str) -> EvaluateConfig:
    """The keys of the evaluation that decide what its predictions say."""
    raw: dict[str, Any] = {"predictions": {"uri": uri}, "truth": {"uri": truth}, "output": {"uri": uri}}
    for key, value in scored.identity.settings.items():
        *sections, name = key.split(".")
        at = raw
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return EvaluateConfig.model_validate(raw, context={"schemes": tuple(EXTRA_SCHEMES)})
