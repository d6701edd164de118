"""Which change an image is to a night, row by row."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segjobs.config import ShardConfig
from segjobs.errors import ItemError
from segjobs.jobs.nightly.compare import Policy, compare
from segjobs.manifest.collection import open_collection
from segjobs.manifest.held_nights import WAITING_SCHEMA
from segjobs.manifest.plan import make_plan
from segjobs.storage import FileInfo, Storage
from tests.collections_made import GONE_AT, commit, marks_of

WAITING: dict[str, Any] = {
    "source": {"size": 1, "mtime": 1, "etag": None, "sha256": "00"},
    "run_id": "held",
    "night": "2026-02-01T02-00-00",
    "labelled_at": datetime(2026, 2, 1, tzinfo=UTC),
}
AS_IT_WAS = {"size": 1, "mtime_us": 1, "etag": ""}
POLICY = Policy("MODEL", "PROCESSING", frozenset({"TIMEOUT"}), 2, False, None, True, lambda run_id: {})


@pytest.fixture
def street(tmp_path: Path) -> str:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["s"], "b": ["s"], "f": ItemError("TIMEOUT", "slow")}, app_id="1")
    commit(Storage(), uri, {"h": ["s"], "i": ["s"]}, app_id="2", day=2, human=True)
    commit(Storage(), uri, {"z": ["s"]}, app_id="3", day=3, marks=marks_of(("b", GONE_AT)))
    return uri


def changes(
    street: str, policy: Policy, waiting: list[dict[str, Any]] | None = None, **files: dict[str, Any]
) -> dict[str, str]:
    """``files``: image_id → what of its listing is not as it was; ``waiting``: what of a held row is."""
    now = open_collection(Storage(), street)
    row = now.read(now.files[0]).to_pylist()[0]
    own = {name: row[name] for name in ("model", "processing") if getattr(policy, name).isupper()}
    policy = replace(policy, **own)
    listed = [FileInfo(**{"uri": f"/d/{name}", "path": name, **AS_IT_WAS, **keys}) for name, keys in files.items()]
    held = pa.Table.from_pylist([{**WAITING, **keys} for keys in waiting or []], WAITING_SCHEMA)
    found = compare(make_plan(listed, ShardConfig()), now, policy, lambda file: file.etag or None, held)
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


def held(image_id: str, **keys: Any) -> dict[str, Any]:
    return {"image_id": image_id, "uri": f"/d/{image_id}", **keys}


def test_what_a_held_night_has_labelled_waits(street: str) -> None:
    timeout = {"code": "TIMEOUT", "message": "slow"}
    policy = replace(POLICY, tries=lambda run_id: {"t": 1} if run_id == "held" else {})
    older = held("o", source={**WAITING["source"], "size": 7}, night="2026-01-31T02-00-00", run_id="older")
    waiting = [
        older,
        held("a"),
        held("b"),
        held("gone"),
        held("h"),
        held("n"),
        held("o"),
        held("s"),
        held("t", error=timeout),
    ]
    found = changes(
        *(street, policy, waiting),
        a={"etag": "11"},  # changed, and again since the held night
        b={},  # back
        f={},
        h={},  # a person's
        n={},  # new
        o={"etag": "00", "mtime_us": 9},  # new, and touched since
        s={"size": 2},  # new, and of other bytes since
        t={},  # failed there, and is tried again
        z={"etag": "00"},
    )
    assert found == {
        **{"a": "changed", "b": "waiting", "f": "retry", "n": "waiting", "o": "waiting", "s": "new", "t": "retry"},
        **{"i": "gone", "z": "touched", "same": "1"},
    }
    old = held("z", labelled_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert changes(street, POLICY, [old], f={}, h={}, i={}, z={}) == {"a": "gone", "f": "retry", "same": "3"}, "older"


def test_what_waits_for_an_empty_table(tmp_path: Path) -> None:
    listed = [FileInfo(f"/d/{name}", name, **AS_IT_WAS) for name in "an"]
    waiting = pa.Table.from_pylist([{**WAITING, **held("a")}, {**WAITING, **held("z")}], WAITING_SCHEMA)
    found = compare(make_plan(listed, ShardConfig()), None, POLICY, str, waiting)
    assert found.counts == {"waiting": 1, "new": 1}


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
