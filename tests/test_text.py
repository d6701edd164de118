"""Words for messages, and names as people spell them."""

import pytest

from segjobs.text import quoted, shorten, spelling


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
