"""The checker of shapes is on, and notices."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped
from shapes import is_array, shapes_only

from wamlab.types import Cost, Prediction, Stream


@jaxtyped(typechecker=shapes_only)
def double(x: Float[np.ndarray, " b"], y: Float[np.ndarray, " b"] | None = None, name: int = 0):
    return 2 * x


def test_a_wrong_shape_dtype_or_size_is_noticed() -> None:
    double(np.ones(3), np.ones(3))
    for wrong in (np.ones((3, 1)), np.ones(3, int)):
        with pytest.raises(TypeCheckError):
            double(wrong)
    with pytest.raises(TypeCheckError):
        double(np.ones(3), np.ones(4))


def test_what_is_no_array_is_left_to_mypy() -> None:
    double(np.ones(3), None, name="not a number")
    assert is_array(Float[np.ndarray, " b"] | None)
    assert not is_array(dict[str, int] | None)
    assert not is_array(dict[str, Float[np.ndarray, " b"]])


@pytest.mark.usefixtures("as_shipped")
def test_as_shipped_nothing_is_checked() -> None:
    assert double(np.ones((3, 1))).shape == (3, 1)


def test_the_library_is_checked_when_it_is_imported() -> None:
    with pytest.raises(TypeCheckError):
        Stream(np.ones((2, 3)), np.ones((2, 3), np.float32), np.ones((2, 3), bool))
    assert Prediction(cost=Cost(1, 2.0)).cost.calls == 1
