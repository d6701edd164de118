"""model.json of an exported network: a stranger's bytes in, checked values or one WeightsError out."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from segjobs.config import check_resize
from segjobs.errors import WeightsError
from segjobs.models.description import Number, Positive, validation_words

_MOST_CLASSES = 65_535  # a label map's ids are uint16, of which the last is no class


class Exported(BaseModel):
    """model.json beside an exported network; `segjobs init onnx` prints one.

    ``categories``: by channel; of one channel the background and what it shows. ``mean``, ``std``: (R, G, B), of a
    pixel's value times ``scale``. ``layout``: of input and output; ``channels``: of the input. ``output``: logits
    (N, C, h, w), or probabilities of the same shape; labels (N, h, w) or (N, 1, h, w), the class of each pixel; sigmoid
    (N, 1, h, w), the probability of the one class. ``divisor``: sides that the network takes are multiples of it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    categories: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2, max_length=_MOST_CLASSES)
    resize: Annotated[str, AfterValidator(check_resize)] = "native"
    divisor: int = Field(default=1, ge=1, le=4096)
    mean: list[Number] = Field(default=[0.485, 0.456, 0.406], min_length=3, max_length=3)
    std: list[Positive] = Field(default=[0.229, 0.224, 0.225], min_length=3, max_length=3)
    scale: Positive = 1 / 255
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["RGB", "BGR"] = "RGB"
    output: Literal["logits", "probabilities", "labels", "sigmoid"]
    licence: str | None = None


def parse_exported(data: bytes, where: str) -> Exported:
    """The content of a model.json at ``where``. Raises WeightsError."""
    mend = "`segjobs init onnx` prints one to fill in"
    try:
        found = Exported.model_validate_json(data)
    except ValidationError as error:
        raise WeightsError(
            f"{where} is no description of an exported network: {validation_words(error)}; {mend}"
        ) from error
    twice = [name for name, count in Counter(found.categories).items() if count > 1]
    if twice:
        raise WeightsError(f"{where}: categories: {twice[0]!r} stands there twice")
    if found.output == "sigmoid" and len(found.categories) != 2:
        raise WeightsError(
            f"{where}: output sigmoid is of one class: expected two categories, the background and it, "
            f"not {len(found.categories)}"
        )
    return found
