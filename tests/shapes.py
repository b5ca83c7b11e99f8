"""The run-time type checker of the tests: array shapes and dtypes only; mypy does the rest."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])


def shapes_only(function: F) -> F:
    """Check what is annotated as an array; whatever else is annotated passes."""
    function.__annotations__ = {
        name: hint if mentions_array(hint) else Any
        for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def mentions_array(hint: Any) -> bool:
    """Whether an array type occurs anywhere in an annotation."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(mentions_array(part) for part in typing.get_args(hint))
