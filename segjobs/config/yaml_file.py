"""A config file: its path in, OmegaConf's dict out; what is no such file is one line that says where and how to mend."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from segjobs.config.cut_values import cut_from_file
from segjobs.errors import ConfigError

_COMPLETE = "`segjobs init VERB` prints a complete one"
_MENDS = {
    "found duplicate key": "keep one of the two",
    "found another document": "keep one document, without '---'",
    "could not determine a constructor": "tags ('!…') mean nothing here: leave it out",
    "character that cannot start any token": "quote a value that begins with it",
    "found undefined alias": "quote a value that begins with '*'",
    "mapping values are not allowed": "quote a value that holds ': '",
    "did not find expected key": "begin the keys of one section in the same column",
}
"""By what YAML says, what a person does about it."""


def read_yaml(path: str) -> DictConfig:
    """The keys of a YAML file. Raises ConfigError."""
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        layer = OmegaConf.load(path)
        cut = list(cut_from_file(text))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; {_COMPLETE}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; expected a YAML file: {_COMPLETE}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not readable as YAML: nested too deeply") from None
    except MarkedYAMLError as error:
        raise ConfigError(_unreadable(path, text, error)) from None
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{path}: holds a list; expected 'key: value' lines: {_COMPLETE}")
    if all(line.lstrip()[:1] in ("", "#") for line in text.splitlines()):
        raise ConfigError(f"{path}: is empty; expected 'key: value' lines: {_COMPLETE}")
    if cut:
        problems = (f"{path}: {value!r} is followed by {rest!r}, a comment to YAML" for value, rest in cut)
        raise ConfigError(*(f"{line}; quote the whole value, or write '# …'" for line in problems))
    return layer


def _unreadable(path: str, text: str, error: MarkedYAMLError) -> str:
    """Where it is not YAML, in what respect, and how to mend it."""
    problem, mark = " ".join(str(error.problem).split()), error.problem_mark
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    mend = next((mend for said, mend in _MENDS.items() if said in problem), "")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem, mend = "a tab before a key", "YAML indents with spaces"
    where = f"line {mark.line + 1}: " if mark else ""
    return f"{path}: not readable as YAML: {where}{problem}{f'; {mend}' if mend else ''}"
