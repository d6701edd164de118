"""torch.compile: refused where nothing compiles; what it gives is the network's."""

import numpy as np
import pytest
import torch

from segjobs.config import ModelConfig
from segjobs.errors import ConfigError
from segjobs.models.registry import build
from segjobs.sources.synthetic import draw_scene
from segjobs.storage import Storage

# A small network: the compiler's time goes by the number of its layers.
OPTIONS = {"encoder": "resnet18", "decoder_channels": [64, 32, 16, 16, 16]}
SETTINGS = {"name": "unet", "options": OPTIONS, "weights": "none", "categories": ["a", "b", "c"], "resize": "short:64"}


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ConfigError, match=r"model.runtime=compile: .*there is no no-such-compiler here; install one on"
    ):
        build(ModelConfig(**SETTINGS, runtime="compile"), Storage(), device="cpu", threads=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # torch's compiler, of its own ways
def test_what_is_compiled_gives_the_same_labels_and_is_compiled_for_all_sizes_at_once() -> None:
    """When it is built; then for no size again, a square and a lone image neither."""
    from torch._dynamo.utils import counters  # seconds, of this test alone

    plain = build(ModelConfig(**SETTINGS), Storage(), device="cpu", threads=1)
    ours = build(ModelConfig(**SETTINGS, runtime="compile"), Storage(), device="cpu", threads=1)
    compiled = counters["stats"]["unique_graphs"]
    for number in range(40):
        size_hw = (64, 64) if number < 2 else (64 + 32 * (number % 5), 64 + 32 * (number % 7))
        ours.forward([torch.zeros((3, *size_hw), dtype=torch.uint8)] * (1 + number % 3))
    assert counters["stats"]["unique_graphs"] == compiled
    for size_hw, count in (((96, 140), 3), ((150, 110), 2), ((90, 90), 1)):
        tensors = [plain.preprocess(draw_scene(3, size_hw, index=index)[0]) for index in range(count)]
        for one, other in zip(ours.forward(tensors), plain.forward(tensors), strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-4)
