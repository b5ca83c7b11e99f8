"""A run as one value: what is trained, on what, how, and how it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wamlab.config import from_dict, nearest, override, to_dict
from wamlab.data.lerobot import Alignment
from wamlab.metrics.joint import SEQUENCES
from wamlab.models.base import ModelConfig, Refusal, Sampling, WorldActionModel, model_class
from wamlab.policy.executors import Choice
from wamlab.run.impose import IMPOSED, OTHER_INSTRUCTION
from wamlab.run.states import TAKEN
from wamlab.sim.instructions import Sentence
from wamlab.train.trainer import TrainConfig
from wamlab.types import STRATA

COLLECTED = ("envs", "episodes", "start", "variants", "bursts")
"""Fields of `DataConfig` that say how demonstrations are made; training takes those it is given."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Demonstrations: ``episodes`` of each of ``envs`` (environments or suites).

    ``variants`` lets the experts vary their route and speed, ``bursts`` pushes them off their way;
    ``start`` is the first training start. In training, the last ``held_out`` episodes of each
    environment give the validation losses (below 1: that share of its episodes, at least one, but
    none where it has only one), and the first ``action_free`` (a share) of the others hide their
    actions: they teach the video alone. ``weights`` are the shares of the rows that come from each
    dataset, in their order (default: as many as each holds). ``resize`` takes frames of any size,
    and ``alignment`` overrides how the dataset says that its rows pair observations and actions.
    """

    envs: tuple[str, ...]
    episodes: int = 40
    start: int = 0
    variants: bool = True
    bursts: bool = True
    held_out: int | float = 0
    action_free: float = 0.0
    weights: tuple[float, ...] = ()
    resize: bool = False
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.action_free <= 1 or self.held_out < 0:
            raise ValueError(f"expected 0 <= action_free <= 1 and held_out >= 0, got {self}")
        if self.held_out > 1 and self.held_out % 1:
            raise ValueError(f"held_out is {self.held_out}, expected a count or a share below 1")
        if min(self.weights, default=1) <= 0:
            raise ValueError(f"weights are {list(self.weights)}, expected numbers above 0")


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Closed-loop rollouts: ``episodes`` evaluation starts of each environment.

    The first ``execute_steps`` actions of a chunk are executed (None: all); each decision is one of
    ``samples``, by ``choice``: the ``consensus`` of the futures or the ``action-consensus``, the
    highest ``value`` (of a model that values its plans), or at ``random``; ``network_steps`` sample
    each stream (None: the model's own), which leaves guidance and the order of the streams as they
    are. ``sentence`` 1, 2, ... says a paraphrase in place of what training said, ``swapped`` what
    training said for another task of the scene, ``empty`` nothing; the task stays the same.
    ``shift`` names one of `wamlab.sim.shifts`. ``batch`` episodes go side by side, and the first
    ``keep_frames`` of each environment are logged with their frames (None: all).
    """

    episodes: int = 20
    execute_steps: int | None = None
    samples: int = 1
    choice: Choice = "consensus"
    batch: int = 8
    network_steps: int | None = None
    sentence: Sentence = 0
    shift: str = ""
    keep_frames: int | None = 4

    def __post_init__(self) -> None:
        counts = ("execute_steps", "samples", "batch", "network_steps")
        _check_counts(self, counts, least=1)
        _check_counts(self, ("episodes", "sentence", "keep_frames"), least=0)
        if self.shift:
            _check_shift(self.shift)
        if self.shift == "paraphrase" and self.sentence:
            raise ValueError(f"the shift 'paraphrase' is a sentence, and {self.sentence!r} another")

    def sampler(self, model: WorldActionModel) -> dict[str, Sampling] | None:
        """How a model samples, None for its own way.

        Raises:
            Refusal: ``network_steps`` are asked for of a model that samples nothing step by step.
        """
        if self.network_steps is None:
            return None
        if not model.stepped:
            raise Refusal(f"{model.name} samples nothing step by step: it has no network_steps")
        return dict.fromkeys(model.stepped, Sampling(steps=self.network_steps))


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Executed imaginations: ``samples`` joint draws from each of ``states`` per environment.

    ``imposed`` are interventions of `wamlab.run.impose`; ``strata`` where the states lie on the way
    to contact, in turn (`wamlab.run.reach`). Where the run's data hold several environments, one
    more sample is told what the next one says; ``other-instruction`` imposes its action.
    """

    states: int = 10
    samples: int = 4
    imposed: tuple[str, ...] = SEQUENCES
    strata: tuple[str, ...] = TAKEN

    def __post_init__(self) -> None:
        _check_counts(self, ("states", "samples"), least=1)
        _check_names(self.imposed, (*IMPOSED, OTHER_INSTRUCTION), "intervention")
        _check_names(self.strata, STRATA, "stratum")
        if not self.strata:
            raise ValueError(f"strata is empty, expected some of {', '.join(STRATA)}")


@dataclass(frozen=True, kw_only=True)
class OpenLoopConfig:
    """Recorded episodes: ``states`` instants of each of ``episodes``, tasks taking turns.

    ``levels`` of noise measure the likelihood of what was recorded (0: it is not measured).
    """

    episodes: int = 20
    states: int = 4
    levels: int = 16

    def __post_init__(self) -> None:
        _check_counts(self, ("episodes", "states"), least=1)
        if self.levels < 0 or self.levels == 1:
            raise ValueError(f"levels is {self.levels}, expected 0, or 2 or more")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides the numbers of a run; ``system`` is the model's name."""

    recipe: str
    system: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    open_loop: OpenLoopConfig = field(default_factory=OpenLoopConfig)

    def vary(self, assignments: Iterable[str]) -> Run:
        """The run with ``["model.depth=4", "train.optim.lr=1e-3"]``; see `wamlab.config.override`.

        Raises:
            KeyError: an unknown field, with the nearest one.
            TypeError, ValueError: a value that does not fit its field.
        """
        return override(self, assignments)

    def with_budget(self, *, minutes: float | None = None, steps: int | None = None) -> Run:
        """The run with this budget in the place of its own; with neither, the run itself."""
        if minutes is None and steps is None:
            return self
        train = dataclasses.replace(self.train, minutes=minutes, steps=steps)
        return dataclasses.replace(self, train=train)

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Run:
        """The inverse of `to_dict`: ``system`` names the class of the model's configuration.

        Raises:
            KeyError: an unknown system or field, with the nearest one.
            TypeError: a value that does not fit its field.
        """
        kind = model_class(values["system"]).Config
        model = from_dict(kind, values["model"])
        return dataclasses.replace(from_dict(cls, {**values, "model": {}}), model=model)


def _check_counts(config: Any, names: Iterable[str], *, least: int) -> None:
    """Raise ValueError for a number below ``least``; what is None or no number is another's."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, int) and value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")


def _check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise KeyError(f"no {what} {name!r}{nearest(name, known)}")


def _check_shift(name: str) -> None:
    """Without a simulator nothing is known of shifts, and nothing can be shifted."""
    with suppress(ImportError):
        from wamlab.sim.shifts import shifts

        _check_names([name], shifts(), "shift")


def small(model: str) -> ModelConfig:
    """The model's configuration for two CPU cores."""
    sizes: Any = model_class(model).Config
    return sizes.small()


def tiny(model: str) -> ModelConfig:
    """The model's configuration for tests."""
    sizes: Any = model_class(model).Config
    return sizes.tiny()
