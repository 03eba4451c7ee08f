"""Strict YAML -> dataclass: every mistake in the file at once, each with its key.

A config is one of our files by name (`tiny`) or the path of a YAML file. Keys are the fields of
the dataclass, nested mappings its nested dataclasses; what is left out keeps its default.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from o2s.errors import InputError

T = TypeVar("T")


def load(source: str, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a config.

    Args:
        source: the name of a config that comes with o2s, or the path of a YAML file.
        kind: the dataclass to make.
        overrides: `a.b=value` each, the value in YAML; they win over the file.

    Raises:
        InputError: no such config, not YAML, or keys or values that do not fit; all are named.
    """
    path = find(source)
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not YAML ({_one_line(error)})") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {_kind_of(values)}, expected keys and values")
    for override in overrides:
        _apply(override, values)
    problems: list[str] = []
    config = _build(kind, values, "", problems)
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    return config


def find(source: str) -> Path:
    """The file of a config's name or path."""
    if source in bundled():
        return Path(str(files("o2s") / "configs" / f"{source}.yaml"))
    if Path(source).is_file():
        return Path(source)
    raise InputError(f"{source}: no such config; give a YAML file or one of {', '.join(bundled())}")


def bundled() -> list[str]:
    """The names of the configs that come with o2s."""
    folder = files("o2s") / "configs"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a config, as they stand in YAML or JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any], kind: type[T]) -> T:
    """The inverse of `to_dict`, as strict as `load`.

    Raises:
        InputError: keys or values that do not fit; all are named.
    """
    problems: list[str] = []
    config = _build(kind, values, "", problems)
    if problems:
        raise InputError(f"{kind.__name__}: " + "; ".join(problems))
    return config


def _apply(override: str, values: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: expected KEY=VALUE, such as encoder.seed=1")
    *parents, last = key.split(".")
    for parent in parents:
        nested = values.setdefault(parent, {})
        if not isinstance(nested, dict):
            raise InputError(f"override {override!r}: {parent} is a value, not a group of keys")
        values = nested
    try:
        values[last] = _parse(text)
    except ValueError as error:
        raise InputError(f"override {override!r}: not a YAML value") from error


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where `1e-3` is a text; here it is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _parse(text: str) -> Any:
    """Raises ValueError where the text is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_one_line(error)) from error


def _build(kind: type[T], values: Mapping[str, Any], where: str, problems: list[str]) -> T:
    """A dataclass from its values; what does not fit is added to `problems`."""
    before = len(problems)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # pyright: ignore
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(f"{where}{key}: unknown key, expected one of {', '.join(fields)}")
        else:
            arguments[key] = _fit(hints[key], value, f"{where}{key}", problems)
    for name, field in fields.items():
        missing = dataclasses.MISSING
        if name not in values and field.default is missing and field.default_factory is missing:
            problems.append(f"{where}{name}: missing, expected {_describe(hints[name])}")
    if len(problems) > before:
        return typing.cast(T, None)
    try:
        return kind(**arguments)
    except ValueError as error:
        problems.append(f"{where.rstrip('.') or kind.__name__}: {error}")
        return typing.cast(T, None)


def _fit(hint: Any, value: Any, key: str, problems: list[str]) -> Any:
    """The value as the type hint wants it; types are not converted, but int serves as float."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(typing.cast(type, hint), value, f"{key}.", problems)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _build(typing.cast(type, option), value, f"{key}.", problems)
        if _matches(option, value):
            return float(value) if option is float else value
    problems.append(f"{key}: {value!r} is a {_kind_of(value)}, expected {_describe(hint)}")
    return None


def _matches(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin in (list, Sequence):
        (item,) = get_args(hint) or (Any,)
        return isinstance(value, list) and all(_matches(item, v) for v in value)
    if origin in (dict, Mapping):
        key, item = get_args(hint) or (Any, Any)
        held = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_matches(key, k) and _matches(item, v) for k, v in held)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    # PEFT's and transformers' own fields: they check themselves.
    return not dataclasses.is_dataclass(hint)


def _describe(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(hint))
    if origin in (list, Sequence):
        return "a list" + "".join(f" (each {_describe(item)})" for item in get_args(hint))
    if origin in (dict, Mapping):
        return "keys with " + _describe((get_args(hint) or (Any, Any))[1])
    if dataclasses.is_dataclass(hint):
        return "a group of keys"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return "null" if hint is type(None) else names.get(hint, str(hint))


def _kind_of(value: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "truth value"}
    names |= {list: "list", dict: "group of keys", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
