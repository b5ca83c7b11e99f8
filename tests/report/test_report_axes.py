import dataclasses
from pathlib import Path

import pusher

from wamlab.report.axes import (
    APART,
    beside,
    between,
    figure,
    further,
    least_normalised,
    over_offsets,
)

ROOT = Path(__file__).resolve().parents[2]


def test_a_figure_has_three_digits_and_a_rounding_error_none():
    assert figure(0.0312345) == "0.0312"
    assert figure(-12.345) == "−12.3"
    assert figure(1.1e-16) == figure(-1.1e-16) == "0"
    assert figure(9.26e-05) == "9.26e−05"
    assert figure(None) == "–"
    assert between((-1e-17, 0.5)) == "0 to 0.5"
    assert between(None) == ""


def test_a_control_is_named_where_another_detail_says_what_it_is():
    details = {
        "wrong_world": 0.25,
        "wrong_world_is": "gain 0.7",
        "wrong_worlds": {"gain 0.7": 0.25, "gain 1.3": 0.1},
        "fitted_gain": 0.9,
        "fitted_gain_interval": (0.8, 1.0),
        "oracle": None,
    }
    assert beside({"floor": None, "details": details}) == [
        ("wrong world (gain 0.7)", "0.25"),
        ("fitted gain", "0.9 (0.8 to 1)"),
    ]


def test_a_value_stands_by_contact_phase_in_the_order_of_the_way():
    part = {"value": 0.5, "interval": (0.4, 0.6)}
    parts = {"free": part, "contact": {**part, "interval": None}, "before": {"value": None}}
    result = {"floor": 0.1, "details": {}, "parts": {"robot": part, **parts}}
    assert beside(result) == [
        ("noise floor", "0.1"),
        ("free", "0.5 (0.4 to 0.6)"),
        ("contact", "0.5"),
    ]


def test_a_value_over_offsets_is_one_line_for_all_views_or_for_each():
    curve = {"details": {"curve": {"16": 0.05, "8": 0.0312}}}
    assert over_offsets(curve) == [("over offsets", "8: 0.0312, 16: 0.05")]
    assert beside({**curve, "floor": None}) == over_offsets(curve)
    value = lambda at: {"value": at, "interval": None}  # noqa: E731
    parts = {"corner@16": value(0.5), "corner@8": value(-0.25), "robot": value(1.0)}
    alone = {"gripper@8": value(0.5), "gripper@16": value(None)}
    result = {"details": {}, "parts": {**parts, **alone}}
    assert over_offsets(result) == [("corner, over offsets", "8: −0.25, 16: 0.5")]
    assert over_offsets({"details": {"curve": {"8": 0.5}}}) == []


def test_the_least_of_the_normalised_says_of_which_measure_and_entity_it_is():
    of = lambda value, **details: {"value": value, "details": details}  # noqa: E731
    joint = {"robot": {"eic": of(0.1, normalised=0.25), "div": of(0.02)}, "object": {}}
    coupling = {
        "state_eic, object": of(0.9, normalised=0.5),
        "state_skill, object": of(None, normalised=-1.0),
        "icc": of(0.3, normalised=None),
    }
    assert least_normalised(joint, coupling) == ("EIC, robot (pixels)", 0.25, 2)
    lower = {**coupling, "state_cmr, object": of(0.5, normalised=-0.125)}
    assert least_normalised(joint, lower) == ("state CMR, object", -0.125, 3)
    assert least_normalised({"robot": {}}, {"icc": of(0.3)}) is None


def test_a_measure_whose_logs_are_made_apart_says_by_which_script_that_is_there():
    found = {
        name: one for measures in further([], [], {}).values() for name, one in measures.items()
    }
    for name, script in APART.items():
        assert found[name].why_not.endswith(
            f"(python {script} plays and measures it, docs/results.md shows what came of it)"
        )
        assert (ROOT / script).exists()
    assert "python" not in found["progress"].why_not


def test_a_report_knows_how_often_an_environment_of_the_library_acts():
    episode = pusher.episode(3)
    ours = dataclasses.replace(episode, env="metaworld/push")
    known, unknown = (further([one], [], {})["physical commonsense"] for one in (ours, episode))
    assert known["jump"].value is not None
    assert known["jump"].value > 0
    assert "rate_hz=" in unknown["jump"].why_not
    assert "boxes=" in known["gravity"].why_not


def test_a_measure_of_one_entity_is_of_the_robot_and_of_the_object():
    found = further([], [pusher.probe(0)], {})["joint coupling"]
    for name in ("instruction_contrast", "state_eic"):
        assert {f"{name}, robot", f"{name}, object"} <= {*found}
        assert name not in found
