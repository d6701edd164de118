"""Standard error, where people read: every line and table of a job goes out here.

What stands in them is mostly strangers': names of files and classes, words of libraries. It is shown as it is: no
markup, no emoji, and no characters that a terminal would obey (``text.visible``).
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from segjobs.text import visible


class Terminal(Console):
    """A console of rich on standard error; lines are as long as they are. ``width``: of tables, in characters."""

    def __init__(self, *, width: int | None = None) -> None:
        super().__init__(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Every text that is printed, also a table's cell, on its way out."""
        return super().render_str(visible(text), **settings)
