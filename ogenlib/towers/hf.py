"""Hugging Face text towers inside open_clip (RoBERTa, XLM-R, mT5, NLLB, ...).

Notation: `N` texts, `L` tokens, `W` text width, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.towers.text import TextTower, evaluating
from ogenlib.towers.tokens import Tokens


class HFTextTower(TextTower):
    """Bidirectional, padding masked: padding can be dropped, prefixes cannot be shared.

    Embeddings go in through `inputs_embeds=`, never through an embedding table of ours: some models scale
    theirs inside the embedding module.
    """

    @staticmethod
    def accepts(module: nn.Module) -> bool:
        parts = ("transformer", "pooler", "proj", "config")
        has_parts = all(hasattr(module, part) for part in parts)
        return has_parts and hasattr(module.transformer, "get_input_embeddings")

    def __init__(self, model: nn.Module, text: Any, tokenizer: Callable[..., Tensor]) -> None:
        self.model, self.text = model, text
        # The model's own context_length is its table of positions (514 for RoBERTa, 0 for mT5).
        self.tokens = Tokens(tokenizer)
        self.pad_id = text.config.pad_token_id
        self.is_causal = False
        self.pads_are_masked = self.can_truncate = True
        self.can_share_prefix = self.supports_deep_prompts = False
        self.width = int(self._embedding.weight.shape[1])
        ids = self.tokenize(["a"])
        with torch.no_grad(), evaluating(model):
            self.embed_dim = int(self.encode(self.embed(ids), ids).shape[1])

    @property
    def _embedding(self) -> Any:
        return self.text.transformer.get_input_embeddings()

    @property
    def blocks(self) -> Sequence[nn.Module]:  # type: ignore[override]
        stacks = [part for part in self.text.transformer.modules() if isinstance(part, nn.ModuleList)]
        return list(max(stacks, key=len, default=()))

    @property
    def dtype(self) -> torch.dtype:
        return self._embedding.weight.dtype

    @property
    def vocabulary_size(self) -> int:
        return int(self._embedding.weight.shape[0])

    def lengths(self, ids: Tensor) -> Tensor:
        place = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        return ((ids != self.pad_id) * place).amax(dim=-1).clamp_min(1)

    def embed(self, ids: Tensor) -> Tensor:
        return self._embedding(ids)

    def encode(self, embeds: Tensor, ids: Tensor, *, deep: Tensor | None = None) -> Tensor:
        self.check(embeds, ids, deep)
        mask = (ids != self.pad_id).long()
        out = self.text.transformer(inputs_embeds=embeds.to(self.dtype), attention_mask=mask)
        return self.text.proj(self.text.pooler(out, mask))
