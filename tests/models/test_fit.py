"""A stranger's tensors under a module's own names, and what cannot go where it should."""

import pytest
import torch

from segjobs.models.fit import nearest, prefix_of, under_own_names, unfit

WANTED = {"stem.weight": torch.zeros(2, 3), "stem.bias": torch.zeros(2), "head.weight": torch.zeros(4)}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.", "module.model.net.", "_orig_mod.", "stem."])
def test_the_prefix_of_a_wrapper_is_taken_off(prefix: str) -> None:
    given = {f"{prefix}{key}": value for key, value in WANTED.items()}
    assert under_own_names(given, WANTED).keys() == WANTED.keys()


def test_of_two_models_the_one_with_the_shorter_prefix_is_meant() -> None:
    given = {f"{prefix}{key}": value for prefix in ("ema_model.", "model.") for key, value in WANTED.items()}
    assert (prefix_of(given, WANTED), prefix_of(WANTED, WANTED), prefix_of({}, WANTED)) == ("model.", "", "")


def test_only_the_models_names_lose_it() -> None:
    given = {**{f"model.{key}": value for key, value in WANTED.items()}, "criterion.weight": torch.zeros(1)}
    assert under_own_names(given, WANTED).keys() == {*WANTED, "criterion.weight"}
    twice = {"module.stem.bias": torch.zeros(2), "module.stem.weight": torch.zeros(2), "stem.bias": torch.ones(2)}
    assert under_own_names(twice, WANTED).keys() == {"module.stem.bias", "stem.weight", "stem.bias"}
    assert under_own_names({"other": torch.zeros(1)}, WANTED).keys() == {"other"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.zeros(2), None),
        (torch.zeros(2, dtype=torch.float16), None),
        (torch.zeros(2, dtype=torch.bfloat16), None),
        (torch.zeros(2, dtype=torch.float64), None),
        (torch.full((2,), float("-inf")), None),
        (torch.zeros(2, dtype=torch.int8), "int8 instead of float32"),
        (torch.zeros(2, dtype=torch.bool), "bool instead of float32"),
        (torch.zeros(2, dtype=torch.complex64), "complex64 instead of float32"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "float8_e4m3fn, which is scaled"),
        (torch.zeros(2, device="meta"), "sparse, quantised or without data"),
        (torch.zeros(2).to_sparse(), "sparse, quantised or without data"),
        (torch.tensor([0, float("nan")]), "NaN: take a checkpoint from before the training diverged"),
    ],
)
def test_what_cannot_be_used_says_why(value: torch.Tensor, why: str | None) -> None:
    assert unfit(value, torch.zeros(2)) == why


def test_the_nearest_name_of_the_same_shape() -> None:
    given = {"backbone.conv1.weight": torch.zeros(2, 3), "conv1.bias": torch.zeros(9), "x.bias": torch.zeros(2)}
    wanted = {"encoder.conv1.weight": torch.zeros(2, 3), "encoder.conv1.bias": torch.zeros(2)}
    assert list(nearest(wanted, given, given, wanted)) == [
        "backbone.conv1.weight (2, 3) → encoder.conv1.weight",
        "x.bias (2,) → encoder.conv1.bias",
    ]
