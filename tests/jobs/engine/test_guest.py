"""A job in somebody's process: what there is before and after it."""

import logging
import os
import warnings
from pathlib import Path

import pytest

from segjobs.config import LabelConfig
from segjobs.jobs import ENVIRONMENT, set_environment
from segjobs.jobs.engine.guest import as_guest
from segjobs.jobs.engine.ray_data import settle
from segjobs.sources.synthetic import write_photos
from tests.in_process import label_in_process
from tests.process_state import process


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's process: with settings of its own, and without those of the jobs."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("segjobs.jobs.engine.guest.ABSENT", ENVIRONMENT.keys() - {"RAY_COLOR_PREFIX"})
    monkeypatch.setenv("RAY_COLOR_PREFIX", "7")


def test_what_a_job_sets_ends_with_it(untouched: None) -> None:
    logger = logging.getLogger("segjobs-test")
    before = process()
    with pytest.raises(ZeroDivisionError), as_guest():
        settle()
        assert os.environ["RAY_COLOR_PREFIX"] == "7" and os.environ.keys() >= ENVIRONMENT.keys()
        os.environ |= {"RAY_OF_THE_JOB": "1", "PYTHONBREAKPOINT": "ray.util", "OF_ANOTHER_THREAD": "1"}
        os.environ["RAY_COLOR_PREFIX"] = "8"
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        logger.addHandler(logging.NullHandler())
        warnings.filterwarnings("ignore", "The minimum number", UserWarning)
        assert 1 / 0
    assert os.environ.pop("OF_ANOTHER_THREAD") == "1"
    assert process() == before


def test_a_job_leaves_the_process_as_it_found_it(untouched: None, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", count=2, seed=0, sizes_hw=((8, 9),))
    places = {"input": {"uri": str(tmp_path / "photos")}, "output": {"uri": str(tmp_path / "run")}}
    config = LabelConfig.model_validate({**places, "model": {"name": "tests.toy_model:build"}})
    before = process()
    with as_guest():
        assert label_in_process(config).images == 2
    assert process() == before


def test_ray_is_started_with_the_environment_of_the_jobs(untouched: None) -> None:
    set_environment()
    assert os.environ.items() >= (ENVIRONMENT | {"RAY_COLOR_PREFIX": "7"}).items()
