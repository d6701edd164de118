"""A model that fails at every image stops the job; one that has labelled some does not."""

import pytest

from segjobs.errors import ConfigError, ItemCode
from segjobs.jobs.label.model_blame import ModelBlame

OK = {"status": "ok", "error": None}


def failed(code: ItemCode, message: str = "ValueError: no") -> dict[str, object]:
    return {"status": "failed", "error": {"code": code, "message": message}}


BAD, BROKEN = failed("MODEL_ERROR"), failed("TRUNCATED")


@pytest.mark.parametrize(
    "shards",
    [
        [[BAD] * 7],  # some odd images
        [[BAD] * 7 + [OK], [BAD] * 64],
        [[OK], [BAD] * 64],
        [[BROKEN] * 64, [BAD] * 7],  # what cannot be read was never shown to the model
        [[BAD] * 7, [BROKEN] * 64],
    ],
)
def test_images_may_fail(shards: list[list[dict[str, object]]]) -> None:
    blame = ModelBlame("toy@0")
    for rows in shards:
        blame.judge(rows)


@pytest.mark.parametrize("code", ["MODEL_ERROR", "NON_FINITE", "GPU_OOM"])
def test_a_model_that_fails_at_everything_is_to_blame(code: ItemCode) -> None:
    blame, bad = ModelBlame("toy@0"), failed(code, "RuntimeError: sizes 3 and 4")
    blame.judge([bad, BROKEN, bad, bad])
    with pytest.raises(ConfigError) as caught:
        blame.judge([bad] * 5)
    assert str(caught.value) == (
        f"model.name: toy@0 fails at each of the first 8 images that it was shown ({code}: RuntimeError: sizes 3 and "
        "4): that is not the images' fault but the model's; mend it, its weights or compute.precision, and run the "
        "command again, or leave these images out by input.exclude at a new output.uri"
    )
