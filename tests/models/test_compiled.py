"""torch.compile: refused where nothing compiles; what it gives is the network's."""

import numpy as np
import pytest

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
def test_what_is_compiled_gives_the_same_labels() -> None:
    plain = build(ModelConfig(**SETTINGS), Storage(), device="cpu", threads=1)
    ours = build(ModelConfig(**SETTINGS, runtime="compile"), Storage(), device="cpu", threads=1)
    for size_hw, count in (((96, 140), 3), ((150, 110), 2)):
        tensors = [plain.preprocess(draw_scene(3, size_hw, index=index)[0]) for index in range(count)]
        for one, other in zip(ours.forward(tensors), plain.forward(tensors), strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-4)
