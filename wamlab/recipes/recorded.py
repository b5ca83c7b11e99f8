"""A checkpoint judged on recorded episodes: which ones, and what the rivals are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.metrics.likelihood import noise_levels
from wamlab.policy.policy import Policy
from wamlab.recipes.clips import clips_of
from wamlab.recipes.run import Run
from wamlab.recipes.work import open_caches, provenance_of, split_episodes
from wamlab.run.open_loop import open_loop
from wamlab.types import Origin, Recording

MOST_CLIPS = 1200


def read_datasets(checkpoint: str | Path) -> list[str]:
    """Digests of the datasets that a checkpoint's run was trained on."""
    return list(provenance_of(checkpoint).get("dataset", []))


def read_places(checkpoint: str | Path) -> list[str]:
    """The folders in which those datasets lay."""
    return list(provenance_of(checkpoint).get("data", []))


def replay_recorded(
    run: Run,
    policy: Policy,
    dataset: str | Path,
    out: str | Path,
    trained_on: Collection[str],
    *,
    places: Collection[str] = (),
    seed: int = 0,
) -> list[Recording]:
    """What a policy answers at instants of a dataset's episodes, logged in ``out``.

    Rivals are built from other episodes of the same dataset: those of it that training read, or,
    where training read none of it, episodes that the model never saw, which favours the rivals.

    Args:
        trained_on: digests of the datasets that the run read; of one of these, the episodes that
            it held out are taken where there are some.
        places: folders in which the run read its datasets.

    Raises:
        DataError: the run read this folder, which has changed since: which of its episodes training
            saw cannot be told, and none may pass for unread.
    """
    (cache,) = open_caches(run, [dataset])
    if cache.dataset not in trained_on and str(Path(dataset).resolve()) in places:
        raise DataError(
            f"{dataset} was trained on and has changed since: which of its episodes training saw "
            "cannot be told; give it as it was, or a dataset of new episodes alone"
        )
    wanted, how = run.open_loop, run.data
    read_as = {"alignment": how.alignment, "resize": how.resize}
    origin, candidates = usable(cache, run, trained_on)
    episodes = take_turns(cache, candidates, wanted.episodes)
    envs = {cache.episodes[e].env for e in episodes}
    clips = clips_of(
        [cache],
        run.model,
        most=MOST_CLIPS // len(envs) + 1,
        envs=envs,
        without=[candidates if origin == "held out" else ()],
    )
    levels = noise_levels(wanted.levels).tolist() if wanted.levels else []
    return open_loop(
        policy,
        cache,
        episodes,
        wanted.states,
        origin=origin,
        clips=clips,
        levels=levels,
        read_as={name: value for name, value in read_as.items() if value},
        seed=seed,
        out=out,
    )


def usable(cache: Cache, run: Run, trained_on: Collection[str]) -> tuple[Origin, list[int]]:
    """The episodes to judge on, and what training did with them."""
    everything = list(range(len(cache.episodes)))
    if cache.dataset not in trained_on:
        return "elsewhere", everything
    held_out = sorted(split_episodes(cache, run.data).held_out)
    return ("held out", held_out) if held_out else ("training", everything)


def take_turns(cache: Cache, candidates: Sequence[int], most: int) -> list[int]:
    """At most ``most`` episodes: the first of every task, then the second of every task ..."""
    tasks: dict[str, list[int]] = {}
    for episode in candidates:
        tasks.setdefault(cache.episodes[episode].env, []).append(episode)
    rounds = chain.from_iterable(zip_longest(*tasks.values()))
    return sorted([episode for episode in rounds if episode is not None][:most])
