"""run.json's content: as a value, as JSON, and what is none."""

import json
from dataclasses import replace
from typing import Any

import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.run_info import GpuUse, RunCounts, RunInfo, Timings
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


def test_timings_say_of_gpus_what_is_known() -> None:
    timings = Timings(8.0, {"read": 1.5}, {"ray": 3.0}, {"GPU-8a": GpuUse(93.4, 7, 21 * 2**30, 80 * 2**30)})
    raw = timings.to_json()
    use = {"busy_percent": 93.4, "seconds": 7, "used_bytes": 21 * 2**30, "total_bytes": 80 * 2**30}
    assert raw == {"seconds": 8.0, "stages": {"read": 1.5}, "start": {"ray": 3.0}, "gpus": {"GPU-8a": use}}
    assert Timings.from_json(json.loads(json.dumps(raw))) == timings
    assert Timings.from_json({"seconds": 8.0, "stages": {}}) == Timings(8.0, {}), "of a run without, or of an old one"
    assert Timings(8.0, {}).to_json() == {"seconds": 8.0, "stages": {}}


@pytest.mark.parametrize(
    "flaw",
    [
        *({"counts": {"images": 1}}, {"examples": {"TRUNCATED": "a.jpg"}}, {"failures": None}, {"examples": []}),
        *({"timings": []}, {"timings": {"seconds": 1.0, "stages": {}, "gpus": {"GPU-8a": {}}}}),
    ],
)
def test_what_is_no_run_json(flaw: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        RunInfo.from_json({**INFO.to_json(), **flaw})


def test_another_release() -> None:
    raw = INFO.to_json()
    with pytest.raises(ManifestError, match="schema version is 2, this release reads 1"):
        RunInfo.from_json({**raw, "footer": {**raw["footer"], "schema_version": 2}})
