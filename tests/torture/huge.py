"""uv run python -m tests.torture.huge --side 20000 --folder /tmp/huge

A scene of SIDE x SIDE pixels with exact truth is drawn and goes through prepare, label (in tiles), evaluate and report,
each by its command. Prints seconds, and the peak memory of the driver and of the largest worker, of each in MiB, and
the score; exit status 1 where a pixel is wrong. What a command has finished is kept.

With --network=256x256 it is label alone, by a LR-ASPP of 21 classes, all of which its random weights find, that sees
each tile at so many pixels (or ``native``): small ones make the network quick, and leave all that could grow with the
scene as it is: windows, logits at the tile's own size that are blended, runs.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import segjobs
from tests import huge_scene

_MIB = 2**20
_CLASSES = 21
EXACT = "tests.toy_model:nearest"


def peaks(command: list[str]) -> dict[str, int]:
    """Run a command of segjobs to its end: its seconds, and peak memory in MiB. Raises CalledProcessError."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "segjobs", *command])
    own: dict[int, int] = {}
    while process.poll() is None:
        for one in _family(process.pid):
            own[one.pid] = max(own.get(one.pid, 0), _peak(one))
        time.sleep(1)  # a look at all processes is no small thing, and the system keeps their peaks
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


def measured(folder: Path, side: int) -> dict[str, dict[str, int] | float]:
    """Each command's figures, and the mean IoU of the exact network."""
    tiled = [*_input(folder, side), f"model.name={EXACT}"]
    truth, predictions, scores = (folder / name for name in ("truth", "predictions", "scores"))
    labels = [f"labels.uri={folder / 'labels'}", f"labels.categories=[{','.join(huge_scene.CLASSES)}]"]
    found: dict[str, dict[str, int] | float] = {
        "prepare": peaks(["prepare", tiled[0], *labels, "labels.format=png", f"output.uri={truth}"]),
        "label": peaks(["label", *tiled, f"output.uri={predictions}"]),
        "evaluate": peaks(["evaluate", f"predictions.uri={predictions}", f"truth.uri={truth}", f"output.uri={scores}"]),
        "report": peaks(["report", f"evaluation.uri={scores}", f"output.uri={scores}"]),
    }
    report = json.loads((scores / "report.json").read_text())
    found["mean_iou"] = report["semantic"]["headline"]["mean_iou"]["value"]
    return found


def measured_network(folder: Path, side: int, resize: str) -> dict[str, dict[str, int] | float]:
    """The figures of label by a LR-ASPP, and how many classes it found."""
    tiled, weights, labelled = _input(folder, side), folder / "spread.pth", folder / f"network_{resize}"
    if not weights.exists():
        torch.save(_spread_weights(), weights)
    classes = ",".join(f"class {number}" for number in range(_CLASSES))
    model = ["model.name=lraspp_mobilenet_v3_large", f"model.weights={weights}", f"model.categories=[{classes}]"]
    label = peaks(["label", *tiled, *model, f"model.resize={resize}", f"output.uri={labelled}"])
    (row,) = segjobs.open_manifest(labelled)
    return {"label": label, "classes": len(row.segments)}


def _input(folder: Path, side: int) -> list[str]:
    if not (folder / "images").exists():
        huge_scene.draw(folder, (side, side))
    return [f"input.uri={folder / 'images'}", "tiles.size=1024", "compute.actors=1"]


def _spread_weights() -> dict[str, torch.Tensor]:
    """Random ones, but that each class's logits have mean 0 and variance 1 over a part of a scene: all of them win."""
    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=_CLASSES).eval()
    side = np.arange(1024)
    pixels = torch.from_numpy(huge_scene.COLORS[huge_scene.truth_at(side, side, (2000, 2000))]).permute(2, 0, 1)
    heads = network.classifier.low_classifier, network.classifier.high_classifier
    with torch.no_grad():
        logits = network(pixels[None] / 255)["out"][0]
        mean, deviation = logits.mean(dim=(1, 2)), logits.std(dim=(1, 2))
        for head in heads:
            head.weight /= deviation[:, None, None, None]
            head.bias /= deviation
        heads[0].bias -= mean / deviation
    return network.state_dict()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--network", metavar="RESIZE", help="label alone, by a network whose tiles are so resized")
    parser.add_argument("--folder", type=Path, required=True, help="scene, manifests, scores and page; kept")
    arguments = parser.parse_args()
    if arguments.network:
        result = measured_network(arguments.folder, arguments.side, arguments.network)
    else:
        result = measured(arguments.folder, arguments.side)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(result.get("mean_iou", 1.0) != 1.0)
