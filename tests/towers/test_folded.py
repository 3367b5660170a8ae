"""Frozen attention on a trained input: the same numbers, in one product, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ogenlib.towers.folded import folded_attention


class Block(nn.Module):
    """Attention as open_clip's blocks call it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.attn(x, x, x, need_weights=False, attn_mask=mask)[0]


@pytest.fixture
def block() -> Block:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Block()


def batched(run: torch.autograd.profiler.profile) -> int:
    return sum(event.count for event in run.key_averages() if event.key == "aten::bmm")


@pytest.mark.parametrize("causal", [False, True])
def test_the_same_numbers_by_fewer_products(block: Block, causal: bool) -> None:
    mask = torch.full((5, 5), float("-inf")).triu_(1) if causal else None
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    found = []
    for folded in (False, True):
        x.grad = None
        with torch.autograd.profiler.profile() as run:
            if folded:
                with folded_attention(block):
                    out = block(x, mask)
            else:
                out = block(x, mask)
            out.square().sum().backward()
        assert x.grad is not None
        found.append((out.detach(), x.grad, batched(run)))
    (plain, gradient, products), (other, other_gradient, fewer) = found
    torch.testing.assert_close(plain, other, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, other_gradient, atol=1e-6, rtol=1e-5)
    assert fewer < products


def test_it_changes_nothing_where_it_does_not_apply(block: Block) -> None:
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), folded_attention(block):
        assert not block.attn._forward_pre_hooks
    with folded_attention(block):
        assert len(block.attn._forward_pre_hooks) == 1
        with torch.no_grad():
            inside = block(x)
    assert not block.attn._forward_pre_hooks
    with torch.no_grad():
        assert torch.equal(inside, block(x))
    block.grad_checkpointing = True  # type: ignore[assignment]
    with folded_attention(block):
        assert not block.attn._forward_pre_hooks
    with pytest.raises(RuntimeError, match="stop"), folded_attention(block):
        raise RuntimeError("stop")
