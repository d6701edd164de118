"""One image a batch: which models cannot learn from it is said before the start."""

import pytest

from segjobs.config import TrainModelConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import make_categories
from segjobs.models.registry import resolve_start
from segjobs.storage import Storage
from segjobs.training.batch_norms import check_batch
from tests.trainings import config_of


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("deeplabv3_mobilenet_v3_large", {}, "32x32"),
        ("deeplabv3plus", {"augment": {"crop_px": 256}}, "256x256"),
        ("unet", {}, "32x32"),
        ("unet", {"augment": {"enabled": False}, "model": {"resize": "20x30"}}, "32x32"),
        ("unet", {"augment": {"crop_px": 64}}, None),
        ("unet", {"optimiser": {"freeze": ["norm"]}}, None),
        ("lraspp_mobilenet_v3_large", {"augment": {"crop_px": 64}}, None),
        ("fcn32s_vgg16", {}, None),  # has none
        ("deeplabv3plus", {"batch_size": 2}, None),
    ],
)
def test_one_image_a_batch(name: str, settings: dict[str, dict[str, object]], size: str | None) -> None:
    resize = settings.get("model", {}).get("resize", "native")
    config = config_of("data", "out", **{"batch_size": 1, **settings, "model": {"name": name, "resize": resize}})
    card, _ = resolve_start(TrainModelConfig(name=name, resize=resize), make_categories(["a", "b"]), Storage())
    if size is None:
        check_batch(config, card)
        return
    with pytest.raises(ConfigError) as caught:
        check_batch(config, card)
    assert str(caught.value) == (
        f"batch_size: 1 image(s) of {size} pixels leave(s) the model's batch norms one value a channel, of which they "
        "learn nothing: raise batch_size, or set optimiser.freeze=[norm]"
    )
