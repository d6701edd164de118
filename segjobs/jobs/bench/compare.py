"""Two benches against each other: their bench.json in, a figure a line out.

a.json, b.json ─→ figures of both by name ─→ b ÷ a, and whether that says anything ─→ table, CompareResult
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from segjobs.config import BenchCompareConfig
from segjobs.errors import ConfigError
from segjobs.jobs.bench.figures import NOISY
from segjobs.jobs.engine.terminal import Terminal
from segjobs.narrow import is_object
from segjobs.results import CompareResult
from segjobs.storage import Storage

Verdict = Literal["better", "worse", "alike", "too noisy to judge", "one round"]
_SETTINGS = ("model", "runtime", "resize", "batch_size", "images", "shard_images", "layout")
_UNSAID = {"runtime": "torch"}  # by benches of earlier releases
_MORE_IS_BETTER = ("ratios.", "bare.", "gpus.busy")


@dataclass(frozen=True)
class Spread:
    """A figure's median and extremes over ``rounds``."""

    median: float
    least: float
    most: float
    rounds: int

    @property
    def noisy(self) -> bool:
        return self.most - self.least > NOISY * abs(self.median)


def compare(config: BenchCompareConfig) -> CompareResult:
    """Print the figures that both benches have. Raises ConfigError where a file is no bench's."""
    one, other = (_read(Storage(config.storage), uri) for uri in config.files)
    console = Terminal()
    for name in _SETTINGS:
        of_one, of_other = (report.get(name, _UNSAID.get(name)) for report in (one, other))
        if of_one != of_other:
            console.print(f"{name} differs: {of_one} and {of_other}: these are not of the same work")
    first, second = dict(figures_in(one)), dict(figures_in(other))
    table = Table("", "a", "least – most", "b", "least – most", "b ÷ a", "b is")
    found: dict[str, Mapping[str, object]] = {}
    for name in [name for name in first if name in second]:
        a, b = first[name], second[name]
        ratio, said = b.median / a.median if a.median else None, verdict(name, a, b)
        found[name] = {"a": a.median, "b": b.median, "ratio": ratio, "verdict": said}
        table.add_row(name, *_cells(a), *_cells(b), "–" if ratio is None else f"{ratio:.2f}", said)
    console.print(table)
    for uri, alone in zip(config.files, (first.keys() - second, second.keys() - first), strict=True):
        if alone:
            console.print(f"only in {uri}: {', '.join(sorted(alone))}")
    return CompareResult(found)


def verdict(name: str, a: Spread, b: Spread) -> Verdict:
    """What b is against a. Where their extremes overlap, or one of them is noisy, the difference is the machine's."""
    if min(a.rounds, b.rounds) < 2:
        return "one round"
    if a.noisy or b.noisy:
        return "too noisy to judge"
    if a.least <= b.most and b.least <= a.most:
        return "alike"
    more_is_better = name.startswith(_MORE_IS_BETTER) or name.endswith("per_s")
    return "better" if (b.median > a.median) == more_is_better else "worse"


def figures_in(report: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Spread]]:
    """Every figure of a bench.json by its dotted name."""
    for key, value in report.items():
        if not is_object(value):
            continue
        if "median" in value:
            yield above + key, _spread(value)
        else:
            yield from figures_in(value, f"{above}{key}.")


def _spread(figure: Mapping[str, Any]) -> Spread:
    return Spread(figure["median"], figure["min"], figure["max"], len(figure["runs"]))


def _read(storage: Storage, uri: str) -> dict[str, Any]:
    try:
        report: object = json.loads(storage.read(uri))
        if is_object(report) and dict(figures_in(report)):
            return report
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file; expected the bench.json of a bench's output.uri") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"{uri}: no figures of a bench; expected the bench.json of a bench's output.uri")


def _cells(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:.4g}", f"{spread.least:.4g} – {spread.most:.4g}"
