"""Weights that do not fit wholly: what is loaded, what is not, and how it is said."""

import pytest
import torch
from torch import nn

from segjobs.config import ModelConfig
from segjobs.errors import WeightsError
from segjobs.models.registry import build
from segjobs.models.transfer import load_matching
from segjobs.storage import Storage


def network(classes, seed, *, hidden=4):
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(3, hidden, 3),
        nn.BatchNorm2d(hidden),
        nn.Conv2d(hidden, hidden, 1),
        nn.Conv2d(hidden, classes, 1),
    ]
    return nn.Sequential(*layers)


def test_a_head_of_other_classes_stays_random():
    module, other = network(5, 0), network(3, 1)
    head = {key: value.clone() for key, value in module.state_dict().items() if key.startswith("3.")}
    weights = {**other.state_dict(), "aux.weight": torch.zeros(2)}
    weights["1.num_batches_tracked"] = torch.tensor(7)
    transfer = load_matching(module, weights)
    assert transfer.loaded == (
        *("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"),
    )
    assert transfer.skipped == {"3.weight": "3 → 5 channels", "3.bias": "3 → 5 channels"}
    assert transfer.unused == ("aux.weight",)
    assert str(transfer) == (
        "loaded 8 of 10 tensors; new: 3.weight (3 → 5 channels), 3.bias (3 → 5 channels); not used: aux.weight"
    )
    state = module.state_dict()
    assert all(torch.equal(state[key], weights[key]) for key in transfer.loaded)
    assert all(torch.equal(state[key], value) for key, value in head.items())
    assert state["1.num_batches_tracked"] == 7


def test_a_head_that_fits_by_chance():
    module, other = network(3, 0), network(3, 1)
    kept = module[3].weight.detach().clone()
    transfer = load_matching(module, other.state_dict(), left_out={"3.weight": "other classes", "3.bias": "no bias"})
    assert transfer.skipped == {"3.weight": "other classes", "3.bias": "no bias"}
    assert torch.equal(module[3].weight, kept)
    assert str(load_matching(module, other.state_dict())) == "loaded 10 of 10 tensors"
    transfer = load_matching(module, {**other.state_dict(), "2.weight": torch.zeros(4, 4, 3, 3)})
    assert transfer.skipped == {"2.weight": "(4, 4, 3, 3) → (4, 4, 1, 1)"}


def test_weights_of_another_architecture():
    module = network(3, 0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"another architecture: loaded 0 of 10 .*more; not used: a\. Check model.name"
    ):
        load_matching(module, {"a": torch.zeros(1)})
    with pytest.raises(
        WeightsError, match=r"loaded 1 of 10 tensors; new: 0\.weight \(8 → 4 channels\), .* and 3 more\."
    ):
        load_matching(module, network(3, 1, hidden=8).state_dict())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_names_that_may_be_the_same_tensors_are_told():
    module, given = network(3, 0), network(3, 1).state_dict()
    renamed = {key.replace("3.", "head."): value for key, value in given.items()}
    transfer = load_matching(module, renamed)
    assert transfer.near == ("head.weight (3, 4, 1, 1) → 3.weight", "head.bias (3,) → 3.bias")
    assert str(transfer).endswith(
        "perhaps under another name: head.weight (3, 4, 1, 1) → 3.weight, head.bias (3,) → 3.bias"
    )


@pytest.mark.slow
def test_a_backbone_is_shared_between_architectures():
    """torchvision's FCN and DeepLab have the same backbone; a U-Net has none of it."""

    def made(name, **options):
        config = ModelConfig(name=name, weights="none", categories=["a", "b"], options=options)
        return build(config, Storage(), device="cpu").module

    tensors = made("fcn_resnet50", aux_loss=True).state_dict()
    transfer = load_matching(made("deeplabv3_resnet50"), tensors)
    assert len(transfer.loaded) > 250
    others = [key for key in transfer.loaded if not key.startswith("backbone.")]
    assert others == ["classifier.4.bias"], "as long as the classes are many"
    assert all(key.startswith("classifier.") for key in transfer.skipped)
    with pytest.raises(WeightsError, match="another architecture"):
        load_matching(made("unet", encoder="resnet18"), tensors)
