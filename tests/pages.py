"""The project's pages taken apart: Markdown in; fenced blocks, code spans, links and the commands in them out."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
GUIDE = REPOSITORY / "flows" / "README.md"
MAP = REPOSITORY / "segjobs" / "README.md"
SCORES = REPOSITORY / "segjobs" / "metrics" / "README.md"
PAGES = (README, GUIDE, MAP, SCORES, REPOSITORY / "CHANGELOG.md")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FLOW = re.compile(r"flows/(\w+)\.py")
_ENDS = {"&&", "||", ";", "|", ">", ">>", "&"}


@dataclass(frozen=True)
class Command:
    """``segjobs VERB`` or ``flows/VERB.py`` and the words behind it; ``text``: the line that it stands in."""

    verb: str
    words: tuple[str, ...]
    text: str


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for found, body in _FENCED.findall(text) if found == language]


def spans(text: str) -> list[str]:
    """The code spans of the prose and the tables, a table's ``\\|`` as what it stands for."""
    return [span.replace("\\|", "|") for span in _SPAN.findall(_FENCED.sub("", text))]


def links(text: str) -> list[str]:
    return _LINK.findall(_FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings."""
    names = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCED.sub("", text)))
    return {name.replace(" ", "-") for name in names}


def section(text: str, heading: str) -> str:
    """From a heading of the second level to the next one."""
    found = re.search(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading!r}"
    return found[1]


def shell_lines(text: str) -> list[str]:
    """The lines of all shell blocks, those that end in a backslash joined with the next."""
    return [line for body in blocks(text, "sh") for line in body.replace("\\\n", " ").splitlines() if line.strip()]


def commands(line: str) -> Iterator[Command]:
    """Every command of ours in a line of shell."""
    words = shlex.split(line, comments=True)
    for ends, group in groupby(words, key=lambda word: word in _ENDS):
        part = list(group)
        if ends:
            continue
        for place, word in enumerate(part):
            flow = _FLOW.fullmatch(word)
            if flow:
                yield Command(flow[1], tuple(part[place + 1 :]), line)
            elif word == "segjobs" and len(part) > place + 1:
                yield Command(part[place + 1], tuple(part[place + 2 :]), line)


def all_commands(text: str) -> list[Command]:
    """The commands of a page: of its shell blocks and of its code spans."""
    named = [span for span in spans(text) if re.match(r"(uv run )?(segjobs |flows/\w+\.py )", span)]
    return [command for line in (*shell_lines(text), *named) for command in commands(line)]
