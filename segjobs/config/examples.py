"""The commented YAML file of each verb, and worked examples: by name in, text out.

They lie in ``conf/`` of a checkout, and in the package where it is installed (see pyproject.toml).
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def example_names() -> list[str]:
    """The files without their suffix: ``label``, ``train``, ``train_camvid``, …"""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def example(name: str) -> str:
    """The text of ``conf/NAME.yaml``."""
    return (_folder() / f"{name}.yaml").read_text("utf-8")


def _folder() -> Traversable:
    installed = files("segjobs") / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "conf"
