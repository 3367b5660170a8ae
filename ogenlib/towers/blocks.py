"""One pre-norm transformer block, taken apart so that keys and values can be shared between sequences.

Notation: `N` sequences, `S` tokens, `M` context tokens, `W` width, `H` heads, `d = W / H`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PARTS = ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2")
_MUST_BE_IDENTITY = ("ln_q", "ln_k", "ln_inner", "q_norm", "k_norm", "norm")
_MUST_BE_NONE = ("logit_scale", "head_scale", "bias_k", "bias_v", "gate")


def can_run(block: nn.Module) -> bool:
    """True if `qkv`, attention and `finish` below compute this block.

    The parts are looked at (normalised queries, scaled heads and the like are refused), then a few random
    tokens are run through both, so that an option nobody has heard of is refused too.
    """
    attn: Any = getattr(block, "attn", None)
    if attn is None or not all(hasattr(block, part) for part in _PARTS):
        return False
    if getattr(attn, "in_proj_weight", None) is None or not hasattr(attn, "out_proj"):
        return False
    if not isinstance(getattr(block, "ln_attn", nn.Identity()), nn.Identity):
        return False
    if any(not isinstance(getattr(attn, name, nn.Identity()), nn.Identity) for name in _MUST_BE_IDENTITY):
        return False
    if any(getattr(attn, name, None) is not None for name in _MUST_BE_NONE):
        return False
    return _agrees(block)


def heads(block: nn.Module) -> int:
    return int(block.attn.num_heads)  # type: ignore[union-attr, arg-type]


def qkv(block: Any, x: Tensor) -> Tensor:
    """Queries, keys and values `(..., 3 W)` of hidden states `(..., W)`."""
    return F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """`(N, S, W)` -> `(N, H, S, d)`."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What follows attention: output projection, residuals, MLP; all tensors `(..., W)`."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def run_causal(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values `(N, H, S, d)` of hidden states `(N, S, W)`."""
    q, k, v = qkv(block, x).chunk(3, dim=-1)
    n_heads = heads(block)
    return split_heads(q, n_heads), split_heads(k, n_heads), split_heads(v, n_heads)


def causal_step(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Hidden states `(N, S, W)` after the block, attending causally."""
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return finish(block, x, attended.transpose(1, 2).flatten(2))


def replace_deep(x: Tensor, deep: Tensor | None, i: int, n_prefix: int) -> Tensor:
    """Hidden states `(N, S, W)` entering block `i`, with the deep prompt of that block put in."""
    if deep is None or not 1 <= i <= len(deep):
        return x
    prompt = deep[i - 1].to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :n_prefix], prompt, x[:, n_prefix + prompt.shape[1] :]], dim=1)


def _agrees(block: Any) -> bool:
    weight: Tensor = block.attn.in_proj_weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    mask = torch.full((5, 5), float("-inf"), device=x.device, dtype=x.dtype).triu_(1)
    was_training = block.training
    with torch.no_grad():
        block.eval()
        try:
            expected = block(x, attn_mask=mask)
            got = causal_step(block, x, *run_causal(block, x))
        except (TypeError, RuntimeError, AttributeError):
            return False
        finally:
            block.train(was_training)
    low = weight.dtype in (torch.float16, torch.bfloat16)
    error = (got - expected).float().norm() / expected.float().norm().clamp_min(1e-12)
    return bool(error <= (5e-2 if low else 1e-4))
