"""``model.runtime``: other ways to compute a network of the table than torch's own; a model's card in, a Segmenter out.

    weights ─→ network of torch ─→ net.onnx, once per node and digest ─→ ONNX Runtime, OpenVINO   ``exported.py``
    (child process, export_network.py)  └→ label maps of the first batch ─→ the same? else the job stops

An actor of an exported network imports neither torch nor torchvision: what needs them is done by a child process,
whose work lies in the node's cache (``$SEGJOBS_CACHE``) for all that come after.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from os import environ, pathsep
from pathlib import Path
from typing import Any

import numpy as np

from segjobs.config import LabellingModelConfig, ModelConfig, NetworkConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard
from segjobs.models.exported import ExportedSegmenter, Network
from segjobs.models.factories import own_words
from segjobs.models.table import FROM_WEIGHTS, get_spec
from segjobs.models.weights import cached, digest_of
from segjobs.storage import Storage

MOST_OTHER = {"fp32": 0.001, "bf16": 0.05}
"""Share of a batch's pixels whose label may be another one than torch's, by precision. Measured (flows/README.md): at
most 0.0001 in fp32; in bf16, whose numbers have 8 bits, 0.02 of a trained network's, more of random weights."""
_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_EXPORT = "1"  # what export_network.py makes; another number makes it anew
_DIGEST = "net.sha256"  # beside net.onnx, whose bytes it is of
_SHOWN = 300


def check_runtime(config: NetworkConfig) -> None:
    """Raise ConfigError where the model cannot be computed as ``model.runtime`` says, before anything is fetched."""
    if not isinstance(config, ModelConfig):  # what is trained has no runtime
        return
    members = config.members if isinstance(config, LabellingModelConfig) else ()
    other = next((one.runtime for one in (config, *members) if one.runtime != "torch"), None)
    if other is None:
        return
    key = f"model.runtime={other}"
    if members or config.views:
        what = "the models of an ensemble" if members else "the views of model.tta"
        raise ConfigError(f"{key}: {what} are averaged by torch, as torch computes them; drop model.runtime")
    if ":" in config.name or config.name in FROM_WEIGHTS:
        raise ConfigError(
            f"{key}: {config.name} brings a network of its own, and those of the table in flows/README.md alone are "
            "exported or compiled; drop model.runtime"
        )
    if get_spec(config.name).task != "semantic":
        raise ConfigError(
            f"{key}: {config.name} gives instances, and semantic models alone are exported or compiled; drop "
            "model.runtime"
        )
    if config.is_exported and importlib.util.find_spec(config.runtime) is None:
        raise ConfigError(f"{key}: it is not installed: pip install 'segjobs[{_EXTRAS[config.runtime]}]' on every node")


@dataclass(frozen=True)
class Exporting:
    """A network and where it computes. ``card``: of the model, as the driver resolved it."""

    config: ModelConfig
    card: ModelCard
    storage: Storage
    threads: int

    def segmenter(self) -> ExportedSegmenter:
        """With the network of the cache, exported first where it is not there. Raises ConfigError or WeightsError."""
        path = cached(f"exported {_EXPORT} {self.card.digest}", "net.onnx", self._export, whole=_is_whole)
        try:
            network = self._network(path)
        except Exception as error:  # a runtime raises anything
            raise ConfigError(
                f"model.runtime={self.config.runtime}: {self.card.label} cannot be loaded: {own_words(error)}; take "
                "model.runtime=torch"
            ) from error
        spec = get_spec(self.card.name)
        return ExportedSegmenter(network, self.card, divisor=spec.divisor, least=spec.least, check=self._check_once)

    def _network(self, path: Path) -> Network:
        if self.config.runtime == "onnxruntime":
            from segjobs.models.runtime_onnx import OnnxNetwork

            return OnnxNetwork(path, threads=self.threads)
        from segjobs.models.runtime_openvino import OpenVinoNetwork

        return OpenVinoNetwork(path, threads=self.threads, precision=self.config.precision)

    def _export(self, path: Path) -> None:
        self._child({"export": str(path)})
        path.with_name(_DIGEST).write_text(digest_of(path), encoding="utf-8")

    def _check_once(self, pixels: np.ndarray, logits: np.ndarray) -> None:
        """Of this node's first batch. Raises ConfigError where too many labels are others than torch's."""
        runtime, precision = self.config.runtime, self.config.precision
        key = f"checked {_EXPORT} {self.card.digest} {runtime} {version(runtime)} {precision}"
        cached(key, "check.json", lambda path: self._check(path, pixels, logits))

    def _check(self, path: Path, pixels: np.ndarray, logits: np.ndarray) -> None:
        with tempfile.TemporaryDirectory(prefix="segjobs-") as folder:
            batch, answer = Path(folder, "batch.npz"), Path(folder, "answer.json")
            np.savez(batch, pixels=pixels, logits=logits)
            self._child({"compare": str(batch), "answer": str(answer)})
            found = json.loads(answer.read_text(encoding="utf-8"))
        most = MOST_OTHER[self.config.precision]
        if not found["other"] <= most:
            mend = "take model.precision=fp32" if self.config.precision != "fp32" else "take model.runtime=torch"
            raise ConfigError(
                f"model.runtime={self.config.runtime}: {self.card.label} gives {100 * found['other']:.2f}% of the "
                f"pixels of the first {len(pixels)} image(s) another class than torch does, expected at most "
                f"{100 * most:g}% in {self.config.precision}; {mend}"
            )
        path.write_text(json.dumps(found), encoding="utf-8")

    def _child(self, task: Mapping[str, str]) -> None:
        """A process that imports torch, so that this one need not. Raises its SegjobsError as a ConfigError."""
        request: dict[str, Any] = {
            **task,
            "model": self.config.model_dump(mode="json", include=set(NetworkConfig.model_fields)),
            "storage": self.storage.config.model_dump(mode="json"),
            "digest": self.card.digest,
        }
        done = subprocess.run(
            [sys.executable, "-m", "segjobs.models.export_network"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            env={**environ, "PYTHONPATH": pathsep.join(filter(None, sys.path))},
        )
        if done.returncode:
            words = (done.stderr.strip() or f"it ended with status {done.returncode}").splitlines()[-1]
            raise ConfigError(
                f"model.runtime={self.config.runtime}: {self.card.label} cannot be exported: {words[:_SHOWN]}; take "
                "model.runtime=torch"
            )


def _is_whole(path: Path) -> bool:
    """Whether an exported network has the bytes that were written: a disk that fails changes them."""
    try:
        return digest_of(path) == path.with_name(_DIGEST).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
