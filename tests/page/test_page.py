"""The page as text: what it says, what it never holds, and how large it gets. In a browser: test_browser.py."""

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError, ManifestError
from segjobs.manifest.schema import make_categories
from segjobs.page.contents import Card, Group, ManifestSummary, ManifestTally, Page
from segjobs.page.page import about_of, render
from segjobs.page.scores import read_report
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


def page_of(raw: dict[str, Any], **change: Any) -> Page:
    report = read_report(json.dumps(raw).encode(), where="report.json")
    names = [category["name"] for category in raw["categories"]]
    sides = (
        ManifestSummary(
            "predictions", "s3://bucket/run", "unet@12", {"failures": {"TRUNCATED": 3}, "config": {"a": 1}}, "ab" * 32
        ),
        ManifestSummary("truth", "out/truth", None),
    )
    page = Page("unet@12", ABOUT, make_categories(names), "semantic", sides, report)
    return replace(page, **change)


def card(name: str, seed: int = 0, **change: Any) -> Card:
    drawn = {kind: webp(seed + n) for n, kind in enumerate(("image", "truth", "prediction", "difference"))}
    return replace(Card(name, f"photos/{name}", 0.5, drawn, classes=frozenset({0, 1})), **change)


def test_the_figures_are_there() -> None:
    raw = make_report()
    text = " ".join(Outline(render(page_of(raw), max_bytes=MB)).text)
    text = " ".join(text.split())
    scores = raw["semantic"]["headline"]["mean_iou"]
    assert (
        f"mIoU {100 * scores['value']:.2f} % 95% interval {100 * scores['low']:.2f}–{100 * scores['high']:.2f}" in text
    )
    assert "Convention dataset : one matrix over the set" in text
    for row in raw["semantic"]["per_class"]:
        iou = row["iou"]
        assert f"{row['category']} {100 * iou['value']:.1f} {100 * iou['low']:.1f}–{100 * iou['high']:.1f}" in text
    for name in raw["semantic"]["conventions"]:
        assert f" {name} " in text
    change = raw["comparison"]["metrics"]["mean_iou"]["difference"]
    assert ("+" if change > 0 else "−") + f"{100 * abs(change):.2f}" in text
    for words in (
        "Gate missed : 1 of 2 rules hold".replace(" :", ":"),
        "✗ missed iou[person] >= 0.9 71.0 % is below 90 %",
        "no prediction 1 val/frankfurt/000000.png",
        "TRUNCATED predictions 3 an image that ends early",
        "mask AP",
        "Mask AP50",
        "PQ = SQ × RQ",
        "city Münster",
        "sidewalk 10.00 8.00 ▲ +2.00 +1.00 … +3.00 0.040 1,201 1,100 40 38",
        "Expected calibration error: 4.21",
        "505 images".replace("505", "502") + ": 495 ok, 1 missing, 4 failed, 2 no truth, 3 extra",
    ):
        assert words in text


def test_without_truth_it_is_a_baseline() -> None:
    page = page_of({**make_report(), "agreement": True}, groups=(Group("worst", (card("a.png"),)),))
    outline = Outline(render(page, max_bytes=MB))
    text = " ".join(" ".join(outline.text).split())
    assert "segjobs · agreement of two models" in text
    assert "There is no truth: the baseline's masks stand in its place" in text
    assert "baseline of a.png" in {attrs.get("alt") for tag, attrs in outline.tags if tag == "img"}


def test_every_section_can_be_absent() -> None:
    bare = {"schema": 2, "semantic": None, "categories": []}
    outline = Outline(render(page_of(bare), max_bytes=MB))
    assert {attrs["id"] for tag, attrs in outline.tags if tag == "section"} == {"scores", "failures", "provenance"}
    full = make_report()
    for key in (
        "semantic",
        "instance",
        "panoptic",
        "slices",
        "comparison",
        "gate",
        "drift",
        "disputes",
        "bootstrap",
        "images",
    ):
        Outline(render(page_of({**full, key: None}), max_bytes=MB))
    for key in full["semantic"]:
        Outline(render(page_of({**full, "semantic": {**full["semantic"], key: None}}), max_bytes=MB))


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
    raw = make_report(names=HOSTILE, image_ids=HOSTILE)
    raw["convention"] = raw["missing"] = raw["version"] = HOSTILE[0]
    raw["gate"] = [{"rule": name, "passed": False, "message": name} for name in HOSTILE]
    raw["slices"] = [{"column": n, "value": n, "images": 3, "scores": {n: {"value": 0.5}}} for n in HOSTILE]
    raw["semantic"]["conventions"] = {name: {name: 0.5} for name in HOSTILE}
    raw["comparison"]["baseline"] = {"uri": HOSTILE[2], "model": HOSTILE[0]}
    raw["comparison"]["metrics"] = {
        name: {"value": 0.1, "difference": 0.1, "low": 0.05, "high": 0.2} for name in HOSTILE
    }
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
    return page_of(raw, title=HOSTILE[0], sides=sides, groups=(Group("worst", cards),), notes=HOSTILE)


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
    raw = make_report()
    assert render(page_of(raw), max_bytes=MB) == render(page_of(raw), max_bytes=MB)


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
    names = tuple(f"class {n:04d} " + "long name " * 20 for n in range(300))
    raw = make_report(names=names, images=1_000_000, image_ids=tuple(f"{n:06d}" + "x" * 200 for n in range(50)))
    raw["slices"] = [{**raw["slices"][0], "value": f"{n} " + "z" * 300} for n in range(5000)]
    raw["disputes"] = [{**raw["disputes"][0], "image_id": f"{n} " + "z" * 300} for n in range(5000)]
    noise = {kind: webp(1, 360) for kind in ("image", "truth", "prediction", "difference")}
    cards = tuple(card(f"{n:06d}" + "x" * 200, pictures=noise) for n in range(64))
    page = page_of(raw, groups=(Group("worst", cards[:32]), Group("best", cards[32:])))
    data = render(page, max_bytes=9_500_000).encode()
    assert len(data) <= 9_500_000
    bare = len(render(replace(page, groups=()), max_bytes=9_500_000).encode())
    # What pictures a page can hold in sum, if none were left out: base64 of at most this many bytes each.
    largest = max(map(len, noise.values()))
    assert 64 * 4 * largest * 4 / 3 + bare > 9_500_000, "or this test would show nothing"
    drawn = data.count(b"data:image/webp")
    assert drawn >= 8
    assert len(data) < bare + drawn * (largest * 4 / 3 + 400) + 64 * 2500


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ({"semantic": {"per_class": [{"category_id": 0, "category": None, "iou": "high"}]}}, "classes"),
        ({"semantic": {"headline": {"mean_iou": {"value": "0.5"}}}}, None),
        ({"gate": [{"rule": None}]}, None),
        ({"slices": [{"column": 1, "value": 2}]}, "slices"),
        ({"images": {"ok": "many"}}, None),
        ({"examples": {"failed": None}, "images": {"failed": 2}}, "failures"),
    ],
)
def test_odd_values_are_shown_as_unknown(change: dict[str, Any], section: str | None) -> None:
    page = render(page_of({"schema": 2, "semantic": None, "categories": [], **change}), max_bytes=MB)
    Outline(page)
    assert section is None or section == "classes" or f'<section id="{section}">' in page


@pytest.mark.parametrize("change", [{"comparison": [1]}, {"slices": [3]}, {"disputes": ["x"]}, {"panoptic": 4}])
def test_what_cannot_be_shown_is_told(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="report"):
        render(page_of({"schema": 2, "semantic": None, "categories": [], **change}), max_bytes=MB)


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
    assert "NOT_FOUND manifest 1 gone when it was read b.jpg : gone" in text
    alts = [attrs["alt"] for tag, attrs in outline.tags if tag == "img" and attrs["alt"]]
    assert alts == ["image of a.jpg", "prediction of a.jpg"]


def test_documents_are_shown_whole_or_cut() -> None:
    side = ManifestSummary("truth", "t", None, {"config": {"key": "x" * 30_000, "rtl": "\u202e"}})
    page = html.unescape(render(page_of(make_report(), sides=(side,)), max_bytes=MB))
    assert "x" * 19_000 in page and "x" * 21_000 not in page
    small = ManifestSummary("truth", "t", None, {"config": {"a": [1, "\u202e"]}})
    assert '"‹U+202E›"' in html.unescape(render(page_of(make_report(), sides=(small,)), max_bytes=MB))
