"""A world for systems that imagine: a block on a coloured ground moves where the words say.

One view of 32 pixels. The instruction names one of four directions, the speed is drawn anew for
every step of two ticks and nothing tells it beforehand. An action is a velocity in pixels a tick.

Shape legend: B rows, T instants, S steps, H ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wamlab.models.base import WorldActionModel
from wamlab.train.learner import named_by
from wamlab.types import ACTION, ROLES, STATE, Batch, Stream, Text

SIDE, HALF_BLOCK, HORIZON, STRIDE = 32, 3.0, 8, 2
DIRECTIONS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
WORDS = len(DIRECTIONS)
BLOCK = torch.tensor([1.0, -0.8, -0.8])
PAINTS = 0.9 * torch.tensor(
    [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]
)
COLOURS, SCENE_SPEED = len(PAINTS), 0.75


def world(rows: int, generator: torch.Generator, *, stride: int = STRIDE) -> Batch:
    """``rows`` windows: frames at every ``stride`` ticks up to the horizon, and what is done."""

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    direction = torch.randint(0, WORDS, (rows,), generator=generator)
    speed_BS = uniform(rows, HORIZON // STRIDE, low=0.4, high=1.0)
    action = speed_BS.repeat_interleave(STRIDE, 1)[..., None] * DIRECTIONS[direction][:, None]
    start = uniform(rows, 1, 2, low=10.0, high=22.0)
    place = torch.cat([start, start + action.cumsum(1)], 1)[:, ::stride]
    ground = uniform(rows, 3, low=-0.6, high=0.6)
    state = torch.zeros(rows, 1, 1)
    ticks = tuple(range(0, HORIZON + 1, stride))
    streams = {
        "image/top": _stream(render(place, ground), ticks),
        STATE: _stream(state, (0,)),
        ACTION: _stream(action, range(HORIZON)),
        "place": _stream(place, ticks),
    }
    return Batch(streams, words(direction), torch.ones(rows, len(ROLES)).bool(), torch.ones(rows))


def scene(
    rows: int, generator: torch.Generator, cells: Sequence[tuple[int, int]] | None = None
) -> Batch:
    """Two blocks of different colours; two words name the one that moves and where it goes.

    Frames are now and at the horizon. An action holds the velocity of each colour's block. Only
    the ``cells`` (colour, direction) are drawn, by default all.
    """
    every = torch.cartesian_prod(torch.arange(COLOURS), torch.arange(WORDS))
    known = every if cells is None else torch.tensor(cells)
    colour, direction = known[torch.randint(0, len(known), (rows,), generator=generator)].T
    other = (colour + torch.randint(1, COLOURS, (rows,), generator=generator)) % COLOURS
    swap = torch.randint(0, 2, (rows,), generator=generator)
    jitter = 4 * torch.rand(2, rows, 2, generator=generator) - 2
    left, right = (torch.tensor([x, 16.0]) + j for x, j in zip((10.0, 22.0), jitter, strict=True))
    own = torch.where(swap[:, None].bool(), left, right)
    rest = torch.where(swap[:, None].bool(), right, left)
    velocity = SCENE_SPEED * DIRECTIONS[direction]
    action = torch.zeros(rows, COLOURS, 2)
    action[torch.arange(rows), colour] = velocity
    ground = 0.4 * torch.rand(rows, 3, generator=generator) - 0.2
    places = torch.stack([own, own + HORIZON * velocity], 1)
    frames = render(rest[:, None].expand(-1, 2, -1), ground, PAINTS[other])
    frames = paint(frames, places, PAINTS[colour])
    chunk = action.flatten(1)[:, None].expand(-1, HORIZON, -1).contiguous()
    streams = {
        "image/top": _stream(frames, (0, HORIZON)),
        STATE: _stream(torch.zeros(rows, 1, 1), (0,)),
        ACTION: _stream(chunk, range(HORIZON)),
    }
    told = torch.eye(COLOURS + WORDS)[torch.stack([colour, COLOURS + direction], 1)]
    text = Text([""] * rows, told.mean(1), told, torch.ones(rows, 2).bool())
    return Batch(streams, text, torch.ones(rows, len(ROLES)).bool(), torch.ones(rows))


def astray(batch: Batch, action_BHA: Tensor) -> Tensor:
    """How far, in pixels, a chunk brings the blocks of `scene` from where they should be."""
    gone, due = (x.sum(1) for x in (action_BHA, batch[ACTION].values))
    return (gone - due).norm(dim=-1)


def words(direction: Tensor) -> Text:
    """One word for each direction; its embedding is one of the axes."""
    told = torch.eye(WORDS)[direction]
    return Text([""] * len(told), told, told[:, None], torch.ones(len(told), 1).bool())


def render(place_BT2: Tensor, ground_B3: Tensor, paint_B3: Tensor | None = None) -> Tensor:
    """Frames (B, T, 3, 32, 32) of a block at these pixels (x, y) on an even ground."""
    ground = ground_B3[:, None, :, None, None].expand(-1, place_BT2.shape[1], -1, SIDE, SIDE)
    return paint(ground, place_BT2, BLOCK.expand_as(ground_B3) if paint_B3 is None else paint_B3)


def paint(frames: Tensor, place_BT2: Tensor, paint_B3: Tensor) -> Tensor:
    """A block with softened edges over what is there."""
    pixel = torch.arange(SIDE) + 0.5
    reach = HALF_BLOCK + 0.5 - (pixel - place_BT2[..., None]).abs()
    x, y = reach.clamp(0, 1).unbind(2)
    cover = (y[..., :, None] * x[..., None, :])[:, :, None]
    return frames + cover * (paint_B3[:, None, :, None, None] - frames)


def found(frames: Tensor) -> Tensor:
    """Where the block is seen: the mean place (..., 2) of what is redder than the ground."""
    red = (frames[..., 0, :, :] - frames[..., 1, :, :] - 0.9).clamp(min=0) + 1e-6
    pixel = torch.arange(SIDE) + 0.5
    x, y = (red * pixel).sum((-2, -1)), (red * pixel[:, None]).sum((-2, -1))
    return torch.stack([x, y], -1) / red.sum((-2, -1))[..., None]


def learn(
    model: WorldActionModel,
    stage: str,
    batch: Callable[[torch.Generator], Batch],
    steps: int,
    lr: float = 3e-3,
) -> None:
    """Train one stage, and only what it declares, on a batch drawn anew at each step."""
    trains = next(one.trains for one in model.stages() if one.name == stage)
    names = set(named_by(model, trains))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    live = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(live, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        losses = model.loss(batch(generator), stage=stage, step=step, generator=generator)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(live, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def r2(predicted: Tensor, true: Tensor) -> float:
    """The share of the variance (over rows) that is explained."""
    left = (predicted - true).square().sum()
    return 1 - float(left / (true - true.mean(0)).square().sum())


def _stream(values: Tensor, offsets: Sequence[int]) -> Stream:
    columns = torch.tensor(list(offsets)).expand(len(values), -1)
    return Stream(values, columns, torch.ones_like(columns, dtype=torch.bool))
