"""The run-time type checker of the tests: array shapes and dtypes only; mypy does the rest."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])


def shapes_only(function: F) -> F:
    """Check parameters and results that are arrays; whatever else is annotated passes.

    Containers of arrays pass too: beartype would look at one element, drawn at random.
    """
    function.__annotations__ = {
        name: hint if is_array(hint) else Any for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def is_array(hint: Any) -> bool:
    """Whether an annotation is an array type, or a choice between array types and plain ones."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(map(is_array, typing.get_args(hint)))
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)
