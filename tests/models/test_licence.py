"""What is said of a licence."""

import pytest

from segjobs.models.licence import licence_line


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "cc-by-nc-sa-4.0", "other (NVIDIA non-commercial)"])
def test_no_commercial_use(licence: str) -> None:
    assert licence_line(licence) == f"its licence, {licence}, forbids commercial use"


def test_a_licence_of_its_own_is_to_be_read() -> None:
    assert licence_line("other (sam, LICENSE)") == (
        "its licence, other (sam, LICENSE), is one of its own: read it before commercial use"
    )


@pytest.mark.parametrize("licence", [None, "apache-2.0", "mit", "BSD-3-Clause", "cc-by-4.0"])
def test_nothing_to_heed(licence: str | None) -> None:
    assert licence_line(licence) is None
