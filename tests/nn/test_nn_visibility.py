"""The dossiers' mask drawings, the closure over layers, and rows that may read nothing."""

from __future__ import annotations

import pytest
import torch

from wamlab.nn.visibility import Block, Visibility, attend


def gr1(steps: int = 2) -> Visibility:
    """GR-1: causal context, action and image queries that nobody reads, not even themselves."""
    blocks = [
        Block(name, size, step)
        for step in range(steps)
        for name, size in (("ctx", 3), ("ACT", 1), ("OBS", 2))
    ]
    queries = {"ctx": ("earlier", "same")}
    return Visibility(
        blocks, {"ctx": {"ctx": ("earlier", "causal")}, "ACT": queries, "OBS": queries}
    )


def world_vla() -> Visibility:
    """WorldVLA: blocks of one action, causal inside, that do not see earlier actions."""
    blocks = [Block("text", 2), Block("img", 4), *(Block("A", 3, k) for k in (1, 2, 3))]
    return Visibility(
        blocks,
        {
            "text": {"text": "causal"},
            "img": {"text": "all", "img": "causal"},
            "A": {"text": "all", "img": "all", "A": "causal"},
        },
    )


def test_gr1_is_drawn_as_in_its_dossier() -> None:
    assert gr1().draw().splitlines() == [
        "        ctx(0) ACT(0) OBS(0) ctx(1) ACT(1) OBS(1)",
        "ctx(0)    c      .      .      .      .      .",
        "ACT(0)    #      .      .      .      .      .",
        "OBS(0)    #      .      .      .      .      .",
        "ctx(1)    #      .      .      c      .      .",
        "ACT(1)    #      .      .      #      .      .",
        "OBS(1)    #      .      .      #      .      .",
    ]


def test_world_vla_actions_are_causal_inside_and_blind_to_each_other() -> None:
    rows = [line.split() for line in world_vla().draw().splitlines()[1:]]
    assert [row[1:] for row in rows] == [
        ["c", ".", ".", ".", "."],
        ["#", "c", ".", ".", "."],
        ["#", "#", "c", ".", "."],
        ["#", "#", ".", "c", "."],
        ["#", "#", ".", ".", "c"],
    ]


def test_closure_grows_with_the_layers_and_never_joins_what_is_apart() -> None:
    chain = Visibility(
        [Block("a", 1), Block("b", 2), Block("c", 1)], {"b": {"a": "all"}, "c": {"b": "all"}}
    )
    assert chain.reaches("a", "b", 1)
    assert not chain.reaches("a", "c", 1)
    assert chain.reaches("a", "c", 2)
    assert not chain.reaches("c", "a", 9)
    assert not gr1().reaches("OBS", "ACT", 12)
    assert not gr1().reaches("ACT", "OBS", 12)
    assert gr1().reaches("ctx", "ACT", 1, source_chunk=0, target_chunk=1)
    assert not gr1().reaches("ctx", "ACT", 12, source_chunk=1, target_chunk=0)


def test_a_token_carries_itself_even_where_it_may_not_read_itself() -> None:
    assert gr1().reaches("ACT", "ACT", 1)
    act = gr1().positions("ACT")
    assert not gr1().mask()[act][:, act].any()


def test_self_and_partial_marks() -> None:
    visibility = Visibility(
        [Block("a", 2, 0), Block("b", 2, 0), Block("b", 2, 1)],
        {"a": {"a": "self", "b": "earlier"}, "b": {"a": "same", "b": "self"}},
    )
    assert [line.split()[1:] for line in visibility.draw().splitlines()[1:]] == [
        ["s", ".", "."],
        ["#", "s", "."],
        [".", ".", "s"],
    ]


def test_absent_tokens_are_never_keys() -> None:
    visibility = world_vla()
    present = torch.ones(2, len(visibility), dtype=torch.bool)
    present[0, 1] = False
    merged = visibility.merged(present)
    assert merged.shape == (2, 1, len(visibility), len(visibility))
    assert not merged[0, 0, :, 1].any()
    assert torch.equal(merged[1, 0], visibility.mask())


def test_rows_that_read_nothing_get_zero_and_pass_no_gradient() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[True, False, False], [False, False, False], [True, True, False]])
    read = attend(q, k, v, mask)
    assert torch.equal(read[:, :, 1], torch.zeros(1, 2, 4))
    torch.testing.assert_close(read[:, :, 0], v[:, :, 0])
    read.square().sum().backward()
    assert torch.equal(q.grad[:, :, 1], torch.zeros(1, 2, 4))
    assert torch.equal(v.grad[:, :, 2], torch.zeros(1, 2, 4))
    assert torch.isfinite(q.grad).all()
    assert v.grad[:, :, 0].abs().sum() > 0


def test_masked_tokens_have_exactly_no_influence() -> None:
    torch.manual_seed(0)
    visibility = gr1()
    x = torch.randn(1, 1, len(visibility), 8)
    moved = x.clone()
    moved[:, :, visibility.positions("OBS")] += 3.0
    one, two = (attend(t, t, t, visibility.mask()) for t in (x, moved))
    act = visibility.positions("ACT")
    assert torch.equal(one[:, :, act], two[:, :, act])


def test_bad_declarations_are_named() -> None:
    blocks = [Block("image", 2), Block("action", 2)]
    with pytest.raises(KeyError, match=r"no group 'actoin'; did you mean 'action'\?"):
        Visibility(blocks, {"image": {"actoin": "all"}})
    with pytest.raises(ValueError, match=r"unknown rule 'earlyer'; did you mean 'earlier'\?"):
        Visibility(blocks, {"image": {"action": "earlyer"}})
    with pytest.raises(ValueError, match="share a chunk"):
        Visibility([Block("image", 2), Block("image", 3)], {})
    with pytest.raises(KeyError, match=r"has no chunk 4; it has \[0\]"):
        Visibility(blocks, {}).positions("image", 4)
