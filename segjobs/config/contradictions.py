"""Keys that fit each by itself and not together: what the validator of the later one raises.

Validators of fields, not of sections: pydantic runs them whatever else is wrong, so that all is said at once. What can
be said from the config alone is said here, before anything is opened; what depends on a manifest or on label files is
said by the job that has read them.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ValidationInfo
from pydantic_core import PydanticCustomError

CONTRADICTION = "contradiction"
"""The type of pydantic's error. Its context holds the ``text``, and the ``key`` to name instead of the field's own."""


def contradiction(text: str, *, key: str | None = None) -> PydanticCustomError:
    """The error to raise in a validator. ``key``: relative to the section, where it is not the validated field."""
    return PydanticCustomError(CONTRADICTION, "{text}", {"text": text, "key": key})


def check_effect(
    section: type[BaseModel], value: object, info: ValidationInfo, fits: Mapping[str, tuple[str, ...]], *, of: str
) -> None:
    """Raise where a field is set that means nothing to what another field of its section has chosen.

    ``of``: the whole key of that field, such as ``labels.format``; ``fits``: by field, the values of it that it means
    something to.
    """
    assert info.field_name is not None, "a validator of a field"  # noqa: S101
    chosen, fitting = info.data.get(of.rpartition(".")[2]), fits[info.field_name]
    default = section.model_fields[info.field_name].get_default(call_default_factory=True)
    if chosen is not None and chosen not in fitting and value != default:
        raise contradiction(f"has no effect with {of}={chosen}, only with {', '.join(fitting)}; drop it")
