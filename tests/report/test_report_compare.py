"""Runs side by side: what is paired, what is said, and what cannot be told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pusher
import pytest
import recorded

from wamlab.cli import main
from wamlab.data.logs import LogError, save_episode, save_probe, save_recording
from wamlab.metrics.compare import differences
from wamlab.metrics.information import information
from wamlab.metrics.offsets import at_offsets, imagined_offsets
from wamlab.report import compare
from wamlab.types import Denoised


def run(folder, solved: int, fault: str = "oracle", episodes: int = 16, states: int = 12):
    for seed in range(episodes):
        save_episode(folder, pusher.episode(seed, solved=seed < solved))
    for probe in pusher.probes(fault, states):
        save_probe(folder, probe)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    return [
        run(home / "good", 14),
        run(home / "wrong", 3, "blind"),
        run(home / "alike", 13, episodes=14),
    ]


def test_clear_differences_name_the_better_run_and_others_cannot_be_told(folders) -> None:
    said = compare.sentences(compare.compare(folders))
    success = [one for one in said if one.startswith("success")]
    assert "success: good is above wrong by 68.8 points" in success[0]
    assert "16 starts shared" in success[0]
    assert "by Holm" in success[0]
    assert "good and alike cannot be told apart" in success[1]
    assert "14 starts shared" in success[1]
    (eic,) = [s for s in said if s.startswith("EIC_cf of the robot: good is above wrong")]
    assert "12 states shared" in eic


def test_what_pays_a_noisier_policy_is_not_compared(folders) -> None:
    """EIC has the own samples' spread below it; EIC_ref, the same for all, takes a reader."""
    found = compare.compare(folders[:2])
    assert {title.split(" of ")[0] for title in found.states if "EIC" in title} == {
        "EIC_ref",
        "EIC_cf",
    }
    for entity in ("robot", "object"):
        unread = found.states[f"EIC_ref of the {entity}"]["good"].why_not
        assert unread == "a state reader has read 0 of 12 probes"
        assert found.states[f"EIC_cf of the {entity}"]["good"].value is not None


def test_too_few_starts_or_an_exact_test_that_does_not_reject_name_nobody() -> None:
    rates = lambda solved, n: {f"a/{i}": float(i < solved) for i in range(n)}  # noqa: E731
    (few,) = differences("success", "points", {"x": rates(3, 4), "y": rates(0, 4)}, rate=True)
    said = "(4 starts shared, for an interval it takes 5), p = 0.250 by Holm."
    assert compare.sentence(few) == f"success: x and y cannot be told apart {said}"
    (odd,) = differences("success", "points", {"x": rates(5, 9), "y": rates(0, 9)}, rate=True)
    assert odd.interval.low > 0
    assert compare.sentence(odd).startswith("success: x and y cannot be told apart (")
    assert compare.sentence(odd).endswith("9 starts shared), p = 0.062 by Holm.")


def test_the_page_shows_every_task_and_difference_and_needs_nothing_else(folders, tmp_path) -> None:
    found = compare.compare(folders)
    page = compare.write_page(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "good · wrong · alike" in page
    assert page.count("cannot be told") >= 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "16 starts" in page
    assert "moving-pixel PSNR" in page


def test_the_command_prints_writes_and_speaks_json(folders, tmp_path, capsys) -> None:
    words = ["compare", *map(str, folders)]
    assert main([*words, "--out", str(tmp_path / "page.html")]) == 0
    assert "page: " in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["good", "wrong", "alike"]
    assert len(found["success_differences"]) == 3


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path) -> None:
    a, b = (run(tmp_path / home / "uwm", 3, episodes=4, states=0) for home in ("one", "two"))
    assert [*compare.named([a, b])] == ["one/uwm", "two/uwm"]
    found = compare.compare([a, b])
    assert found.state_differences == []
    assert found.states == {}


def test_what_cannot_be_compared_is_named(tmp_path, folders) -> None:
    with pytest.raises(ValueError, match="at least 2 runs, got 1"):
        compare.compare(folders[:1])
    with pytest.raises(ValueError, match="given twice"):
        compare.compare([folders[0], folders[0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="holds no episodes/, probes/ or recordings/"):
        compare.compare([folders[0], tmp_path / "empty"])


def test_who_imagines_more_often_is_compared_where_both_do(tmp_path) -> None:
    """The same imaginations, of one run all offsets and of the other the last alone, are one."""
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    probes = pusher.probes("object-blind", 8)
    last = imagined_offsets(probes)[-1:]
    for folder, logs in ((often, probes), (seldom, at_offsets(probes, last))):
        for probe in logs:
            save_probe(folder, probe)
    found = compare.compare([often, seldom])
    assert found.offsets == last
    assert {one.value for one in found.state_differences} == {0.0}
    page = compare.write_page(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"at the offsets that all of them imagine ({last[0]})" in page


def test_runs_that_share_no_offset_are_not_compared(tmp_path) -> None:
    probes = pusher.probes("oracle", 5)
    first, *_, last = imagined_offsets(probes)
    for name, offset in (("soon", first), ("late", last)):
        for probe in at_offsets(probes, (offset,)):
            save_probe(tmp_path / name, probe)
    found = compare.compare([tmp_path / "soon", tmp_path / "late"])
    why = found.states["moving-pixel PSNR"]["soon"].why_not
    said = f"soon at {first}, late at {last}"
    assert why == f"these runs imagine at no offset that they share: {said}"
    assert found.state_differences == []


def test_references_of_another_length_are_no_common_denominator(tmp_path) -> None:
    for name, steps in (("long", 16), ("short", 8)):
        for probe in pusher.probes("oracle", 5):
            last = probe.branches[-1]
            probe.branches.append(replace(last, kind="reference", action=last.action[:steps]))
            save_probe(tmp_path / name, probe)
    found = compare.compare([tmp_path / "long", tmp_path / "short"])
    why = found.states["EIC_ref of the robot"]["long"].why_not
    assert why == "the references of these runs last 16 and 8 steps"


def judged(folder, *, episodes: int = 12, miss: float = 0.0, **changes):
    """Recordings of a model whose action is ``miss`` too large, and more so from task to task."""
    for one in recorded.recordings(episodes, **changes):
        one.guesses["POLICY"].action = one.action + np.array([miss * (1 + one.episode % 2), 0, 0])
        save_recording(folder, one)
    return folder


def test_recordings_of_the_same_instants_are_paired_by_episode(tmp_path) -> None:
    near, far = judged(tmp_path / "near", miss=0.1), judged(tmp_path / "far", episodes=10, miss=0.5)
    found = compare.compare([near, far])
    title = "recorded action error of POLICY"
    (one,) = [d for d in found.recorded_differences if d.measure == title]
    # The error is that of one of two dimensions, 1.5 times the miss on average over the two tasks.
    assert one.value == pytest.approx(1.5 * (0.1 - 0.5) / 2)
    assert (one.n, one.only_first, one.only_second) == (10, 2, 0)
    assert one.higher == "far"
    (said,) = [line for line in compare.sentences(found) if line.startswith(title)]
    assert said.startswith(f"{title}: far is above near by 0.30 (0.2")
    assert said.endswith("; 10 episodes shared), p = 0.002 by Holm.")
    futures = [d for d in found.recorded_differences if d.measure.endswith("of FORWARD")]
    assert [(d.value, d.higher) for d in futures] == [(0, "")]
    assert "recorded action error of INVERSE" not in found.recorded
    page = compare.write_page(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "At recorded instants" in page
    assert "state by state" not in page
    assert "Success" not in page


def test_episodes_of_two_datasets_that_share_their_numbers_are_not_the_same(tmp_path) -> None:
    one, other = judged(tmp_path / "one"), tmp_path / "other"
    for recording in recorded.recordings(12):
        recording.action = recording.action + np.float32(0.1)
        save_recording(other, recording)
    found = compare.compare([one, other])
    assert found.recorded["recorded action error of POLICY"]["other"].value is not None
    assert found.recorded_differences == []
    assert not any(said.startswith("recorded") for said in compare.sentences(found))


def test_a_cascade_gets_the_half_of_its_coupling_that_it_lacks_from_another_run(tmp_path) -> None:
    """Its VIDEO errs by a half more than FORWARD of the other; each alone has no side."""
    plans, foresees = tmp_path / "plans", tmp_path / "foresees"
    for one in recorded.recordings(6):
        known, pixels = one.likelihood["FORWARD"], np.array([one.ahead["corner"].size])
        given, alone = (
            Denoised(known.levels, times * known.errors, known.energy, pixels) for times in (1, 1.5)
        )
        for folder, likelihood in ((plans, {"VIDEO": alone}), (foresees, {"FORWARD": given})):
            one.likelihood = likelihood
            save_recording(folder, one)
    found = compare.compare([plans, foresees])
    (one,) = found.coupled
    assert (one.side, one.alone, one.given) == ("future", "plans", "foresees")
    expected = information(alone, given)[0]
    assert expected > 1
    assert one.result.value == pytest.approx(expected)
    said = compare.sentences(found)[-1]
    whose = "VIDEO of plans less FORWARD of foresees"
    assert said.startswith(f"Coupling by the future, {whose}: {expected:.1f} nats (")
    kind = "an estimate by two networks, whose errors do not cancel."
    assert said.endswith(f"; 6 episodes), {kind}")
    page = compare.write_page(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<th scope="row">the future</th><td>plans</td><td>foresees</td>' in page


def test_what_two_runs_do_not_share_is_said_in_place_of_their_coupling(tmp_path) -> None:
    for name, step, query in (("plans", 1, "VIDEO"), ("foresees", 2, "FORWARD")):
        one = recorded.recording(0, step)
        one.likelihood = {query: one.likelihood["FORWARD"]}
        save_recording(tmp_path / name, one)
    found = compare.compare([tmp_path / "plans", tmp_path / "foresees"])
    (said,) = [line for line in compare.sentences(found) if line.startswith("Coupling")]
    assert "no instant has VIDEO of the one network and FORWARD of the other" in said
    page = compare.write_page(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Not applicable: no instant has VIDEO" in page
