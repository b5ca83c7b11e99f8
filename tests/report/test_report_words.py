"""What a report says in words, held by made-up numbers."""

from __future__ import annotations

from typing import Any

import pytest

from wamlab.report import words


def measured(value: float | None, **details: Any) -> dict[str, Any]:
    return {"value": value, "why_not": "nobody looked", "details": details}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-0.3, "does not agree with"),
        (-0.2, "does not agree with"),
        (0.01, "hardly agrees with"),
        (0.4, "agrees in part with"),
        (0.9, "agrees with"),
    ],
)
def test_how_far_imagination_and_action_agree_is_said_by_the_way_from_still_to_true(
    value: float, said: str
) -> None:
    """From -0.2, which a still picture scores, to 1; 0.01 is a sixth of it and no agreement."""
    eic = measured(value, static=-0.2, oracle=1.0, over_static_interval=(0.1, 0.3))
    found = {
        "recorded": None,
        "success": {"success_any": measured(None)},
        "fidelity": {"moving_psnr": measured(None)},
        "joint": {"robot": {"eic": eic}, "object": {"eic": measured(None)}},
    }
    *_, sentence = words.verdict(found)
    assert f"of its own arm {said} what its actions then do: EIC is" in sentence
    assert sentence.endswith("for the objects it is undefined.")


def test_measures_are_named_as_people_write_them() -> None:
    assert words.title("state_eic_ref, robot") == "state EIC ref, robot"
    assert words.title("moving_psnr over last frame") == "moving PSNR over last frame"
    assert words.title("steps_to_success") == "steps to success"
