"""uv run python -m tests.torture.huge --side 20000 --folder /tmp/huge

A scene of SIDE x SIDE pixels with exact truth is drawn and goes through prepare, label (in tiles), evaluate and report,
each by its command. Prints seconds, and the peak memory of the driver and of the largest worker, of each in MiB, and
the score; exit status 1 where a pixel is wrong. What a command has finished is kept: by --model=NAME alone, the label
command of another network (of random weights, 21 classes, at its tiles' own size) is measured.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests import huge_scene

_MIB = 2**20
EXACT = "tests.toy_model:nearest"


def peaks(command: list[str]) -> dict[str, int]:
    """Run a command of segjobs to its end: its seconds, and peak memory in MiB. Raises CalledProcessError."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "segjobs", *command])
    own: dict[int, int] = {}
    while process.poll() is None:
        for one in _family(process.pid):
            own[one.pid] = max(own.get(one.pid, 0), _peak(one))
        time.sleep(0.2)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    driver = own.pop(process.pid, 0)
    workers = max(own.values(), default=0)
    return {"seconds": round(time.monotonic() - started), "driver": driver // _MIB, "worker": workers // _MIB}


def _family(pid: int) -> list[psutil.Process]:
    try:
        driver = psutil.Process(pid)
        return [driver, *(one for one in driver.children(recursive=True) if one.name().startswith("ray::"))]
    except psutil.Error:
        return []


def _peak(process: psutil.Process) -> int:
    """The most bytes that the process has held so far, of files and of Ray's store those that it has looked at."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def measured(folder: Path, side: int, model: str) -> dict[str, dict[str, int] | float]:
    """Each command's figures, and the mean IoU of the exact network."""
    if not (folder / "images").exists():
        huge_scene.draw(folder, (side, side))
    images, tiles = f"input.uri={folder / 'images'}", "tiles.size=1024"
    if model != EXACT:
        others = ["model.weights=none", "model.resize=native", f"output.uri={folder / model}"]
        return {"label": peaks(["label", images, f"model.name={model}", *others, tiles, "compute.actors=1"])}
    tiled = [images, f"model.name={model}", tiles, "compute.actors=1"]
    truth, predictions, scores = (folder / name for name in ("truth", "predictions", "scores"))
    labels = [f"labels.uri={folder / 'labels'}", f"labels.categories=[{','.join(huge_scene.CLASSES)}]"]
    found: dict[str, dict[str, int] | float] = {
        "prepare": peaks(["prepare", images, *labels, "labels.format=png", f"output.uri={truth}"]),
        "label": peaks(["label", *tiled, f"output.uri={predictions}"]),
        "evaluate": peaks(["evaluate", f"predictions.uri={predictions}", f"truth.uri={truth}", f"output.uri={scores}"]),
        "report": peaks(["report", f"evaluation.uri={scores}", f"output.uri={scores}"]),
    }
    report = json.loads((scores / "report.json").read_text())
    found["mean_iou"] = report["semantic"]["headline"]["mean_iou"]["value"]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--model", default=EXACT)
    parser.add_argument("--folder", type=Path, required=True, help="scene, manifests, scores and page; kept")
    arguments = parser.parse_args()
    result = measured(arguments.folder, arguments.side, arguments.model)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(result.get("mean_iou", 1.0) != 1.0)
