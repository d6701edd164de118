"""The settings, arguments and variables that jobs give Ray: these fail where a release takes one away."""

import inspect
import mmap
import re
from dataclasses import fields
from pathlib import Path

import pytest

from segjobs import jobs

import ray  # isort: skip  # after segjobs.jobs, which sets its environment
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy  # isort: skip

VARIABLES = re.findall(r'"(RAY_\w+)"', Path(jobs.__file__).read_text())


@pytest.mark.parametrize(
    "name",
    [
        "custom_execution_callback_classes",
        "downstream_capacity_backpressure_ratio",
        "enable_progress_bars",
        "execution_no_progress_timeout_s",
        "execution_options",
        "max_consecutive_actor_init_deaths",
        "raise_original_map_exception",
        "target_max_block_size",
    ],
)
def test_a_setting_of_a_data_context_is_there(name: str) -> None:
    assert name in {field.name for field in fields(DataContext)} or isinstance(getattr(DataContext, name), property)


def test_settings_stand_in_one_file() -> None:
    package = Path(jobs.__file__).parent
    setting = re.compile(r"\bDataContext\b|\bExecutionOptions\b|\.context\.\w+ =|\.execution_options\b")
    assert [path.name for path in package.rglob("*.py") if setting.search(path.read_text())] == ["ray_data.py"]


def test_calls_take_what_they_are_given() -> None:
    pool = {"min_size", "max_size", "max_tasks_in_flight_per_actor", "max_concurrent_calls_per_actor"}
    assert {*pool, "enable_true_multi_threading"} <= inspect.signature(ActorPoolStrategy).parameters.keys()
    assert "size" in inspect.signature(TaskPoolStrategy).parameters
    assert {"batch_size", "batch_format", "prefetch_batches"} <= inspect.signature(
        Dataset.iter_batches
    ).parameters.keys()
    assert "blocks" in inspect.signature(ray.data.from_blocks).parameters


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_read_somewhere_in_ray(name: str) -> None:
    """By its Python, or, without its prefix, by its C++."""
    folder = Path(ray.__file__).parent
    binaries = [folder / "_raylet.so", folder / "core/src/ray/raylet/raylet"]
    found = any(name in path.read_text() for path in _sources(folder))
    assert found or any(_holds(path, name.removeprefix("RAY_")) for path in binaries)


_read: list[Path] = []


def _sources(folder: Path) -> list[Path]:
    """Where Ray's Python reads its environment."""
    if not _read:
        below = ["_private", "data/_internal", "data/context.py", "train", "autoscaler", "__init__.py", "job_config.py"]
        for name in below:
            place = folder / name
            _read.extend([place] if place.is_file() else place.rglob("*.py"))
    return _read


def _holds(path: Path, text: str) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0
