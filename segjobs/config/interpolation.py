"""``${…}`` in a config: other keys of the same config, and the environment by an allowlist of names; nothing else.

    output: {uri: "${input.uri}-masks"}        another key
    env: [DATA_ROOT]                           the names that may be read
    input: {uri: "${oc.env:DATA_ROOT}/jpg"}    the environment; ``${oc.env:DATA_ROOT,photos}`` with a default

OmegaConf's other resolvers (oc.decode, oc.create, …) and those that a program registered do not exist here. A name
that means a secret (AWS_SECRET_ACCESS_KEY, HF_TOKEN) is refused even if it is listed: what a config holds is printed,
and kept in run.json.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from segjobs.redact import is_secret_name

ENV_KEY = "env"
_FAILED = object()
_RAISED = "ValueError raised while resolving interpolation: "  # OmegaConf's, before the reason given below


def resolved(config: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """A merged OmegaConf dict → plain values, and problems by dotted key; a value with a problem is left out."""
    problems: dict[str, str] = {}
    plain = OmegaConf.to_container(config)
    listed = plain.get(ENV_KEY) if isinstance(plain, dict) else None
    allowed = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    with _only_the_environment(allowed):
        values = _values(config, "", problems)
    return values, problems


@contextmanager
def _only_the_environment(allowed: set[str]) -> Iterator[None]:
    def read(name: Any, default: Any = _FAILED, *more: Any) -> Any:
        if not isinstance(name, str) or more:
            raise ValueError("expected ${oc.env:NAME} or ${oc.env:NAME,default}")
        if is_secret_name(name):
            raise ValueError(
                f"{name} holds a secret by its name, and configs are printed and kept; "
                "credentials are taken from the environment where they are needed"
            )
        if name not in allowed:
            raise ValueError(f"{name} is not among the names that the config may read; add {ENV_KEY}: [{name}]")
        value = os.environ.get(name, default)
        if value is _FAILED:
            raise ValueError(f"{name} is not set; set it, or give a default: ${{oc.env:{name},default}}")
        return value

    standing = BaseContainer._resolvers
    BaseContainer._resolvers = {}
    try:
        OmegaConf.register_resolver("oc.env", read, annotation_validation="off")
        yield
    finally:
        BaseContainer._resolvers = standing


def _values(node: Any, key: str, problems: dict[str, str]) -> Any:
    if OmegaConf.is_dict(node):
        children = {name: _child(node, name, f"{key}.{name}" if key else str(name), problems) for name in node}
        return {name: value for name, value in children.items() if value is not _FAILED}
    if OmegaConf.is_list(node):
        children = [_child(node, index, f"{key}.{index}", problems) for index in range(len(node))]
        return [value for value in children if value is not _FAILED]
    return node


def _child(node: Any, name: Any, key: str, problems: dict[str, str]) -> Any:
    if OmegaConf.is_missing(node, name):
        return "???"
    try:
        return _values(node[name], key, problems)
    except OmegaConfBaseException as error:
        problems[key] = str(error).splitlines()[0].removeprefix(_RAISED)
    except RecursionError:
        problems[key] = "the interpolation leads back to itself"
    return _FAILED
