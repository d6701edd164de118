"""Words for messages, and names as people spell them."""

import pytest

from segjobs.text import spelling


@pytest.mark.parametrize("name", ["traffic light", "Traffic_Light", " TRAFFIC-LIGHT ", "traffic\t_- light"])
def test_one_name_in_many_spellings(name: str) -> None:
    assert spelling(name) == "traffic light"


def test_other_names_stay_others() -> None:
    assert spelling("trafficlight") == "trafficlight"
    assert spelling("Straße") == spelling("STRASSE") == "strasse"
    assert spelling("_") == ""
