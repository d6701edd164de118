"""Who has a batch's masks by runs, and for which post-processing; that they are the same is each kind's own test."""

import numpy as np
import pytest
import torch

from segjobs.config import ModelConfig, PostprocessConfig
from segjobs.errors import ItemError
from segjobs.models.base import ObjectRuns, Segmenter, with_attributes
from segjobs.models.by_runs import by_runs
from segjobs.models.postprocess import to_segments
from segjobs.models.registry import build
from segjobs.storage import Storage


def model_of(name: str) -> Segmenter:
    config = ModelConfig(name=name, weights="none", categories=["cat", "dog"], resize="32x32")
    return build(config, Storage(), device="cpu")


@pytest.fixture(scope="module")
def objects() -> Segmenter:
    return model_of("maskrcnn_resnet50_fpn")


@pytest.fixture(scope="module")
def maps() -> Segmenter:
    return model_of("lraspp_mobilenet_v3_large")


def test_what_looks_at_pixels_has_no_runs(objects: Segmenter, maps: Segmenter) -> None:
    for config, of_objects, of_maps in (
        (PostprocessConfig(), True, True),
        (PostprocessConfig(fill_holes=True), False, True),
        (PostprocessConfig(min_area_px=9), True, False),
        (PostprocessConfig(mask_threshold=0.3), True, False),
        (PostprocessConfig(min_confidence=0.5), True, False),
    ):
        assert (by_runs(objects, config) is not None) == of_objects, config
        assert (by_runs(maps, config) is not None) == of_maps, config


def test_a_postprocess_of_one_s_own_goes_before(objects: Segmenter, maps: Segmenter) -> None:
    for model in (objects, maps):
        assert by_runs(with_attributes(model, postprocess=model.postprocess), PostprocessConfig()) is None


def test_label_maps_of_a_batch(maps: Segmenter) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn(2, 4, 4, generator=generator) * 5 for _ in range(3)]
    outputs[1][0, 0, 0] = torch.nan
    encode = by_runs(maps, PostprocessConfig())
    assert encode is not None
    first, failed, last = encode(outputs, [(20, 30)] * 3)
    assert isinstance(failed, ItemError) and failed.code == "NON_FINITE"
    for found, output in ((first, outputs[0]), (last, outputs[2])):
        assert not isinstance(found, ItemError)
        expected = to_segments(maps.postprocess(output, (20, 30)), maps.card.categories, PostprocessConfig())
        assert [one.counts for one in found[0]] == [one.counts for one in expected[0]]


@pytest.mark.parametrize(
    ("starts", "ends", "fault"),
    [([3, 9], [5, 700], "not inside"), ([9, 3], [11, 5], "not in order"), ([3, 5], [5, 8], "not in order")],
)
def test_runs_that_can_be_no_mask_are_refused(
    objects: Segmenter, monkeypatch: pytest.MonkeyPatch, starts: list[int], ends: list[int], fault: str
) -> None:
    """Behind the image, backwards, touching."""
    runs = ObjectRuns(
        (20, 30),
        np.array([1]),
        np.array([0.5], np.float32),
        np.zeros((1, 4), np.float32),
        np.array(starts),
        np.array(ends),
        np.array([0, 2]),
    )
    monkeypatch.setattr(type(objects), "object_runs", lambda self, outputs, sizes_hw, config: [runs])
    encode = by_runs(objects, PostprocessConfig())
    assert encode is not None
    with pytest.raises(ItemError, match=fault) as caught:
        encode([None], [(20, 30)])
    assert caught.value.code == "MODEL_ERROR"
