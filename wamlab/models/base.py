"""The contract: what every World Action Model declares, learns and answers.

A system is one file in this folder with one subclass of `WorldActionModel`; it is found by its
file name. The model sees normalised tensors only (images float (B, T, 3, H, W) in [-1, 1], states
and actions scaled to about [-1, 1]); raw units are the processor's business.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wamlab.config import nearest
from wamlab.nn.codec import Codec
from wamlab.types import (
    ACTION,
    FUTURE,
    Answer,
    Batch,
    Future,
    Likelihood,
    Memory,
    Observation,
    Prediction,
    Query,
    Role,
    Stream,
    Window,
)
from wamlab.types import Refusal as Refusal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every model's `Config` holds: the data it fits and the futures it speaks of.

    ``chunk`` is the number of actions of one answer, ``offsets`` the instants (ticks of
    ``rate_hz`` after now) at which futures are imagined.
    """

    views: tuple[str, ...] = ("corner", "gripper")
    image_size: int = 64
    state_dim: int = 4
    action_dim: int = 4
    text_dim: int = 384
    chunk: int = 16
    offsets: tuple[int, ...] = (8, 16)
    rate_hz: float = 80.0

    @property
    def image_streams(self) -> tuple[str, ...]:
        return tuple(f"image/{view}" for view in self.views)

    @classmethod
    def tiny(cls) -> Self:
        """For tests: a training step in well under a second."""
        raise NotImplementedError(f"{cls.__qualname__} has no tiny()")

    @classmethod
    def small(cls) -> Self:
        """For two CPU cores: at most 8 M parameters and 256 tokens."""
        raise NotImplementedError(f"{cls.__qualname__} has no small()")


@dataclass(frozen=True)
class Stage:
    """One stage of training: which window it reads, which rows, which parameters it changes.

    Rows without any of ``roles`` are not served. ``trains`` are prefixes of the names of parameters
    and buffers ("" is all); the rest, and a parameter there that takes no gradient, is frozen and
    stays bit-identical. ``share`` of the budget goes to this stage: of the time where the budget is
    in minutes, of the number of steps where it is in steps (a slow stage then gets more of the
    time). ``produces`` names what later stages build on; its digest is kept with the run. ``codec``
    names the frozen part through which this stage sees frames: its codes may be served in their
    place, as ``latent/<view>`` at the same instants, and images then of now and before only.
    """

    name: str
    window: Window
    roles: tuple[Role, ...] = ("policy", "forward", "inverse", "video")
    trains: tuple[str, ...] = ("",)
    share: float = 1.0
    produces: str | None = None
    codec: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How one stream is sampled: network steps, noise level to stop at, guidance (1: none).

    In a joint draw the stream may ``wait`` for so many steps while another goes ahead. None of
    guidance and wait is the model's own.
    """

    steps: int = 4
    stop: float = 0.0
    guidance: float | None = None
    wait: int | None = None

    def guided(self, own: float = 1.0) -> float:
        """The guidance, or the model's ``own``."""
        return own if self.guidance is None else self.guidance

    def waits(self, own: int = 0) -> int:
        """The steps to wait, or the model's ``own``."""
        return own if self.wait is None else self.wait


Route = Literal["attention", "channel", "adaln", "cross", "tap", "clamp"]


@dataclass(frozen=True)
class Flow:
    """A declared influence of an input group on an output of one query.

    Groups are stream names, ``text``, ``memory`` and, where given, ``action`` and ``future``;
    targets are ``action``, ``future`` and ``value``. Without ``gradient`` the influence is there
    but no gradient comes back along it.
    """

    source: str
    target: str
    route: Route
    gradient: bool = True


DECLARED = ("Config", "card")
ANSWERED = ("queries", "stages()", "loss()", "sample()", "flows()")


class WorldActionModel(nn.Module):
    """A model of ``p(future, action | observation, instruction)``, or of a part of it."""

    Config: ClassVar[type[ModelConfig]]
    card: ClassVar[Mapping[str, str]]
    """What kind of system it is: family, carrier, extractor, coupling, generation, labels."""
    stepped: ClassVar[tuple[str, ...]] = ()
    """The streams that it samples step by step: what a sampler may name."""
    registry: ClassVar[dict[str, type[WorldActionModel]]] = {}
    name: ClassVar[str]

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if missing := [one for one in DECLARED if not hasattr(cls, one)]:
            known = ", ".join((*DECLARED, *ANSWERED))
            raise TypeError(f"{cls.__name__} has no {missing[0]}; a model declares {known}")
        cls.name = name or cls.__module__.rpartition(".")[2]
        WorldActionModel.registry[cls.name] = cls

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def queries(self) -> dict[Query, Answer]:
        """Every query this model answers, and what its answer is."""
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        """The stages of training, in order."""
        raise NotImplementedError

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """``loss`` is minimised, the rest is logged; all noise comes from ``generator``.

        What teaches actions is logged as ``action``: rows without actions must leave it at 0.
        """
        raise NotImplementedError

    def sample(
        self,
        observation: Observation,
        query: Query,
        *,
        action: Stream | None = None,
        future: Future | None = None,
        memory: Memory | None = None,
        prefix: Stream | None = None,
        sampler: Mapping[str, Sampling] | None = None,
        generator: Sequence[torch.Generator],
    ) -> Prediction:
        """Answer ``query`` for every row of ``observation``; gradients are the caller's to disable.

        Args:
            action: the given chunk, where the query gives actions.
            future: the given future, where the query gives it, in this model's own space.
            memory: what `observe` returned.
            prefix: actions that are already committed and must begin the chunk.
            sampler: per stream, how to sample it; what is missing takes the model's default, and
                a stream that this query or model does not answer is not asked for.
            generator: one per row, so that a row's draw does not depend on who shares its batch.

        Raises:
            Refusal: the query is not among `queries`, or ``sampler`` asks for what the model cannot
                do.
        """
        raise NotImplementedError

    def flows(self, query: Query) -> list[Flow]:
        """Who influences whom when this query is answered; the flow audit holds the model to it."""
        raise NotImplementedError

    def fit(self, statistics: Mapping[str, Any]) -> None:
        """Set what is computed from the data before step 0 (bins, tokenisers); default: nothing.

        ``statistics[stream]`` holds ``q01, q99, min, max`` (D,) in the model's own, normalised
        units. Buffers keep the shapes that the configuration gives them: a checkpoint is loaded
        without statistics.
        """

    def after_step(self) -> None:
        """Called after every optimizer step (EMA targets); default: nothing.

        What it changes is a parameter or a buffer that the stage trains.
        """

    def observe(
        self, memory: Memory | None, observation: Observation, executed: Stream | None
    ) -> Memory | None:
        """Put what really happened since the last answer into the memory; default: no memory."""
        return memory

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        """Pixels in [-1, 1] by image stream, or `Refusal` where this future has none."""
        raise Refusal(f"{self.name} imagines in {future.space}: it cannot be shown as pixels")

    def encode(
        self, frames: Mapping[str, Float[Tensor, "b t 3 h w"]], offsets: Int[Tensor, "b t"] | None
    ) -> Future:
        """Real frames in [-1, 1] as a future of this model, to be given; inverse of `decode`."""
        raise Refusal(f"{self.name} takes no frames as a given future")

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Likelihood:
        """What ``-log p`` of the streams that ``query`` samples, as recorded, follows from.

        The streams that the query gives are given as they are in ``batch``, the others are
        marginalised as in `sample`. A model of tokens answers with `Nats`, exactly; one that
        denoises with `Denoised` at ``levels`` of its noise (1 first, falling), or at those of them
        that it was trained at. Units are the model's, normalised ones.

        Raises:
            Refusal: the query is not among `queries`, or the model has no likelihood of it
                (default: of none).
        """
        self.answer(query)
        raise Refusal(f"{self.name} has no likelihood")

    @property
    def tokens(self) -> int | None:
        """Tokens of one row in the largest network, for a model that has tokens."""
        return None

    def answer(self, query: Query) -> Answer:
        """What the answer to ``query`` is, or `Refusal`."""
        if query not in self.queries:
            known = ", ".join(map(str, self.queries))
            raise Refusal(f"{self.name} does not answer {query}; it answers {known}")
        return self.queries[query]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def action_chunk(values: Float[Tensor, "b h a"]) -> Stream:
    """Sampled actions as a stream at offsets 0 .. H-1, all present."""
    offsets = torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
    return Stream(values, offsets, torch.ones_like(offsets, dtype=torch.bool))


def imagined(
    values: Float[Tensor, "b v t *rest"], config: ModelConfig, codec: Codec | type[Codec]
) -> Future:
    """What was imagined of every view at the configuration's offsets: codes of ``codec``."""
    offsets = torch.tensor(config.offsets, device=values.device).expand(len(values), -1)
    views = {name: values[:, v] for v, name in enumerate(config.image_streams)}
    return Future(codec.space, codec.name, views, offsets)


def given_codes(
    future: Future | None, config: ModelConfig, codec: Codec | type[Codec]
) -> Float[Tensor, "b v t *rest"]:
    """What is given of every view, in the form in which it is `imagined`.

    Raises:
        ValueError: there is none, or it is of another codec, lacks a view, or is one of other
            instants. An unclocked future has as many instants as the configuration, in its order.
    """
    wanted = f"in {codec.space} of the codec {codec.name!r}"
    if future is None:
        raise ValueError(f"the query gives the future, but no future {wanted} was passed")
    if (future.space, future.codec) != (codec.space, codec.name):
        raise ValueError(
            f"the query gives the future, but no future {wanted} was passed: it is in "
            f"{future.space} of the codec {future.codec!r}"
        )
    for name in config.image_streams:
        if name not in future.values:
            raise ValueError(f"the given future lacks {name!r}{nearest(name, future.values)}")
        instants, expected = future.values[name].shape[1], len(config.offsets)
        if instants != expected:
            raise ValueError(f"the given future has {instants} instants, expected {expected}")
    if future.offsets is not None:
        for offsets in {*map(tuple, future.offsets.tolist())} - {config.offsets}:
            raise ValueError(f"the given future is at {offsets}, expected {config.offsets}")
    return torch.stack([future.values[name] for name in config.image_streams], dim=1)


def shown_pixels(future: Future) -> dict[str, Float[Tensor, "b t 3 h w"]]:
    """A future that is made of pixels, in [-1, 1]."""
    return {name: value.clamp(-1, 1) for name, value in future.values.items()}


def checked_sampler(
    model: WorldActionModel,
    sampler: Mapping[str, Sampling] | None,
    *,
    guided: Sequence[str] = (),
    waits: bool = False,
) -> Mapping[str, Sampling]:
    """How to sample the ``stepped`` streams of a model, none for None.

    Of these, ``guided`` ones know guidance, and only where a stream ``waits`` may one be told to. A
    stream that the model never answers may be named: one sampler serves several models.

    Raises:
        Refusal: something else is asked for.
    """
    answered = {stream for query in model.queries for stream in query.sampled}
    unread = {ACTION, FUTURE} - answered
    for name, how in (sampler or {}).items():
        if name in unread:
            continue
        if name not in model.stepped:
            near = nearest(name, model.stepped)
            raise Refusal(f"{model.name} does not sample {name!r} step by step{near}")
        if name not in guided and how.guided() != 1:
            raise Refusal(f"{model.name} never drops what {name!r} is told: guidance must be 1")
        if not waits and how.waits():
            raise Refusal(f"{name!r} of {model.name} cannot wait for another stream: expected 0")
    return sampler or {}


def available() -> list[str]:
    """Names of the models in this folder, without importing them."""
    import wamlab.models

    found = (module.name for module in pkgutil.iter_modules(wamlab.models.__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def model_class(name: str) -> type[WorldActionModel]:
    """The class of a model: a file of this folder, or a subclass that was imported already.

    Raises:
        KeyError: no such model, with the nearest name.
    """
    if name not in WorldActionModel.registry and name in available():
        importlib.import_module(f"wamlab.models.{name}")
    if name not in WorldActionModel.registry:
        known = {*available(), *WorldActionModel.registry}
        raise KeyError(f"no model {name!r}{nearest(name, known)}")
    return WorldActionModel.registry[name]
