"""The trunk: what it starts as, what modulates it, what the mask hides."""

from __future__ import annotations

import pytest
import torch

from wamlab.nn.transformer import Block, Trunk, attention, mlp, sinusoids


def test_a_new_trunk_only_normalises() -> None:
    trunk, x = Trunk(16, 2, 2, 8), torch.randn(3, 5, 16)
    torch.testing.assert_close(trunk(x, torch.randn(3, 8)), trunk.norm(x))


def test_the_condition_of_a_row_reaches_that_row_only() -> None:
    trunk, x, condition = Trunk(16, 2, 2, 8), torch.randn(2, 5, 16), torch.randn(2, 8)
    torch.nn.init.normal_(trunk.modulate.weight, std=0.1)
    changed = condition.clone()
    changed[1] += 1
    before, after = trunk(x, condition), trunk(x, changed)
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_a_masked_key_is_not_read() -> None:
    block, x, modulation = Block(16, 2), torch.randn(1, 4, 16), torch.ones(1, 6, 16)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:3, 3] = False
    changed = x.clone()
    changed[0, 3] += 1
    before, after = block(x, modulation, mask), block(changed, modulation, mask)
    assert torch.equal(before[0, :3], after[0, :3])
    assert not torch.allclose(before[0, 3], after[0, 3])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="10 is not divisible by 4 heads"):
        Block(10, 4)


def test_sinusoids_tell_levels_apart_at_every_scale() -> None:
    levels = torch.tensor([0.0, 1e-3, 0.5, 0.501, 1.0])
    features = sinusoids(levels, 64)
    assert features.shape == (5, 64)
    assert torch.equal(features[0], torch.cat([torch.zeros(32), torch.ones(32)]))
    assert torch.pdist(features).min() > 0.05


def test_mlp_has_activations_between_its_layers_only() -> None:
    kinds = [type(layer).__name__ for layer in mlp(3, 4, 5, 2)]
    assert kinds == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keys", [10, 7])
def test_attention_written_out_is_the_fused_kernel(keys: int, masked: bool) -> None:
    q = torch.randn(2, 3, 10, 16).bfloat16()
    k, v = torch.randn(2, 2, 3, keys, 16).bfloat16().unbind(0)
    mask = torch.rand(2, 1, 10, keys) < 0.5 if masked else None
    if mask is not None:
        mask[..., 0] = True
    fused = torch.nn.functional.scaled_dot_product_attention
    wanted = fused(q.float(), k.float(), v.float(), attn_mask=mask)
    torch.testing.assert_close(attention(q, k, v, mask).float(), wanted, atol=0.03, rtol=0.03)
