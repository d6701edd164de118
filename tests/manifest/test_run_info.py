"""run.json's content: as a value, as JSON, and what is none."""

import json
from dataclasses import replace
from typing import Any

import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.run_info import RunCounts, RunInfo
from segjobs.manifest.schema import Footer
from tests.manifests import info_of

FOOTER = Footer("semantic", (), "digest", {"label": "unet@0123456789ab"})
INFO = info_of(FOOTER, RunCounts(images=3, ok=2, failed=1, segments=7), examples={"TRUNCATED": ("a.jpg", "short")})


def test_the_keys_of_run_json_in_their_order() -> None:
    raw = INFO.to_json()
    assert list(raw) == [
        "run_id", "verb", "version", "finished", "counts", "failures", "examples", "timings", "identity", "footer",
        "config",
    ]  # fmt: skip
    assert raw["counts"] == {"images": 3, "ok": 2, "failed": 1, "segments": 7}
    assert list(raw["footer"]) == sorted(raw["footer"])
    assert RunInfo.from_json(json.loads(json.dumps(raw))) == INFO


def test_the_model_of_a_run() -> None:
    assert INFO.model_label == "unet@0123456789ab"
    assert replace(INFO, footer=replace(FOOTER, model=None)).model_label is None


@pytest.mark.parametrize(
    "flaw", [{"counts": {"images": 1}}, {"examples": {"TRUNCATED": "a.jpg"}}, {"failures": None}, {"examples": []}]
)
def test_what_is_no_run_json(flaw: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        RunInfo.from_json({**INFO.to_json(), **flaw})


def test_another_release() -> None:
    raw = INFO.to_json()
    with pytest.raises(ManifestError, match="schema version is 2, this release reads 1"):
        RunInfo.from_json({**raw, "footer": {**raw["footer"], "schema_version": 2}})
