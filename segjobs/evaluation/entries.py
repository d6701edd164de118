"""Open an evaluation: the config in, what it compares, its gate and its slices out; nothing is scored yet.

    config → predictions × truth, baseline × truth → Evaluation: entries, rules, slices, identity

Without truth the baseline takes its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from segjobs.config import EvaluateConfig, PredictionsConfig, effective, nearest
from segjobs.errors import ConfigError
from segjobs.evaluation.inputs import open_pairing
from segjobs.evaluation.pairing import Pairing, Range
from segjobs.evaluation.report_types import SCHEMA_VERSION, CountSettings, Identity, Inputs, ScoredDigests
from segjobs.evaluation.scored_parts import inputs_uri
from segjobs.evaluation.slices import Slices, open_slices
from segjobs.manifest.schema import Category
from segjobs.metrics.gate import Rule, parse_rules
from segjobs.storage import Storage, join

BASELINE = "baseline"
"""The folder, beside the report, of the scores of a baseline that nobody has scored before."""
_OWN = {*Identity.model_fields, *CountSettings.model_fields}
"""Sections and keys of the config that an identity holds by their own names."""


@dataclass(frozen=True)
class Entry:
    """One manifest of predictions with the place of its scores: ``uri`` holds, or is to hold, scores/."""

    uri: str
    pairing: Pairing
    spans: list[Range]
    inputs: Inputs


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated. ``entries``: the predictions and, where there is truth too, the baseline."""

    config: EvaluateConfig
    entries: tuple[Entry, ...]
    rules: tuple[Rule, ...]
    slices: Slices

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.entries[0].pairing.categories

    @property
    def identity(self) -> Identity:
        """What the report is of: equal values, equal report."""
        scored = [
            ScoredDigests(truth=one.inputs.truth.parts_digest, predictions=one.inputs.predictions.parts_digest)
            for one in self.entries
        ]
        keys = effective("evaluate", self.config)
        return Identity(
            version=SCHEMA_VERSION,
            scored=tuple(scored),
            counts=self.entries[0].inputs.counts,
            slices=self.slices.digest,
            missing=self.config.missing,
            rename=self.config.rename,
            ignore_classes=tuple(self.config.ignore_classes),
            gate=tuple(self.config.gate),
            bootstrap=self.config.bootstrap,
            disputes=self.config.disputes,
            agreement=self.config.truth is None,
            settings={key: value for key, value in keys.items() if key.partition(".")[0] not in _OWN},
        )


def open_evaluation(config: EvaluateConfig, storage: Storage) -> Evaluation:
    """Open all that the config names. Raises ManifestError, or ConfigError with every problem."""
    entries = tuple(_open_entries(config, storage))
    categories = entries[0].pairing.categories
    rules = _checked_rules(config, categories)
    return Evaluation(
        config, entries, tuple(rules), open_slices(config.slices, storage, categories, config.bootstrap.group)
    )


def _open_entries(config: EvaluateConfig, storage: Storage) -> list[Entry]:
    reference = config.truth or config.baseline
    assert reference is not None, "the config has one of them"  # noqa: S101
    pairing, spans, inputs = open_pairing(config, storage, config.predictions, reference.uri)
    entries = [Entry(config.output.uri, pairing, spans, inputs)]
    if config.truth is None or config.baseline is None:
        return entries
    earlier = _earlier(storage, config.baseline.uri)
    if earlier is None:
        baseline = PredictionsConfig(uri=config.baseline.uri)
        pairing, spans, inputs = open_pairing(config, storage, baseline, config.truth.uri)
        return [*entries, Entry(join(config.output.uri, BASELINE), pairing, spans, inputs)]
    if earlier.truth.parts_digest != inputs.truth.parts_digest or earlier.counts != inputs.counts:
        raise ConfigError(
            f"baseline.uri: {config.baseline.uri} scored another truth ({earlier.truth.uri}) or with other "
            "boundary or dispute settings, or by an earlier release's rules: name its manifest of predictions instead, "
            "which is then scored again"
        )
    if not storage.exists(join(config.baseline.uri, "report.json")):  # its missing scores are not this job's to make
        raise ConfigError(f"baseline.uri: {config.baseline.uri}: the evaluation is not finished; run its command again")
    return [*entries, Entry(config.baseline.uri, pairing, spans, earlier)]


def _earlier(storage: Storage, uri: str) -> Inputs | None:
    """What an earlier evaluation at ``uri`` scored, None where there is none."""
    where = inputs_uri(uri)
    try:
        return Inputs.from_json(storage.read(where), where=where)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _checked_rules(config: EvaluateConfig, categories: Sequence[Category]) -> list[Rule]:
    """The gate's rules. Raises ConfigError for whatever names a class or a baseline that is not there."""
    names = [category.name for category in categories]
    problems = [
        f"ignore_classes: {name!r} is no class of the truth; {nearest(name, names)}"
        for name in config.ignore_classes
        if name not in names
    ]
    rules: list[Rule] = []
    try:
        rules = parse_rules(config.gate, names, config.bootstrap.confidence if config.bootstrap.resamples else None)
    except ConfigError as error:
        problems += error.problems
    if config.truth is None and config.gate:
        problems.append("gate: without truth there is no figure to hold a rule against")
    problems += [
        f"gate: {rule.text!r}: a drop needs baseline.uri" for rule in rules if rule.drop and config.baseline is None
    ]
    if problems:
        raise ConfigError(*problems)
    return rules
