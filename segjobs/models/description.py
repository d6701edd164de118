"""What model.json says of the tensors beside it: a stranger's bytes in, checked values or one WeightsError out.

Ids and sizes are bounded: memory is laid out by them before anything else is known of a model.
"""

from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from segjobs.config import check_resize
from segjobs.errors import ManifestError, WeightsError
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.seal import SEAL_KEY, open_text

_MOST_CHANNELS = 65_535  # a label map's ids are uint16, of which the last is no class
_MOST_ID = 2**31 - 1  # of a manifest's int32
_MEND = f"mend it, or save the model again (whoever changes the file on purpose takes its last key, {SEAL_KEY}, out)"
_SHOWN = 80

Byte = Annotated[int, Field(ge=0, le=255)]
Number = Annotated[int | FiniteFloat, Field(ge=-1e6, le=1e6)]
Positive = Annotated[int | FiniteFloat, Field(ge=1e-6, le=1e6)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _DescribedCategory(_Part):
    id: int = Field(ge=0, le=_MOST_ID)
    name: str = Field(min_length=1)
    color: tuple[Byte, Byte, Byte]
    isthing: bool | None = None


class _DescribedPreprocessing(_Part):
    resize: Annotated[str, AfterValidator(check_resize)] | None = None
    mean: list[Number] | None = Field(default=None, min_length=3, max_length=3)
    std: list[Positive] | None = Field(default=None, min_length=3, max_length=3)


def _all_different(categories: list[_DescribedCategory]) -> list[_DescribedCategory]:
    for what in ("id", "name"):
        counts = Counter(getattr(category, what) for category in categories)
        twice = sorted(value for value, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"the {what} {twice[0]!r} stands there twice")
    return categories


class Description(_Part):
    """model.json: see ``tensors.save_model``. What else stands in it is its maker's."""

    name: str
    task: Task | None = None
    options: dict[str, JsonValue]
    described: Annotated[list[_DescribedCategory], AfterValidator(_all_different)] = Field(
        alias="categories", min_length=1, max_length=_MOST_CHANNELS
    )
    described_preprocessing: _DescribedPreprocessing = Field(alias="preprocessing")
    licence: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(c.id, c.name, c.color, c.isthing) for c in self.described)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """``resize``, ``mean`` and ``std``, as far as they stand there."""
        return self.described_preprocessing.model_dump(exclude_none=True)


def parse_description(data: bytes, where: str) -> Description:
    """The content of a model.json at ``where``. Raises WeightsError."""
    try:
        found = Description.model_validate_json(open_text(data, where, mend=_MEND))
    except ManifestError as error:
        raise WeightsError(str(error)) from error
    except ValidationError as error:
        raise WeightsError(f"{where} is no model description of segjobs: {validation_words(error)}; {_MEND}") from error
    channels = [category.id for category in found.categories]
    if found.task != "semantic" and not 0 < min(channels) <= max(channels) < _MOST_CHANNELS:
        raise WeightsError(
            f"{where} is no model description of segjobs: categories: ids from {min(channels)} to {max(channels)}, "
            f"where those of an instance model are its channels, 1 to {_MOST_CHANNELS - 1}; {_MEND}"
        )
    return found


def validation_words(error: ValidationError) -> str:
    """The first finding in one line: where, what, and the value."""
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier())
    value = "" if first["type"] in ("missing", "json_invalid") else f" ({str(first['input'])[:_SHOWN]!r})"
    more = f", and {len(others)} more" if others else ""
    return " ".join(f"{key + ': ' if key else ''}{first['msg']}{value}{more}".split())
