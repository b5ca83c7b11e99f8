"""Frozen dataclass trees as configuration: to JSON and back, and typed overrides by dotted name.

A run is described by a tree of frozen dataclasses that a recipe function returns; a variant is
`dataclasses.replace`. There is no registry of options and no global state.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "none",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest right name, or all of them when none is near."""
    known = sorted(map(str, known))
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    return f"; there is {shown}" if known else "; there is none"


def to_dict(config: Any) -> Any:
    """A dataclass tree as plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return config


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """The inverse of `to_dict`.

    Raises:
        KeyError: a name that ``kind`` does not have, with the nearest that it has.
        TypeError: a value that does not fit its field.
    """
    return typing.cast(T, _convert(kind, values, kind.__name__))


def override(config: T, assignments: Iterable[str]) -> T:
    """Apply ``["train.optim.lr=3e-4", "model.views=corner,gripper"]``, typed by their fields.

    Raises:
        KeyError: an unknown field, with where it is, or the nearest one.
        ValueError: an assignment without ``=``.
        TypeError: a value of another type.
    """
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        path = path.strip()
        if not sign:
            raise ValueError(f"expected NAME=VALUE, got {assignment!r}")
        config = _assign(config, path.split("."), text, path, _deeper(config, path))
    return config


def _assign(config: Any, path: list[str], text: str, whole: str, deeper: list[str]) -> Any:
    name, *rest = path
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise KeyError(f"{whole}: {type(config).__name__} has no fields")
    hints = typing.get_type_hints(type(config))
    if name not in {f.name for f in dataclasses.fields(config)}:
        meant = f"; did you mean {' or '.join(map(repr, deeper))}?" if deeper else ""
        near = meant or nearest(name, hints)
        raise KeyError(f"{whole}: {type(config).__name__} has no {name!r}{near}")
    if rest:
        value = _assign(getattr(config, name), rest, text, whole, deeper)
    else:
        value = _convert(hints[name], _read(text), whole)
    return dataclasses.replace(config, **{name: value})


def _deeper(config: Any, path: str) -> list[str]:
    """Where in a tree ``path`` is found, other than at its root: what was meant by a part of it."""
    return [known for known in _paths(config) if known.endswith(f".{path}")]


def _paths(config: Any, before: str = "") -> Iterator[str]:
    """The dotted names of all fields."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield f"{before}{field.name}"
            yield from _paths(getattr(config, field.name), f"{before}{field.name}.")


def _read(text: str) -> Any:
    """JSON where it is JSON; otherwise the words themselves, a comma making a list."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text in ("None", "none"):
            return None
        if text in ("True", "False"):
            return text == "True"
        return [_read(part) for part in text.split(",")] if "," in text else text


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise TypeError(
                f"{where}: {value!r} is not allowed{nearest(str(value), map(str, args))}"
            )
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        kinds = [args[0]] * len(items) if args[1:] == (...,) else list(args)
        if len(kinds) != len(items):
            raise TypeError(f"{where}: expected {len(kinds)} values, got {value!r}")
        return tuple(_convert(k, v, where) for k, v in zip(kinds, items, strict=True))
    if origin is list:
        return [_convert(args[0], item, where) for item in value]
    if origin is dict:
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is type(None) and value is None:
        return None
    if (
        isinstance(kind, type)
        and isinstance(value, kind)
        and not (kind is int and isinstance(value, bool))
    ):
        return value
    raise TypeError(f"{where}: expected {_in_words(kind)}, got {value!r}")


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except TypeError:
            continue
    expected = " or ".join(map(_in_words, kinds))
    raise TypeError(f"{where}: expected {expected}, got {value!r}")


def _in_words(kind: Any) -> str:
    """A field's type as a person says it."""
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    return WORDS.get(kind) or str(getattr(kind, "__name__", kind))


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise TypeError(f"{where}: expected the fields of {kind.__name__}, got {values!r}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    for name in values:
        if name not in names:
            raise KeyError(f"{where}: {kind.__name__} has no {name!r}{nearest(name, names)}")
    return kind(**{name: _convert(hints[name], v, f"{where}.{name}") for name, v in values.items()})
