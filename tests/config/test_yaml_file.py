"""Files that are no config: one line each, which says where and how to mend it."""

from pathlib import Path

import pytest

from segjobs.config.yaml_file import read_yaml
from segjobs.errors import ConfigError

_COMPLETE = "`segjobs init VERB` prints a complete one"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n- b\n", f"holds a list; expected 'key: value' lines: {_COMPLETE}"),
        (b"", f"is empty; expected 'key: value' lines: {_COMPLETE}"),
        (b"# input: {uri: photos}\n", f"is empty; expected 'key: value' lines: {_COMPLETE}"),
        (b"a: [1\nb: }", "not readable as YAML: line 2: did not find expected ',' or ']'"),
        (b"input:\n\turi: a\n", "not readable as YAML: line 2: a tab before a key; YAML indents with spaces"),
        (b"a: 1\nb: 2\na: 3\n", "not readable as YAML: line 3: found duplicate key a; keep one of the two"),
        (b"a: 1\n b: 2\n", "not readable as YAML: line 2: "),
        (b"a: @x\n", "line 1: found character that cannot start any token; quote a value that begins with it"),
        (b"a: *.jpg\n", "not readable as YAML: line 1: "),
        (b"a: 1\n---\nb: 2\n", "line 2: but found another document; keep one document, without '---'"),
        (b"x: !!python/object/apply:os.getcwd []", "tags ('!…') mean nothing here: leave it out"),
        (b"\xff\xd8\xff\xe0", "not readable as YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"a\x00b: 1", "not readable as YAML: unacceptable character #x0000"),
        (b"[" * 2000, "not readable as YAML: "),
    ],
)
def test_what_is_no_config(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(str(path))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert problem in line


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"none.yaml: no such config file; {_COMPLETE}$"):
        read_yaml(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=f": is a folder; expected a YAML file: {_COMPLETE}$"):
        read_yaml(str(tmp_path))
