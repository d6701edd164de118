"""The end of a job: lines for people, its result, and the exit code by the failure budget."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from segjobs.config import ShardConfig
from segjobs.errors import ExitCode
from segjobs.jobs.engine.adopt import Adopted
from segjobs.jobs.engine.run import Summary
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.engine.summary import dry_run_of, print_summary
from segjobs.manifest.plan import make_plan
from segjobs.manifest.run_info import GpuUse
from segjobs.manifest.schema import Footer
from segjobs.storage import FileInfo


def summary() -> Summary:
    return Summary(
        "out/run1",
        "0123456789abcdef",
        images=20,
        ok=17,
        segments=51,
        failures=Counter({"UNREADABLE": 2, "CHANGED": 1}),
        examples={"UNREADABLE": ("a[b].jpg", "no image:\n" + "x" * 200), "CHANGED": ("ü.jpg", "changed")},
        already_done=4,
        seconds=8.0,
        first_shard_s=2.5,
        stage_seconds={"read": 1.0, "decode": 2.0, "forward": 5.0, "encode": 0.0, "write": 0.0},
    )


def test_lines_by_failure_code_and_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    result = print_summary(summary(), 0.15)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "20 images: 17 ok, 3 failed, 51 segments",
        "  CHANGED 1: 'ü.jpg': changed",
        "  UNREADABLE 2: 'a[b].jpg': no image: " + "x" * 149 + "…",
        "4 of them were done by an earlier attempt",
        "8.0 s, 2.0 images/s (first shard after 2.5 s)",
        "where the time went, over all threads: read 12%, decode 25%, forward 62%",
        "manifest: out/run1/run.json and parts/",
    ]
    assert result.text().count("\n") == 1
    assert json.loads(result.text()) == {
        "output": "out/run1",
        "run_id": "0123456789abcdef",
        "images": 20,
        "ok": 17,
        "failed": 3,
        "failures": {"CHANGED": 1, "UNREADABLE": 2},
        "segments": 51,
        "already_done": 4,
        "seconds": 8.0,
        "stage_seconds": {"read": 1.0, "decode": 2.0, "forward": 5.0, "encode": 0.0, "write": 0.0},
        "gpus": {},
        "exit_code": 0,
    }


def test_where_the_time_went_begins_with_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    started = replace(summary(), start_seconds={"imports": 2.04, "ray": 3.5, "first image": 0.46})
    print_summary(started, 0.15)
    assert capsys.readouterr().err.splitlines()[-2] == (
        "where the time went: start 6.0 s (imports 2.0, ray 3.5, first image 0.5); "
        "then, over all threads: read 12%, decode 25%, forward 62%"
    )


def test_how_busy_the_gpus_were_stands_behind_where_the_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = GpuUse(86.0, 10, 2**34, 80 * 2**30), GpuUse(97.4, 30, 21 * 2**30, 80 * 2**30)
    result = print_summary(replace(summary(), gpus={"GPU-1": one, "GPU-2": other}), 0.15)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-3].startswith("where the time went")
    # (86 * 10 + 97.4 * 30) / 40 = 94.55
    assert lines[-2] == "GPUs: 2, busy 95% of the time (86–97%), 21.0 of 80 GiB at most"
    assert json.loads(result.text())["gpus"] == {
        "GPU-1": {"busy_percent": 86.0, "seconds": 10, "used_bytes": 2**34, "total_bytes": 80 * 2**30},
        "GPU-2": {"busy_percent": 97.4, "seconds": 30, "used_bytes": 21 * 2**30, "total_bytes": 80 * 2**30},
    }


@pytest.mark.parametrize(
    ("images", "ok", "fraction", "code"),
    [
        (100, 99, 0.01, ExitCode.DONE),  # exactly the budget is within it
        (100, 98, 0.01, ExitCode.TOO_MANY_FAILED),
        (20, 17, 0.15, ExitCode.DONE),
        (3, 0, 1.0, ExitCode.DONE),
        (3, 2, 0.0, ExitCode.TOO_MANY_FAILED),
        (0, 0, 0.0, ExitCode.DONE),
    ],
)
def test_the_exit_code_is_by_the_failure_budget(
    images: int, ok: int, fraction: float, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = Counter({"TRUNCATED": images - ok}) if images > ok else Counter()
    short = Summary("out", "id", images=images, ok=ok, failures=failures, examples={"TRUNCATED": ("a", "b")})
    result = print_summary(short, fraction)
    assert result.exit_code == json.loads(result.text())["exit_code"] == code
    err = capsys.readouterr().err
    assert (f"more than max_failed_fraction={fraction:g} of the images failed" in err) == (code == 3)


def test_a_finished_run_is_said_to_be_complete(capsys: pytest.CaptureFixture[str]) -> None:
    done = Summary("out", "id7", images=2, ok=2, segments=3, already_done=2, complete_before=True)
    assert print_summary(done, 0.0).exit_code == ExitCode.DONE
    assert capsys.readouterr().err.splitlines() == [
        "nothing to do: run id7 is complete",
        "2 images: 2 ok, 0 failed, 3 segments",
        "manifest: out/run.json and parts/",
    ]


def test_a_dry_run_says_what_would_be_done() -> None:
    files = [FileInfo(f"/d/{n}", f"{n}", 10, 0, "") for n in range(5)]
    plan = make_plan(files, ShardConfig(images=2))
    job = Job("label", "out", plan, {}, Footer("semantic", (), "digest"), {})
    assert dry_run_of(Adopted(job, None, frozenset({0, 2})), "toy@1", "1 actor(s)").text().splitlines() == [
        "output:       out",
        f"run_id:       {job.run_id}",
        "images:       5",
        "bytes:        50",
        "shards:       3",
        "already done: 2 shards, 3 images",
        "model:        toy@1",
        "device:       1 actor(s)",
        "dry run: nothing was written",
    ]
