"""Test-time augmentation and ensembles of semantic models, beside the plain mean of softmax by torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segjobs.config import LabellingModelConfig, View
from segjobs.errors import ConfigError, ItemError
from segjobs.manifest.schema import ModelCard, make_categories
from segjobs.models.averaging import AveragingSegmenter
from segjobs.models.base import LabelMap
from segjobs.models.batching import forward_in_halves
from segjobs.models.ensemble import ensemble_card, together, with_views
from segjobs.models.registry import build, resolve
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.uncertainty import of_logits
from segjobs.storage import Storage
from tests.tiny_hf import save_tiny

STORAGE = Storage()
NAMES = ["sky", "road", "car"]
PREPROCESSING = {"resize": "native", "mean": [0.0] * 3, "std": [1.0] * 3}


class Conv(nn.Module):
    """One convolution, whose logits are large enough to be sure here and there."""

    def __init__(self, seed: int, stride: int = 1, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Conv2d(3, classes, 3, padding=1, stride=stride)
        with torch.no_grad():
            self.layer.weight *= 6

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch)


def model(seed: int = 0, names: Sequence[str] = NAMES, **settings: Any) -> SemanticSegmenter:
    card = ModelCard(f"conv{seed}", "semantic", make_categories(names), f"{seed}" * 64, "none", {}, PREPROCESSING)
    return SemanticSegmenter(Conv(seed, **settings), card)


def several(*members: SemanticSegmenter, views: Sequence[View] = ()) -> AveragingSegmenter:
    cards = [with_views(one.card, views) for one in members]
    made = together([(one, views) for one in members], cards[0] if len(cards) == 1 else ensemble_card(cards))
    assert isinstance(made, AveragingSegmenter)
    return made


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def probabilities(segmenter: SemanticSegmenter, image: np.ndarray) -> torch.Tensor:
    """By torch alone: float32 (C, H, W)."""
    with torch.inference_mode():
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        return segmenter.module(pixels).softmax(1)[0]


def label_map(segmenter: Any, image: np.ndarray) -> LabelMap:
    (found,) = segmenter.predict([image])
    assert isinstance(found, LabelMap) and found.confidence is not None
    return found


def check_equal(found: LabelMap, mean: torch.Tensor) -> None:
    best, ids = mean.max(dim=0)
    assert (found.ids == ids.numpy()).mean() > 0.999
    np.testing.assert_allclose(found.confidence, best.numpy(), atol=1e-4)


def test_flips_are_the_mean_of_softmax_mirrored_back() -> None:
    one, image = model(), draw(37, 50)
    views = [View(hflip=True), View(vflip=True), View(hflip=True, vflip=True)]
    seen = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    mean = torch.stack(
        [
            probabilities(one, image[::down, ::across]).flip([axis for axis, by in ((1, down), (2, across)) if by < 0])
            for down, across in seen
        ]
    ).mean(0)
    check_equal(label_map(several(one, views=views), image), mean)
    assert (label_map(one, image).ids != mean.argmax(0).numpy()).mean() > 0.05  # it is another answer


def test_how_unsure_several_passes_are_is_of_their_mean() -> None:
    """Two models that are sure of different classes are unsure together."""
    image = draw(37, 50)
    alone = [model(seed) for seed in (0, 1)]
    for found, shares in (
        (several(*alone), [probabilities(one, image) for one in alone]),
        (
            several(alone[0], views=[View(hflip=True)]),
            [probabilities(alone[0], image), probabilities(alone[0], image[:, ::-1]).flip(2)],
        ),
    ):
        (output,) = found.forward([found.preprocess(image)])
        unsure = found.uncertainty(output, (37, 50))
        assert unsure == pytest.approx(of_logits(torch.stack(shares).mean(0).log()), abs=1e-4)
        assert unsure.margin < min(of_logits(one.log()).margin for one in shares)


def test_scales_meet_at_the_finest_grid() -> None:
    """Twice the size is the finer: its grid is the mean's, and the image's own pixels come from there."""
    one, image = model(), draw(40, 64)
    found = several(one, views=[View(2.0), View(0.5)])
    (output,) = found.forward([found.preprocess(image)])
    assert output.logits.shape == (3, 80, 128)
    shown = [one.scaled(factor).preprocess(image).permute(1, 2, 0).numpy() for factor in (1, 2.0, 0.5)]
    assert [one.shape[:2] for one in shown] == [(40, 64), (80, 128), (20, 32)]
    planes = [F.interpolate(probabilities(one, pixels)[None], (80, 128), mode="bilinear")[0] for pixels in shown]
    torch.testing.assert_close(output.logits.exp(), torch.stack(planes).mean(0), atol=1e-5, rtol=1e-4)
    assert label_map(found, image).ids.shape == (40, 64)


def test_members_count_alike_whatever_their_views_and_classes_meet_by_name() -> None:
    one, other, image = model(1), model(2, ["car", "Sky", "road"]), draw(33, 41)
    cards = [with_views(one.card, [View(hflip=True)]), other.card]
    made = together([(one, [View(hflip=True)]), (other, [])], ensemble_card(cards))
    assert [category.name for category in made.card.categories] == NAMES
    mirrored = probabilities(one, image[:, ::-1]).flip(2)
    expected = (probabilities(one, image) + mirrored) / 4 + probabilities(other, image)[[1, 2, 0]] / 2
    check_equal(label_map(made, image), expected)


def test_a_mean_of_those_that_agree_is_what_each_says() -> None:
    """At a stride of four too, where logits are interpolated on the way back and not probabilities."""
    for stride in (1, 4):
        one, image = model(3, stride=stride), draw(64, 48)
        alone, all_three = label_map(one, image), label_map(several(one, one, one), image)
        assert (alone.ids == all_three.ids).mean() > 0.999
        assert alone.confidence is not None and all_three.confidence is not None
        np.testing.assert_allclose(alone.confidence, all_three.confidence, atol=1e-4)


def test_members_of_other_strides_meet_at_the_finer() -> None:
    fine, coarse, image = model(4), model(5, stride=4), draw(32, 48)
    for members in ((fine, coarse), (coarse, fine)):
        made = several(*members)
        (output,) = made.forward([made.preprocess(image)])
        rest = F.interpolate(probabilities(coarse, image)[None], (32, 48), mode="bilinear")[0]
        torch.testing.assert_close(output.logits.exp(), (probabilities(fine, image) + rest) / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_pass_that_is_not_finite_fails_the_image(bad: float) -> None:
    one, spoilt = model(1), model(2)
    with torch.no_grad():
        spoilt.module.layer.bias[1] = bad
    made = several(one, spoilt)
    (output,) = made.forward([made.preprocess(draw(20, 20))])
    for way in (made.postprocess, made.logits):
        with pytest.raises(ItemError) as caught:
            way(output, (20, 20))
        assert caught.value.code == "NON_FINITE"


def test_a_model_of_the_users_that_refuses_an_image_fails_that_one_alone() -> None:
    class Picky(SemanticSegmenter):
        planes = None  # type: ignore[assignment]

        def logits(self, output: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
            if output.argmax(0).float().mean() > 1:
                raise ItemError("NON_FINITE", "picky saw NaN")
            return output

    card = model().card
    flat = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        flat.weight.zero_()[:, 0, 0, 0] = torch.tensor([0.0, 0.0, 9.0])
        flat.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    made = several(Picky(flat, card), model(1))
    dark, bright = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    outputs = made.forward([made.preprocess(image) for image in (dark, bright)])
    assert isinstance(made.postprocess(outputs[0], (8, 8)), LabelMap)
    with pytest.raises(ItemError, match="picky saw NaN"):
        made.postprocess(outputs[1], (8, 8))


def test_a_pass_lets_its_logits_go_before_the_next_begins() -> None:
    alive: WeakSet[torch.Tensor] = WeakSet()
    most: list[int] = []

    class Counted(SemanticSegmenter):
        def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            most.append(len(alive))
            outputs = super().forward(batch)
            for output in outputs:
                alive.add(output)
            return outputs

    made = several(Counted(Conv(0), model().card), views=[View(hflip=True), View(0.5), View(2.0)])
    made.forward([made.preprocess(draw(24, 24, seed)) for seed in range(3)])
    assert most == [0, 0, 0, 0]


def test_what_does_not_fit_is_halved_and_stays_the_same() -> None:
    class Small(SemanticSegmenter):
        def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            if sum(tensor[0].numel() for tensor in batch) > 2 * 48 * 48:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().forward(batch)

    views, images = [View(2.0)], [draw(24, 24, seed) for seed in range(5)]
    made = several(Small(Conv(0), model().card), views=views)
    outputs = forward_in_halves(made, [made.preprocess(image) for image in images])
    expected = several(model(), views=views)
    for output, image in zip(outputs, images, strict=True):
        found = made.postprocess(output, (24, 24))
        assert (found.ids == label_map(expected, image).ids).mean() > 0.999
    (alone,) = forward_in_halves(made, [made.preprocess(draw(60, 60))])
    assert isinstance(alone, ItemError) and alone.code == "GPU_OOM"
    assert "120x120 pixels do not fit" in alone.message


@pytest.mark.parametrize("size_hw", [(1, 1), (30_000, 10), (10, 30_000)])
def test_hostile_sizes(size_hw: tuple[int, int]) -> None:
    made = several(model(1, stride=4), model(2), views=[View(hflip=True), View(0.1)])
    assert label_map(made, draw(*size_hw)).ids.shape == size_hw


def test_semantic_queries_share_out_their_classes_probabilities(tmp_path: Path) -> None:
    """The mean over a model shown twice, mirrored, is mirrored as the image is."""
    folder = save_tiny(tmp_path, "mask2former")
    config = {"name": "hf", "weights": str(folder), "options": {"task": "semantic"}, "tta": ["hflip"]}
    made = build(LabellingModelConfig.model_validate(config), STORAGE, device="cpu")
    image = draw(50, 70)
    there, back = label_map(made, image), label_map(made, image[:, ::-1])
    assert (there.ids == back.ids[:, ::-1]).mean() > 0.999
    plain = build(LabellingModelConfig.model_validate({**config, "tta": []}), STORAGE, device="cpu")
    one, other = label_map(plain, image), label_map(plain, image[:, ::-1])
    assert (one.ids == other.ids[:, ::-1]).mean() < 0.99


def factory(**options: Any) -> Any:
    from tests.toy_model import build as toy

    return toy()


def instances(**options: Any) -> Any:
    from tests.toy_model import blobs

    return blobs()


def logits_alone(**options: Any) -> Any:
    from tests.toy_model import field5

    return field5(3)


@pytest.mark.parametrize(
    ("name", "tta", "said"),
    [
        ("factory", ["hflip"], "gives label maps alone, without probabilities to average: give it a method logits"),
        ("logits_alone", ["scale:2"], "resizes images by itself, and has no method scaled"),
        ("instances", ["hflip", "scale:2"], "resizes images by itself, and has no method scaled"),
    ],
)
def test_of_a_model_of_the_users_that_cannot_it_is_said_before_any_work(name: str, tta: list[str], said: str) -> None:
    config = LabellingModelConfig.model_validate({"name": f"{__name__}:{name}", "tta": tta})
    with pytest.raises(ConfigError) as caught:
        resolve(config, STORAGE)
    assert said in str(caught.value)


def test_networks_of_one_size_are_shown_no_other(tmp_path: Path) -> None:
    from tests.tiny_onnx import save_onnx

    fixed = save_onnx(tmp_path, shape=("n", 3, 64, 64), resize="64x64")
    config = {"name": "onnx", "weights": str(fixed), "tta": ["hflip"]}
    build(LabellingModelConfig.model_validate(config), STORAGE, device="cpu")
    with pytest.raises(ConfigError, match="one size alone"):
        build(LabellingModelConfig.model_validate({**config, "tta": ["scale:2"]}), STORAGE, device="cpu")
    eomt = {"name": "hf", "weights": str(save_tiny(tmp_path, "eomt")), "options": {"task": "instance"}}
    with pytest.raises(ConfigError, match="a network of eomt sees images of one size alone"):
        resolve(LabellingModelConfig.model_validate({**eomt, "tta": ["scale:2"]}), STORAGE)
