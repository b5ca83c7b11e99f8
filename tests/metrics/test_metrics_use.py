"""The use of imagination by arithmetic: of what is demanded, a known share is made."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.metrics.base import compute
from wamlab.metrics.use import REFERENCE, UNBOUND
from wamlab.types import ActionSpace, Branch, Probe

SPACE = ActionSpace(("x", "y"), (-2.0,) * 2, (2.0,) * 2, ("delta",) * 2, ("cm",) * 2, 10.0)
LABELS = ("own", "own executed", "redrawn", *REFERENCE, *UNBOUND)


def probe(seed: int, made: float, demanded: float = 1.0) -> Probe:
    """A state in which ``demanded`` is asked of every mirrored future, and ``made`` of it done.

    Both in shares of half the range; the own actions are zero.
    """
    changes = {
        **dict.fromkeys(LABELS, 0.0),
        "exact: own executed": 0.0,
        "mirrored executed": made,
        "exact: mirrored executed": demanded,
    }
    branches = [
        Branch(
            "control", label, np.full((3, 2), 2 * change, np.float32), np.arange(1, 3), happened={}
        )
        for label, change in changes.items()
    ]
    return Probe("a", "", seed, 0, {}, np.zeros(1, np.float32), branches)


@pytest.mark.parametrize("made", [0.0, 0.5, 1.0, 1.5])
def test_an_imagination_that_is_decoration_changes_no_action(made: float) -> None:
    found = compute("imagination_use", [probe(0, made), probe(1, made)], space=SPACE)
    assert found.value == pytest.approx(made)
    assert found.details["off"] == pytest.approx((made - 1) ** 2)
    assert found.details["change"]["mirrored executed"][0] == pytest.approx(made)
    assert found.floor == 0


def test_states_weigh_by_what_they_demand() -> None:
    """Of 1 and of 2 all and none is made: (1 + 0) / (1 + 4)."""
    found = compute("imagination_use", [probe(0, 1.0), probe(1, 0.0, demanded=2.0)], space=SPACE)
    assert found.value == pytest.approx(1 / 5)
    assert found.items == {"a/0-0": pytest.approx(1), "a/1-0": pytest.approx(0)}


def test_where_little_is_demanded_nothing_is_said() -> None:
    small = probe(1, 1.0, demanded=0.01)
    mixed = compute("imagination_use", [probe(0, 1.0), small], space=SPACE)
    assert (mixed.value, mixed.n) == (pytest.approx(1), 1)
    assert mixed.undefined == {"less than 0.05 is demanded": 1}
    alone = compute("imagination_use", [small], space=SPACE)
    assert alone.why_not == "less than 0.05 is demanded (1)"
