"""What the template is given: a page's contents in, plain values by name out; figures are still numbers.

Each function here makes one section of the page, or nothing where there is nothing to say.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from pydantic import BaseModel

from segjobs import __version__
from segjobs.errors import ITEM_CODES
from segjobs.evaluation.report_types import (
    Calibration,
    ClassScores,
    Comparison,
    Convention,
    Figure,
    Histogram,
    Instance,
    Panoptic,
    Report,
    Slice,
    Status,
)
from segjobs.manifest.schema import FooterJson
from segjobs.manifest.statistics import statistics
from segjobs.metrics.names import AVERAGE_PRECISION, CONVENTION_WORDS, HEADLINE, KINDS, MatchKind
from segjobs.page import text, wording
from segjobs.page.contents import Card, ManifestSummary, Page
from segjobs.page.overlay import display_colors
from segjobs.page.pictures import AT_FULL_SIZE, EXTRA, data_uri, kind_swatch
from segjobs.page.pictures import KINDS as DIFFERENCES
from segjobs.page.scores import UNLABELLED, HeatMap, heat_map, top_confusions

MOST_ROWS = 200
"""Most rows of a table that grows with the run: slices, disputes. Classes are shown up to ``MOST_CLASSES``."""
MOST_CLASSES = 1000
LEVELS = 21
"""Steps of the heat map's colours: of five percent each."""
_MOST_LEGEND = 40
_DOCUMENT_CHARS = 20_000
_SHOWN_OR_NOT = (
    "tiles", "conventions", "comparison", "drift", "classes", "heat", "confusions", "instance", "panoptic", "slices",
    "disputes", "disputes_more", "statuses", "tally",
)  # fmt: skip
_THUMBNAILS = ("image", "truth", "prediction", "difference")
_PICTURES = (*_THUMBNAILS, *map(AT_FULL_SIZE.format, _THUMBNAILS))
_TOP_DETECTIONS: tuple[tuple[MatchKind, str], ...] = (("mask", "AP"), ("mask", "AP50"), ("box", "AP"))
_Values = dict[str, object]
"""What the template reads by name: nothing here looks into them again."""
_Columns = list[_Values]


def context_of(page: Page) -> _Values:
    report = page.report
    context: _Values = {
        **dict.fromkeys(_SHOWN_OR_NOT),
        "about": json.dumps(page.about, sort_keys=True),
        "version": __version__,
        "title": page.title,
        "eyebrow": wording.EYEBROWS["manifest" if report is None else "agreement" if report.agreement else "truth"],
        "confidence": _confidence(report),
        "notes": (*page.notes, *(report.notes if report else ())),
        "reference": "baseline" if report and report.agreement else "truth",
        "report": report,
        "sides": [_side(side) for side in page.sides],
        "colors": {
            id_: "#{:02x}{:02x}{:02x}".format(*(min(255, max(0, int(channel))) for channel in color))
            for id_, color in display_colors(page.categories).items()
        },
        "failures": _failures(page.sides),
        **_pictures(page),
    }
    context.update(_of_report(report) if report is not None else _of_tally(page))
    context["sections"] = _sections(context)
    return context


def _confidence(report: Report | None) -> str:
    share = report.bootstrap.confidence if report and report.bootstrap else 0.95
    return f"{100 * share:g}%"


def _sections(context: Mapping[str, object]) -> list[tuple[str, str]]:
    there = {
        "scores": context["tally"] or context["report"],
        "comparison": context["comparison"],
        "drift": context["drift"],
        "classes": context["classes"],
        "instance": context["instance"],
        "panoptic": context["panoptic"],
        "confusion": context["heat"] or context["confusions"],
        "images": context["groups"],
        "slices": context["slices"],
        "disputes": context["disputes"],
        "failures": context["failures"] or context["statuses"],
        "provenance": True,
    }
    names = {**wording.SECTIONS, "scores": wording.SECTIONS["scores"] if context["report"] else "What was found"}
    return [(key, names[key]) for key, shown in there.items() if shown]


def _of_report(report: Report) -> _Values:
    semantic, names = report.semantic, [category.name for category in report.categories]
    heat = heat_map(semantic.confusion, names) if semantic.confusion else None
    histograms = [_score_histogram(semantic.per_image_histogram), _calibration(semantic.calibration)]
    disputes = sorted(report.disputes, key=lambda row: -row.pixels)
    return {
        "convention_words": CONVENTION_WORDS[report.convention],
        "images_words": _images_words(report.images),
        "missing_words": wording.MISSING[report.missing],
        "tiles": _tiles(report),
        "conventions": _conventions(semantic.conventions),
        "histograms": [one for one in histograms if one],
        "comparison": _comparison(report.comparison) if report.comparison else None,
        "drift": (report.drift or ())[:MOST_CLASSES],
        "classes": _classes(semantic.per_class, agreement=report.agreement),
        "heat": _heat(heat) if heat else None,
        "confusions": top_confusions(semantic.confusion, names) if semantic.confusion else [],
        "instance": _instance(report.instance) if report.instance else None,
        "panoptic": _panoptic(report.panoptic) if report.panoptic else None,
        "slices": _slices(report.slices) if report.slices else None,
        "disputes": disputes[:MOST_ROWS],
        "disputes_more": max(0, len(disputes) - MOST_ROWS),
        "statuses": _statuses(report),
    }


def _images_words(images: Mapping[Status, int]) -> str:
    total = sum(number for status, number in images.items() if status != "extra")
    words = [f"{text.count(number)} {status.replace('_', ' ')}" for status, number in images.items() if number]
    return f"{total:,} images: {', '.join(words)}." if total else ""


def _tiles(report: Report) -> _Columns:
    """The figures at the top; the task's own first, and large."""
    pixels = list(report.semantic.headline.items())
    objects: list[tuple[str, Figure]] = []
    if report.instance:
        objects = [(f"{kind}_{name}", report.instance.of(kind)[name]) for kind, name in _TOP_DETECTIONS]
    quality = list(report.panoptic.all.items()) if report.panoptic else []
    shown = {
        "semantic": [*pixels, *objects, *quality],
        "instance": [*objects, *quality, *pixels],
        "panoptic": [*quality, *objects, *pixels],
    }[report.task]
    tiles: _Columns = []
    for key, figure in shown:
        if figure.value is not None:
            label, what = wording.score(key)
            # How far two models agree is no score: it is not shown as large as one.
            label = f"agreement, {label}" if report.agreement else label
            tiles.append({"label": label, "figure": figure, "what": what, "hero": not tiles and not report.agreement})
    return tiles


def _conventions(rows: Mapping[str, Convention]) -> _Values:
    scores = {
        name: {key: getattr(row, key) for key in HEADLINE if key in Convention.model_fields}
        for name, row in rows.items()
    }
    keys = [key for key in HEADLINE if any(row.get(key) is not None for row in scores.values())]
    return {
        "columns": [wording.score(key)[0] for key in keys],
        "rows": [
            {"name": name, "figures": [row.get(key) for key in keys], "words": CONVENTION_WORDS[name]}
            for name, row in scores.items()
        ],
    }


def _score_histogram(histogram: Histogram) -> _Values:
    return {
        "title": "Images by their own mIoU",
        "caption": "How many images score how well, each by its own mean IoU.",
        "axis": "mIoU of the image, percent",
        "columns": _counted(histogram.counts, histogram.edges),
    }


def _counted(counts: Sequence[int], edges: Sequence[float]) -> _Columns:
    tallest = max(1, *counts)
    return [
        {
            "height": number / tallest,
            "text": text.brief(number).replace(" ", ""),
            "label": f"{100 * low:.0f}–{100 * high:.0f}",
            "mark": None,
        }
        for number, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _calibration(calibration: Calibration | None) -> _Values | None:
    if calibration is None:
        return None
    return {
        "title": "Calibration of the confidence",
        "caption": "Images by their confidence: the bar is how many of their pixels are right, the line how sure the "
        f"model was of them. Expected calibration error: {text.percent(calibration.ece, 2)}.",
        "axis": "confidence of the image, percent",
        "columns": [
            {
                "height": one.accuracy,
                "text": text.percent(one.accuracy, 0),
                "label": f"{text.percent(one.low, 0)}–{text.percent(one.high, 0)}",
                "mark": one.confidence,
            }
            for one in calibration.bins
            if one.images
        ],
    }


def _comparison(comparison: Comparison) -> _Values:
    return {
        "baseline": comparison.baseline,
        "metrics": [{"label": wording.score(key)[0], "change": one} for key, one in comparison.metrics.items()],
        "figure": wording.score(comparison.figure)[0],
        "per_class": comparison.per_class[:MOST_CLASSES],
        "improved": comparison.improved,
        "worsened": comparison.worsened,
    }


def _classes(rows: Sequence[ClassScores], *, agreement: bool) -> _Values | None:
    """The per-class table: only columns that hold something."""
    columns = _filled(rows, wording.class_columns(agreement=agreement))
    if not rows or not columns:
        return None
    caption = (
        "In percent; the line on a bar is its interval, shown beside it."
        if any(text.span_of(row.iou) for row in rows)
        else "Scores in percent."
    )
    more = f" {len(rows) - MOST_CLASSES} more classes are in report.json." if len(rows) > MOST_CLASSES else ""
    return {"columns": columns, "rows": rows[:MOST_CLASSES], "caption": f"{len(rows):,} classes. {caption}{more}"}


def _filled(rows: Sequence[BaseModel], columns: Iterable[tuple[str, str, str]]) -> _Columns:
    return [
        {"key": key, "words": words, "kind": kind}
        for key, words, kind in columns
        if any(text.value_of(getattr(row, key)) is not None for row in rows)
    ]


def _heat(heat: HeatMap) -> _Values:
    def cell(row: int, column: int) -> _Values:
        share = float(heat.shares[row, column])
        known = share == share
        words = "" if not known or not share else "<1" if share < 0.005 else f"{100 * share:.0f}"
        return {
            "level": f"h{round(share * (LEVELS - 1))}" if known else "",
            "text": words,
            "pixels": int(heat.counts[row, column]),
            "column": heat.columns[column],
            "diagonal": row == column,
        }

    rows = [
        {"name": name, "cells": [cell(row, column) for column in range(len(heat.columns))]}
        for row, name in enumerate(heat.rows)
    ]
    return {"columns": heat.columns, "rows": rows, "left_out": heat.left_out}


def _instance(instance: Instance) -> _Values:
    per_class = instance.per_class[:MOST_CLASSES]
    return {
        "kinds": KINDS,
        "rows": [
            {"name": words.name, "words": words.meaning, "figures": [instance.of(kind)[name] for kind in KINDS]}
            for name, words in AVERAGE_PRECISION.items()
        ],
        "per_class": per_class,
        "columns": _filled(per_class, wording.OBJECT_COLUMNS),
    }


def _panoptic(panoptic: Panoptic) -> _Values:
    per_class = panoptic.per_class[:MOST_CLASSES]
    return {"all": panoptic.all, "rows": per_class, "columns": _filled(per_class, wording.PANOPTIC_COLUMNS)}


def _slices(slices: Sequence[Slice]) -> _Values:
    keys = list(dict.fromkeys(key for row in slices for key in row.scores))[:6]
    shown = slices[:MOST_ROWS]
    rows = [
        {"slice": row, "figures": [row.scores.get(key) for key in keys], "gap": before.column != row.column}
        for before, row in zip([*shown[:1], *shown], shown, strict=False)
    ]
    return {
        "columns": [wording.score(key)[0] for key in keys],
        "rows": rows,
        "left_out": max(0, len(slices) - MOST_ROWS),
    }


def _statuses(report: Report) -> _Columns:
    return [
        {"words": words, "images": report.images[status], "examples": report.examples.get(status, ())}
        for status, words in wording.statuses(agreement=report.agreement).items()
        if report.images[status]
    ]


def _failures(sides: Sequence[ManifestSummary]) -> _Columns:
    """Failed rows of every manifest by code, most first."""
    words: dict[str, str] = {**ITEM_CODES}
    found = sorted(
        (side.name, -(text.number(number) or 0), code, place)
        for place, side in enumerate(sides)
        for code, number in side.info.get("failures", {}).items()
    )
    return [
        {
            "code": code,
            "side": name,
            "images": sides[place].info.get("failures", {})[code],
            "words": words.get(code, ""),
            "example": sides[place].info.get("examples", {}).get(code),
        }
        for name, _, code, place in found
    ]


def _of_tally(page: Page) -> _Values:
    tally = page.tally
    if tally is None:
        return {"histograms": [], "images_words": ""}
    held = statistics(tally.counts, page.categories, covers=page.task != "instance")
    images, pixels = held["images"], held["pixels"]
    absent = [row["category"] for row in held["classes"] if not row["images"]]
    found = sorted((row for row in held["classes"] if row["images"]), key=lambda row: -row["pixels"])
    rows: _Columns = [
        {**row, "image_share": row["images"] / images["ok"] if images["ok"] else None, "pixel_share": row["share"]}
        for row in found
    ]
    unlabelled = held["unlabelled_px"]
    if unlabelled:
        shares = {"pixels": unlabelled, "pixel_share": unlabelled / pixels, "image_share": None}
        rows.append({"category_id": None, "category": UNLABELLED, "images": None, "objects": None, **shares})
    edges = [number / len(tally.confidence) for number in range(len(tally.confidence) + 1)]
    histogram = {
        "title": "Images by confidence",
        "caption": "Mean over the pixels of the winning class's probability, or mean score of the objects.",
        "axis": "confidence of the image, percent",
        "columns": _counted(tally.confidence, edges),
    }
    return {
        "tally": {"rows": rows[:MOST_CLASSES], "absent": absent[:MOST_CLASSES], "more": len(absent[MOST_CLASSES:])},
        "images_words": f"{images['total']:,} images: {images['ok']:,} ok, {images['failed']:,} failed. "
        "Shares are of all pixels and all images that are ok, in percent.",
        "histograms": [histogram] if sum(tally.confidence) else [],
    }


def _pictures(page: Page) -> _Values:
    scored = page.report is not None
    drawn = {id_ for group in page.groups for card in group.cards for id_ in card.classes}
    classes = [(category.id, category.name) for category in page.categories if category.id in drawn]
    kinds = [(data_uri(kind_swatch(kind)), words) for kind, words in enumerate(DIFFERENCES)]
    if page.task != "instance":
        del kinds[EXTRA]
    score = "mIoU" if scored else "confidence"
    agreement = page.report is not None and page.report.agreement
    names = {name: name.replace("truth", "baseline") if agreement else name for name in _PICTURES}
    groups = [
        {
            "key": group.key,
            "title": wording.GROUPS[group.key, scored][0],
            "caption": wording.GROUPS[group.key, scored][1],
            "scored": scored,
            "cards": [_card(card, score, names) for card in group.cards],
        }
        for group in page.groups
        if group.cards
    ]
    return {
        "groups": groups,
        "legend": {
            "classes": classes[:_MOST_LEGEND],
            "more": max(0, len(classes) - _MOST_LEGEND),
            "kinds": kinds if scored else [],
        },
        "pictures_words": wording.PICTURES[scored],
    }


def _card(card: Card, score: str, names: Mapping[str, str]) -> _Values:
    pictures: _Columns = []
    for name in _PICTURES:
        if name in card.pictures:
            with Image.open(io.BytesIO(card.pictures[name])) as picture:
                width, height = picture.size
            pictures.append(
                {"data": data_uri(card.pictures[name]), "width": width, "height": height, "words": names[name]}
            )
        elif name in card.absent:
            pictures.append({"data": None, "instead": card.absent[name], "words": names[name]})
    known = card.score is not None
    return {
        "image_id": card.image_id,
        "uri": card.uri,
        "pictures": pictures,
        "remarks": card.remarks,
        "score_words": f"{score} {text.percent(card.score)} %" if known else "",
    }


def _side(side: ManifestSummary) -> _Values:
    info = side.info
    footer = info.get("footer", FooterJson())
    model: Mapping[str, object] = footer.get("model") or {}
    seconds = text.number(info.get("timings", {}).get("seconds"))
    facts = [
        ("Manifest", side.uri, False),
        ("Run", info.get("run_id"), True),
        ("Made by", f"segjobs {verb} {info.get('version', '')}" if (verb := info.get("verb")) else None, False),
        ("Finished", info.get("finished"), False),
        ("Task", footer.get("task"), False),
        ("Images", _counts_words(info.get("counts", {})), False),
        ("Model", side.model, True),
        ("Weights", model.get("weights"), False),
        ("Licence of the weights", model.get("licence"), False),
        ("Digest of the model", model.get("digest"), True),
        ("Digest of the settings", footer.get("config_digest"), True),
        ("Digest of the parts", side.parts_digest, True),
        ("Time", f"{seconds:,.0f} s" if seconds else None, False),
    ]
    documents = [("Model card", model), ("Settings", info.get("config"))]
    return {
        "name": side.name,
        "uri": side.uri,
        "model": side.model,
        "facts": [fact for fact in facts if fact[1]],
        "documents": [(words, _document(raw)) for words, raw in documents if raw],
    }


def _counts_words(counts: Mapping[str, object]) -> str | None:
    words = [f"{text.count(number)} {name}" for name, number in counts.items() if text.number(number) is not None]
    return ", ".join(words) or None


def _document(raw: object) -> str:
    """A value as indented JSON, with what cannot be seen made visible, and not without end."""
    body = json.dumps(raw, indent=2, ensure_ascii=False)
    cut = body[:_DOCUMENT_CHARS] + ("\n…" if len(body) > _DOCUMENT_CHARS else "")
    return "\n".join(text.visible(line) for line in cut.splitlines())
