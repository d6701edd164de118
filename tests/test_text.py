"""Words for messages, and names as people spell them."""

import pytest

from segjobs.text import quoted, shorten, spelling, visible


@pytest.mark.parametrize("name", ["traffic light", "Traffic_Light", " TRAFFIC-LIGHT ", "traffic\t_- light"])
def test_one_name_in_many_spellings(name: str) -> None:
    assert spelling(name) == "traffic light"


def test_other_names_stay_others() -> None:
    assert spelling("trafficlight") == "trafficlight"
    assert spelling("Straße") == spelling("STRASSE") == "strasse"
    assert spelling("_") == ""


def test_a_text_is_as_long_as_it_may_be() -> None:
    assert (shorten("abc", 3), shorten("abcd", 3), shorten("", 3)) == ("abc", "ab…", "")


def test_names_of_strangers_stay_in_their_line() -> None:
    assert quoted(["a", "b\nc", "\x1b[2J"]) == r"'a', 'b\nc', '\x1b[2J'"
    assert quoted(map(str, range(9))) == "'0', '1', '2', '3', '4', and 4 more"
    assert len(quoted(["x" * 1000])) < 70


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b-ü-日本.jpg", "a b-ü-日本.jpg"),
        ("\x1b]0;own\x07\x1b[2J", r"\u001b]0;own\u0007\u001b[2J"),
        ("a\nerror: b\r\t", r"a\u000aerror: b\u000d\u0009"),
        ("\x9b31m\x7f", r"\u009b31m\u007f"),
        ("gpj.\u202ecod\u2066", r"gpj.\u202ecod\u2066"),
        ("one\u2028two\x85", r"one\u2028two\u0085"),
        ("\udcff", r"\udcff"),
        ("👩\u200d💻 \u00a0", "👩\u200d💻 \u00a0"),
    ],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown
