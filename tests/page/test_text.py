"""Names as harmless text, numbers as people read them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.page.text import brief, count, link, number, p_value, percent, points, shorten, visible
from tests.page.sample import HOSTILE


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("café 猫 😀", "café 猫 😀"),
        ("a\nb\tc\0", "a␊b␉c␀"),
        ("cat\u202egnp.exe", "cat‹U+202E›gnp.exe"),
        ("\ud800", "‹U+D800›"),
        ("zero\u200bwidth", "zero‹U+200B›width"),
        ("👩\u200d👧", "👩\u200d👧"),
        (12, "12"),
        (None, "None"),
    ],
)
def test_what_cannot_be_seen_gets_a_sign(name: object, shown: str) -> None:
    assert visible(name) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(8, 100))
def test_any_text_becomes_short_and_writable(name: str, most: int) -> None:
    shown = shorten(name, most)
    assert len(shown) <= most
    shown.encode()
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202a\u202e\u2066"]


def test_long_texts_keep_both_ends() -> None:
    assert shorten("scene.jpg", 9) == "scene.jpg"
    assert shorten("folder/" + "x" * 1000 + "/scene_0012.jpg", 24) == "folder/xxxxx…ne_0012.jpg"


@pytest.mark.parametrize("uri", ["https://example.org/a%20b.jpg?x=1&y='", "http://localhost:8000/a.png"])
def test_web_addresses_are_links(uri: str) -> None:
    assert link(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "JaVaScRiPt://x/%0aalert(1)",
        "data:text/html,<script>1</script>",
        "file:///etc/passwd",
        "s3://bucket/key",
        "/data/a.jpg",
        "//example.org/a",
        "https:",
        "https://",
        "http://[::1",
        "https://example.org/\u202egpj",
        "https://example.org/a b",
        "https://example.org/" + "a" * 3000,
        7,
        None,
        *HOSTILE,
    ],
)
def test_everything_else_is_text(uri: object) -> None:
    assert link(uri) is None


def test_numbers() -> None:
    assert [percent(v) for v in (0.63425, 1, 0, None, float("nan"), "0.5", True)] == ["63.4", "100.0", "0.0", *"––––"]
    assert percent(0.63425, 2) == "63.42"
    assert [points(v) for v in (0.0125, -0.004, -0.00001, None)] == ["+1.25", "−0.40", "0.00", "–"]
    assert [count(v) for v in (1234567, 0, None)] == ["1,234,567", "0", "–"]
    assert [brief(v) for v in (0, 999, 1000, 12_345, 123_456, 999_499, 999_500, 4_560_000, 10**9, 7.5e15)] == [
        "0", "999", "1.00 k", "12.3 k", "123 k", "999 k", "1.00 M", "4.56 M", "1.00 G", "7500 T",
    ]  # fmt: skip
    assert [p_value(v) for v in (0.0004, 0.04, 1.0, None)] == ["< 0.001", "0.040", "1.000", "–"]
    assert number([1]) is None and number(float("inf")) is None and number(2) == 2
