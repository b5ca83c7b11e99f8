"""The state reader: where everything is and whether the task is done, read off one instant.

Joint measures on states need to know where an imagined frame shows the hand and the objects, and a
model that imagines on from its own last frame what the robot's state would be there. A reader is
trained for one environment on frames that the simulator rendered, after the codec of the model that
is judged, and its error is measured on starts that it never saw. It sees one instant and nothing
else: neither the present nor the instruction can tell it what must have happened. Nor can the hand:
where experts act, things are where the hand has put them, and a reader that had seen nothing else
would read a push off an empty gripper. So in half of the instants the things are where they were at
another time of the same episode.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import write_atomic
from wamlab.nn.transformer import mlp
from wamlab.nn.vision import Stem, to_pixels
from wamlab.run.reach import ROBOT
from wamlab.sim.env import Env, start_seed
from wamlab.sim.experts import BurstNoise
from wamlab.sim.things import put_things
from wamlab.types import STATE, Frames, Reading

SCHEMA = 3
STARTS, SHOTS = 320, 8
FIRST_START = 500_000
"""Of the training split, far behind those of demonstrations."""
AFTER = 15
"""Steps of an episode after success: a reader must have seen what is done."""
BURSTS = 0.1
"""The chance per step that a burst of noise begins: a reader meets more than experts do."""
HELD_OUT = 0.1
BATCH, STEPS, RATE = 64, 600, 3e-3
KNEE = 0.1
"""Where the loss turns from squares to distances, in standard deviations of a place."""
DONE = 0.1
"""The weight of success beside places."""
BLUR = 1.2
"""The widest blur, pixels: what is imagined is less sharp than what is rendered."""


@dataclass
class Instants:
    """Instants of one environment: what was to be seen, and what was the case.

    ``frames`` by view (N, H, W, 3) uint8, ``truth`` with the places (N, 3), the success (N,) and
    the state (N, S), ``start`` (N,) the number of the start.
    """

    frames: Frames
    truth: Reading
    start: Int[np.ndarray, " n"]

    def of(self, chosen: np.ndarray) -> Instants:
        places = {name: there[chosen] for name, there in self.truth.places.items()}
        return Instants(
            {view: shots[chosen] for view, shots in self.frames.items()},
            Reading(places, self.truth.success[chosen], _state(self.truth)[chosen]),
            self.start[chosen],
        )


def look(
    env: Env, seeing: Env, *, starts: int = STARTS, shots: int = SHOTS, progress: bool = True
) -> Instants:
    """Instants on the ways of experts with variants and many bursts, from training starts.

    Many starts and few instants of each: where an object lies changes only from start to start.
    Half of the instants come after the robot first touched something, for that is when objects
    move and are hidden behind the hand. Every second instant has its things from another one of the
    same start. ``env`` is acted in, ``seeing`` renders.

    Raises:
        ValueError: an environment that cannot put its things elsewhere.
    """
    frames: dict[str, list[np.ndarray]] = {view: [] for view in seeing.views}
    places: dict[str, list[np.ndarray]] = {}
    success: list[bool] = []
    felt: list[np.ndarray] = []
    found: list[int] = []
    numbers = range(FIRST_START, FIRST_START + starts)
    for number in tqdm(numbers, f"{env.name}: looking", disable=not progress, leave=False):
        start = start_seed("train", number)
        env.reset(seed=start)
        expert = env.expert(variants=True, seed=start)
        noise = BurstNoise.at(env.space.rate_hz, start, rate=BURSTS)
        states: list[np.ndarray] = []
        sensed: list[np.ndarray] = []
        touched: int | None = None
        done = 0
        while len(states) < env.max_steps and done < AFTER:
            observation, *_ = env.step(env.space.clip(noise(expert())[0]))
            sensed.append(observation[STATE])
            if touched is None and any(ROBOT in pair for pair in env.contacts()):
                touched = len(states)
            states.append(env.get_state())
            done += env.success
        rng = np.random.default_rng([start, 6])
        early = rng.integers(len(states), size=shots - shots // 2)
        late = rng.integers(touched or 0, len(states), size=shots // 2)
        steps = np.concatenate([early, late])
        elsewhere = rng.permutation(steps)
        elsewhere[::2] = steps[::2]
        for step, other in zip(steps, elsewhere, strict=True):
            seeing.set_state(states[step])
            if other != step:
                put_things(seeing, states[other])
            for view, seen in frames.items():
                seen.append(seeing.render_view(view).copy())
            for name, pose in seeing.entities().items():
                places.setdefault(name, []).append(pose[:3].copy())
            success.append(seeing.success)
            felt.append(sensed[step])
            found.append(number)
    return Instants(
        {view: np.stack(seen) for view, seen in frames.items()},
        Reading(
            {name: np.stack(there) for name, there in places.items()},
            np.array(success, float),
            np.stack(felt).astype(float),
        ),
        np.array(found),
    )


class StateReader(nn.Module):
    """Frames of one instant to places, state and success, in one environment: stems and an MLP.

    ``codec`` names what the frames went through before it read them. ``error``, on starts that it
    never saw: by entity the root mean square distance in metres, under ``success`` the share of
    instants in which it takes failure for success or the other way round, and under ``state`` the
    root mean square over the ``state_size`` dimensions, in standard deviations of each.
    """

    def __init__(
        self,
        env: str,
        views: Sequence[str],
        entities: Sequence[str],
        image_size: int,
        codec: str,
        state_size: int,
        *,
        width: int = 16,
        size: int = 128,
    ) -> None:
        super().__init__()
        self.env, self.views, self.entities = env, tuple(views), tuple(entities)
        self.image_size, self.codec, self.state_size = image_size, codec, state_size
        self.width, self.size = width, size
        self.error: dict[str, float] = {}
        self.stems = nn.ModuleDict({view: Stem(image_size, width, size) for view in views})
        known = 3 * len(self.entities) + state_size
        self.head = mlp(size * len(self.views), 2 * size, known + 1)
        self.middle: Tensor
        self.spread: Tensor
        self.register_buffer("middle", torch.zeros(known))
        self.register_buffer("spread", torch.ones(known))

    def forward(
        self, frames: dict[str, Float[Tensor, "n 3 h w"]]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Places and state in units of ``spread`` from ``middle``, and the logit of success."""
        parts = [stem(frames[view]) for view, stem in self.stems.items()]
        out = self.head(torch.cat(parts, dim=-1))
        return out[:, :-1], out[:, -1]

    @property
    def title(self) -> str:
        """What it reads, and which weights do so: logs name by it who has read them."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return f"{self.env}, {self.codec}, {digest.hexdigest()[:8]}"

    @torch.no_grad()
    def read(self, frames: Frames) -> Reading:
        """What there is in frames (T, H, W, 3) uint8 by view.

        Raises:
            KeyError: a view is missing, with the nearest one.
            ValueError: frames of another size or type, or not as many of each view.
        """
        self._check(frames)
        shots = {view: frames[view] for view in self.views}
        parts = [self(_pixels(part)) for part in _parts(shots)]
        found, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        raw = (found * self.spread + self.middle).double().numpy()
        places, state = np.split(raw, [3 * len(self.entities)], axis=1)
        return Reading(
            {name: places[:, 3 * i : 3 * i + 3] for i, name in enumerate(self.entities)},
            logits.sigmoid().double().numpy(),
            state,
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file that `load_reader` reads."""
        about = {
            "env": self.env,
            "views": self.views,
            "entities": self.entities,
            "image_size": self.image_size,
            "codec": self.codec,
            "state_size": self.state_size,
            "width": self.width,
            "size": self.size,
        }
        head = {"schema": SCHEMA, "reader": about, "error": self.error}
        data = save(dict(self.state_dict()), {"wamlab": json.dumps(head)})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, lambda file: file.write(data))

    def _check(self, frames: Frames) -> None:
        size, counts = self.image_size, set()
        for view in self.views:
            if view not in frames:
                raise KeyError(f"no view {view!r} to read{nearest(view, frames)}")
            shape, kind = frames[view].shape, frames[view].dtype
            if shape[1:] != (size, size, 3) or kind != np.uint8 or not len(frames[view]):
                raise ValueError(
                    f"view {view!r}: expected frames (T, {size}, {size}, 3) uint8, "
                    f"got {shape} {kind}"
                )
            counts.add(len(frames[view]))
        if len(counts) > 1:
            raise ValueError(f"the views hold different numbers of frames: {sorted(counts)}")


def fit(
    env: str,
    seen: Instants,
    *,
    through: Callable[[Frames], Frames] = lambda frames: frames,
    codec: str = "pixels",
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
) -> StateReader:
    """A reader of the frames that ``through``, named ``codec``, makes of what was seen.

    A tenth of the starts is held out for `StateReader.error`. Half of the frames are blurred in
    training. The loss is a distance far from the truth and its square near it, so that the few
    instants of which little is to be seen do not rule the others.

    Raises:
        ValueError: fewer starts than it takes to hold some out.
    """
    starts = np.unique(seen.start)
    if len(starts) < 2:
        raise ValueError(f"expected instants of 2 starts or more, got {len(starts)}")
    unseen = np.isin(seen.start, starts[: max(round(HELD_OUT * len(starts)), 1)])
    taught, tested = seen.of(~unseen), seen.of(unseen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        entities, size = list(seen.truth.places), _state(seen.truth).shape[1]
        reader = StateReader(env, list(seen.frames), entities, _side(seen), codec, size)
    frames, truth = through(taught.frames), taught.truth
    known = np.concatenate([*truth.places.values(), _state(truth)], axis=1)
    values, success = torch.from_numpy(known).float(), torch.from_numpy(truth.success).float()
    reader.middle.copy_(values.mean(0))
    reader.spread.copy_(values.std(0).clamp(min=1e-3))
    wanted = (values - reader.middle) / reader.spread
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(steps), f"{env}: reader", disable=not progress, leave=False):
        rows = torch.randint(len(wanted), (BATCH,), generator=generator)
        shots = _pixels({view: shots[rows.numpy()] for view, shots in frames.items()})
        blurred = {view: _blurred(shot, generator) for view, shot in shots.items()}
        found, logits = reader(blurred)
        loss = F.smooth_l1_loss(found, wanted[rows], beta=KNEE)
        loss = loss + DONE * F.binary_cross_entropy_with_logits(logits, success[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    reader.error = errors(reader.read(through(tested.frames)), tested.truth)
    return reader.eval()


def errors(read: Reading, true: Reading) -> dict[str, float]:
    """See `StateReader.error`."""
    away = {name: read.places[name] - there for name, there in true.places.items()}
    metres = {name: float(np.sqrt((d**2).sum(axis=-1).mean())) for name, d in away.items()}
    found = {**metres, "success": float(((read.success > 0.5) != (true.success > 0.5)).mean())}
    if read.state is not None and true.state is not None:
        spread = true.state.std(axis=0)
        away = (read.state - true.state)[:, spread > 0] / spread[spread > 0]
        found[STATE] = float(np.sqrt((away**2).mean()))
    return found


def load_reader(path: str | Path) -> StateReader:
    """A reader that `StateReader.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no reader, one of another schema, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no state reader at {path}")
    try:
        with safe_open(path, "pt") as file:
            head = json.loads((file.metadata() or {}).get("wamlab", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no state reader: {error}") from error
    if head.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has reader schema {head.get('schema')!r}; this library reads {SCHEMA}, and "
            "trains another reader where there is none"
        )
    reader = StateReader(**head["reader"])
    reader.load_state_dict(weights)
    reader.error = head["error"]
    return reader.eval()


def _state(truth: Reading) -> Float[np.ndarray, "n s"]:
    if truth.state is None:
        raise ValueError("the instants do not hold the robot's state")
    return truth.state


def _side(seen: Instants) -> int:
    return next(iter(seen.frames.values())).shape[1]


def _pixels(frames: Frames) -> dict[str, Float[Tensor, "n 3 h w"]]:
    return {view: to_pixels(torch.from_numpy(shots)) for view, shots in frames.items()}


def _parts(frames: Frames, size: int = 256) -> Iterator[Frames]:
    count = len(next(iter(frames.values())))
    for first in range(0, count, size):
        yield {view: shots[first : first + size] for view, shots in frames.items()}


def _blurred(
    frames: Float[Tensor, "n 3 h w"], generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """Half of the frames, blurred by one Gaussian of a random width up to `BLUR` pixels."""
    width = max(BLUR * float(torch.rand((), generator=generator)), 0.1)
    reach = math.ceil(2 * width)
    bell = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    bell = (bell / bell.sum()).expand(3, 1, -1)
    half = frames[::2]
    padded = F.pad(half, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, bell[:, :, None], groups=3)
    both = frames.clone()
    both[::2] = F.conv2d(across, bell[..., None], groups=3)
    return both
