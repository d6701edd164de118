"""The semantic loss: by hand on a few pixels, and against torch's and smp's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segjobs.config import LossConfig, ModelConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard, make_categories
from segjobs.models.base import VOID, LabelMap
from segjobs.models.losses import resolve_class_weights, semantic_loss
from segjobs.models.registry import build
from segjobs.models.semantic import SemanticSegmenter
from segjobs.storage import Storage

ALL = LossConfig(cross_entropy=1, dice=1, focal=1, label_smoothing=0.1)


def only(name, **settings):
    return LossConfig(**{"cross_entropy": 0, name: 1, **settings})


def drawn(seed=0, classes=4, size=(3, 5, 7), void=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], classes, *size[1:], generator=generator, requires_grad=True)
    truth = torch.randint(classes, size, generator=generator)
    return logits, truth.masked_fill(torch.rand(size, generator=generator) < void, VOID)


@pytest.fixture
def by_hand():
    """Four pixels in a row: p(class 1) is 1/4, 1/2, 4/5 and (unlabelled) 1/3."""
    odds = torch.tensor([1 / 3, 1.0, 4.0, 0.5]).log()
    logits = torch.stack([torch.zeros(4), odds])[None, :, None]
    return logits, torch.tensor([[[0, 0, 1, VOID]]])


def test_each_loss_by_hand(by_hand):
    logits, truth = by_hand
    p = np.array([0.75, 0.5, 0.8])  # of the right class
    assert semantic_loss(logits, truth, LossConfig()).item() == pytest.approx(-np.log(p).mean())
    assert semantic_loss(logits, truth, only("focal")).item() == pytest.approx((-((1 - p) ** 2) * np.log(p)).mean())
    assert semantic_loss(logits, truth, only("focal", focal_gamma=1)).item() == pytest.approx(
        (-(1 - p) * np.log(p)).mean()
    )
    # Class 0: 2·(0.75 + 0.5) / (0.75 + 0.5 + 0.2 + 2); class 1: 2·0.8 / (0.25 + 0.5 + 0.8 + 1).
    dice = 1 - (2.5 / 3.45 + 1.6 / 2.55) / 2
    assert semantic_loss(logits, truth, only("dice")).item() == pytest.approx(dice)
    weights = torch.tensor([3.0, 0.5])
    expected = -(3 * np.log(0.75) + 3 * np.log(0.5) + 0.5 * np.log(0.8)) / 3
    assert semantic_loss(logits, truth, LossConfig(), class_weights=weights).item() == pytest.approx(expected)
    mixed = LossConfig(cross_entropy=0.5, dice=2)
    assert semantic_loss(logits, truth, mixed).item() == pytest.approx(-0.5 * np.log(p).mean() + 2 * dice)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs(smoothing):
    logits, truth = drawn()
    expected = F.cross_entropy(logits, truth, ignore_index=VOID, label_smoothing=smoothing)
    torch.testing.assert_close(semantic_loss(logits, truth, LossConfig(label_smoothing=smoothing)), expected)


def test_dice_and_focal_of_the_labelled_pixels_alone():
    logits, truth = drawn()
    labelled = truth != VOID
    kept, known = logits.permute(0, 2, 3, 1)[labelled], truth[labelled]
    logged = kept.log_softmax(1)[range(len(known)), known]
    torch.testing.assert_close(
        semantic_loss(logits, truth, only("focal", focal_gamma=3)), (-((1 - logged.exp()) ** 3) * logged).mean()
    )
    p, hot = kept.softmax(1), F.one_hot(known, 4)
    dice = 2 * (p * hot).sum(0) / (p.sum(0) + hot.sum(0))
    torch.testing.assert_close(semantic_loss(logits, truth, only("dice")), 1 - dice.mean())


@pytest.mark.parametrize("config", [LossConfig(), only("dice"), only("focal"), ALL])
def test_void_carries_neither_loss_nor_gradient(config):
    logits, truth = drawn()
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    loss = semantic_loss(logits, truth, config, class_weights=weights)
    loss.backward()
    assert logits.grad is not None
    void = (truth == VOID)[:, None].expand_as(logits)
    assert (logits.grad[void] == 0).all()
    assert (logits.grad[~void] != 0).any()
    other = torch.where(void, 100 * torch.rand_like(logits), logits)
    torch.testing.assert_close(semantic_loss(other, truth, config, class_weights=weights), loss)
    logits.grad = None
    nothing = semantic_loss(logits, torch.full_like(truth, VOID), config)
    nothing.backward()
    assert nothing.item() == 0
    assert (logits.grad == 0).all()


def test_finite_where_the_network_is_quite_sure():
    logits = torch.tensor([[[[200.0, -200.0]], [[-200.0, 200.0]]]], requires_grad=True)
    semantic_loss(logits, torch.tensor([[[0, 0]]]), LossConfig(dice=1, focal=1, focal_gamma=1)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("seed", range(5))
def test_batches_weighed_by_their_labelled_pixels_are_one_large_batch(seed):
    logits, truth = drawn(seed)
    config = LossConfig(focal=2, label_smoothing=0.1)
    weights = torch.tensor([0.5, 3.0, 1.0, 7.0])
    counts = (truth != VOID).sum(dim=(1, 2))
    each = [semantic_loss(logits[n : n + 1], truth[n : n + 1], config, class_weights=weights) for n in range(3)]
    whole = semantic_loss(logits, truth, config, class_weights=weights)
    torch.testing.assert_close((torch.stack(each) * counts).sum() / counts.sum(), whole)


def test_class_weights():
    names = ["sky", "road", "pole", "cat"]
    assert resolve_class_weights(None, names, None) is None
    assert resolve_class_weights({"pole": 4, "sky": 0}, names, None) == [0.0, 1.0, 4.0, 1.0]
    balanced = resolve_class_weights("balanced", names, [60, 30, 10, 0])
    assert balanced == pytest.approx([100 / 180, 100 / 90, 100 / 30, 1])
    with pytest.raises(ConfigError, match=r"loss\.class_weights: 'pol' is no class; did you mean 'pole'"):
        resolve_class_weights({"pol": 4}, names, None)
    with pytest.raises(ConfigError, match="needs the number of pixels"):
        resolve_class_weights("balanced", names, None)


class TwoHeads(nn.Module):
    """Logits and auxiliary logits of half the size."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 2, stride=2)

    def forward(self, batch):
        return {"out": self.first(batch), "aux": self.second(batch)}


def two_heads(resize="native"):
    torch.manual_seed(0)
    preprocessing = {"resize": resize, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    card = ModelCard("two", "semantic", make_categories(["a", "b"]), "0", "none", preprocessing=preprocessing)
    segmenter = SemanticSegmenter(TwoHeads(), card, divisor=2)
    segmenter.module.train()
    return segmenter


def sample():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    ids = np.array([[0, 1, 0, 1, 0, 0]] * 4, np.uint16)
    ids[:, 4] = VOID
    return [image], [LabelMap(ids)]


def test_the_loss_that_a_segmenter_is_given():
    segmenter = two_heads()
    images, targets = sample()

    def at(**settings):
        segmenter.set_loss(LossConfig(**settings), [30, 10])
        return segmenter.loss(images, targets)

    with torch.no_grad():
        first, half, whole = at(auxiliary=0), at(), at(auxiliary=1)
        torch.testing.assert_close(half, (first + whole) / 2)
        scaled = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float().div(255).sub(0.5).div(0.2)
        truth = torch.from_numpy(targets[0].ids.astype(np.int64))[None]
        logits = segmenter.module(scaled)
        torch.testing.assert_close(first, F.cross_entropy(logits["out"], truth, ignore_index=VOID))
        wide = F.interpolate(logits["aux"], (4, 6), mode="bilinear")
        torch.testing.assert_close(whole - first, F.cross_entropy(wide, truth, ignore_index=VOID))
        weights = torch.tensor([40 / 60, 40 / 20])
        expected = F.cross_entropy(logits["out"], truth, weights, ignore_index=VOID, reduction="sum") / 20
        torch.testing.assert_close(at(auxiliary=0, class_weights="balanced"), expected)
    with pytest.raises(ConfigError, match="'c' is no class"):
        at(class_weights={"c": 1})


def test_training_does_not_resize():
    images, targets = sample()
    torch.testing.assert_close(two_heads("16x16").loss(images, targets), two_heads().loss(images, targets))


def test_mask_rcnn_resizes_in_use_only():
    config = ModelConfig(
        name="maskrcnn_resnet50_fpn",
        weights="none",
        options={"frozen_norm": False},
        resize="short:32",
        categories=["a"],
    )
    segmenter = build(config, Storage(), device="cpu")
    segmenter.set_loss(LossConfig(dice=1))  # it has losses of its own
    image = torch.rand(3, 64, 96)
    for training, size_hw in ((False, (32, 48)), (True, (64, 96))):
        segmenter.module.train(training)
        batch, _ = segmenter.module.transform([image], None)
        assert batch.image_sizes == [size_hw]
