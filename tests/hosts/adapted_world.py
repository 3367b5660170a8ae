"""Adapters as modules of their own behind attention and MLP: the plain twin of the merged layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def unmerged(blocks: Sequence[nn.Module], matrices: Sequence[Tensor]) -> Iterator[None]:
    """Inside, every block adds ``x @ P`` to what its attention and its MLP give; `matrices` two a block."""

    def behind(matrix: Tensor) -> Any:
        def add(_: nn.Module, __: Any, out: Any) -> Any:
            if isinstance(out, tuple):
                return (out[0] + out[0] @ matrix, *out[1:])
            return out + out @ matrix

        return add

    hooks = []
    for i, block in enumerate(blocks):
        for place, module in enumerate((block.attn, block.mlp)):
            hooks.append(module.register_forward_hook(behind(matrices[2 * i + place])))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def shake(module: nn.Module, size: float = 0.2) -> Any:
    """The module with every parameter moved off its start."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(size * torch.randn(p.shape, generator=torch.Generator().manual_seed(50 + i)).to(p))
    return module
