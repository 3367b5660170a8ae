"""Prompt tokens among the patches of open_clip's vision transformer, run through its own blocks.

Notation: `B` images, `V` prompt tokens, `W` width, `D` embedding width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ogenlib.towers.folded import folded_attention
from ogenlib.towers.text import evaluating

_PARTS = ("_embeds", "_pool", "transformer", "class_embedding")


def why_no_prompts(visual: Any) -> str:
    """What keeps extra tokens out of an image tower; empty where nothing does."""
    name = type(visual).__name__
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:
        name = f"{name} around {type(trunk).__name__}"
    if not all(hasattr(visual, part) for part in _PARTS) or not hasattr(visual.transformer, "resblocks"):
        return f"image tower {name} has no place for extra tokens"
    if getattr(visual, "attn_pool", None) is not None:
        return f"image tower {name} pools with attention, which would read the extra tokens"
    pool = getattr(visual, "pool_type", None)
    return "" if pool == "tok" else f"image tower {name} pools with {pool!r}, not at its class token"


def encode_prompted(visual: Any, pixels: Tensor, prompts: Tensor, deep: Tensor | None) -> Tensor:
    """Un-normalised features `(B, D)` with extra tokens; see `ImageTower.encode`."""
    check_prompts(visual, prompts, deep)
    x = patch_tokens(visual, pixels)
    own = x.shape[1]
    layers = [prompts, *([] if deep is None else deep)]
    with folded_attention(visual):
        for i, block in enumerate(visual.transformer.resblocks):
            if i < len(layers):
                tokens = layers[i].to(x.dtype).expand(x.shape[0], -1, -1)
                x = torch.cat([x[:, :own], tokens], dim=1)
            x = _step(visual.transformer, block, x)
    pooled, _ = visual._pool(x[:, :own])
    return pooled if visual.proj is None else pooled @ visual.proj


def patch_tokens(visual: Any, pixels: Tensor) -> Tensor:
    """Class token and patches `(B, 1 + patches, W)` as they enter the first block; patch dropout is off."""
    with _undropped(visual):
        return visual._embeds(pixels)


def check_prompts(visual: Any, prompts: Tensor, deep: Tensor | None) -> None:
    """Refuse prompts of other shapes than the tower takes.

    Raises:
        ValueError: shapes, or more layers than the tower has.
    """
    width, layers = visual.class_embedding.shape[-1], len(visual.transformer.resblocks)
    if prompts.ndim != 2 or prompts.shape[1] != width or not len(prompts):
        raise ValueError(f"prompts are {tuple(prompts.shape)}, expected (V, {width}) with at least one token")
    if deep is None:
        return
    expected = tuple(prompts.shape)
    if deep.ndim != 3 or tuple(deep.shape[1:]) != expected:
        raise ValueError(f"deep is {tuple(deep.shape)}, expected (depth - 1, {expected[0]}, {expected[1]})")
    if len(deep) >= layers:
        raise ValueError(f"deep has {len(deep)} layers, at most {layers - 1} of {layers} come after the first block")


def _undropped(visual: Any) -> AbstractContextManager[None]:
    dropout = getattr(visual, "patch_dropout", None)
    return evaluating(dropout) if isinstance(dropout, nn.Module) else nullcontext()


def _step(transformer: Any, block: nn.Module, x: Tensor) -> Tensor:
    """Hidden states `(B, tokens, W)` after one block, called as the transformer itself calls it."""
    batch_first = getattr(transformer, "batch_first", True)
    x = x if batch_first else x.transpose(0, 1).contiguous()
    if getattr(transformer, "grad_checkpointing", False) and torch.is_grad_enabled():
        x = checkpoint(block, x, use_reentrant=False)
    else:
        x = block(x)
    return x if batch_first else x.transpose(0, 1)
