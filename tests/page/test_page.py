"""The page as text: what it says, what it never holds, and how large it gets. In a browser: test_browser.py."""

import base64
import hashlib
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError
from segjobs.evaluation.report_types import Report, RuleVerdict, Slice
from segjobs.manifest.schema import make_categories
from segjobs.page.contents import Card, Group, ManifestSummary, ManifestTally, Page
from segjobs.page.page import about_of, render
from segjobs.page.text import percent, points, span_of
from tests.made import PREDICTED, manifest, scored
from tests.page.sample import HOSTILE, STREET, make_report

MB = 1_000_000
ABOUT = {"evaluation": "0123", "images": {"worst": 2}, "title": "</title>\"'<b>"}
ALLOWED = set(
    """html head meta link title style body div header p h1 h2 h3 nav a section ul li ol span small code bdi table thead
    tbody tr th td svg rect path article figure figcaption img details summary pre footer""".split()  # noqa: SIM905
)
VOID_TAGS = {"meta", "link", "img"}


class Outline(HTMLParser):
    """Tags with attributes, the text, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def webp(seed: int, edge_px: int = 32) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (edge_px, edge_px, 3), np.uint8)
    Image.fromarray(noise).save(sink, "WEBP", quality=80)
    return sink.getvalue()


def page_of(report: Report, **change: Any) -> Page:
    sides = (
        ManifestSummary(
            "predictions", "s3://bucket/run", "unet@12", {"failures": {"TRUNCATED": 3}, "config": {"a": 1}}, "ab" * 32
        ),
        ManifestSummary("truth", "out/truth", None),
    )
    return replace(Page("unet@12", ABOUT, report.categories, report.task, sides, report), **change)


def text_of(page: Page) -> str:
    return " ".join(" ".join(Outline(render(page, max_bytes=MB)).text).split())


def card(name: str, seed: int = 0, **change: Any) -> Card:
    drawn = {kind: webp(seed + n) for n, kind in enumerate(("image", "truth", "prediction", "difference"))}
    return replace(Card(name, f"photos/{name}", 0.5, drawn, classes=frozenset({0, 1})), **change)


def test_an_evaluation_becomes_a_page(tmp_path: Path) -> None:
    """Every figure by hand: 3 of 4 pixels of sky are right, and the road gets one that is sky."""
    truth = manifest(tmp_path / "truth", {"a": ["ssss"], "b": ["rrtt"]})
    predicted = manifest(tmp_path / "predicted", {"a": ["sssr"], "b": ["rrtt"]}, PREDICTED)
    scored(tmp_path, truth, predicted, gate=["miou >= 0.9"])
    where = tmp_path / "scores" / "report.json"
    report = Report.from_json(where.read_bytes(), where=str(where))
    text = text_of(page_of(report))
    mean = (3 / 4 + 2 / 3 + 1) / 3
    for words in (
        f"mIoU {100 * mean:.2f} % 95% interval ",
        "Pixel accuracy 87.50 %",
        "2 images: 2 ok.",
        f"✗ missed miou >= 0.9 missed, it is {mean:.4f}",
        "sky road 25.0 100.0 1",  # a quarter of the sky is road, which is all that is wrong
    ):
        assert words in text
    for name, iou in (("sky", "75.0"), ("road", "66.7"), ("tree", "100.0"), ("car", "–")):
        assert re.search(rf" {name} {iou} ", text)


def test_the_figures_are_there() -> None:
    report = make_report()
    text = text_of(page_of(report))
    mean = report.semantic.headline["mean_iou"]
    assert mean.value and mean.low and mean.high and report.comparison
    assert f"mIoU {100 * mean.value:.2f} % 95% interval {100 * mean.low:.2f}–{100 * mean.high:.2f}" in text
    assert "Convention dataset : one matrix over the set" in text
    for row in report.semantic.per_class:
        assert f"{row.category} {percent(row.iou.value)} {span_of(row.iou)}" in text
    for name in report.semantic.conventions:
        assert f" {name} " in text
    difference = report.comparison.metrics["mean_iou"].difference
    assert difference and points(difference) in text
    for words in (
        "Gate missed: 1 of 2 rules hold",
        "✗ missed iou[road] >= 0.999",
        "no prediction 1 val/frankfurt/000000.png",
        "TRUNCATED predictions 3 is an image that ends early",
        "Expected calibration error: ",
        "city city 0",
        "boundary IoU",
        "12 images: 9 ok, 1 missing, 1 failed, 1 no truth, 1 extra.",
    ):
        assert words in text


def test_objects_have_their_tables() -> None:
    report = make_report(kind="objects")
    assert report.instance and report.panoptic
    text = text_of(page_of(report))
    for words in ("mask AP", "Mask AP50", "AR100", "PQ = SQ × RQ", "all classes"):
        assert words in text
    for row in report.panoptic.per_class:
        assert f"{row.category} {percent(row.pq.value)} {span_of(row.pq)}" in text


def test_without_truth_it_is_a_baseline() -> None:
    report = make_report(kind="agreement")
    page = page_of(report, groups=(Group("worst", (card("a.png"),)),))
    outline = Outline(render(page, max_bytes=MB))
    text = " ".join(" ".join(outline.text).split())
    assert "segjobs · agreement of two models" in text
    assert "There is no truth: the baseline's masks stand in its place" in text
    assert "baseline of a.png" in {attrs.get("alt") for tag, attrs in outline.tags if tag == "img"}
    assert report.drift
    share = report.drift[1].area_share
    assert f"{report.drift[1].category} {percent(share.value, 2)} {percent(share.baseline, 2)}" in text


def test_every_section_can_be_absent() -> None:
    report = make_report()
    bare = report.model_copy(
        update={
            "semantic": report.semantic.model_copy(update={"per_class": (), "confusion": None, "calibration": None}),
            "categories": (),
            "slices": (),
            "comparison": None,
            "gate": (),
            "disputes": (),
            "bootstrap": None,
            "images": dict.fromkeys(report.images, 0),
        }
    )
    outline = Outline(render(page_of(bare), max_bytes=MB))
    assert {attrs["id"] for tag, attrs in outline.tags if tag == "section"} == {"scores", "failures", "provenance"}


def test_the_policy_forbids_all_but_its_own_style_and_pictures() -> None:
    page = render(page_of(make_report()), max_bytes=MB)
    outline = Outline(page)
    (policy,) = [
        a["content"] for t, a in outline.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    expected = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy == expected
    assert "url(" not in style[0] and "@import" not in style[0]


def hostile_page() -> Page:
    names = tuple(name.replace("\ud800", "") for name in HOSTILE)  # which no file of ours can hold
    report = make_report(names=names, image_ids=names)
    assert report.comparison
    baseline = report.comparison.baseline.model_copy(update={"uri": HOSTILE[2], "model": HOSTILE[0]})
    mean = {"mean_iou": report.semantic.headline["mean_iou"]}
    report = report.model_copy(
        update={
            "version": HOSTILE[0],
            "gate": tuple(RuleVerdict(rule=name, passed=False, value=None, message=name) for name in names),
            "slices": tuple(Slice(column=name, value=name, images=3, scores=mean) for name in names),
            "comparison": report.comparison.model_copy(update={"baseline": baseline}),
        }
    )
    info = {
        "failures": dict.fromkeys(HOSTILE, 1),
        "examples": {name: [name, name] for name in HOSTILE},
        "config": {name: name for name in HOSTILE},
        "footer": {"model": {"weights": HOSTILE[0], "digest": HOSTILE[1], "options": {HOSTILE[2]: HOSTILE[3]}}},
        "counts": {HOSTILE[0]: 3},
        "verb": HOSTILE[1],
        "finished": HOSTILE[0],
    }
    cards = tuple(
        card(name, uri=name, remarks=(name,), absent={"truth": name}, classes=frozenset(range(len(HOSTILE))))
        for name in HOSTILE
    )
    sides = tuple(ManifestSummary(name, name, name, info, name) for name in HOSTILE[:4])
    return page_of(report, title=HOSTILE[0], sides=sides, groups=(Group("worst", cards),), notes=HOSTILE)


def test_hostile_names_stay_text() -> None:
    page = render(hostile_page(), max_bytes=9 * MB)
    page.encode()
    outline = Outline(page)
    assert {tag for tag, _ in outline.tags} <= ALLOWED
    for tag, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src"):
            value = attributes.get(name)
            assert value is None or re.match(r"#\w+$|data:,$|data:image/webp;base64,[A-Za-z0-9+/=]+$", value), value
    everything = "".join(outline.text)
    assert "\u202e" not in page and "\0" not in page
    assert "cat‹U+202E›gnp.exe" in everything and "nul␀ newline␊" in everything and "‹U+D800›" in everything
    for name in (*HOSTILE[:4], "😀👩‍👩‍👧 𝔠𝔩𝔞𝔰𝔰", "&amp;&lt;b&gt;"):
        assert name[:30] in everything
    shown = "".join(Outline(re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)).text)
    assert max(len(word) for word in shown.split()) < 700, "very long names are shortened, but in the settings"


def test_only_the_web_is_linked() -> None:
    cards = (
        card("a", uri="https://example.org/a.jpg?x=1&y=<"),
        card("b", uri="javascript:alert(1)"),
        card("c", uri="s3://b/c"),
    )
    page = render(page_of(make_report(), groups=(Group("best", cards),)), max_bytes=MB)
    links = {
        attrs["href"]: attrs for tag, attrs in Outline(page).tags if tag == "a" and not attrs["href"].startswith("#")
    }
    assert list(links) == ["https://example.org/a.jpg?x=1&y=<"]
    assert links["https://example.org/a.jpg?x=1&y=<"]["rel"] == "noopener noreferrer nofollow"
    assert "javascript:alert(1)" in page and "s3://b/c" in page


def test_what_a_page_is_of_can_be_read_back() -> None:
    page = render(page_of(make_report()), max_bytes=MB)
    assert about_of(page) == ABOUT
    assert about_of("<p>something else</p>") is None
    assert about_of('<meta name="segjobs" content="{">') is None
    assert about_of('<meta name="segjobs" content="[1]">') is None


def test_equal_pages_are_equal_bytes() -> None:
    report = make_report()
    assert render(page_of(report), max_bytes=MB) == render(page_of(report), max_bytes=MB)


def test_pictures_give_way_to_the_limit() -> None:
    groups = (
        Group("worst", tuple(card(f"w{n}", n) for n in range(6))),
        Group("random", tuple(card(f"r{n}", n) for n in range(3))),
    )
    page = page_of(make_report(), groups=groups)
    whole = render(page, max_bytes=9 * MB)
    assert "are left out" not in whole
    size = len(whole.encode())
    data = sum(4 / 3 * len(webp) for group in groups for card in group.cards for webp in card.pictures.values()) / 9
    for fewer in (0, 2, 6):
        limit = int(size - fewer * data)
        cut = render(page, max_bytes=limit)
        assert len(cut.encode()) <= limit
        shown = re.findall(r'alt="image of (\w\d)"', cut)
        hidden = {f"w{n}" for n in range(6)} | {f"r{n}" for n in range(3)}
        hidden -= set(shown)
        assert fewer <= len(hidden) <= fewer + 1
        assert {name[0] for name in shown} == {"w", "r"}, "every group keeps its first ones"
        if hidden:
            assert f"{len(hidden)} of 9 images are left out" in cut
            assert all(int(one[1]) >= max(int(s[1]) for s in shown if s[0] == one[0]) for one in hidden)
    with pytest.raises(ConfigError, match=r"max_bytes: 1000: the page needs \d+ without any picture"):
        render(page, max_bytes=1000)


def test_a_million_images_stay_under_ten_megabytes() -> None:
    """The most that a page holds: many classes and slices of long names, and pictures of noise, the largest."""
    names = tuple(f"class {n:04d} " + "long name " * 20 for n in range(250))
    report = make_report(names=names, image_ids=tuple(f"{n:06d}" + "x" * 200 for n in range(12)))
    one, dispute = report.slices[0], report.disputes[0]
    report = report.model_copy(
        update={
            "images": {**report.images, "ok": 1_000_000},
            "slices": tuple(one.model_copy(update={"value": f"{n} " + "z" * 300}) for n in range(5000)),
            "disputes": tuple(dispute.model_copy(update={"image_id": f"{n} " + "z" * 300}) for n in range(5000)),
        }
    )
    noise = {kind: webp(1, 360) for kind in ("image", "truth", "prediction", "difference")}
    cards = tuple(card(f"{n:06d}" + "x" * 200, pictures=noise) for n in range(64))
    page = page_of(report, groups=(Group("worst", cards[:32]), Group("best", cards[32:])))
    data = render(page, max_bytes=9_500_000).encode()
    assert len(data) <= 9_500_000
    bare = len(render(replace(page, groups=()), max_bytes=9_500_000).encode())
    # What pictures a page can hold in sum, if none were left out: base64 of at most this many bytes each.
    largest = max(map(len, noise.values()))
    assert 64 * 4 * largest * 4 / 3 + bare > 9_500_000, "or this test would show nothing"
    drawn = data.count(b"data:image/webp")
    assert drawn >= 8
    assert len(data) < bare + drawn * (largest * 4 / 3 + 400) + 64 * 2500


def test_a_manifest_alone() -> None:
    classes = {
        "0": {"images": 2, "objects": 2, "crowds": 0, "pixels": 60, "area": {"sum": 60, "min": 20, "max": 40}},
        "2": {"images": 1, "objects": 1, "crowds": 0, "pixels": 20, "area": {"sum": 20, "min": 20, "max": 20}},
    }
    side = {"sum": 20, "min": 10, "max": 10}
    counts = {
        "images": 3,
        "ok": 2,
        "empty": 0,
        "pixels": 100,
        "mask_px": 80,
        "width": side,
        "height": side,
        "classes": classes,
    }
    tally = ManifestTally(counts, (0,) * 8 + (1, 1))
    shown = Card("a.jpg", "a.jpg", 0.25, {"image": webp(0), "prediction": webp(1)}, classes=frozenset({0}))
    page = Page(
        "unet",
        {},
        make_categories(STREET[:3]),
        "semantic",
        (
            ManifestSummary(
                "manifest",
                "out/run",
                "unet",
                {"failures": {"NOT_FOUND": 1}, "examples": {"NOT_FOUND": ["b.jpg", "gone"]}},
            ),
        ),
        tally=tally,
        groups=(Group("worst", (shown,)),),
    )
    outline = Outline(render(page, max_bytes=MB))
    text = " ".join("".join(f" {one}" for one in outline.text).split())
    assert "3 images: 2 ok, 1 failed." in text
    assert "road 60.0 60 100.0 2 2 building 20.0 20 50.0 1 1 unlabelled" in text
    assert "In no image: sidewalk" in text
    assert "unlabelled 20.0 20" in text
    assert "Least confident" in text and "confidence 25.0 %" in text
    assert "NOT_FOUND manifest 1 was gone when it was read b.jpg : gone" in text
    alts = [attrs["alt"] for tag, attrs in outline.tags if tag == "img" and attrs["alt"]]
    assert alts == ["image of a.jpg", "prediction of a.jpg"]


def test_documents_are_shown_whole_or_cut() -> None:
    side = ManifestSummary("truth", "t", None, {"config": {"key": "x" * 30_000, "rtl": "\u202e"}})
    page = html.unescape(render(page_of(make_report(), sides=(side,)), max_bytes=MB))
    assert "x" * 19_000 in page and "x" * 21_000 not in page
    small = ManifestSummary("truth", "t", None, {"config": {"a": [1, "\u202e"]}})
    assert '"‹U+202E›"' in html.unescape(render(page_of(make_report(), sides=(small,)), max_bytes=MB))
