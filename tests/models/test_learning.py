"""What a training starts from, without a training: how images are shown, and what is told of models that do not learn.

Trainings of each family: ``tests/jobs/train/test_job.py``.
"""

from typing import Any

import pytest

from segjobs.config import TrainModelConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard, make_categories
from segjobs.models.hf_files import OWN_RESIZE
from segjobs.models.learning import shown_by, task_to_learn


@pytest.mark.parametrize(
    ("preprocessing", "rule"),
    [
        ({}, "native"),
        ({"resize": "short:520"}, "short:520"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 512, "width": 640}}}, "512x640"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"shortest_edge": 800, "longest_edge": 1333}}}, "short:800"),
        ({"resize": OWN_RESIZE, "processor": {"size": 224}}, "224x224"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 512, "width": 512}, "do_resize": False}}, "native"),
        ({"resize": OWN_RESIZE, "processor": {}}, "native"),
        ({"resize": OWN_RESIZE, "processor": {"size": {"height": 10**9, "width": 1}}}, "native"),
    ],
)
def test_images_are_shown_as_they_will_be_in_use(preprocessing: dict[str, Any], rule: str) -> None:
    assert shown_by(ModelCard("m", "semantic", make_categories(["a", "b"]), "", "", {}, preprocessing)) == rule


def test_the_task_is_the_models_own_or_for_a_factory_the_datas() -> None:
    def task(name: str, of_data: Any) -> str:
        return task_to_learn(TrainModelConfig(name=name), of_data)

    assert task("maskrcnn_resnet50_fpn", "semantic") == "instance"
    assert (task("hf", "instance"), task("smp", "panoptic")) == ("semantic", "semantic")
    assert [task("a.b:c", of_data) for of_data in ("semantic", "instance", "panoptic")] == [
        *("semantic", "instance", "semantic")
    ]
    with pytest.raises(ConfigError, match=r"'onnx': an exported network does not learn"):
        task("onnx", "semantic")
    with pytest.raises(ConfigError, match=r"'unett' is no model; did you mean 'unet'"):
        task("unett", "semantic")
