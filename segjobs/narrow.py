"""What JSON and YAML give, narrowed: any value in; whether it is an object, or a list, with its type, out."""

from typing import TypeGuard


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether it is a JSON object, whose keys are texts."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether it is a JSON list."""
    return isinstance(value, list)
