"""model.options: names, types and bounds; what each model's own say is in test_registry.py."""

import pytest

from segjobs.errors import ConfigError
from segjobs.models.options import check_options

KNOWN = {"width": 8, "threshold": 0.5, "task": "", "stuff": [], "learn": False}


def test_what_fits() -> None:
    check_options("tiny", KNOWN, {"width": 65536, "threshold": 0, "task": "panoptic", "stuff": ["sky"], "learn": True})


def test_every_problem_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        check_options("tiny", KNOWN, {"widht": 8, "width": 0, "learn": 1, "stuff": "sky"})
    assert caught.value.problems == (
        "model.options.widht: no option of tiny; known: width, threshold, task, stuff, learn",
        "model.options.width: 0: expected 1 to 65536, such as 8",
        "model.options.learn: 1: expected a bool, such as False",
        "model.options.stuff: 'sky': expected a list, such as []",
    )
