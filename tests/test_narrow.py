"""What JSON gives, narrowed."""

import json

import pytest

from segjobs.narrow import is_list, is_object


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"a": 1}', (True, False)), ("{}", (True, False)), ("[1]", (False, True)), ('"a"', (False, False))],
)
def test_objects_and_lists_are_told_apart(text: str, expected: tuple[bool, bool]) -> None:
    value = json.loads(text)
    assert (is_object(value), is_list(value)) == expected
