"""open_clip's own text transformers: CLIP, CustomTextCLIP (EVA, SigLIP, MobileCLIP, ...) and CoCa.

Notation: `N` texts, `L` tokens, `M` context tokens, `W` text width, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.towers.blocks import can_run, replace_deep
from ogenlib.towers.text import TextTower
from ogenlib.towers.tokens import Tokens

_POOLS = ("argmax", "eos", "last", "first")


class NativeTextTower(TextTower):
    """A text transformer with learned positions. `text` is the model itself where it holds the parts."""

    @staticmethod
    def accepts(module: nn.Module) -> bool:
        parts = ("token_embedding", "positional_embedding", "ln_final", "text_projection")
        has_blocks = hasattr(getattr(module, "transformer", None), "resblocks")
        return has_blocks and all(hasattr(module, part) for part in parts)

    def __init__(self, model: nn.Module, text: Any, tokenizer: Callable[..., Tensor]) -> None:
        self.model, self.text = model, text
        self.pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
        if self.pool not in _POOLS:
            raise ValueError(
                f"text tower {type(text).__name__} pools with {self.pool!r}; accepted: {', '.join(_POOLS)}"
            )
        eos = getattr(text, "text_eos_id", None)
        self.eos_id: Any = eos if eos is not None else getattr(text, "eos_id", None)
        self.has_cls = getattr(text, "cls_emb", None) is not None
        positions = int(text.positional_embedding.shape[0])
        self.tokens = Tokens(tokenizer, positions - int(self.has_cls))
        self.width = int(text.positional_embedding.shape[1])
        self.embed_dim = _projected_width(text.text_projection, self.width)
        self.is_causal = _is_causal(getattr(text, "attn_mask", None), positions)
        self.pads_are_masked = bool(getattr(text, "use_pad_mask", False)) or self.has_cls
        ends_early = self.pool != "last" and not self.has_cls
        self.can_truncate = ends_early and (self.is_causal or self.pads_are_masked)
        self.supports_deep_prompts = bool(getattr(text.transformer, "batch_first", True))
        self.can_share_prefix = (
            self.is_causal
            and not self.has_cls
            and not getattr(text, "use_pad_mask", False)
            and self.pool != "first"  # the pooled token would stand inside the prefix
            and all(can_run(block) for block in self.blocks)
        )

    @property
    def blocks(self) -> Sequence[nn.Module]:  # type: ignore[override]
        return self.text.transformer.resblocks

    @property
    def dtype(self) -> torch.dtype:
        return self.text.transformer.get_cast_dtype()

    @property
    def vocabulary_size(self) -> int:
        return int(self.text.token_embedding.weight.shape[0])

    def lengths(self, ids: Tensor) -> Tensor:
        if self.has_cls:
            return torch.full_like(ids[:, 0], ids.shape[1])
        if self.pool == "argmax":
            return ids.argmax(dim=-1) + 1
        if self.pool == "eos":
            return ids.eq(self.eos_id).int().argmax(dim=-1) + 1
        whole = self.pool == "last" or not self.is_causal
        return torch.full_like(ids[:, 0], ids.shape[1] if whole else 1)

    def embed(self, ids: Tensor) -> Tensor:
        return self.text.token_embedding(ids)

    def encode(self, embeds: Tensor, ids: Tensor, *, deep: Tensor | None = None) -> Tensor:
        self.check(embeds, ids, deep)
        x = embeds.to(self.dtype)
        if self.has_cls:
            x = torch.cat([x, self.text.cls_emb.to(x.dtype).expand(len(x), 1, -1)], dim=1)
        length = x.shape[1]
        mask = self._mask(ids, length, x.dtype)
        x = x + self.positions(0, length)
        if deep is None:
            x = self.text.transformer(x, attn_mask=mask)
        else:
            for i, block in enumerate(self.blocks):
                x = block(replace_deep(x, deep, i, self.n_prefix), attn_mask=mask)
        if self.has_cls:
            return self.project(x[:, -1])
        # `first` pools token 0 whatever the lengths are.
        at = self.lengths(ids) - 1 if self.pool != "first" else torch.zeros_like(ids[:, 0])
        return self.project(x[torch.arange(len(x), device=x.device), at])

    def positions(self, start: int, end: int) -> Tensor:
        """Positional embeddings `(end - start, W)` in the cast dtype."""
        return self.text.positional_embedding[start:end].to(self.dtype)

    def project(self, pooled: Tensor) -> Tensor:
        """Hidden states `(N, W)` of the pooled tokens -> features `(N, D)`."""
        x = self.text.ln_final(pooled)
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def _mask(self, ids: Tensor, length: int, dtype: torch.dtype) -> Tensor | None:
        mask = getattr(self.text, "attn_mask", None)
        mask = mask[:length, :length] if mask is not None else None
        if self.has_cls or getattr(self.text, "use_pad_mask", False):
            # CoCa's published weights need a mask that is off by one; only open_clip itself builds it.
            padding = self.text._build_additive_mask(ids, length, dtype)
            mask = padding if mask is None else mask.unsqueeze(0) + padding
        return mask


def _projected_width(projection: Any, width: int) -> int:
    if projection is None:
        return width
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])


def _is_causal(mask: Tensor | None, positions: int) -> bool:
    if mask is None:
        return False
    causal = torch.full((positions, positions), float("-inf")).triu_(1)
    return mask.shape == causal.shape and torch.equal(mask.detach().float().cpu(), causal)
