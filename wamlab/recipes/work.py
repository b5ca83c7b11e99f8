"""A run carried out: from a recipe's value to a dataset, a trained folder, episodes and probes.

Each function is one arrow of docs/architecture.md, with the run's numbers filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.cache import Cache
from wamlab.data.commit import steady
from wamlab.data.layout import read_layout
from wamlab.data.lerobot import Dataset
from wamlab.data.logs import load_blind, read_json, save_blind, save_chosen, save_rivals
from wamlab.data.manifest import check_open
from wamlab.data.mixture import Mixture
from wamlab.data.normalize import statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.data.space import common_space, common_state_names
from wamlab.data.window import Windows
from wamlab.metrics.rivals import dataset_rivals, show
from wamlab.models.base import Stage, WorldActionModel, model_class
from wamlab.policy.acting import acting, acts, executor_for
from wamlab.policy.policy import Policy, load
from wamlab.recipes.clips import clips_of
from wamlab.recipes.run import DataConfig, Run
from wamlab.run.collect import Collected, collect
from wamlab.run.impose import check_imposed
from wamlab.run.probe import check_told, probe
from wamlab.run.rollout import rollout
from wamlab.train.device import choose_device
from wamlab.train.feed import Feed
from wamlab.train.plan import Plan, plan
from wamlab.train.trainer import Result, train
from wamlab.types import ACTION, STATE, Episode, Probe


def expand(names: Sequence[str]) -> list[str]:
    """Environments from environments and suites, in order, each once.

    Raises:
        KeyError: neither the one nor the other, with the nearest name.
    """
    from wamlab.sim.registry import names as environments
    from wamlab.sim.suites import suite, suites

    found: dict[str, None] = {}
    known = [*suites(), *environments()]
    for name in names:
        if name not in known:
            raise KeyError(f"no environment or suite {name!r}{nearest(name, known)}")
        found |= dict.fromkeys(suite(name) if name in suites() else [name])
    return list(found)


def collect_data(data: DataConfig, out: str | Path, *, workers: int = 2) -> list[Collected]:
    """The demonstrations that a run asks for, as one dataset; an interrupted one goes on."""
    return collect(
        expand(data.envs),
        data.episodes,
        out,
        start=data.start,
        variants=data.variants,
        bursts=data.bursts,
        workers=workers,
    )


def on_data(run: Run, data: Sequence[str | Path]) -> Run:
    """The run as these datasets make it: ``data.envs`` are the environments that they hold.

    Raises:
        DataError: there is no dataset, or its metadata is damaged.
    """
    layouts = [steady(path, partial(read_layout, path)) for path in map(Path, data)]
    named = (entry.extras.get("env") for layout in layouts for entry in layout.entries)
    found = dict.fromkeys(str(env) for env in named if env)
    if set(found) in ({*run.data.envs}, {*taught_in(run)}):
        return run
    return dataclasses.replace(run, data=dataclasses.replace(run.data, envs=tuple(found)))


def taught_in(run: Run) -> list[str]:
    """The environments of a run's data, of those that there are here."""
    from wamlab.sim.registry import names
    from wamlab.sim.suites import suites

    known = {*suites(), *names()}
    return expand([env for env in run.data.envs if env in known])


def open_caches(run: Run, data: Sequence[str | Path]) -> list[Cache]:
    """The decoded datasets, with the views and sizes that the run's model reads.

    Raises:
        DataError: their actions or states do not mean the same, or cannot be read at the model's
            rate; nothing is decoded then.
    """
    model, how = run.model, run.data
    datasets = [Dataset(path, alignment=how.alignment) for path in data]
    common_space(datasets, model.rate_hz)
    common_state_names(datasets)
    return [
        Cache.open(dataset, views=model.views, image_size=model.image_size, resize=how.resize)
        for dataset in datasets
    ]


def check_weights(run: Run, data: Sequence[str | Path]) -> None:
    """Raise ValueError unless the run weighs each of its datasets, or none."""
    weights = run.data.weights
    if len(weights) not in (0, len(data)):
        raise ValueError(
            f"data.weights are {list(weights)}, expected one for each of {len(data)} datasets"
        )


def build_model(run: Run) -> WorldActionModel:
    """The run's model with the weights of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.train.seed)
        return model_class(run.system)(run.model)


def feed(
    run: Run, caches: Sequence[Cache], model: WorldActionModel, *, held_out: bool = False
) -> Feed:
    """The batches of every stage of the model, read ahead: to learn from, or the held-out ones."""
    seed, size, weights = run.train.seed, run.train.batch_size, run.data.weights
    parts = [split_episodes(cache, run.data) for cache in caches]
    used = [place for place, part in enumerate(parts) if part.held_out or not held_out]
    shares = [weights[place] for place in used] if weights else None
    sources = {
        stage.name: [
            Windows(
                caches[place],
                stage.window,
                roles=stage.roles,
                action_free=parts[place].action_free,
                without=parts[place].taught if held_out else parts[place].held_out,
            )
            for place in used
        ]
        for stage in model.stages()
    }
    return Feed(
        {name: Mixture(s, shares, seed=seed, batch_size=size) for name, s in sources.items()}
    )


class Parts(NamedTuple):
    """Episodes of a dataset by what training does with them; ``action_free`` are ``taught`` too."""

    taught: set[int]
    action_free: set[int]
    held_out: set[int]


def split_episodes(cache: Cache, data: DataConfig) -> Parts:
    """What training does with each episode.

    Raises:
        ValueError: as many episodes of an environment are held out as there are.
    """
    episodes: dict[str, list[int]] = {}
    for index, info in enumerate(cache.episodes):
        episodes.setdefault(info.env, []).append(index)
    parts = Parts(set(), set(), set())
    for env, indices in episodes.items():
        kept = len(indices) - _held_out(data.held_out, len(indices))
        if kept < 1:
            raise ValueError(
                f"held_out is {data.held_out}, but {cache.path} has {len(indices)} episodes of "
                f"{env}"
            )
        parts.taught.update(indices[:kept])
        parts.action_free.update(indices[: round(data.action_free * kept)])
        parts.held_out.update(indices[kept:])
    return parts


def _held_out(wanted: float, episodes: int) -> int:
    """How many of an environment's episodes are held out: a count as it is, or a share of them."""
    if wanted == 0 or wanted >= 1:
        return int(wanted)
    return max(1, int(wanted * episodes + 1e-9)) if episodes > 1 else 0


def fit_processor(run: Run, caches: Sequence[Cache]) -> Processor:
    """What normalises for this run: fitted on the datasets, with their sentences encoded."""
    from wamlab.nn.text import SentenceEncoder

    first = caches[0]
    parts = [split_episodes(cache, run.data) for cache in caches]
    unseen = [{STATE: p.held_out, ACTION: p.held_out | p.action_free} for p in parts]
    config = ProcessorConfig(
        views=run.model.views,
        image_size=run.model.image_size,
        state_names=common_state_names(caches),
        rate_hz=run.model.rate_hz,
        embodiment=first.embodiment,
    )
    rate = run.model.rate_hz
    space, measured = common_space(caches, rate), statistics(caches, unseen, rate_hz=rate)
    processor = Processor(config, space, measured, encoder=SentenceEncoder())
    processor.learn_sentences([episode.task for cache in caches for episode in cache.episodes])
    return processor


def train_run(
    run: Run,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Result:
    """Train a run on datasets; the folder then loads as a policy and knows its whole run.

    What it knows as ``data.envs`` are the environments of these datasets (`on_data`).

    Raises:
        ValueError: validation is asked for, but no episode is held out for it; ``data.weights``
            that are not one for each dataset.
    """
    check_weights(run, data)
    run = on_data(run, data)
    caches = open_caches(run, data)
    kept_out = any(split_episodes(cache, run.data).held_out for cache in caches)
    if run.train.validate_every and not kept_out:
        raise ValueError("no episode to validate on: give data.held_out, or train.validate_every=0")
    model, processor = build_model(run), fit_processor(run, caches)
    with ExitStack() as stack:
        batches = stack.enter_context(feed(run, caches, model))
        validation = None
        if run.train.validate_every:
            validation = stack.enter_context(feed(run, caches, model, held_out=True))

        def before_stage(stage: Stage, model: WorldActionModel) -> None:
            for source in (batches, validation):
                if source is not None:
                    serve_latents(run, source, stage, model)

        return train(
            model,
            batches,
            processor,
            run.train,
            out,
            resume=resume,
            device=device,
            progress=progress,
            statistics=processor.model_statistics(),
            action_space=processor.space,
            validation=validation,
            about={
                "run": run.to_dict(),
                "dataset": [cache.dataset for cache in caches],
                "data": [str(Path(path).resolve()) for path in data],
            },
            before_stage=before_stage,
        )


def serve_latents(
    run: Run, batches: Feed, stage: Stage, model: WorldActionModel, *, stand_in: bool = False
) -> None:
    """Let a stage read codes where the run's training does; see `Feed.serve_latents`."""
    # A shifted frame has another code than the one that is kept.
    if not run.train.augment_shift:
        batches.serve_latents(stage, model, stand_in=stand_in)


def plan_run(run: Run, data: Sequence[str | Path], *, device: str = "auto") -> Plan:
    """What training a run on datasets will take; a few steps are measured.

    Nothing is written but the cache of the datasets, which training reads.

    Raises:
        ValueError: ``data.weights`` that are not one for each dataset.
    """
    check_weights(run, data)
    caches = open_caches(run, data)
    model, processor = build_model(run), fit_processor(run, caches)
    model.fit(processor.model_statistics())
    with feed(run, caches, model) as batches:
        for stage in model.stages():
            serve_latents(run, batches, stage, model, stand_in=True)
        found = plan(model.to(choose_device(device)), batches, processor, run.train)
        stages = [dataclasses.replace(one, roles=batches.shares(one.name)) for one in found.stages]
    return dataclasses.replace(found, stages=tuple(stages))


def run_of(checkpoint: str | Path) -> Run | None:
    """The run that made a checkpoint, or None where it was not made by a recipe.

    Raises:
        FileNotFoundError: no run folder and no checkpoint.
    """
    run = provenance_of(checkpoint).get("run")
    return Run.from_dict(run) if run else None


def provenance_of(checkpoint: str | Path) -> dict[str, Any]:
    """What a run folder or a checkpoint says of where it came from.

    Raises:
        FileNotFoundError: no run folder and no checkpoint.
    """
    folder = Path(checkpoint)
    for name in ("run.json", "config.json"):
        if (folder / name).is_file():
            return read_json(folder / name).get("provenance", {})
    raise FileNotFoundError(f"{folder} is neither a run folder nor a checkpoint")


def acting_run(checkpoint: str | Path, device: str = "auto") -> tuple[Run, Policy]:
    """A checkpoint's policy, with the run that made it.

    Raises:
        ValueError: the checkpoint was not made by a recipe.
    """
    policy = load(checkpoint, device)
    if (run := run_of(checkpoint)) is None:
        raise ValueError(f"{checkpoint} was not made by `wam train`: it knows no run to act as")
    return run, policy


def roll_out(
    run: Run,
    policy: Policy,
    envs: Sequence[str],
    out: str | Path,
    *,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    workers: int = 2,
) -> list[Episode]:
    """The run's rollouts of a policy, logged in ``out``, with the rules by which they were chosen.

    Args:
        checkpoint: where the policy was loaded from: a run folder, whose newest it then is, or one
            of its checkpoints.
        workers: processes that simulate.
    """
    rollouts = run.rollout
    episodes = rollout(
        acting(
            policy,
            execute_steps=rollouts.execute_steps,
            samples=rollouts.samples,
            choice=rollouts.choice,
            sampler=rollouts.sampler(policy.model),
            seed=seed,
        ),
        expand(envs),
        rollouts.episodes,
        batch=rollouts.batch,
        workers=workers,
        out=out,
        keep_frames=rollouts.keep_frames,
        sentence=rollouts.sentence,
        shift=rollouts.shift,
    )
    save_chosen(out, _rules(run, checkpoint))
    return episodes


def _rules(run: Run, checkpoint: str | Path | None) -> dict[str, str]:
    """By which rule starts, checkpoint and seed of a run's rollouts are chosen, before judging."""
    rules = {
        "starts": f"all evaluation starts below {run.rollout.episodes}: nothing is trained on them",
        "seeds": f"{run.train.seed}, given before training",
    }
    if checkpoint is not None:
        newest = (Path(checkpoint) / "run.json").is_file()
        rules["checkpoint"] = "the newest of the run" if newest else Path(checkpoint).name
    return rules


def save_blind_rows(envs: Sequence[str], out: str | Path) -> None:
    """Put what blindness and the expert achieve on these environments beside a run's logs.

    Rows that are there stay; an environment whose rows were never measured gets none.
    """
    from wamlab.sim.suites import blind_row

    rows = load_blind(out)
    for env in expand(envs):
        with suppress(KeyError):
            row = blind_row(env)
            rows[env] = {
                "expert": (row.expert, row.starts),
                "mean replay": (row.mean, row.starts),
                "random replay": (row.replay, row.starts),
            }
    if rows:
        save_blind(out, rows)


def show_rivals(
    run: Run, probes: Sequence[Probe], data: Sequence[str | Path], out: str | Path
) -> None:
    """Log what the rivals show for each probe, so that the report needs the logs alone."""
    if not run.model.offsets:
        return
    caches = open_caches(run, data)
    held_out = [split_episodes(cache, run.data).held_out for cache in caches]
    rivals = dataset_rivals(clips_of(caches, run.model, without=held_out))
    for one in tqdm(probes, desc="rivals"):
        save_rivals(out, one, show(one, rivals))


def check_probes(run: Run, policy: Policy, envs: Sequence[str], out: str | Path) -> None:
    """Raise what `execute_imagination` would say of what it is asked, before anything is done.

    Raises:
        DataError: ``out`` cannot take logs.
        KeyError: an unknown environment.
        ValueError: an intervention that the action space or the training does not allow.
    """
    check_open(Path(out))
    names, imposed = expand(envs), run.probe.imposed
    check_imposed(imposed, policy.space)
    check_told(names, imposed, other_instructions(run, names))


def execute_imagination(
    run: Run, policy: Policy, envs: Sequence[str], out: str | Path, *, seed: int = 0
) -> list[Probe]:
    """The run's probes of a policy, logged in ``out``."""
    check_open(Path(out))
    wanted = run.probe
    follow = executor_for(policy.model, policy.space) if acts(policy.model) else None
    return probe(
        policy,
        expand(envs),
        wanted.states,
        wanted.samples,
        imposed=wanted.imposed,
        strata=wanted.strata,
        others=other_instructions(run, expand(envs)),
        executor=follow,
        seed=seed,
        out=out,
    )


def other_instructions(run: Run, envs: Sequence[str]) -> dict[str, str]:
    """For each environment the instruction of the next one, of those that the run was trained on,
    that says something else; none for a run of one instruction."""
    from wamlab.sim.registry import instruction_of

    taught, found = taught_in(run), {}
    for env in envs:
        after = taught.index(env) + 1 if env in taught else 0
        said = [instruction_of(other) for other in (*taught[after:], *taught[:after])]
        if others := [one for one in said if one != instruction_of(env)]:
            found[env] = others[0]
    return found
