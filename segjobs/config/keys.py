"""The keys of a config: what ``--help`` lists, and what is none of its options."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds; None for a value, and for a list of sections."""
    if get_origin(field.annotation) is list:
        return None
    return next(filter(None, map(_as_section, (field.annotation, *get_args(field.annotation)))), None)


def section_in(annotation: object) -> type[BaseModel] | None:
    """The section of which a list consists."""
    return next(filter(None, map(_as_section, get_args(annotation))), None)


def _as_section(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def iter_fields(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a config as ``(dotted name, field)``, depth first, in the order of the file."""
    for name, field in kind.model_fields.items():
        section = section_of(field)
        if section:
            yield from iter_fields(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def shared_fields(config: BaseModel, kind: type[BaseModel]) -> dict[str, object]:
    """Name → value of each field of ``config`` that ``kind`` has too."""
    return {name: getattr(config, name) for name in type(config).model_fields if name in kind.model_fields}


def dashed(kind: type[BaseModel], words: Sequence[str]) -> list[str]:
    """A problem for each word of a command line that is a key with dashes before it, as options have them."""
    problems: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        key, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key.partition(".")[0] in kind.model_fields:
            if not equals and "=" not in following and not following.startswith("-"):
                value = following
            problems.append(f"command line: {word!r}: keys have no dashes before them: {key}={value or '…'}")
    return problems


def describe_keys(kind: type[BaseModel]) -> str:
    """The help text: one line per key with type, default and meaning."""
    return "\n".join(
        f"  {name} ({_type_name(field.annotation)}; {default})\n      {field.description}"
        for name, field, default in _with_defaults(kind, "", "required")
    )


def _with_defaults(
    kind: type[BaseModel], prefix: str, needed: str, *, standing: BaseModel | None = None
) -> Iterator[tuple[str, FieldInfo, str]]:
    """Every key with what holds without it. ``needed``: of a key that has no default; ``standing``: the section's."""
    for name, field in kind.model_fields.items():
        section, key = section_of(field), prefix + name
        if section:
            word = f"needed with {key}" if field.default is None else needed
            default = field.default if isinstance(field.default, BaseModel) else None
            yield from _with_defaults(section, f"{key}.", word, standing=default)
        else:
            value = getattr(standing, name) if standing else field.get_default(call_default_factory=True)
            yield key, field, needed if value is PydanticUndefined else f"default {json.dumps(value)}"


def _type_name(annotation: object) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    origin = get_origin(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin in (list, dict):
        return f"{origin.__name__}[{', '.join(_type_name(arg) for arg in get_args(annotation))}]"
    if origin is not None:
        return " | ".join(_type_name(arg) for arg in get_args(annotation))
    return getattr(annotation, "__name__", str(annotation))
