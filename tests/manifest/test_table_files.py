"""Files of a table under the names of their bytes, and what a URI with a version means."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.run_info import PartInfo
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.manifest.table_files import digest_in, has_table, read_file, split_version, write_file
from segjobs.storage import Storage
from tests.collections_made import rows_of


def test_a_uri_may_end_with_a_version() -> None:
    assert split_version("out/street@7") == ("out/street", 7)
    assert split_version("s3://b/street@12/") == ("s3://b/street", 12)
    assert split_version("out/me@home") == ("out/me@home", None)
    assert split_version("out/a@1/street/") == ("out/a@1/street", None)
    assert not has_table(Storage(), "/nowhere/street@7")


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    rows = rows_of({"a": ["sr"], "b": ["rr"]})
    name, size_bytes, new = write_file(Storage(), str(tmp_path), rows)
    assert new and write_file(Storage(), str(tmp_path), rows) == (name, size_bytes, False)
    marked, _, new = write_file(Storage(), str(tmp_path), rows, mark="1")
    assert new and marked != name and pq.read_table(tmp_path / marked).equals(pq.read_table(tmp_path / name))
    sha256 = digest_in(name)
    assert sha256 is not None and digest_in("part-00000-1.parquet") is None
    part = PartInfo(name, 2, sha256, "a", "b")
    assert read_file(Storage(), str(tmp_path), part).equals(rows)
    assert read_file(Storage(), str(tmp_path), part, columns=["image_id"])["image_id"].to_pylist() == ["a", "b"]
    assert pq.read_schema(tmp_path / name).equals(COLLECTION_SCHEMA)
    (tmp_path / name).unlink()
    with pytest.raises(ManifestError, match="a vacuum has taken it"):
        read_file(Storage(), str(tmp_path), part)
