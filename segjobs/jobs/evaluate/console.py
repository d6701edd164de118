"""An evaluation's report on a terminal: tables, headlines, and the figures of the JSON line."""

from collections.abc import Iterator

from rich.table import Column, Table

from segjobs.evaluation.report_types import Difference, Failure, Figure, Report
from segjobs.metrics.names import AVERAGE_PRECISION, DETECTIONS, HEADLINE, KINDS, QUALITY, RATIOS


def tables(report: Report) -> Iterator[Table]:
    """The report's tables for a terminal, scores in percent."""
    numbers = [RATIOS[name].name for name in ("iou", "dice", "precision", "recall")]
    reference = "baseline px" if report.agreement else "truth px"
    table = Table("class", *(Column(name, justify="right") for name in (*numbers, reference)))
    for row in report.semantic.per_class:
        others = (row.dice, row.precision, row.recall)
        table.add_row(
            row.category, with_interval(row.iou), *(percent(one.value) for one in others), f"{row.truth_px:,}"
        )
    yield table
    if report.instance:
        numbers = [DETECTIONS["mask_AP"].name, AVERAGE_PRECISION["AP50"].name, DETECTIONS["box_AP"].name]
        table = Table("class", *(Column(name, justify="right") for name in (*numbers, "objects")))
        for row in report.instance.per_class:
            values = [row.mask_AP, row.mask_AP50, row.box_AP]
            table.add_row(row.category, *(percent(value.value) for value in values), f"{row.objects:,}")
        yield table
    if report.slices:
        mean = HEADLINE["mean_iou"].name
        table = Table("slice", "value", *(Column(name, justify="right") for name in ("images", mean)))
        for row in report.slices:
            images = "" if row.images is None else f"{row.images:,}"
            table.add_row(row.column, row.value, images, with_interval(row.scores["mean_iou"]))
        yield table
    if report.drift:
        table = Table("class", *(Column(name, justify="right") for name in ("share", "baseline", "change", "objects")))
        for row in report.drift:
            share, objects = row.area_share, row.objects
            figures = [percent(value) for value in (share.value, share.baseline, share.difference)]
            table.add_row(row.category, *figures, f"{objects.baseline:,} → {objects.value:,}")
        yield table


def headlines(report: Report) -> Iterator[str]:
    """The figures of the whole set, a line for each kind that has any."""
    headline = report.semantic.headline
    start = "agreement of two models (no truth): " if report.agreement else ""
    if any(figure.value is not None for figure in headline.values()):
        yield start + ", ".join(f"{HEADLINE[name].name} {with_interval(figure)}" for name, figure in headline.items())
    if report.instance and report.images["ok"]:
        for kind in KINDS:
            found = report.instance.of(kind)
            yield f"{start}{kind} " + ", ".join(
                f"{name} {with_interval(found[name])}" for name in ("AP", "AP50", "AP75")
            )
    if report.panoptic and report.images["ok"]:
        yield start + ", ".join(
            f"{QUALITY[name].name} {with_interval(value)}" for name, value in report.panoptic.all.items()
        )
    if report.comparison:
        yield f"against the baseline: {HEADLINE['mean_iou'].name} {_change(report.comparison.metrics['mean_iou'])}"


def status_words(one: Failure) -> str:
    """Why images could not be scored: 'prediction failed, UNREADABLE: 3 images, such as …'."""
    side = "prediction" if one.status == "failed" else "truth"
    return f"{side} failed, {one.code}: {one.images} image(s), such as {one.image_id!r}: {one.message}"


def _change(one: Difference) -> str:
    ends = f"{percent(one.low)} to {percent(one.high)}, p {one.p_value:.3g}" if one.p_value else ""
    return f"{percent(one.baseline)} → {percent(one.value)} ({ends})"


def main_figures(report: Report) -> dict[str, float | None]:
    """The headline's values by name, for machines."""
    figures = {name: figure.value for name, figure in report.semantic.headline.items()}
    if report.instance:
        for kind in KINDS:
            found = report.instance.of(kind)
            figures |= {f"{kind}_{name}": found[name].value for name in AVERAGE_PRECISION}
    if report.panoptic:
        figures |= {name: figure.value for name, figure in report.panoptic.all.items()}
    return figures


def percent(value: float | None) -> str:
    """A score in [0, 1] in percent with two places."""
    return "–" if value is None else f"{100 * value:.2f}"


def with_interval(figure: Figure) -> str:
    """``57.20 [55.10, 59.00]``, without the interval where it is not known."""
    value, low, high = (percent(end) for end in (figure.value, figure.low, figure.high))
    return value if figure.low is None else f"{value} [{low}, {high}]"
