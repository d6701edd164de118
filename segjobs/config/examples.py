"""The commented YAML file of each verb, worked examples, and onnx, a model.json: by name in, text out.

They lie in ``conf/`` of a checkout, and in the package where it is installed (see pyproject.toml).
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def example_names() -> list[str]:
    """The files without their suffix: ``label``, ``onnx``, ``train``, ``train_camvid``, …"""
    return sorted(_files())


def example(name: str) -> str:
    """The text of ``conf/NAME.yaml``, or ``.json``."""
    return _files()[name].read_text("utf-8")


def _files() -> dict[str, Traversable]:
    return {
        name: file
        for file in _folder().iterdir()
        for name, dot, suffix in [file.name.rpartition(".")]
        if dot and suffix in ("yaml", "json")
    }


def _folder() -> Traversable:
    installed = files("segjobs") / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "conf"
