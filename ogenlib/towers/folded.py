"""Frozen attention layers whose input gets a gradient, in one matrix product instead of one a token.

PyTorch's `nn.MultiheadAttention` with `batch_first` turns its input round without moving it in memory. Where the
projection's weight is frozen and the input is trained on, torch then multiplies each of the `L` tokens by itself
(`bmm`), in the backward pass too: on a CPU that takes longer than the rest of a vision transformer's block. Moved in
memory first, the input is multiplied at once. The numbers are the same but for rounding.

Notation: `N` sequences, `L` tokens, `W` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


def folds(layer: nn.Module) -> bool:
    """Whether `layer` is an attention layer to which this applies."""
    return isinstance(layer, nn.MultiheadAttention) and layer.batch_first and layer.in_proj_weight is not None


def recomputes(model: nn.Module) -> bool:
    """Whether open_clip runs a part of `model` again in the backward pass (`set_grad_checkpointing`)."""
    return any(getattr(part, "grad_checkpointing", False) for part in model.modules())


@contextmanager
def folded_attention(model: nn.Module) -> Iterator[None]:
    """Inside, attention layers of `model` multiply their input at once where it gets a gradient.

    Nothing is changed without gradients, nor where open_clip recomputes activations (`set_grad_checkpointing`): the
    second forward pass would run outside of the block.
    """
    parts = list(model.modules()) if torch.is_grad_enabled() and not recomputes(model) else []
    with ExitStack() as hooks:
        for part in parts:
            if folds(part):
                hooks.callback(part.register_forward_pre_hook(_token_first).remove)
        yield


def _token_first(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Query, key and value `(N, L, W)`, where they are one tensor, laid out as `(L, N, W)` in memory."""
    if len(inputs) != 3 or any(x is not inputs[0] for x in inputs) or not inputs[0].requires_grad:
        return None
    moved = inputs[0].transpose(0, 1).contiguous().transpose(0, 1)
    return (moved, moved, moved)
