"""What the template is given: a page's contents in, plain values by name out; figures are still numbers.

Each function here makes one section of the page, or nothing where there is nothing to say.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from segjobs import __version__
from segjobs.manifest.statistics import statistics
from segjobs.page import text, wording
from segjobs.page.contents import Card, ManifestSummary, Page
from segjobs.page.overlay import display_colors
from segjobs.page.pictures import EXTRA, KINDS, data_uri, kind_swatch
from segjobs.page.scores import UNLABELLED, HeatMap, heat_map, top_confusions

MOST_ROWS = 200
"""Most rows of a table that grows with the run: slices, disputes. Classes are shown up to ``MOST_CLASSES``."""
MOST_CLASSES = 1000
LEVELS = 21
"""Steps of the heat map's colours: of five percent each."""
_MOST_LEGEND = 40
_DOCUMENT_CHARS = 20_000
_PICTURES = ("image", "truth", "prediction", "difference")
_Columns = list[dict[str, Any]]


def context_of(page: Page) -> dict[str, Any]:
    report = page.report
    context: dict[str, Any] = {
        "about": json.dumps(page.about, sort_keys=True),
        "version": __version__,
        "title": page.title,
        "eyebrow": wording.EYEBROWS["manifest" if report is None else "agreement" if report["agreement"] else "truth"],
        "confidence": _confidence(report),
        "notes": page.notes,
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


def _confidence(report: Mapping[str, Any] | None) -> str:
    share = text.number(((report or {}).get("bootstrap") or {}).get("confidence"))
    return f"{100 * (0.95 if share is None else share):g}%"


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    there = {
        "scores": context.get("tally") or context["report"],
        "comparison": context.get("comparison"),
        "drift": context.get("drift"),
        "classes": context.get("classes"),
        "instance": context.get("instance"),
        "panoptic": context.get("panoptic"),
        "confusion": context.get("heat") or context.get("confusions"),
        "images": context.get("groups"),
        "slices": context.get("slices"),
        "disputes": context.get("disputes"),
        "failures": context.get("failures") or context.get("statuses"),
        "provenance": True,
    }
    names = {**wording.SECTIONS, "scores": wording.SECTIONS["scores"] if context["report"] else "What was found"}
    return [(key, names[key]) for key, shown in there.items() if shown]


def _of_report(report: Mapping[str, Any]) -> dict[str, Any]:
    semantic = report["semantic"] or {}
    names = [category["name"] for category in report["categories"]]
    confusion = semantic.get("confusion")
    heat = heat_map(confusion, names) if confusion else None
    histograms = [_score_histogram(semantic.get("per_image_histogram")), _calibration(semantic.get("calibration"))]
    disputes = sorted(report["disputes"], key=lambda row: -(text.number(row.get("pixels")) or 0))
    return {
        "convention_words": wording.CONVENTIONS.get(str(report["convention"]), ""),
        "images_words": _images_words(report["images"]),
        "missing_words": wording.MISSING.get(str(report["missing"]), ""),
        "tiles": _tiles(report),
        "conventions": _conventions(semantic.get("conventions") or {}),
        "histograms": [one for one in histograms if one],
        "comparison": _comparison(report["comparison"]),
        "drift": report["drift"][:MOST_CLASSES],
        "classes": _classes(semantic.get("per_class") or []),
        "heat": _heat(heat) if heat else None,
        "confusions": top_confusions(confusion, names) if confusion else [],
        "instance": _instance(report["instance"]),
        "panoptic": _panoptic(report["panoptic"]),
        "slices": _slices(report["slices"]),
        "disputes": disputes[:MOST_ROWS],
        "disputes_more": max(0, len(disputes) - MOST_ROWS),
        "statuses": _statuses(report),
    }


def _images_words(images: Mapping[str, Any]) -> str:
    total = sum(int(text.number(n) or 0) for status, n in images.items() if status != "extra")
    words = [f"{text.count(n)} {status.replace('_', ' ')}" for status, n in images.items() if text.number(n)]
    return f"{total:,} images: {', '.join(text.shorten(one, 40) for one in words)}." if total else ""


def _tiles(report: Mapping[str, Any]) -> _Columns:
    """The figures at the top; the task's own first, and large."""
    semantic, instance, panoptic = report["semantic"] or {}, report["instance"] or {}, report["panoptic"] or {}
    headline = semantic.get("headline") or {}
    objects = [
        (label, (instance.get(kind) or {}).get(name), what)
        for kind, name in (("mask", "AP"), ("mask", "AP50"), ("box", "AP"))
        for label, what in [wording.score(f"{kind}_{name}")]
    ]
    quality = [
        (label, (panoptic.get("all") or {}).get(key), what)
        for key in ("pq", "sq", "rq")
        for label, what in [wording.score(key)]
    ]
    pixels = [(*wording.score(key), figure) for key, figure in headline.items()]
    found = [(label, figure, what) for label, what, figure in pixels]
    order = {"instance": [*objects, *quality, *found], "panoptic": [*quality, *objects, *found]}
    shown = order.get(report["task"], [*found, *objects, *quality])
    known = [one for one in shown if text.value_of(one[1]) is not None]
    return [
        {"label": label, "figure": figure, "what": what, "hero": number == 0}
        for number, (label, figure, what) in enumerate(known)
    ]


def _conventions(rows: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: None for row in rows.values() for key, value in row.items() if text.value_of(value) is not None}
    keys = [key for key in known if not any(isinstance(row.get(key), list) for row in rows.values())]  # the set's
    return {
        "columns": [wording.score(key)[0] for key in keys],
        "rows": [
            {"name": name, "figures": [row.get(key) for key in keys], "words": wording.CONVENTIONS.get(name, "")}
            for name, row in rows.items()
        ],
    }


def _score_histogram(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not raw or not raw.get("counts"):
        return None
    return {
        "title": "Images by their own mIoU",
        "caption": "How many images score how well, each by its own mean IoU.",
        "axis": "mIoU of the image, percent",
        "columns": _counted(raw["counts"], raw["edges"]),
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


def _calibration(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    bins = [one for one in (raw or {}).get("bins") or [] if text.number(one.get("images"))]
    if not raw or not bins:
        return None
    return {
        "title": "Calibration of the confidence",
        "caption": "Images by their confidence: the bar is how many of their pixels are right, the line how sure the "
        f"model was of them. Expected calibration error: {text.percent(raw.get('ece'), 2)}.",
        "axis": "confidence of the image, percent",
        "columns": [
            {
                "height": float(text.scaled(one.get("accuracy"))) / 100,
                "text": text.percent(one.get("accuracy"), 0),
                "label": f"{text.percent(one.get('low'), 0)}–{text.percent(one.get('high'), 0)}",
                "mark": float(text.scaled(one.get("confidence"))) / 100,
            }
            for one in bins
        ],
    }


def _comparison(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    metrics = [{**row, "label": wording.score(key)[0]} for key, row in (raw.get("metrics") or {}).items()]
    return {
        "baseline": raw.get("baseline") or {},
        "metrics": metrics,
        "figure": wording.score(raw.get("figure") or "iou")[0],
        "per_class": (raw.get("per_class") or [])[:MOST_CLASSES],
        "improved": raw.get("improved") or [],
        "worsened": raw.get("worsened") or [],
    }


def _classes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The per-class table: only columns that hold something."""
    columns = _filled(rows, wording.CLASS_COLUMNS)
    if not rows or not columns:
        return None
    caption = (
        "In percent; the line on a bar is its interval, shown beside it."
        if any(text.span_of(row.get("iou")) for row in rows)
        else ""
    )
    more = f" {len(rows) - MOST_CLASSES} more classes are in report.json." if len(rows) > MOST_CLASSES else ""
    words = f"{len(rows):,} classes. {caption or 'Scores in percent.'}{more}"
    return {"columns": columns, "rows": rows[:MOST_CLASSES], "caption": words}


def _filled(rows: Sequence[Mapping[str, Any]], columns: Iterable[tuple[str, str, str]]) -> _Columns:
    return [
        {"key": key, "words": words, "kind": kind}
        for key, words, kind in columns
        if any(text.value_of(row.get(key)) is not None for row in rows)
    ]


def _heat(heat: HeatMap) -> dict[str, Any]:
    def cell(row: int, column: int) -> dict[str, Any]:
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


def _instance(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    kinds = [kind for kind in ("mask", "box") if raw.get(kind)]
    rows = [
        {"name": name, "words": words, "figures": [raw[kind].get(name) for kind in kinds]}
        for name, words in wording.AVERAGE_PRECISION.items()
        if any(name in raw[kind] for kind in kinds)
    ]
    per_class = (raw.get("per_class") or [])[:MOST_CLASSES]
    return {
        "kinds": kinds,
        "rows": rows,
        "per_class": per_class,
        "columns": _filled(per_class, wording.OBJECT_COLUMNS),
    }


def _panoptic(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    per_class = [dict(row) for row in (raw.get("per_class") or [])[:MOST_CLASSES]]
    sums = [
        {**row, "category": f"{name} classes"} for name, row in raw.items() if isinstance(row, Mapping) and "pq" in row
    ]
    return {
        "rows": [*sums, *({**row, "gap": number == 0} for number, row in enumerate(per_class))],
        "columns": _filled([*sums, *per_class], wording.PANOPTIC_COLUMNS),
    }


def _slices(raw: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not raw:
        return None
    keys = list(dict.fromkeys(key for row in raw for key in row.get("scores") or {}))[:6]
    rows: _Columns = []
    for row in raw[:MOST_ROWS]:
        gap = bool(rows) and rows[-1]["column"] != row.get("column")
        figures = [(row.get("scores") or {}).get(key) for key in keys]
        rows.append({**row, "figures": figures, "gap": gap})
    return {
        "columns": [wording.score(key)[0] for key in keys],
        "rows": rows,
        "left_out": max(0, len(raw) - MOST_ROWS),
    }


def _statuses(report: Mapping[str, Any]) -> _Columns:
    return [
        {"words": words, "images": report["images"].get(status), "examples": report["examples"].get(status) or []}
        for status, words in wording.STATUSES.items()
        if text.number(report["images"].get(status))
    ]


def _failures(sides: Sequence[ManifestSummary]) -> _Columns:
    """Failed rows of every manifest by code, most first."""
    rows = [
        {
            "code": code,
            "side": side.name,
            "images": number,
            "words": wording.FAILURES.get(code, ""),
            "example": (side.info.get("examples") or {}).get(code),
        }
        for side in sides
        for code, number in (side.info.get("failures") or {}).items()
    ]
    return sorted(rows, key=lambda row: (row["side"], -(text.number(row["images"]) or 0), row["code"]))


def _of_tally(page: Page) -> dict[str, Any]:
    tally = page.tally
    if tally is None:
        return {"tally": None, "histograms": [], "images_words": ""}
    held = statistics(dict(tally.counts), page.categories, covers=page.task != "instance")
    images, pixels = held["images"], held["pixels"]
    rows = [
        {**row, "image_share": row["images"] / images["ok"] if images["ok"] else None, "pixel_share": row["share"]}
        for row in held["classes"]
    ]
    absent = [row["category"] for row in rows if not row["images"]]
    rows = sorted((row for row in rows if row["images"]), key=lambda row: -row["pixels"])
    unlabelled = held["unlabelled_px"]
    if unlabelled:
        rows.append({"category": UNLABELLED, "pixels": unlabelled, "pixel_share": unlabelled / pixels})
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


def _pictures(page: Page) -> dict[str, Any]:
    scored = page.report is not None
    drawn = {id_ for group in page.groups for card in group.cards for id_ in card.classes}
    classes = [(category.id, category.name) for category in page.categories if category.id in drawn]
    kinds = [(data_uri(kind_swatch(kind)), words) for kind, words in enumerate(KINDS)]
    if page.task != "instance":
        del kinds[EXTRA]
    score = "mIoU" if scored else "confidence"
    agreement = page.report is not None and page.report["agreement"]
    names = {**dict(zip(_PICTURES, _PICTURES, strict=True)), **({"truth": "baseline"} if agreement else {})}
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


def _card(card: Card, score: str, names: Mapping[str, str]) -> dict[str, Any]:
    pictures = []
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


def _side(side: ManifestSummary) -> dict[str, Any]:
    info = side.info
    footer = info.get("footer") or {}
    model, counts, timings = footer.get("model") or {}, info.get("counts") or {}, info.get("timings") or {}
    licence = model.get("licence")
    facts = [
        ("Manifest", side.uri, False),
        ("Run", info.get("run_id"), True),
        ("Made by", f"segjobs {info['verb']} {info.get('version', '')}" if info.get("verb") else None, False),
        ("Finished", info.get("finished"), False),
        ("Task", footer.get("task"), False),
        ("Images", _counts_words(counts), False),
        ("Model", side.model, True),
        ("Weights", model.get("weights"), False),
        ("Licence of the weights", licence, False),
        ("Digest of the model", model.get("digest"), True),
        ("Digest of the settings", footer.get("config_digest"), True),
        ("Digest of the parts", side.parts_digest, True),
        ("Time", f"{timings['seconds']:,.0f} s" if text.number(timings.get("seconds")) else None, False),
    ]
    documents = [("Model card", model), ("Settings", info.get("config"))]
    return {
        "name": side.name,
        "uri": side.uri,
        "model": side.model,
        "facts": [fact for fact in facts if fact[1]],
        "documents": [(words, _document(raw)) for words, raw in documents if raw],
    }


def _counts_words(counts: Mapping[str, Any]) -> str | None:
    words = [f"{text.count(number)} {name}" for name, number in counts.items() if text.number(number) is not None]
    return ", ".join(words) or None


def _document(raw: Any) -> str:
    """A value as indented JSON, with what cannot be seen made visible, and not without end."""
    body = json.dumps(raw, indent=2, ensure_ascii=False)
    cut = body[:_DOCUMENT_CHARS] + ("\n…" if len(body) > _DOCUMENT_CHARS else "")
    return "\n".join(text.visible(line) for line in cut.splitlines())
