"""Which change an image is to a night, row by row."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import ShardConfig
from segjobs.errors import ItemError
from segjobs.jobs.nightly.compare import Policy, compare
from segjobs.manifest.collection import open_collection
from segjobs.manifest.plan import make_plan
from segjobs.storage import FileInfo, Storage
from tests.collections_made import GONE_AT, commit, marks_of

AS_IT_WAS = {"size": 1, "mtime_us": 1, "etag": ""}
POLICY = Policy("MODEL", "PROCESSING", frozenset({"TIMEOUT"}), 2, False, None, True, lambda run_id: {})


@pytest.fixture
def street(tmp_path: Path) -> str:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["s"], "b": ["s"], "f": ItemError("TIMEOUT", "slow")}, app_id="1")
    commit(Storage(), uri, {"h": ["s"], "i": ["s"]}, app_id="2", day=2, human=True)
    commit(Storage(), uri, {"z": ["s"]}, app_id="3", day=3, marks=marks_of(("b", GONE_AT)))
    return uri


def changes(street: str, policy: Policy, **files: dict[str, Any]) -> dict[str, str]:
    """``files``: image_id → what of its listing is not as it was."""
    now = open_collection(Storage(), street)
    row = now.read(now.files[0]).to_pylist()[0]
    own = {name: row[name] for name in ("model", "processing") if getattr(policy, name).isupper()}
    policy = replace(policy, **own)
    listed = [FileInfo(**{"uri": f"/d/{name}", "path": name, **AS_IT_WAS, **keys}) for name, keys in files.items()]
    found = compare(make_plan(listed, ShardConfig()), now, policy, lambda file: file.etag or None)
    table = found.table()
    return dict(zip(table["image_id"].to_pylist(), table["change"].to_pylist(), strict=True)) | {
        name: str(count) for name, count in found.counts.items() if name in ("same", "stale_kept")
    }


def test_each_change(street: str) -> None:
    found = changes(
        *(street, POLICY),
        a={"etag": "00"},  # another etag, the same bytes: "00" is the digest that stands
        b={},  # back, as it was
        f={},
        h={"etag": "11"},  # a person's, of other bytes now
        i={"size": 2},
        n={},
        z={"size": 9},
    )
    assert found == {"a": "touched", "b": "touched", "f": "retry", "h": "held", "i": "held", "n": "new", "z": "changed"}
    assert changes(street, POLICY, a={"etag": "11"}, b={"etag": "11"}, h={}) == {
        **{"a": "changed", "b": "new", "f": "gone", "i": "gone", "z": "gone"},
        "same": "1",
    }
    assert changes(street, POLICY, a={"uri": "/new/a", "etag": "00"}, f={}, h={}, i={}, z={}) == {
        **{"a": "touched", "f": "retry"},
        "same": "3",
    }


def test_an_image_that_cannot_be_read_is_changed(street: str) -> None:
    policy = replace(POLICY, mark_gone=False, retry_codes=frozenset())
    assert changes(street, policy, a={"mtime_us": 7}, f={"mtime_us": 7}) == {
        "a": "changed",
        "f": "changed",
        "same": "3",
    }


def test_policies(street: str) -> None:
    keep = replace(POLICY, model="other@1", mark_gone=False)
    assert changes(street, keep, a={}, h={}, z={"etag": "00"}) == {"z": "touched", "same": "3", "stale_kept": "1"}
    relabel = replace(keep, relabel=True, budget=1)
    found = changes(street, relabel, a={}, h={}, z={"etag": "00"})
    assert found == {"a": "stale", "z": "touched", "same": "3"}, "the oldest first; a human's never"
    tried = replace(POLICY, mark_gone=False, tries=lambda run_id: {"f": 2})
    assert changes(street, tried, f={}) == {"same": "5"}


def test_moments_are_exact(tmp_path: Path) -> None:
    found = compare(make_plan([FileInfo("/d/a", "a", 1, 1_700_000_000_123_456, "")], ShardConfig()), None, POLICY, str)
    assert found.table()["mtime"].to_pylist() == [datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)]
    assert found.counts == {"new": 1}
