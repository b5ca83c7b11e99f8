"""The flow audit: whether a model's answers depend on exactly what it declares.

Each input group is perturbed and the outputs are compared under the same generators; gradients of
a random projection of each output are taken back to each input; absent entries are filled with
NaN, infinity and huge numbers, and nothing may change. Zero-initialised layers hide flows, so the
audit works on a deep copy whose parameters got small seeded noise.

Only the duck type of a `WorldActionModel` is used here. Statistical marginals (UWM holds a stream
at the level of pure noise) are not independence: audit those with `wamlab.nn.calls.record_calls`.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wamlab.nn.calls import flat_tensors
from wamlab.types import ACTION, FUTURE, IMAGE, VALUE, Batch, Future, Prediction, Query, Stream

MEMORY = "memory"
TEXT = "text"
FILLS = (math.nan, math.inf, 1e6)
"""What is put where entries are absent; the answer to zeros is the reference."""

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Influence:
    """What was found and what was declared between one input group and one output."""

    source: str
    target: str
    moves: bool
    gradient: bool
    declared: bool
    declared_gradient: bool

    @property
    def violation(self) -> str | None:
        pair = f"{self.source} -> {self.target}"
        if self.moves and not self.declared:
            return f"{pair}: undeclared influence"
        if self.declared and not self.moves:
            return f"{pair}: declared, but no influence was found"
        if self.gradient and not self.declared_gradient:
            how = "declared to stop" if self.declared else "undeclared"
            return f"{pair}: gradient flows, {how}"
        if self.declared_gradient and not self.gradient:
            return f"{pair}: gradient declared to flow, none comes back"
        return None


@dataclass(frozen=True)
class FlowReport:
    """The flow audit of one query; `violations` is empty where the declaration is true."""

    model: str
    query: str
    influences: list[Influence]
    problems: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        found = [line for influence in self.influences if (line := influence.violation)]
        return [f"{self.model}, {self.query}: {line}" for line in [*self.problems, *found]]

    def __str__(self) -> str:
        """A row per input group and output: ``->`` with gradient, ``-|`` without, or nothing."""
        lines = [f"{self.model} answering {self.query}"]
        for i in self.influences:
            arrow = "->" if i.gradient else "-|" if i.moves else "  "
            lines.append(f"  {i.source:<16} {arrow} {i.target:<8}{' declared' * i.declared}")
        return "\n".join([*lines, *(f"  ! {line}" for line in self.violations)])


@dataclass(frozen=True)
class Asked:
    """Everything one answer may read, as groups that can be edited one at a time."""

    observation: Batch
    action: Stream | None = None
    future: Future | None = None
    memory: Any = None

    @property
    def groups(self) -> list[str]:
        given = {ACTION: self.action, FUTURE: self.future, MEMORY: self.memory}
        held = [name for name, value in given.items() if value is not None]
        return list(dict.fromkeys([*self.observation.streams, TEXT, *held]))

    def edited(self, group: str, edit: Edit) -> Asked:
        """The same, with every floating tensor of the group replaced; history and given together.

        ``offsets`` and ``present`` stay as they are.
        """
        seen = self.observation
        if group == TEXT:
            return dataclasses.replace(
                self, observation=dataclasses.replace(seen, text=map_tensors(seen.text, edit))
            )
        asked = self
        if group in seen.streams:
            streams = {**seen.streams, group: map_tensors(seen[group], edit)}
            asked = dataclasses.replace(
                self, observation=dataclasses.replace(seen, streams=streams)
            )
        if group in (ACTION, FUTURE, MEMORY):
            asked = dataclasses.replace(asked, **{group: map_tensors(getattr(self, group), edit)})
        return asked


def audit(
    model: Any, batch: Batch, query: Query, *, future: Future | None = None, seed: int = 0
) -> FlowReport:
    """Hold ``model.flows(query)`` to what perturbations and gradients show.

    Args:
        batch: normalised rows with a future and actions, all present.
        future: the given future, where the query gives it; by default one that the model itself
            samples.
    """
    model = stirred(model, seed=seed)
    asked = question(model, batch, query, future=future, seed=seed)
    base = outputs(ask(model, query, asked, seed=seed))
    flows, pairs = list(model.flows(query)), list(itertools.product(asked.groups, base))
    problems = [f"the answer lacks {name}" for name in _missing(query, base)]
    problems += [
        f"{flow.source} -> {flow.target}: declared, but there is no such group"
        for flow in flows
        if (flow.source, flow.target) not in pairs
    ]
    moved = {name: _moved(model, query, asked, name, base, seed) for name in asked.groups}
    pulled = _pulled(model, query, asked, seed)
    influences = []
    for pair in pairs:
        declared = [flow for flow in flows if (flow.source, flow.target) == pair]
        influences.append(
            Influence(
                *pair,
                moves=pair[1] in moved[pair[0]],
                gradient=pair in pulled,
                declared=bool(declared),
                declared_gradient=any(flow.gradient for flow in declared),
            )
        )
    return FlowReport(model.name, str(query), influences, problems)


def poison(model: Any, batch: Batch, *, stage: str, step: int = 0, seed: int = 0) -> list[str]:
    """Problems found by filling absent entries: losses and gradients must stay bit-identical.

    Row 0 loses, one stream at a time, its past or its future of that stream. The batch must fit
    the window of ``stage``.
    """
    model = stirred(model, seed=seed)
    problems = []
    for name, part, hidden in absences(batch):
        at = f"{model.name}, stage {stage}: {part} of {name} absent"
        base = _learned(model, hidden(0.0), stage, step, seed)
        if bad := [key for key, value in base.items() if not torch.isfinite(value).all()]:
            problems.append(f"{at}: {_some(bad)} not finite")
            continue
        for fill in FILLS:
            changed = _differing(base, _learned(model, hidden(fill), stage, step, seed))
            if changed:
                problems.append(f"{at} was read: {fill} there changes {_some(changed)}")
                break
    return problems


def poison_answers(
    model: Any, batch: Batch, query: Query, *, future: Future | None = None, seed: int = 0
) -> list[str]:
    """As `poison`, for the answers to one query when observed entries of row 0 are absent."""
    model = stirred(model, seed=seed)
    whole = question(model, batch, query, future=future, seed=seed)
    problems = []
    for name, part, hidden in absences(batch.observation()):
        answers = []
        for fill in (0.0, *FILLS):
            seen = hidden(fill)
            memory = model.observe(None, seen, None)
            asked = dataclasses.replace(whole, observation=seen, memory=memory)
            answers.append(flat_tensors(outputs(ask(model, query, asked, seed=seed))))
        for fill, answer in zip(FILLS, answers[1:], strict=True):
            if changed := _differing(answers[0], answer):
                where = f"{model.name}, {query}: {part} of {name} absent"
                problems.append(f"{where} was read: {fill} there changes {_some(changed)}")
                break
    return problems


def stirred(model: Any, *, scale: float = 0.05, seed: int = 0) -> Any:
    """A deep copy in evaluation mode whose parameters got noise, so that no path is closed."""
    model = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


def row_generators(rows: int, seed: int = 0) -> list[torch.Generator]:
    """One generator per row; rows and seeds are apart."""
    return [torch.Generator().manual_seed(1_000 * seed + row) for row in range(rows)]


def question(
    model: Any, batch: Batch, query: Query, *, future: Future | None = None, seed: int = 0
) -> Asked:
    """What ``query`` is asked with: the observation, its memory, and what is given."""
    seen = batch.observation()
    memory = model.observe(None, seen, None)
    action = _chunk(batch) if ACTION in query.given else None
    if FUTURE in query.given and future is None:
        future = _own_future(model, batch, seed)
    return Asked(seen, action, future if FUTURE in query.given else None, memory)


def ask(model: Any, query: Query, asked: Asked, *, seed: int = 0) -> Prediction:
    """The answer, under one generator per row, with the graph that a no_grad decorator hides."""
    sample = inspect.unwrap(type(model).sample)
    with torch.enable_grad():
        return sample(
            model,
            asked.observation,
            query,
            action=asked.action,
            future=asked.future,
            memory=asked.memory,
            generator=row_generators(len(asked.observation), seed),
        )


def outputs(prediction: Prediction) -> dict[str, list[Tensor]]:
    """The tensors of an answer by target; waypoints are how a geometric plan answers ``action``."""
    found = {}
    if prediction.action is not None:
        found[ACTION] = [prediction.action.values]
    if (plan := prediction.waypoints) is not None:
        found[ACTION] = [*found.get(ACTION, []), plan.poses, plan.tolerance, plan.gripper]
    if prediction.future is not None:
        found[FUTURE] = list(prediction.future.values.values())
    if prediction.value is not None:
        found[VALUE] = [prediction.value]
    return found


def map_tensors(value: Any, edit: Edit, *, every: bool = False) -> Any:
    """The same structure with each floating tensor edited, or with ``every`` tensor."""
    if isinstance(value, Tensor):
        return edit(value) if every or value.is_floating_point() else value
    inside = partial(map_tensors, edit=edit, every=every)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: inside(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, dict):
        return {key: inside(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [inside(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def absences(batch: Batch) -> Iterator[tuple[str, str, Callable[[float], Batch]]]:
    """Stream, part of it, and a function that hides that part in row 0 under a given filling."""
    for name, stream in batch.streams.items():
        past = stream.offsets[0] < (0 if name == ACTION else 1)
        for part, columns in (("past", past), ("future", ~past)):
            if columns.any():
                yield name, part, partial(_hidden, batch, name, columns)


def _hidden(batch: Batch, name: str, columns: Tensor, fill: float) -> Batch:
    stream = batch[name]
    values, present = stream.values.clone(), stream.present.clone()
    values[0, columns] = fill
    present[0, columns] = False
    hidden = dataclasses.replace(stream, values=values, present=present)
    return dataclasses.replace(batch, streams={**batch.streams, name: hidden})


def _chunk(batch: Batch) -> Stream:
    stream = batch[ACTION]
    return stream.columns([i for i, k in enumerate(stream.offsets[0]) if int(k) >= 0])


def _own_future(model: Any, batch: Batch, seed: int) -> Future:
    """What the model imagines, or, where it imagines nothing, the frames ahead in the batch."""
    for query in model.queries:
        if FUTURE in query.sampled and FUTURE not in query.given:
            future = ask(model, query, question(model, batch, query, seed=seed), seed=seed).future
            assert future is not None, f"{model.name} answers {query} without a future"
            return map_tensors(future, Tensor.detach)
    names = [name for name in batch.streams if name.startswith(IMAGE)]
    ahead = {name: [int(k) for k in batch[name].offsets[0] if k > 0] for name in names}
    shown = {name: batch[name].at(*ahead[name]) for name in names if ahead[name]}
    if not shown:
        raise ValueError(f"{model.name} samples no future that could be given: pass future=")
    frames = {name: stream.values for name, stream in shown.items()}
    return model.encode(frames, next(iter(shown.values())).offsets)


def _missing(query: Query, base: Mapping[str, Any]) -> list[str]:
    return sorted((query.sampled & {ACTION, FUTURE, VALUE}) - base.keys())


def _moved(
    model: Any, query: Query, asked: Asked, group: str, base: Mapping[str, list[Tensor]], seed: int
) -> set[str]:
    """The outputs that differ in any bit when the group is perturbed, a little or a lot."""
    moved: set[str] = set()
    for scale in (0.5, 5.0):
        generator = torch.Generator().manual_seed(seed + 1)
        shake = lambda t, s=scale, g=generator: t + s * torch.randn(t.shape, generator=g).to(t)  # noqa: E731
        with torch.no_grad():
            now = outputs(ask(model, query, asked.edited(group, shake), seed=seed))
        moved |= {name for name in base if not _equal(base[name], now[name])}
    return moved


def _pulled(model: Any, query: Query, asked: Asked, seed: int) -> set[tuple[str, str]]:
    """The pairs of input group and output between which a gradient comes back."""
    leaves: dict[str, list[Tensor]] = {}
    for group in asked.groups:
        kept = leaves.setdefault(group, [])
        asked = asked.edited(group, partial(_leaf, kept=kept))
    generator = torch.Generator().manual_seed(seed + 2)
    pulled = set()
    for target, tensors in outputs(ask(model, query, asked, seed=seed)).items():
        live = [t for t in tensors if t.requires_grad]
        if not live:
            continue
        parts = [(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in live]
        total = torch.stack(parts).sum()
        for group, inputs in leaves.items():
            grads = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
            if any(g is not None and bool((g != 0).any()) for g in grads):
                pulled.add((group, target))
    return pulled


def _leaf(tensor: Tensor, kept: list[Tensor]) -> Tensor:
    kept.append(tensor.detach().clone().requires_grad_())
    return kept[-1]


def _learned(model: Any, batch: Batch, stage: str, step: int, seed: int) -> dict[str, Tensor]:
    """All losses, and the gradient of ``loss`` by parameter name."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    losses = model.loss(batch, stage=stage, step=step, generator=generator)
    if losses["loss"].requires_grad:
        losses["loss"].backward()
    grads = {
        f"gradient of {name}": parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {**{name: value.detach() for name, value in losses.items()}, **grads}


def _differing(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> list[str]:
    names = dict.fromkeys([*one, *two])
    return [n for n in names if n not in one or n not in two or not torch.equal(one[n], two[n])]


def _equal(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
