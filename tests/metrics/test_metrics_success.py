from __future__ import annotations

import dataclasses

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import Result, compute, find, names
from wamlab.metrics.stats import newcombe, wilson
from wamlab.sim.env import start_seed
from wamlab.types import Episode, Replan

EASY, HARD = "toy/easy", "toy/hard"
BLIND = {
    EASY: {"expert": (20, 20), "mean replay": (8, 20), "random replay": (5, 20)},
    HARD: {"expert": (20, 20), "mean replay": (0, 20), "random replay": (1, 20)},
}


FAILED = pusher.episode(0, solved=False)


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    """18 of 20 on the easy task, 10 of 20 on the hard one."""
    solved = pusher.episode(0, solved=True)
    make = lambda env, seed, good: dataclasses.replace(  # noqa: E731
        solved if good else FAILED, env=env, seed=seed
    )
    return [make(EASY, s, s < 18) for s in range(20)] + [make(HARD, s, s < 10) for s in range(20)]


def test_every_task_has_its_wilson_interval_and_the_pool_weighs_tasks_alike(episodes):
    result = compute("success_any", episodes)
    assert result.value == pytest.approx(0.7)
    assert result.parts[EASY].value == 0.9
    assert result.parts[EASY].interval == wilson(18, 20)
    assert result.parts[HARD].details["successes"] == 10
    uneven = compute("success_any", episodes[10:])
    assert uneven.value == pytest.approx((0.8 + 0.5) / 2)
    assert result.interval.low < result.details["these_tasks"].low < 0.7


def test_outcomes_that_are_all_alike_are_as_sure_as_they_are_many(episodes):
    solved = compute("success_any", [*episodes[:5], *episodes[20:25]])
    assert (solved.value, solved.interval) == (1.0, wilson(10, 10))
    assert solved.details["these_tasks"] == wilson(10, 10)


def of(env: str, solved: int, n: int, policy: str = "") -> list[Episode]:
    good = pusher.episode(0, solved=True)
    return [
        dataclasses.replace(good if s < solved else FAILED, env=env, seed=s, policy=policy)
        for s in range(n)
    ]


def test_the_interval_weighs_tasks_as_the_value_does():
    """Of 20/20 and 0/5 the value is .5; all episodes as one would be 20 of 25."""
    uneven = compute("success_any", of(EASY, 90, 100) + of(HARD, 2, 10))
    assert uneven.value == pytest.approx(0.55)
    assert uneven.value in uneven.details["these_tasks"]
    assert uneven.details["these_tasks"].high < 0.7
    sure = compute("success_any", of(EASY, 20, 20) + of(HARD, 0, 5))
    assert sure.value in sure.details["these_tasks"]
    blind = {env: {"mean replay": (0, 30)} for env in (EASY, HARD)}
    over = compute("success_over_blind", of(EASY, 20, 20) + of(HARD, 0, 5), blind=blind)
    assert over.value == 0.5
    assert over.value in over.details["these_tasks"]


def test_policies_are_drawn_once_for_all_the_tasks_that_they_play():
    """Three training seeds that solve nearly all, half and nearly nothing, whatever the task."""
    envs = [f"toy/{i}" for i in range(6)]
    rates = {"seed 0": 19, "seed 1": 10, "seed 2": 1}
    every = [e for env in envs for policy, k in rates.items() for e in of(env, k, 20, policy)]
    found = compute("success_any", every)
    assert found.value == pytest.approx(0.5)
    assert np.ptp(found.interval) > 0.8
    assert np.ptp(found.details["these_tasks"]) > 0.8
    blind = {env: {"mean replay": (3, 30)} for env in envs}
    over = compute("success_over_blind", every, blind=blind)
    assert over.value == pytest.approx(0.4)
    assert np.ptp(over.interval) > 0.8
    alone = compute("success_any", [one for one in every if one.env == envs[0]])
    assert np.ptp(alone.interval) > 0.8
    assert alone.parts[envs[0]].interval == wilson(30, 60)


def test_one_task_is_its_own_pool(episodes):
    result = compute("success_any", episodes[:20])
    assert result.interval == wilson(18, 20)
    assert list(result.parts) == [EASY]


def test_solved_at_the_start_is_not_solved_by_the_policy(episodes):
    cheats = [dataclasses.replace(episode, success_at_reset=True) for episode in episodes[:20]]
    result = compute("success_any", cheats)
    assert result.value == 0
    assert result.details["at_reset"] == 20


def test_starts_that_were_a_success_before_anybody_acted_are_a_rate_of_their_own(episodes):
    cheats = [dataclasses.replace(one, success_at_reset=one.seed < 3) for one in episodes]
    result = compute("success_at_reset", cheats)
    assert result.value == pytest.approx(0.15)
    assert result.parts[EASY].interval == wilson(3, 20)
    assert compute("success_at_reset", episodes).value == 0


def test_any_step_and_last_step_are_two_measures():
    episode = pusher.episode(0, solved=True)
    episode.success[-1] = False
    assert compute("success_any", [episode]).value == 1
    assert compute("success_last", [episode]).value == 0


def test_success_is_quoted_over_the_better_blind_row(episodes):
    result = compute("success_over_blind", episodes, blind=BLIND)
    assert result.parts[EASY].value == pytest.approx(0.9 - 0.4)
    assert result.parts[EASY].details["better"] == "mean replay"
    assert result.parts[HARD].details["better"] == "random replay"
    assert result.value == pytest.approx((0.5 + 0.45) / 2)
    assert all(part.interval.low > 0 for part in result.parts.values())
    assert result.interval.low > 0.2


def test_a_policy_that_never_fails_is_not_surely_above_a_row_that_never_succeeds():
    always = [pusher.episode(seed, solved=True, env=EASY) for seed in range(20)]
    rows = {EASY: {"mean replay": (0, 30), "random replay": (0, 30)}}
    result = compute("success_over_blind", always, blind=rows)
    assert result.value == 1
    assert result.interval == result.details["these_tasks"] == newcombe((20, 20), (0, 30))


def test_steps_to_success_count_successes_only(episodes):
    result = compute("steps_to_success", episodes)
    assert result.value == 21
    assert result.n == 28
    assert result.undefined == {"no success": 12}


def soon(seed: int, steps: int | None, length: int = 32) -> Episode:
    """An episode with its first success after this many steps; None fails."""
    action, done = FAILED.action[:length], np.arange(1, length + 1) >= (steps or np.inf)
    return dataclasses.replace(FAILED, seed=seed, env=EASY, action=action, success=done)


def test_giving_up_on_what_is_hard_does_not_look_quick(episodes):
    thorough = [soon(0, 10), soon(1, 30)]
    gives_up = [soon(0, 10), soon(1, None)]
    name = "restricted_steps_to_success"
    assert compute("steps_to_success", gives_up).value < compute("steps_to_success", thorough).value
    assert compute(name, gives_up).value == (10 + 32) / 2
    assert compute(name, thorough).value == compute("steps_to_success", thorough).value == 20
    result = compute(name, episodes)
    assert result.parts[EASY].value == pytest.approx((18 * 21 + 2 * 32) / 20)
    assert result.details["budget"] == {EASY: 32, HARD: 32}


def test_the_budget_is_what_every_failure_was_given():
    result = compute("restricted_steps_to_success", [soon(0, 30), soon(1, None, 20), soon(2, 5)])
    assert result.details["budget"] == {EASY: 20}
    assert result.value == pytest.approx((20 + 20 + 5) / 3)
    solved = dataclasses.replace(soon(3, 1), success_at_reset=True)
    other = compute("restricted_steps_to_success", [soon(0, 30), solved])
    assert (other.value, other.undefined) == (30, {"solved at the start": 1})


def test_what_is_no_rate_is_pooled_over_tasks_and_seeds_as_success_is():
    """Six tasks that take 4, 8 .. 24 steps, and one that takes 6 or 22 as training went."""
    quick = lambda env, steps, seed, policy="": dataclasses.replace(  # noqa: E731
        soon(seed, steps + seed % 5 - 2), env=env, policy=policy
    )
    every = [quick(f"toy/{task}", 4 * task, s) for task in range(1, 7) for s in range(20)]
    found = compute("steps_to_success", every)
    assert found.value == pytest.approx(14)
    # Tasks drawn with repetition: the starts, of deviation 1.4, add nearly nothing.
    error = 4 * np.sqrt(35 / 12 / 6)
    assert found.interval == pytest.approx((14 - 1.96 * error, 14 + 1.96 * error), abs=0.7)
    assert found.parts["toy/2"].interval == pytest.approx((8 - 0.6, 8 + 0.6), abs=0.15)
    fewer = compute("steps_to_success", [e for e in every if e.seed < 5 or e.env > "toy/3"])
    assert fewer.value == pytest.approx(14)
    seeds = [
        quick(EASY, steps, s, name) for name, steps in (("a", 6), ("b", 22)) for s in range(20)
    ]
    two = compute("steps_to_success", seeds)
    assert two.value == pytest.approx(14)
    assert two.interval == pytest.approx((6, 22), abs=1)


def test_every_measure_of_episodes_calls_them_by_policy_task_and_seed(episodes):
    both = [dataclasses.replace(one, policy=name) for one in episodes[:3] for name in "ab"]
    for name in ("steps_to_success", "restricted_steps_to_success", "motion_without_contact"):
        found = compute(name, both)
        assert set(found.items) == {f"{name}/{EASY}/{seed}" for name in "ab" for seed in range(3)}


def test_what_cannot_be_computed_says_why(episodes):
    assert compute("success_any", []).why_not == "there are no episodes"
    assert "no blind rows" in compute("success_over_blind", episodes).why_not
    some = compute("success_over_blind", episodes, blind={EASY: BLIND[EASY]})
    assert "no blind rows of 'toy/hard'" in some.why_not
    expert_only = {env: {"expert": (20, 20)} for env in (EASY, HARD)}
    assert "neither" in compute("success_over_blind", episodes, blind=expert_only).why_not
    twice = compute("success_any", [episodes[0], episodes[0]])
    assert "two episodes from one start seed" in twice.why_not
    assert compute("steps_to_success", episodes[30:]).why_not == "no success (10)"


def test_metrics_are_found_by_name():
    assert {"success_any", "moving_psnr", "eic", "eic_cf", "skill", "div"} <= set(names())
    assert {"restricted_steps_to_success", "progress", "action_smoothness"} <= set(names())
    assert find("eic").needs == "probes"
    assert find("success_any").needs == "episodes"
    with pytest.raises(KeyError, match="did you mean 'moving_psnr'"):
        compute("movin_psnr", [])


def test_a_result_is_a_number_or_a_reason():
    with pytest.raises(ValueError, match="a value or says why not"):
        Result("eic")
    with pytest.raises(ValueError, match="must say why"):
        Result("eic", value=float(np.nan))


def test_tasks_of_a_chain_are_counted_where_there_is_one(episodes):
    chained = []
    for episode, most in zip(episodes[:3], (0, 2, 1), strict=True):
        counts = np.minimum(np.arange(len(episode)), most)
        chained.append(dataclasses.replace(episode, columns={"tasks_done": counts}))
    result = compute("tasks_done", chained)
    assert (result.value, result.n) == (1.0, 3)
    assert compute("tasks_done", episodes).why_not == f"no chain of tasks ({len(episodes)})"


def test_doing_what_is_told_is_judged_apart_from_success(episodes):
    told = []
    for episode, when in zip(episodes[:4], (0, 1, None, None), strict=True):
        done = np.arange(len(episode)) == when
        told.append(dataclasses.replace(episode, columns={"told_done": done}))
    result = compute("success_told", [*told, *episodes[4:6]])
    assert (result.value, result.n) == (0.5, 4)
    assert compute("success_any", told).value == np.mean([one.success_any for one in told])
    assert "nothing else can be told" in compute("success_told", episodes).why_not


CHAIN = "scene/open-drawer+press-left-button"


def chained(env: str, most: int, seed: int = 0) -> Episode:
    """An episode in which this many tasks were done before the last was undone again."""
    counts = np.minimum(np.arange(len(FAILED)), most)
    counts[-1] = 0
    return dataclasses.replace(FAILED, env=env, seed=seed, columns={"tasks_done": counts})


def test_progress_is_the_share_of_a_chain_that_was_done():
    result = compute("progress", [chained(CHAIN, most, most) for most in (0, 1, 2)])
    assert result.value == pytest.approx(0.5)
    assert sorted(result.items.values()) == [0, 0.5, 1]
    own = compute("progress", [chained("mine/kitchen", 3)], asked={"mine/kitchen": 4})
    assert own.value == 0.75


def test_progress_is_not_made_up_where_logs_do_not_hold_it(episodes):
    assert compute("progress", episodes).why_not == f"no chain of tasks ({len(episodes)})"
    unknown = compute("progress", [chained("mine/kitchen", 3)])
    assert unknown.why_not == "how many tasks mine/kitchen asks is not known: pass asked= (1)"
    ready = dataclasses.replace(chained(CHAIN, 2), success_at_reset=True)
    assert compute("progress", [ready]).why_not == "solved at the start (1)"
    with pytest.raises(ValueError, match="3 tasks done of 2 asked"):
        compute("progress", [chained(CHAIN, 3)])


def acting(action: np.ndarray, replans: tuple[int, ...] = ()) -> Episode:
    action = np.asarray(action, np.float32).reshape(len(action), -1)
    plans = [Replan(step, "chunk executed") for step in replans]
    never = np.zeros(len(action), bool)
    return dataclasses.replace(FAILED, action=action, success=never, replans=plans)


def smoothness(action: np.ndarray) -> float:
    return compute("action_smoothness", [acting(action)]).value


def test_smoothness_knows_a_ramp_a_wave_a_flutter_and_noise():
    steps = np.arange(64)
    rng = np.random.default_rng(0)
    assert smoothness(steps) == pytest.approx(1 - 6 / (64 * 65))
    assert smoothness(np.sin(2 * np.pi * steps / 8)) == pytest.approx(np.cos(np.pi / 4), abs=0.02)
    assert smoothness((-1.0) ** steps) == pytest.approx(-1 + 2 / 64)
    noise = [acting(rng.normal(size=64)) for _ in range(200)]
    noise = [dataclasses.replace(one, seed=i) for i, one in enumerate(noise)]
    assert compute("action_smoothness", noise).value == pytest.approx(0, abs=0.03)
    assert smoothness(steps / 64 + 0.3 * rng.normal(size=64)) < smoothness(steps) - 0.3


def test_smoothness_has_no_unit_and_leaves_out_what_does_not_vary():
    wave = np.sin(np.arange(40) / 3)
    other = np.cos(np.arange(40) ** 2)
    alone = (smoothness(wave) + smoothness(other)) / 2
    assert smoothness(np.stack([wave, other], axis=1)) == pytest.approx(alone)
    raw = np.stack([1000 * wave + 7, np.ones(40), 0.001 * other], axis=1)
    assert smoothness(raw) == pytest.approx(alone, abs=1e-4)


def test_jumps_between_plans_are_told_from_jumps_inside_them():
    saw = np.tile(np.arange(8.0), 5)
    result = compute("action_smoothness", [acting(saw, (0, 8, 16, 24, 32))])
    changes = np.diff(saw) ** 2 / (2 * saw.var(ddof=1))
    assert result.details["at_replans"] == pytest.approx(1 - changes.max())
    assert result.details["inside_plans"] == pytest.approx(1 - changes.min())
    assert result.details["at_replans"] < 0 < result.details["inside_plans"]
    assert compute("action_smoothness", [acting(saw, (0,))]).details == {}


def test_smoothness_of_what_does_not_move_is_undefined():
    still = [acting(np.ones((9, 2))), acting(np.arange(2.0))]
    why = "fewer than 3 actions, or none that varies (2)"
    assert compute("action_smoothness", still).why_not == why


def test_a_rate_records_its_starts_and_the_rules_of_choice(episodes):
    rules = {"starts": "the first 20", "checkpoint": "the last of the budget"}
    for name in ("success_any", "success_last", "success_at_reset"):
        details = compute(name, episodes, chosen=rules).details
        assert details["starts"] == "train 0 to 19, the same for every task and policy"
        assert details["chosen"] == {**rules, "seeds": "not said"}
    over = compute("success_over_blind", episodes, blind=BLIND, chosen=rules).details
    assert over["chosen"]["checkpoint"] == "the last of the budget"
    with pytest.raises(KeyError, match="no rule of 'seed' is recorded; did you mean 'seeds'"):
        compute("success_any", episodes, chosen={"seed": "0, 1, 2"})


def test_starts_that_were_picked_show_in_the_record(episodes):
    easy, hard = episodes[:20], episodes[20:]
    starts = lambda some: compute("success_any", some).details["starts"]  # noqa: E731
    assert starts(easy) == "train 0 to 19"
    assert starts(easy[:1]) == "train 0"
    assert starts(easy[:3] + easy[9:]) == "14 of train 0 to 19"
    assert starts(easy + hard[:5]) == "train 0 to 19, not the same for every task and policy"
    judged = [dataclasses.replace(one, seed=start_seed("evaluation", one.seed)) for one in easy]
    assert starts(judged) == "evaluation 0 to 19"
    assert starts([*judged, easy[4]]) == "train 4, evaluation 0 to 19"
    elsewhere = [dataclasses.replace(easy[0], seed=7_000_000)]
    assert starts(elsewhere) == "seed 7000000"
