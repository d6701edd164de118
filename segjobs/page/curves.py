"""Training curves: the lines of metrics.jsonl in, one picture out.

    {"step": 10, "epoch": 0.4, "loss": 1.2, "lr": 1e-3, …}            → the loss, its moving mean, the learning rate
    {"step": 46, "epoch": 1, "validation": {"mean_iou": 0.31, …}, …}  → the scores

One panel above the other over the same epochs; a panel without a number is left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFont

from segjobs.narrow import is_object
from segjobs.page.overlay import PALETTE, Color
from segjobs.page.text import number

Record = Mapping[str, object]
"""A line of metrics.jsonl."""
Points = Sequence[tuple[float, float]]
"""Epoch and value."""

_SCALE = 2  # drawn as many times larger and reduced: PIL's lines have no smooth edges of their own
_WIDTH, _LEFT, _RIGHT, _GAP = 900, 64, 24, 52  # pixels of the picture
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (31, 35, 40), (110, 118, 129), (228, 231, 235)
_BLUE, _PALE_BLUE, _GREY = PALETTE[1], (176, 208, 230), (110, 118, 129)
_SCORE_COLORS = (PALETTE[0], PALETTE[2], PALETTE[4], PALETTE[6])
_SCORES_SHOWN = len(_SCORE_COLORS)
_NO_SCORES = ("score", "seconds")  # in a validation: a repetition, and no figure of the model
_LOG_FROM = 10.0  # ratio of the largest to the smallest value from which an axis is logarithmic
_MOST_SPOTS = 60  # values of a score of which each is marked
_SMOOTHED = 20  # points over which the mean of a long curve moves: a twentieth of them


@dataclass(frozen=True)
class Curve:
    """``name`` None draws the line without a word in the legend."""

    name: str | None
    points: Points
    color: Color


@dataclass(frozen=True)
class Panel:
    """A chart's title, curves and height in pixels. ``from_zero``: of the axis. ``scores``: the larger the better."""

    title: str
    curves: Sequence[Curve]
    height: int
    from_zero: bool = False
    scores: bool = False


def draw_curves(records: Sequence[Record]) -> Image.Image:
    """The picture of a training, RGB, 900 pixels wide. Values that are not finite numbers are left out."""
    panels = [panel for panel in _panels(records) if any(curve.points for curve in panel.curves)]
    height = sum(panel.height + _GAP for panel in panels) + _GAP
    canvas = Image.new("RGB", (_SCALE * _WIDTH, _SCALE * height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    epochs = [x for panel in panels for curve in panel.curves for x, _ in curve.points]
    top = _GAP
    for panel in panels:
        _draw_panel(draw, panel, top, (0.0, max(epochs)))
        top += panel.height + _GAP
    if panels:
        _text(draw, (_WIDTH - _RIGHT, top - _GAP + 20), "epoch", _FAINT, anchor="ra")
    else:
        _text(draw, (_LEFT, 12), "no numbers to draw", _FAINT)
    return canvas.resize((_WIDTH, height), Image.Resampling.BOX)


def moving_mean(points: Points, width: int) -> Points:
    """Each value's mean with those before it, ``width`` at most."""
    values = [y for _, y in points]
    return [(x, sum(values[max(0, at - width + 1) : at + 1]) / min(width, at + 1)) for at, (x, _) in enumerate(points)]


def ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Round numbers within a range: steps of 1, 2 or 5 times a power of ten, at most seven."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            marks = [factor * 10.0**power for power in powers for factor in factors]
            marks = [mark for mark in marks if low <= mark <= high]
            if len(marks) <= 7:
                return marks
        return marks[:: math.ceil(len(marks) / 7)]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _panels(records: Sequence[Record]) -> Iterator[Panel]:
    loss = _points(records, "loss")
    mean = moving_mean(loss, max(1, len(loss) // _SMOOTHED))
    yield Panel("training loss", [Curve(None, loss, _PALE_BLUE), Curve("loss", mean, _BLUE)], 230)
    found = [(record, figures) for record in records if is_object(figures := record.get("validation"))]
    validations = [{**record, **figures} for record, figures in found]
    names = [name for _, figures in found[:1] for name in figures if name not in _NO_SCORES]
    scores = [Curve(name, _points(validations, name), (0, 0, 0)) for name in names]
    shown = [curve for curve in scores if curve.points][:_SCORES_SHOWN]
    colored = [replace(curve, color=color) for curve, color in zip(shown, _SCORE_COLORS, strict=False)]
    yield Panel("validation", colored, 230, from_zero=True, scores=True)
    yield Panel("learning rate", [Curve("learning rate", _points(records, "lr"), _GREY)], 100, from_zero=True)


def _points(records: Sequence[Record], key: str) -> Points:
    pairs = [(number(record.get("epoch", record.get("step"))), number(record.get(key))) for record in records]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, top: int, x_range: tuple[float, float]) -> None:
    values = [y for curve in panel.curves for _, y in curve.points]
    low, high = min(values), max(values)
    logarithmic = not panel.from_zero and low > 0 and high / low >= _LOG_FROM
    if not logarithmic:
        low = min(low, 0.0) if panel.from_zero else low
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low if panel.from_zero else low - margin, high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        along = (x - x_range[0]) / (x_range[1] - x_range[0] or 1.0)
        up = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return _LEFT + along * (_WIDTH - _LEFT - _RIGHT), top + panel.height * (1 - up)

    for mark in ticks(low, high, logarithmic=logarithmic):
        _, y = place(0, mark)
        _line(draw, [(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID, 1)
        _text(draw, (_LEFT - 8, y), f"{mark:.6g}", _FAINT, anchor="rm")
    for mark in ticks(*x_range, logarithmic=False) if x_range[1] > x_range[0] else []:
        x, _ = place(mark, high)
        _line(draw, [(x, top + panel.height), (x, top + panel.height + 4)], _FAINT, 1)
        _text(draw, (x, top + panel.height + 6), f"{mark:.6g}", _FAINT, anchor="ma")
    _line(draw, [(_LEFT, top + panel.height), (_WIDTH - _RIGHT, top + panel.height)], _FAINT, 1)
    for curve in panel.curves:
        spots = [place(x, y) for x, y in curve.points]
        _line(draw, spots, curve.color, 1 if curve.name is None else 2)
        if len(spots) == 1 or (panel.scores and len(spots) <= _MOST_SPOTS):
            for x, y in spots:
                draw.circle((_SCALE * x, _SCALE * y), _SCALE * 2.5, curve.color)
    _text(draw, (_LEFT, top - 24), panel.title, _INK)
    _legend(draw, panel, top - 24)


def _legend(draw: ImageDraw.ImageDraw, panel: Panel, y: float) -> None:
    """Names and last values, of scores the best ones too, at the panel's upper right."""
    x = float(_WIDTH - _RIGHT)
    for curve in reversed([curve for curve in panel.curves if curve.name and curve.points]):
        last = curve.points[-1][1]
        words = f"{curve.name} {last:.4g}"
        if panel.scores:
            best_x, best = max(curve.points, key=lambda point: point[1])
            words += f" (best {best:.4g} at epoch {best_x:.4g})" if best > last else " (best)"
        x -= _font().getlength(words) / _SCALE
        _text(draw, (x, y), words, _INK)
        _line(draw, [(x - 20, y + 8), (x - 6, y + 8)], curve.color, 3)
        x -= 36


def _line(draw: ImageDraw.ImageDraw, points: Points, color: Color, width_px: int) -> None:
    draw.line([(_SCALE * x, _SCALE * y) for x, y in points], color, _SCALE * width_px, joint="curve")


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, color: Color, *, anchor: str | None = None
) -> None:
    draw.text((_SCALE * at[0], _SCALE * at[1]), words, color, _font(), anchor=anchor)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_SCALE * 13)
