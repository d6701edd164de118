"""A YAML file and ``key=value`` overrides in, one checked config out, and back; all problems are reported at once.

command line: FILE, key=value … ─→ load_config ─┐
Python: file or dict, keywords ──→ make_config ─┴→ layers ─→ merged, resolved, checked
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from segjobs.config.contradictions import CONTRADICTION
from segjobs.config.interpolation import resolved
from segjobs.config.keys import iter_fields, section_in, section_of
from segjobs.config.sections import ENSEMBLE
from segjobs.config.words import layers_of
from segjobs.config.yaml_file import read_yaml
from segjobs.errors import ConfigError
from segjobs.redact import secrets_in
from segjobs.text import nearest

_SHOWN = 200  # characters of a value in an error message

Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], path: str | None, overrides: Sequence[str]) -> Config:
    """Read ``path`` (YAML, may be None), lay ``key=value`` overrides over it and check the whole.

    Overrides are YAML values (``model.options.encoder=resnet34``, ``input.exclude=["*.tif"]``).
    Raises ConfigError with one line per problem.
    """
    layers = [] if path is None else [read_yaml(path)]
    over, problems = layers_of(overrides)
    given = [text.partition("=")[0] for text in overrides]
    origins = _Origins(path or "command line", "command line", given)
    return _checked(kind, [*layers, *over], origins, problems)


def make_config(
    kind: type[Config],
    caller: str,
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> Config:
    """``config`` (a YAML file, or nested dicts) with ``settings`` laid over it, checked: the config as Python gives it.

    ``settings``: value by key, which may be dotted (``postprocess.fill_holes``). A text for a section is its ``uri``
    (a model's is its ``name``); a None says nothing. ``caller`` names the settings in messages: ``label()``.
    Raises ConfigError with one line per problem.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    values = [_nested(key, _in_section(kind, key, value)) for key, value in given.items()]
    if isinstance(config, Mapping):
        where, first = "config", [config]
    else:
        path = None if config is None else os.fspath(config)
        where, first = path or caller, [] if path is None else [read_yaml(path)]
    try:
        layers = [
            OmegaConf.create(_plain(layer)) if isinstance(layer, Mapping) else layer for layer in (*first, *values)
        ]
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{caller}: {' '.join(str(error).split())}") from None
    return _checked(kind, layers, _Origins(where, caller, list(given)), [])


def _in_section(kind: type[BaseModel], key: str, value: Any) -> Any:
    """A text given for a section → the section of which it is the ``uri`` or the ``name``."""
    field = kind.model_fields.get(key)
    section = section_of(field) if field else None
    short = _short(section) if section else None
    return {short: value} if short and isinstance(value, str | os.PathLike) else value


def _short(section: type[BaseModel]) -> str | None:
    """The key of a section that a text in its place means."""
    return next((name for name in ("uri", "name") if name in section.model_fields), None)


def _with_sections(kind: type[BaseModel], layer: DictConfig) -> DictConfig:
    """The layer with ``input: photos/`` as ``input: {uri: photos/}``, and ``models: […]`` as an ensemble's."""
    plain: dict[Any, Any] = OmegaConf.to_container(layer)  # type: ignore[assignment]  # of a dict it makes a dict
    for key, value in plain.items():
        if isinstance(value, str) and isinstance(key, str):
            layer[key] = _in_section(kind, key, value)
    model = kind.model_fields.get("model")
    section = section_of(model) if model else None
    if isinstance(members := plain.get("models"), list) and section and "models" in section.model_fields:
        del layer["models"]
        named = [{"name": one} if isinstance(one, str) else one for one in members]
        return cast(DictConfig, OmegaConf.merge({"model": {"name": ENSEMBLE, "models": named}}, layer))
    return layer


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b`` and a value → {a: {b: value}}"""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _plain(value: Any) -> Any:
    """Mappings, sequences and paths as the dicts, lists and texts that YAML would give."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@dataclass(frozen=True)
class _Origins:
    """Where a key was given: in ``file``, or by one of ``given``, which ``caller`` stands for."""

    file: str
    caller: str
    given: Sequence[str]

    def of(self, key: str) -> str:
        """The caller, where an override of the key, of a part of it or of the section around it was given."""
        over = any(f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.") for name in self.given)
        return self.caller if over else self.file


def _checked(kind: type[Config], layers: Sequence[Any], origins: _Origins, problems: list[str]) -> Config:
    """The layers' config. Raises ConfigError with ``problems`` and what else is wrong."""
    try:
        raw, unresolved = resolved(OmegaConf.merge({}, *(_with_sections(kind, layer) for layer in layers)))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(*problems, f"{origins.file}: {' '.join(str(error).split())}") from None
    problems += [f"{origins.of(key)}: {key}: {text}" for key, text in unresolved.items()]
    problems += [
        f"{origins.of(key)}: {key}: holds a credential; they are taken from the environment or "
        "storage.s3.profile, and never from a config, which is printed and kept"
        for key in secrets_in(raw, names_below="model.options")
    ]
    try:
        config = kind.model_validate(raw, context={"schemes": _schemes_in(raw)})
    except ValidationError as error:
        found = [dict(item) for item in error.errors()]
        # What could not be resolved is said already; here it would be missing.
        problems += [_describe(kind, item, origins) for item in found if _key_of(item) not in unresolved]
        raise ConfigError(*problems) from None
    if problems:
        raise ConfigError(*problems)
    return config


def _schemes_in(raw: dict[str, Any]) -> Sequence[str]:
    """``storage.schemes`` of a config that is not checked yet."""
    storage = raw.get("storage")
    schemes = storage.get("schemes") if isinstance(storage, dict) else None
    return schemes if isinstance(schemes, list) else ()


def _key_of(item: dict[str, Any]) -> str:
    return ".".join(str(part) for part in item["loc"])


def _describe(kind: type[BaseModel], item: dict[str, Any], origins: _Origins) -> str:
    """One finding of pydantic as ``file: key: what is wrong; what would fit``."""
    keys, key = [str(part) for part in item["loc"]], _key_of(item)
    source = origins.of(key)
    if item["type"] == CONTRADICTION:
        key = ".".join([*keys[:-1], item["ctx"]["key"] or keys[-1]])
        return f"{origins.of(key)}: {key}: {item['msg']}"
    if item["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; {_meant(kind, keys)}"
    if item["type"] == "missing":
        return f"{origins.file}: {key}: missing; give it in the file or as {key}=…"
    value = repr(item["input"])
    value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
        return f"{source}: {key}: {value} does not fit; {nearest(str(item['input'])[:_SHOWN], allowed)}"
    if item["type"] == "unknown_name":
        return f"{source}: {key}: {value} does not fit; {item['msg']}"
    if item["type"] == "model_type":
        return f"{source}: {key}: {value}: expected a section with the keys {', '.join(_names(kind, keys))}"
    if item["type"] == "list_type":
        shown = f'["{item["input"]}"]' if isinstance(item["input"], str) else "[…]"
        return f"{source}: {key}: {value}: expected a list: {key}='{shown}'"
    if item["type"] == "string_type":
        return f"{source}: {key}: {_no_text(item['input'], value)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "expected", 1)
    return f"{source}: {key}: {value}: {message[:1].lower()}{message[1:]}"


def _meant(kind: type[BaseModel], keys: Sequence[str]) -> str:
    """What may have been meant by an unknown key."""
    section, dot, rest = keys[-1].partition(".")
    known = _names(kind, keys[:-1])
    if dot and section in known:
        return f"in a file sections are nested: {section}: {{{rest}: …}}"
    elsewhere = [name for name, _ in iter_fields(kind) if name.rpartition(".")[2] == keys[-1]]
    return f"did you mean {' or '.join(elsewhere)}?" if elsewhere else nearest(keys[-1], known)


def _no_text(given: object, shown: str) -> str:
    """What is wrong with a value that YAML takes for no text."""
    if given is None:
        return "is empty; give a value, or leave the key out"
    if isinstance(given, bool | int | float):
        return f'{shown} is no text to YAML; quote it: "{shown}" (in a shell: \'"{shown}"\')'
    return f"{shown}: expected a text"


def _names(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section at ``path``, sections included, sorted. A list's entries have numbers for names."""
    section: type[BaseModel] | None = kind
    for name in path:
        if name.isdecimal():
            continue
        field = section.model_fields.get(name) if section else None
        section = (section_of(field) or section_in(field.annotation)) if field else None
    return sorted(section.model_fields) if section else []


# --- and back ------------------------------------------------------------------------------------


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML that ``--config`` reads again."""
    return OmegaConf.to_yaml(OmegaConf.create({key: _escape(one) for key, one in config.model_dump().items()}))


def _escape(value: object) -> object:
    """Texts that hold ``${`` as OmegaConf reads them literally: a backslash before it, and before each backslash there."""
    if isinstance(value, dict):
        return {key: _escape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escape(one) for one in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
