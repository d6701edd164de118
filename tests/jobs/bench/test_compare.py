"""Two bench.json in, a verdict on each figure out: by hand, and by the command."""

import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.cli import main
from segjobs.errors import ExitCode
from segjobs.jobs.bench.compare import Spread, verdict
from segjobs.jobs.bench.figures import spread_of

pytestmark = pytest.mark.usefixtures("default_signals")


def spread(*values: float) -> Spread:
    return Spread(sorted(values)[len(values) // 2], min(values), max(values), len(values))


@pytest.mark.parametrize(
    ("name", "a", "b", "said"),
    [
        ("pipeline.images_per_s", spread(40, 41, 42), spread(50, 51, 52), "better"),
        ("pipeline.images_per_s", spread(50, 51, 52), spread(40, 41, 42), "worse"),
        ("pipeline.whole_run_s", spread(50, 51, 52), spread(40, 41, 42), "better"),
        ("stages_cpu_ms.read", spread(2.4, 2.5, 2.6), spread(0.3, 0.31, 0.32), "better"),
        ("ratios.pipeline / bare forward", spread(0.9, 0.92, 0.95), spread(0.7, 0.72, 0.75), "worse"),
        ("bare.forward", spread(31, 32, 33), spread(113, 114, 115), "better"),
        ("bare.forward", spread(31, 32, 33), spread(33, 34, 35), "alike"),
        ("bare.forward", spread(31, 32, 40), spread(113, 114, 115), "too noisy to judge"),  # 9 of 32
        ("bare.forward", spread(31), spread(113), "one round"),
        ("gpus.busy_percent", spread(60, 61), spread(90, 91), "better"),
        ("gpus.used_mb", spread(6000, 6001), spread(9000, 9001), "worse"),
    ],
)
def test_what_b_is_against_a(name: str, a: Spread, b: Spread, said: str) -> None:
    assert verdict(name, a, b) == said


def bench_json(path: Path, rate: float, **settings: Any) -> str:
    pipeline = {"images_per_s": spread_of([rate, rate + 1])}
    path.write_text(json.dumps({"model": "unet", "pipeline": pipeline, "plain_script": None, **settings}))
    return str(path)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a = bench_json(tmp_path / "a.json", 40)
    other = {"model": "fcn", "runtime": "openvino"}
    b = bench_json(tmp_path / "b.json", 80, **other, get_cpu_ms=spread_of([0.3, 0.3]))
    code, (out, err) = main(["bench", "compare", a, b]), capfd.readouterr()
    assert code == 0
    assert json.loads(out) == {
        "figures": {"pipeline.images_per_s": {"a": 40.5, "b": 80.5, "ratio": 80.5 / 40.5, "verdict": "better"}},
        "exit_code": 0,
    }
    assert "model differs: unet and fcn: these are not of the same work" in err
    assert "runtime differs: torch and openvino" in err, "where an earlier release says none, it is torch"
    assert "1.99" in err and "better" in err
    assert f"only in {b}: get_cpu_ms" in err.replace("\n", "")


def test_what_is_no_bench_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a = bench_json(tmp_path / "a.json", 40)
    (tmp_path / "b.json").write_text("[1]")
    code, (_, err) = main(["bench", "compare", a, f"{tmp_path}/b.json"]), capfd.readouterr()
    assert (code, err) == (
        ExitCode.USAGE,
        f"error: {tmp_path}/b.json: no figures of a bench; expected the bench.json of a bench's output.uri\n",
    )
    code, (_, err) = main(["bench", "compare", a, f"{tmp_path}/c.json"]), capfd.readouterr()
    assert (code, err.count("\n")) == (ExitCode.USAGE, 1)
    assert "c.json: no such file" in err
    code, (_, err) = main(["bench", "compare", a]), capfd.readouterr()
    assert code == ExitCode.USAGE
    assert "segjobs bench compare takes two files, A.json B.json; got 1\n" in err
