"""Codes of failed items: worded once, and the table that people read says the same."""

import re
from typing import get_args

from segjobs.errors import ITEM_CODES, ItemCode
from tests.conftest import REPOSITORY


def test_every_code_has_its_words() -> None:
    assert tuple(ITEM_CODES) == get_args(ItemCode)
    assert len(set(ITEM_CODES.values())) == len(ITEM_CODES)


def test_the_table_for_people_has_every_code_and_no_other() -> None:
    pages = [REPOSITORY / name for name in ("README.md", "flows/README.md")]
    text = "\n".join(page.read_text() for page in pages if page.exists())
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", text, re.M)
    assert rows == list(ITEM_CODES.items())
