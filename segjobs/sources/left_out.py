"""What a listing met and did not take: files and folders by the reason, one at a time, in; lines for a person out."""

from collections import Counter
from dataclasses import dataclass, field

_SUFFIXES = 6  # told by name


@dataclass
class LeftOut:
    """Counts by reason, with the first name of each. ``suffixes``: of files that no pattern takes."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, path: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, path)

    def not_included(self, path: str) -> None:
        """A file that no pattern of ``input.include`` fits."""
        self.add("fit no input.include", path)
        name = path.rpartition("/")[2]
        self.suffixes["*" + name[at:].lower() if (at := name.rfind(".")) > 0 else "without suffix"] += 1

    def lines(self) -> list[str]:
        """A line for each reason: how many, and one of them."""
        return [
            f"left out: {count} that {reason}{self._kinds() if reason == 'fit no input.include' else ''}, "
            f"such as {self.examples[reason]!r}"
            for reason, count in self.counts.items()
        ]

    def _kinds(self) -> str:
        shown = self.suffixes.most_common(_SUFFIXES)
        rest = self.suffixes.total() - sum(count for _, count in shown)
        return f" ({', '.join(f'{count} {kind}' for kind, count in shown)}{f', {rest} others' if rest else ''})"
