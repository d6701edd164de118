"""Values that YAML cuts at a `` #`` which was meant as part of them: an override or a YAML text in, what is cut off out.

``output.uri=out/night #1`` is ``out/night`` and a comment to YAML, and the run would go to a folder that nobody meant.
"""

import re
from collections.abc import Iterator

import yaml

_BEGINS = (yaml.ScalarToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)
_GLUED = re.compile(r"[ \t]+#[^\s#]\S*")  # a comment begins with "# "


def cut_from_override(value: str) -> str:
    """What YAML takes for a comment behind the value of a ``key=value``, where nobody writes one. Raises YAMLError."""
    ends = [token.end_mark.index for token in yaml.scan(value) if isinstance(token, _BEGINS)]
    rest = value[max(ends, default=0) :].strip()
    return rest if rest.startswith("#") else ""


def cut_from_file(text: str) -> Iterator[tuple[str, str]]:
    """Paths of a YAML text with what is cut off behind them, such as ("out/night", "#1"). Raises YAMLError."""
    for token in yaml.scan(text):
        if isinstance(token, yaml.ScalarToken) and token.plain and "/" in token.value:
            glued = _GLUED.match(text, token.end_mark.index)
            if glued:
                yield token.value, glued[0].strip()
