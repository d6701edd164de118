"""A driver stopped or killed in mid-run, and the same command again: nothing lost, nothing twice, not a byte else.

What dies between any two steps of a run: ``tests/jobs/engine/test_crash_points.py``.
"""

import json
import shlex
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segjobs.config import LabelConfig, load_config
from segjobs.errors import ExitCode
from tests.flow_process import REPOSITORY, flow, run_flow
from tests.in_process import label_in_process

# Each starts several processes: minutes on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

IMAGES, SHARD = 120, 2


def parts_of(output: Path) -> dict[str, bytes]:
    """The published parts, by name; half-written files are not among them."""
    return {path.name: path.read_bytes() for path in sorted((output / "parts").glob("part-*.parquet"))}


def predicted(log: Path) -> list[int]:
    """Numbers of the images that the model has seen."""
    return sorted(int(line) for path in log.iterdir() for line in path.read_text().split())


def test_a_driver_stopped_and_killed_in_mid_run_ends_as_an_undisturbed_run(
    ray_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(IMAGES):
        image = np.random.default_rng(number).integers(0, 256, (9, 11, 3), np.uint8)
        image[0, 0, 2] = number
        Image.fromarray(image).save(tmp_path / "in" / f"{number:03d}.png")

    def command(output: Path) -> list[str]:
        settings = [f"shard.images={SHARD}", "compute.actors=1", "compute.batch_size=2"]
        return [f"input.uri={tmp_path}/in", f"output.uri={output}", "model.name=tests.toy_model:build", *settings]

    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    monkeypatch.setenv("TOY_LOG", str(log))
    label_in_process(load_config(LabelConfig, None, command(tmp_path / "whole")))
    assert predicted(log) == list(range(IMAGES))

    # Each publishes two parts more, and some in flight; the rest is far more than that. SIGTERM meets a cluster, which
    # goes on, SIGKILL a Ray of the driver's own, which must end with it.
    for sent, environment in ((signal.SIGTERM, ray_environment), (signal.SIGKILL, {})):
        before = len(parts_of(out))
        with flow("label", *command(out), TOY_LOG=str(log), TOY_SLEEP_S="0.7", **environment) as running:
            running.wait_until(lambda before=before: len(parts_of(out)) >= before + 2)
            running.process.send_signal(sent)
            code, stdout, err = running.wait()
            assert running.left_alive() == [], "Ray's processes end with their driver"
        assert before + 2 <= len(parts_of(out)) < IMAGES // SHARD, "it was in mid-run"
        assert not (out / "run.json").exists()
        assert "Traceback" not in err
        if sent == signal.SIGKILL:
            assert code == -sent
            continue
        assert (code, stdout) == (ExitCode.STOPPED, "")
        *_, what, again = err.splitlines()
        assert what == "stopped by a signal; what is published stays, and the same command continues:"
        assert shlex.split(again)[1:] == [str(REPOSITORY / "flows" / "label.py"), *command(out)]
        assert "stopping: shards that are begun have 20 s to end" in err

    standing = parts_of(out)
    for file in log.iterdir():
        file.unlink()
    code, stdout, err = run_flow("label", *command(out), TOY_LOG=str(log), **ray_environment)
    assert code == 0, err
    assert json.loads(stdout)["already_done"] == SHARD * len(standing)
    assert f"{SHARD * len(standing)} of them were done by an earlier attempt" in err
    done = {n for name in standing for n in _numbers(name)}
    assert predicted(log) == [n for n in range(IMAGES) if n not in done]

    assert parts_of(out) == parts_of(tmp_path / "whole")
    one, two = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "whole", out))
    for key in ("parts", "counts", "failures", "examples", "run_id", "identity", "footer"):
        assert one[key] == two[key]
    rows = pq.read_table(out / "parts")["image_id"].to_pylist()
    assert sorted(rows) == [f"{n:03d}.png" for n in range(IMAGES)]


def _numbers(part: str) -> range:
    """Which images a part holds: shards are consecutive."""
    start = SHARD * int(part.removeprefix("part-").removesuffix(".parquet"))
    return range(start, start + SHARD)


def test_two_runs_at_once_share_the_work_and_end_with_one_manifest(
    ray_environment: dict[str, str], tmp_path: Path
) -> None:
    images = 24
    (tmp_path / "in").mkdir()
    for number in range(images):
        Image.fromarray(np.full((5, 6, 3), number, np.uint8)).save(tmp_path / "in" / f"{number:02d}.png")
    command = [f"input.uri={tmp_path}/in", f"output.uri={tmp_path}/out", "model.name=tests.toy_model:build"]
    command += [f"shard.images={SHARD}", "compute.actors=1"]
    environment = {**ray_environment, "TOY_SLEEP_S": "0.5"}
    with flow("label", *command, **environment) as one, flow("label", *command, **environment) as two:
        (code, out, err), (other_code, other_out, other_err) = one.wait(), two.wait()
    assert (code, other_code) == (0, 0), err + other_err
    assert [json.loads(text)["ok"] for text in (out, other_out)] == [images, images]
    said = ("another run of the same job", "nothing to do: run ")
    assert any(line in err + other_err for line in said)
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["counts"] == {"images": images, "ok": images, "failed": 0, "segments": images}
    assert sorted(part["name"] for part in info["parts"]) == sorted(parts_of(tmp_path / "out"))
    assert pq.read_table(tmp_path / "out" / "parts").num_rows == images
