"""uv run python -m tests.torture.parity --images PHOTOS --folder /tmp/parity [NETWORK …]

What another runtime makes of photographs, held against torch: each network of the table that is exported, with random
weights or with those of a model directory (--weights), by each runtime. Each figure is a line of JSON.

    a network ─→ its ONNX, once ─→ runtimes ─┬→ label maps of every photograph, of its size: the share that is torch's
                                             └→ CPU seconds of bare forwards by turns: their ratio to torch's

Random weights are made to say something: batch norms have the statistics of photographs, and no class is ahead of the
others at the start. Still their classes lie closer together than those of any network that has learnt something.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segjobs.config import ModelConfig
from segjobs.models.base import LabelMap
from segjobs.models.export_network import export
from segjobs.models.exported import ExportedSegmenter, Network
from segjobs.models.registry import build
from segjobs.models.runtime_onnx import OnnxNetwork
from segjobs.models.runtime_openvino import OpenVinoNetwork
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.table import get_spec
from segjobs.sources.decode import decode_image
from segjobs.storage import Storage

NETWORKS: dict[str, dict[str, object]] = {
    "lraspp_mobilenet_v3_large": {},
    "deeplabv3_mobilenet_v3_large": {},
    "deeplabv3_resnet50": {},
    "fcn_resnet50": {},
    "fcn8s_vgg16": {"hidden": 256},
    "unet": {"encoder": "resnet18"},
    "unetplusplus": {"encoder": "resnet18"},
    "deeplabv3plus": {"encoder": "resnet18"},
}
RUNTIMES: dict[str, Callable[[Path, int], Network]] = {
    "onnxruntime": lambda path, threads: OnnxNetwork(path, threads=threads),
    "openvino": lambda path, threads: OpenVinoNetwork(path, threads=threads, precision="fp32"),
    "openvino bf16": lambda path, threads: OpenVinoNetwork(path, threads=threads, precision="bf16"),
}
BATCH, SIDE = 4, 256


def network(name: str, weights: str, photos: Sequence[np.ndarray], side: int = SIDE) -> SemanticSegmenter:
    """By torch; random weights made to say something."""
    options = NETWORKS[name] if weights == "none" else {}
    config = ModelConfig(name=name, weights=weights, options=options, resize=f"short:{side}")
    segmenter = build(config, Storage(), device="cpu", threads=1)
    assert isinstance(segmenter, SemanticSegmenter)
    if weights == "none":
        spread(segmenter, photos)
    return segmenter


@torch.no_grad()
def spread(segmenter: SemanticSegmenter, photos: Sequence[np.ndarray]) -> None:
    """Random weights → such as tell ``photos``, uint8 (H, W, 3) each, apart: see the module."""
    norms = [one for one in segmenter.module.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that it is shown
        norm.train()
    tensors = [segmenter.preprocess(photo) for photo in photos]
    for tensor in tensors:
        segmenter.forward([tensor, tensor.flip(2)])  # torchvision's pooled branch has a norm of one pixel an image
    segmenter.module.eval()
    means = torch.stack([segmenter.forward([tensor])[0].mean((1, 2)) for tensor in tensors]).mean(0)
    classes = len(segmenter.card.categories)
    heads = [one for one in segmenter.module.modules() if getattr(one, "out_channels", None) == classes]
    biases = [head.bias for head in heads if isinstance(head, nn.Conv2d) and head.bias is not None]
    biases[0] -= means


def parity(name: str, weights: str, photos: Sequence[np.ndarray], folder: Path, *, side: int = SIDE) -> None:
    """Shares of each photograph's pixels that have torch's class."""
    theirs = network(name, weights, photos[:8], side)
    expected = [_labels(theirs.predict([photo])) for photo in photos]
    path = folder / f"{name}.onnx"
    export(theirs, path)
    for runtime, opened in RUNTIMES.items():
        ours = _segmenter(opened(path, 1), theirs)
        same = [float((_labels(ours.predict([p])) == ids).mean()) for p, ids in zip(photos, expected, strict=True)]
        _tell(
            "parity",
            network=name,
            weights=weights,
            runtime=runtime,
            images=len(photos),
            side=side,
            classes=statistics.median(len(np.unique(ids)) for ids in expected),
            worst=round(min(same), 6),
            mean=round(statistics.fmean(same), 6),
            below_999=sum(one < 0.999 for one in same),
        )


def speed(name: str, photos: Sequence[np.ndarray], folder: Path, *, rounds: int = 7) -> None:
    """CPU seconds of torch's bare forward (channels_last) ÷ each runtime's, one thread, by turns: medians of rounds."""
    theirs = network(name, "none", photos[:8])
    path = folder / f"{name}.onnx"
    export(theirs, path)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    tensors = [torch.from_numpy(one).permute(2, 0, 1) for one in pixels]
    ways: dict[str, Callable[[], object]] = {"torch": partial(theirs.forward, tensors)}
    ways |= {runtime: partial(opened(path, 1), pixels) for runtime, opened in RUNTIMES.items()}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + rounds):
        for way, compute in ways.items():
            start = time.process_time()
            compute()
            spent[way].append((time.process_time() - start) / BATCH)
    measured = {way: times[1:] for way, times in spent.items()}  # the first round sets up
    for way, times in measured.items():
        ratios = sorted(torch_s / s for torch_s, s in zip(measured["torch"], times, strict=True))
        _tell(
            "forward",
            network=name,
            runtime=way,
            cpu_ms=round(1000 * statistics.median(times), 2),
            ratio=round(statistics.median(ratios), 2),
            least=round(ratios[0], 2),
            most=round(ratios[-1], 2),
            load=round(os.getloadavg()[0], 1),
        )


def _segmenter(computes: Network, theirs: SemanticSegmenter) -> ExportedSegmenter:
    spec = get_spec(theirs.card.name)
    return ExportedSegmenter(computes, theirs.card, divisor=spec.divisor, least=spec.least)


def _labels(predictions: Sequence[object]) -> np.ndarray:
    (found,) = predictions
    assert isinstance(found, LabelMap)
    return found.ids


def _tell(figure: str, **about: object) -> None:
    sys.stdout.write(json.dumps({"figure": figure, **about}) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"by default {', '.join(NETWORKS)}")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--side", type=int, default=SIDE, help="the shorter one that networks see, for parity")
    parser.add_argument("--rounds", type=int, default=7, help="of forwards by turns")
    parser.add_argument("--weights", default="none", help="a model directory of the one network that is named")
    parser.add_argument("--figures", nargs="+", choices=["parity", "speed"], default=["parity", "speed"])
    parser.add_argument("--folder", type=Path, required=True, help="where the exported networks go")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    files = sorted(given.images.glob("*.jpg"))[: given.count]
    photos = [decode_image(path.read_bytes(), max_pixels=10**8) for path in files]
    torch.set_num_threads(1)
    for name in given.networks or NETWORKS:
        if "parity" in given.figures:
            parity(name, given.weights, photos, given.folder, side=given.side)
        if "speed" in given.figures:
            speed(name, photos, given.folder, rounds=given.rounds)


if __name__ == "__main__":
    main()
