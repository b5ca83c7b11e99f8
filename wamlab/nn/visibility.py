"""Who may read whom in a token model: declared by named groups, compiled to the mask that runs.

A sequence is a list of blocks; a block is ``size`` tokens of a named group at a step or chunk
coordinate. Rules between groups say what a reader may read; what is not declared is not read.
`Visibility.mask` is what runs in scaled_dot_product_attention (True: may attend), and the
transitive closure over the layers says which group can influence which at all.

Shape legend: B rows of a batch, N tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from wamlab.config import nearest
from wamlab.nn.transformer import attention

Rule = Literal["all", "same", "earlier", "causal", "self"]
"""``all`` tokens of the group, those of the ``same`` chunk, those of ``earlier`` chunks, those of
the same chunk that do not come later in the sequence (``causal`` inside), the token it``self``."""


@dataclass(frozen=True)
class Block:
    """``size`` consecutive tokens of the group ``name`` at the coordinate ``chunk``."""

    name: str
    size: int
    chunk: int = 0

    @property
    def label(self) -> str:
        return f"{self.name}({self.chunk})"


Reads = Mapping[str, Mapping[str, Rule | Sequence[Rule]]]
"""Reader -> source -> rule, or several rules that are joined by "or"."""


class Visibility:
    """The declared graph of a token model.

    Args:
        blocks: the sequence, in order.
        reads: reader -> source -> rule(s). A group without an entry reads nobody, not even itself.

    Raises:
        KeyError: a group in ``reads`` that no block has, with the nearest name.
        ValueError: an unknown rule, or two blocks of one group at one coordinate.
    """

    def __init__(self, blocks: Sequence[Block], reads: Reads) -> None:
        self.blocks = tuple(blocks)
        self.groups = list(dict.fromkeys(block.name for block in self.blocks))
        if len({(block.name, block.chunk) for block in self.blocks}) < len(self.blocks):
            raise ValueError("two blocks of one group share a chunk; a block is one run of tokens")
        self.reads = {
            reader: {
                source: (rules,) if isinstance(rules, str) else tuple(rules)
                for source, rules in row.items()
            }
            for reader, row in reads.items()
        }
        for reader, row in self.reads.items():
            for name in (reader, *row):
                self._check(name)
            for rule in (rule for rules in row.values() for rule in rules):
                if rule not in get_args(Rule):
                    raise ValueError(f"unknown rule {rule!r}{nearest(rule, get_args(Rule))}")

    def __len__(self) -> int:
        return sum(block.size for block in self.blocks)

    def positions(self, name: str, chunk: int | None = None) -> Int[Tensor, " n"]:
        """Where the tokens of a group lie in the sequence, of one chunk or of all."""
        self._check(name)
        wanted = [b.name == name and chunk in (None, b.chunk) for b in self.blocks]
        if not any(wanted):
            chunks = [block.chunk for block in self.blocks if block.name == name]
            raise KeyError(f"group {name!r} has no chunk {chunk}; it has {chunks}")
        return self._per_token(wanted).nonzero().flatten()

    def mask(self, device: torch.device | str | None = None) -> Bool[Tensor, "n n"]:
        """True where the token of the row may attend to the token of the column."""
        chunk = self._per_token([block.chunk for block in self.blocks])
        position = torch.arange(len(self))
        same = chunk[:, None] == chunk
        allowed = {
            "all": torch.ones(len(self), len(self), dtype=torch.bool),
            "same": same,
            "earlier": chunk < chunk[:, None],
            "causal": same & (position <= position[:, None]),
            "self": position == position[:, None],
        }
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        for reader, row in self.reads.items():
            for source, rules in row.items():
                pair = self._is(reader)[:, None] & self._is(source)
                for rule in rules:
                    mask |= pair & allowed[rule]
        return mask.to(device or "cpu")

    def merged(self, present: Bool[Tensor, "b n"]) -> Bool[Tensor, "b 1 n n"]:
        """The mask of each row of the batch, in which absent tokens are never keys."""
        return self.mask(present.device) & present[:, None, None, :]

    def closure(self, layers: int) -> Bool[Tensor, "n n"]:
        """True where the token of the column can influence the row's after ``layers`` layers.

        A residual stream carries each token itself, whether or not it may attend to itself.
        """
        step = (self.mask() | torch.eye(len(self), dtype=torch.bool)).float()
        reach = torch.eye(len(self))
        for _ in range(layers):
            reach = (step @ reach > 0).float()
        return reach.bool()

    def reaches(
        self,
        source: str,
        target: str,
        layers: int,
        *,
        source_chunk: int | None = None,
        target_chunk: int | None = None,
    ) -> bool:
        """Whether some token of ``source`` can influence some token of ``target``."""
        rows = self.positions(target, target_chunk)
        return bool(self.closure(layers)[rows][:, self.positions(source, source_chunk)].any())

    def draw(self) -> str:
        """The graph block by block, as computed from the mask that runs; rows read columns.

        ``#`` may attend, ``.`` may not, ``c`` causal inside, ``s`` self only, ``~`` in part.
        """
        mask, bounds = self.mask(), self._bounds()
        labels = [block.label for block in self.blocks]
        left = max(map(len, labels))
        lines = [" " * left + "  " + " ".join(labels)]
        for label, (a, b) in zip(labels, bounds, strict=True):
            marks = [_mark(mask[a:b, c:d], inside=a == c) for c, d in bounds]
            row = " ".join(m.center(len(name)) for m, name in zip(marks, labels, strict=True))
            lines.append(f"{label:<{left}}  {row}".rstrip())
        return "\n".join(lines)

    def _bounds(self) -> list[tuple[int, int]]:
        ends = torch.tensor([block.size for block in self.blocks]).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _per_token(self, per_block: Sequence[int] | Sequence[bool]) -> Shaped[Tensor, " n"]:
        sizes = torch.tensor([block.size for block in self.blocks])
        return torch.tensor(per_block).repeat_interleave(sizes)

    def _is(self, name: str) -> Bool[Tensor, " n"]:
        return self._per_token([block.name == name for block in self.blocks])

    def _check(self, name: str) -> None:
        if name not in self.groups:
            raise KeyError(f"no group {name!r}{nearest(name, self.groups)}")


def attend(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads m d"],
    v: Float[Tensor, "b heads m d"],
    mask: Bool[Tensor, "*b n m"],
) -> Float[Tensor, "b heads n d"]:
    """Attention under a mask in which some rows may read nothing: they get exactly zero.

    A softmax over no keys is undefined; such a row is let read everything for the computation, and
    what it read is thrown away, so that neither values nor gradients pass. Keys and values must be
    finite even where they are masked: fill absent entries (`fill_absent`) before they are embedded.
    """
    silent = ~mask.any(dim=-1, keepdim=True)
    read = attention(q, k, v, mask | silent)
    return read.masked_fill(silent, 0.0)


def _mark(part: Bool[Tensor, "n m"], *, inside: bool) -> str:
    if part.all():
        return "#"
    if not part.any():
        return "."
    if inside and torch.equal(part, torch.ones_like(part).tril()):
        return "c"
    if inside and torch.equal(part, torch.eye(len(part), dtype=torch.bool)):
        return "s"
    return "~"
