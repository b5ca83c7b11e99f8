"""Whether a model keeps the contract of `wamlab.models.base`, checked on synthetic batches.

`check_model` works for any subclass of `WorldActionModel`, a stranger's too, in a few seconds on
its tiny configuration. Every check is a function from a `Subject` to sentences that say what is
wrong; none means that it holds.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor

from wamlab.models.base import ModelConfig, Refusal, Stage, WorldActionModel
from wamlab.nn.audit import (
    Asked,
    ask,
    audit,
    map_tensors,
    outputs,
    poison,
    poison_answers,
    question,
    stirred,
)
from wamlab.train.answers import alone, close, misshapen, mixed, row_of, same
from wamlab.train.learner import buffers_under, named_by
from wamlab.train.resumed import stages_of_a_run
from wamlab.train.synthetic import fixed_batch, fixed_statistics, mixed_batch, without_last_action
from wamlab.types import ACTION, FUTURE, QUERIES, VIDEO, Batch, Query

CARD = ("carrier", "extractor", "coupling", "generation", "action labels")
LARGEST_SMALL = 8_000_000
MOST_TOKENS = 256
GRADIENT_STEPS = 5
LEARNING_STEPS = 25
ROWS = 4


@dataclass(frozen=True)
class Subject:
    """A model class at one configuration, with fixed batches that fit it."""

    model_class: type[WorldActionModel]
    config: ModelConfig

    @property
    def name(self) -> str:
        return self.model_class.name

    @cached_property
    def stages(self) -> list[Stage]:
        return self.build().stages()

    @cached_property
    def queries(self) -> list[Query]:
        return list(self.build().queries)

    @cached_property
    def batch(self) -> Batch:
        """What every stage reads, all present: what a question is asked with."""
        return fixed_batch(self.config, [stage.window for stage in self.stages], rows=ROWS)

    def build(self, seed: int = 0) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.model_class(self.config)
        model.fit(fixed_statistics(self.config))
        return model

    @cached_property
    def stirred(self) -> Any:
        """One whose parameters are all at work."""
        return stirred(self.build())

    def asked(self, query: Query, batch: Batch | None = None) -> Asked:
        return question(self.stirred, batch or self.batch, query)


def check_model(
    model_class: type[WorldActionModel], config: ModelConfig | None = None
) -> list[str]:
    """Everything that is wrong with a model, at its tiny configuration; empty where nothing is.

    A check that cannot run because the model raises is a problem too, not the end.
    """
    kind: Any = model_class.Config
    subject = Subject(model_class, config or kind.tiny())
    checks = (*CHECKS, *([devices_agree] if torch.cuda.is_available() else []))
    return [problem for check in checks for problem in run_check(check, subject)]


def run_check(check: Callable[[Subject], Iterator[str]], subject: Subject) -> list[str]:
    """The problems of one check, each beginning with the model's name and that of the check."""
    head = f"{subject.name}, {check.__name__.replace('_', ' ')}"
    try:
        return [f"{head}: {problem}" for problem in check(subject)]
    except Exception as error:
        return [f"{head}: raised {type(error).__name__}: {error}"]


def description(subject: Subject) -> Iterator[str]:
    """The card is complete; what is declared of the answers is consistent."""
    if missing := [key for key in CARD if key not in subject.model_class.card]:
        yield f"the card lacks {', '.join(missing)}"
    for query, answer in subject.build().queries.items():
        if (answer.space is not None) != (FUTURE in query.sampled):
            yield f"{query}: space is {answer.space!r}, but it samples {sorted(query.sampled)}"
        if (answer.coupling is not None) != (len(query.sampled) > 1):
            yield f"{query}: coupling is {answer.coupling!r} for {sorted(query.sampled)}"


def loss_falls(subject: Subject) -> Iterator[str]:
    """On a fixed batch with a fixed generator each stage learns, and only what it declares."""
    model = subject.build()
    for stage in subject.stages:
        batch = fixed_batch(subject.config, stage.window, rows=ROWS, roles=stage.roles)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        losses = list(_learn(model, stage, [batch] * LEARNING_STEPS, fixed=True))
        if not losses[-1] < 0.95 * losses[0]:
            yield f"stage {stage.name}: the loss goes from {losses[0]:.4g} to {losses[-1]:.4g}"
        held = set(before) - {*named_by(model, stage.trains), *buffers_under(model, stage.trains)}
        now = model.state_dict()
        if changed := sorted(name for name in held if not torch.equal(before[name], now[name])):
            yield f"stage {stage.name}: {changed[0]} is frozen and was trained"


def gradients_arrive(subject: Subject) -> Iterator[str]:
    """Every trainable parameter gets a gradient within five steps over rows of every role."""
    model = subject.build()
    for stage in subject.stages:
        waiting = {n for n in named_by(model, stage.trains) if model.get_parameter(n).requires_grad}
        batches = [mixed_batch(subject.config, stage, step, ROWS) for step in range(GRADIENT_STEPS)]
        for _ in _learn(model, stage, batches):
            waiting -= {n for n in waiting if _pulled(model.get_parameter(n).grad)}
        for name in sorted(waiting):
            yield f"stage {stage.name}: parameter {name} got no gradient in {GRADIENT_STEPS} steps"


def answers_have_their_shapes(subject: Subject) -> Iterator[str]:
    """Declared queries give what they promise, and nothing else."""
    for query, answer in subject.stirred.queries.items():
        found = ask(subject.stirred, query, subject.asked(query))
        yield from (f"{query}: {line}" for line in misshapen(subject.stirred, query, found, ROWS))
        if found.cost.calls != answer.calls:
            yield f"{query}: {answer.calls} network calls declared, {found.cost.calls} reported"


def others_are_refused(subject: Subject) -> Iterator[str]:
    for query in (q for q in QUERIES.values() if q not in subject.queries):
        asked = Asked(subject.batch.observation())
        try:
            ask(subject.stirred, query, asked)
        except Refusal:
            continue
        yield f"{query} is not declared, but answered"


def seeds_decide(subject: Subject) -> Iterator[str]:
    """Same seed, same output, whatever the global state; other seeds differ iff stochastic."""
    for query, answer in subject.stirred.queries.items():
        asked = subject.asked(query)
        with _global_seed(1):
            one, other = (outputs(ask(subject.stirred, query, asked, seed=s)) for s in (1, 2))
        with _global_seed(2):
            again = outputs(ask(subject.stirred, query, asked, seed=1))
        if not same(one, again):
            yield f"{query}: the same seed gives another answer (global randomness)"
        elif same(one, other) == answer.stochastic:
            said = "stochastic" if answer.stochastic else "deterministic"
            yield f"{query}: declared {said}, but other seeds give {_how(one, other)} answer"
    for stage in subject.stages:
        batch = fixed_batch(subject.config, stage.window, rows=ROWS, roles=stage.roles)
        drawn = []
        for seed in (1, 2):
            with _global_seed(seed):
                drawn.append(_loss(subject.stirred, batch, stage, seed=0)["loss"])
        if not torch.equal(*drawn):
            yield f"stage {stage.name}: the loss does not draw from its generator alone"


def rows_are_apart(subject: Subject) -> Iterator[str]:
    """A row's answer depends neither on the other rows nor on their number."""
    for query in subject.queries:
        asked = subject.asked(query)
        base = outputs(ask(subject.stirred, query, asked))
        crowd = fixed_batch(subject.config, [s.window for s in subject.stages], rows=ROWS, seed=9)
        others = mixed(asked, subject.asked(query, crowd))
        if not same(row_of(base, 0), row_of(outputs(ask(subject.stirred, query, others)), 0)):
            yield f"{query}: row 0 changes with the other rows of its batch"
            continue
        single = alone(subject.stirred, query, asked, row=2)
        for name, tensors in row_of(base, 2).items():
            if not all(map(close, tensors, single[name])):
                yield f"{query}: the {name} of a row changes when it is asked alone"


def saved_is_loaded(subject: Subject) -> Iterator[str]:
    """Weights saved as safetensors make a fresh model answer the same."""
    fresh = subject.build(seed=1).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(subject.stirred, str(path))
        load_model(fresh, str(path), strict=True)
    for query in subject.queries:
        asked = subject.asked(query)
        one, two = (outputs(ask(model, query, asked)) for model in (subject.stirred, fresh))
        if not same(one, two):
            yield f"{query}: the answer differs after saving and loading"


def resumed_is_unbroken(subject: Subject) -> Iterator[str]:
    """Broken off inside every stage and resumed, a run ends with the bits of one that was not."""
    statistics, runs = fixed_statistics(subject.config), []
    with tempfile.TemporaryDirectory() as folder:
        for name, breaks in (("whole", False), ("resumed", True)):
            out = Path(folder) / name
            runs.append(stages_of_a_run(subject.build, statistics, out, rows=ROWS, breaks=breaks))
    for one, two in zip(*runs, strict=True):
        if one.digest != two.digest:
            yield f"stage {one.name}: broken off and resumed it ends with other weights"


def flows_are_declared(subject: Subject) -> Iterator[str]:
    for query in subject.queries:
        for line in audit(subject.build(), subject.batch, query).violations:
            yield line.partition(", ")[2]


def absent_is_never_read(subject: Subject) -> Iterator[str]:
    for stage in subject.stages:
        batch = fixed_batch(subject.config, stage.window, rows=ROWS, roles=stage.roles)
        for line in poison(subject.build(), batch, stage=stage.name):
            yield line.partition(", ")[2]
    for query in subject.queries:
        for line in poison_answers(subject.build(), subject.batch, query):
            yield line.partition(", ")[2]


def action_free_rows_teach_no_action(subject: Subject) -> Iterator[str]:
    """Video rows contribute exactly zero to action losses and to action-only parameters."""
    only_action = _only_action(subject)
    for stage in (s for s in subject.stages if "video" in s.roles and ACTION in s.window.streams):
        batch = fixed_batch(subject.config, stage.window, rows=ROWS, roles=["video"])
        batch[ACTION].present[:] = False
        model = stirred(subject.build())
        losses = _loss(model, batch, stage, seed=0)
        if ACTION in losses and losses[ACTION].item() != 0:
            yield f"stage {stage.name}: the action loss is {losses[ACTION].item():.4g}"
        if losses["loss"].requires_grad:
            losses["loss"].backward()
        for name in sorted(n for n in only_action if _pulled(model.get_parameter(n).grad)):
            yield f"stage {stage.name}: action-only parameter {name} gets a gradient"


def likelihoods_are_of_rows(subject: Subject) -> Iterator[str]:
    """A likelihood is the row's own and of what was recorded alone; without one it is refused."""
    model, batch = subject.stirred, subject.batch
    for query in QUERIES.values():
        try:
            found = _likelihood(model, batch, query)
        except Refusal:
            continue
        if query not in subject.queries:
            yield f"{query} is not declared, but has a likelihood"
            continue
        numbers = {name: value for name, value in vars(found).items() if name != "levels"}
        for name, value in numbers.items():
            if len(value) != ROWS or not bool(torch.isfinite(value).all()):
                yield f"{query}: the {name} of a likelihood are not {ROWS} rows of finite numbers"
        single = vars(_likelihood(model, batch, query, rows=[2]))
        if not all(close(value[[2]], single[name]) for name, value in numbers.items()):
            yield f"{query}: the likelihood of a row changes when it is asked alone"
        if ACTION in query.sampled:
            shorter = _likelihood(model, without_last_action(batch), query)
            less = (found.dims - shorter.dims).tolist()
            if less != [batch[ACTION].values.shape[-1]] * ROWS:
                yield f"{query}: without the last action a likelihood has {less} dimensions less"
            if not all(bool(torch.isfinite(value).all()) for value in vars(shorter).values()):
                yield f"{query}: a likelihood reads an action that is not there"


def tiny_is_fast(subject: Subject) -> Iterator[str]:
    model = subject.build()
    for stage in subject.stages:
        batch = fixed_batch(subject.config, stage.window, rows=ROWS, roles=stage.roles)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            list(_learn(model, stage, [batch]))
            seconds.append(time.perf_counter() - start)
        if min(seconds) > 1:
            yield f"stage {stage.name}: a step takes {min(seconds):.1f} s, at most 1 s is allowed"


def small_is_small(subject: Subject) -> Iterator[str]:
    kind: Any = subject.model_class.Config
    with torch.device("meta"):
        model: Any = subject.model_class(kind.small())
    if (count := sum(p.numel() for p in model.parameters())) > LARGEST_SMALL:
        yield f"small() has {count} parameters, at most {LARGEST_SMALL} are allowed"
    if (model.tokens or 0) > MOST_TOKENS:
        yield f"small() has {model.tokens} tokens, at most {MOST_TOKENS} are allowed"


def devices_agree(subject: Subject, device: str = "cuda") -> Iterator[str]:
    """Another device gives the CPU's answers and likelihoods, and every stage finite gradients."""
    here, there = subject.stirred, copy.deepcopy(subject.stirred).to(device)
    batch = subject.batch.to(device)
    with _whole_precision():
        for query in subject.queries:
            asked = subject.asked(query)
            moved = map_tensors(asked, lambda tensor: tensor.to(device), every=True)
            found, again = (
                outputs(ask(model, query, one)) for model, one in ((here, asked), (there, moved))
            )
            for name in found:
                if not _all_near(found[name], again[name]):
                    yield f"{query}: the {name} is another on {device}"
            try:
                known = vars(_likelihood(here, subject.batch, query))
            except Refusal:
                continue
            if not _all_near([*known.values()], [*vars(_likelihood(there, batch, query)).values()]):
                yield f"{query}: the likelihood is another on {device}"
        for stage in there.stages():
            generator = torch.Generator(device).manual_seed(0)
            loss = there.loss(batch, stage=stage.name, step=0, generator=generator)["loss"]
            loss.backward()
            live = [p.grad for p in there.parameters() if p.grad is not None]
            if not all(bool(torch.isfinite(grad).all()) for grad in live):
                yield f"stage {stage.name}: the gradient on {device} is not finite"
            there.zero_grad()


CHECKS: tuple[Callable[[Subject], Iterator[str]], ...] = (
    description,
    loss_falls,
    gradients_arrive,
    answers_have_their_shapes,
    others_are_refused,
    seeds_decide,
    rows_are_apart,
    saved_is_loaded,
    resumed_is_unbroken,
    flows_are_declared,
    absent_is_never_read,
    action_free_rows_teach_no_action,
    likelihoods_are_of_rows,
    tiny_is_fast,
    small_is_small,
)


def _learn(
    model: Any, stage: Stage, batches: Sequence[Batch], *, fixed: bool = False
) -> Iterator[float]:
    """The loss of each step; gradients stay in place until the next."""
    trained = set(named_by(model, stage.trains))
    held = [p for n, p in model.named_parameters() if n not in trained and p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    live = [p for n, p in model.named_parameters() if n in trained and p.requires_grad]
    optimizer = torch.optim.Adam(live, lr=3e-3)
    model.train()
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = _loss(model, batch, stage, seed=0 if fixed else step, step=step)["loss"]
        loss.backward()
        optimizer.step()
        model.after_step()
        yield float(loss.detach())
    for parameter in held:
        parameter.requires_grad_(True)


def _loss(model: Any, batch: Batch, stage: Stage, *, seed: int, step: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return model.loss(batch, stage=stage.name, step=step, generator=generator)


@torch.no_grad()
def _likelihood(model: Any, batch: Batch, query: Query, rows: Sequence[int] = range(ROWS)) -> Any:
    """The likelihood of some rows at three levels, each row with a seed of its own."""
    generator = [torch.Generator().manual_seed(row) for row in rows]
    levels = torch.tensor([1.0, 0.5, 0.1])
    return model.likelihood(batch.select([*rows]), query, levels=levels, generator=generator)


def _only_action(subject: Subject) -> set[str]:
    """Parameters on which a sampled action depends and a sampled future does not."""
    reached: dict[str, set[str]] = {ACTION: set(), FUTURE: set()}
    named = [(n, p) for n, p in subject.stirred.named_parameters() if p.requires_grad]
    for query in subject.queries:
        found = outputs(ask(subject.stirred, query, subject.asked(query)))
        for target in reached.keys() & found.keys():
            live = [t.square().sum() for t in found[target] if t.requires_grad]
            if not live:
                continue
            grads = torch.autograd.grad(
                torch.stack(live).sum(), [p for _, p in named], retain_graph=True, allow_unused=True
            )
            reached[target] |= {n for (n, _), g in zip(named, grads, strict=True) if _pulled(g)}
    return reached[ACTION] - reached[FUTURE] if VIDEO in subject.queries else set()


def _how(one: dict[str, list[Tensor]], two: dict[str, list[Tensor]]) -> str:
    return "the same" if same(one, two) else "another"


def _pulled(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


def _all_near(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """As near as other kernels of the same arithmetic come."""
    return all(
        torch.allclose(one.float(), other.cpu().float(), rtol=1e-3, atol=1e-3)
        for one, other in zip(ones, others, strict=True)
    )


@contextmanager
def _whole_precision() -> Iterator[None]:
    """A GPU rounds the inputs of convolutions, if it may also of products, to 10 bits."""
    cudnn, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(products)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
