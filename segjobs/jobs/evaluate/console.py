"""An evaluation's report on a terminal: tables, headlines, and the figures of the JSON line."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Column, Table

from segjobs.evaluation.estimates import KINDS
from segjobs.metrics.average_precision import FIGURES as COCO_FIGURES
from segjobs.metrics.names import HEADLINE, RATIOS


def tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """The report's tables for a terminal, scores in percent."""
    numbers = ("IoU", "Dice", "precision", "recall", "truth px")
    table = Table("class", *(Column(name, justify="right") for name in numbers))
    for row in report["semantic"]["per_class"]:
        iou, *others = (row[name] for name in RATIOS[:4])
        table.add_row(
            row["category"], with_interval(iou), *(percent(o["value"]) for o in others), f"{row['truth_px']:,}"
        )
    yield table
    if report["instance"]:
        table = Table("class", *(Column(name, justify="right") for name in ("mask AP", "AP50", "box AP", "objects")))
        for row in report["instance"]["per_class"]:
            values = [row["mask_AP"], row["mask_AP50"], row["box_AP"]]
            table.add_row(row["category"], *(percent(value["value"]) for value in values), f"{row['objects']:,}")
        yield table
    if report["slices"]:
        table = Table("slice", "value", *(Column(name, justify="right") for name in ("images", "mIoU")))
        for row in report["slices"]:
            images = "" if row["images"] is None else f"{row['images']:,}"
            table.add_row(row["column"], row["value"], images, with_interval(row["scores"]["mean_iou"]))
        yield table
    if report["drift"]:
        table = Table("class", *(Column(name, justify="right") for name in ("share", "baseline", "change", "objects")))
        for row in report["drift"]:
            share, objects = row["area_share"], row["objects"]
            figures = [percent(share[name]) for name in ("value", "baseline", "difference")]
            table.add_row(row["category"], *figures, f"{objects['baseline']:,} → {objects['value']:,}")
        yield table


def headlines(report: Mapping[str, Any]) -> Iterator[str]:
    """The figures of the whole set, a line for each kind."""
    headline = report["semantic"]["headline"]
    yield ", ".join(f"{HEADLINE[name]} {with_interval(figure)}" for name, figure in headline.items())
    if report["instance"]:
        for kind in KINDS:
            found = report["instance"][kind]
            yield f"{kind} " + ", ".join(f"{name} {with_interval(found[name])}" for name in ("AP", "AP50", "AP75"))
    if report["panoptic"]:
        yield ", ".join(f"{name.upper()} {with_interval(value)}" for name, value in report["panoptic"]["all"].items())
    if report["comparison"]:
        mean = report["comparison"]["metrics"]["mean_iou"]
        ends = f"{percent(mean['low'])} to {percent(mean['high'])}, p {mean['p_value']:.3g}" if mean["p_value"] else ""
        yield f"against the baseline: mIoU {percent(mean['baseline'])} → {percent(mean['value'])} ({ends})"


def main_figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The headline's values by name, for machines."""
    figures = {name: figure["value"] for name, figure in report["semantic"]["headline"].items()}
    if report["instance"]:
        figures |= {
            f"{kind}_{name}": report["instance"][kind][name]["value"] for kind in KINDS for name in COCO_FIGURES
        }
    if report["panoptic"]:
        figures |= {name: figure["value"] for name, figure in report["panoptic"]["all"].items()}
    return figures


def percent(value: float | None) -> str:
    """A score in [0, 1] in percent with two places."""
    return "–" if value is None else f"{100 * value:.2f}"


def with_interval(figure: Mapping[str, float | None]) -> str:
    """``57.20 [55.10, 59.00]``, without the interval where it is not known."""
    value, low, high = (percent(figure.get(name)) for name in ("value", "low", "high"))
    return value if figure.get("low") is None else f"{value} [{low}, {high}]"
