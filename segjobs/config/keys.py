"""The keys of a config: what ``--help`` lists."""

import json
from collections.abc import Iterator
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


def describe_keys(kind: type[BaseModel]) -> str:
    """The help text: one line per key with type, default and meaning."""
    lines = []
    for name, field in iter_fields(kind):
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"default {json.dumps(default)}"
        lines.append(f"  {name} ({_type_name(field.annotation)}; {shown})\n      {field.description}")
    return "\n".join(lines)


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
