"""The text tower contract: token embeddings in, text features out, exactly as open_clip computes them.

Notation: `N` texts, `L` tokens, `M` context tokens, `W` text width, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.towers.tokens import Tokens


class UnknownTower(TypeError, ValueError):
    """A model whose towers are of classes that ogenlib cannot handle: whoever named it gave a wrong value too."""


class TextTower:
    """The text side of an open_clip model, fed with embeddings instead of ids.

    Holds references to the model's own modules, never copies: what trains, moves or casts the model does
    so for the tower. Build it with `from_open_clip`.

    Attributes:
        is_causal: a token sees only itself and what stands before it.
        pads_are_masked: padding is hidden from the words.
        can_truncate: dropping the padding after the last `lengths(ids)` tokens leaves features unchanged.
        can_share_prefix: `encode_shared_prefix` is exact for this tower.
        supports_deep_prompts: `encode(..., deep=...)` is available.
        blocks: the transformer blocks, first to last.
    """

    model: nn.Module
    tokens: Tokens
    is_causal: bool
    pads_are_masked: bool
    can_truncate: bool
    can_share_prefix: bool
    supports_deep_prompts: bool
    blocks: Sequence[nn.Module]
    width: int
    embed_dim: int

    @classmethod
    def from_open_clip(cls, model: nn.Module, tokenizer: Callable[..., Tensor]) -> TextTower:
        """The tower of `model`, checked once against `model.encode_text`.

        Raises:
            UnknownTower: the text tower is of a class whose inputs are not understood.
            ValueError: it looks familiar but does not reproduce `encode_text`.
        """
        from ogenlib.towers.hf import HFTextTower
        from ogenlib.towers.native import NativeTextTower

        module = getattr(model, "text", model)
        for kind in (NativeTextTower, HFTextTower):
            if kind.accepts(module):
                tower = kind(model, module, tokenizer)
                tower._verify()
                return tower
        raise UnknownTower(
            f"text tower {type(module).__name__} (of {type(model).__name__}) cannot be fed with embeddings; "
            "accepted: open_clip's CLIP, TextTransformer and HFTextEncoder towers"
        )

    @property
    def context_length(self) -> int:
        """Tokens `L` of the longest text, special ones included."""
        return self.tokens.context_length

    @property
    def n_prefix(self) -> int:
        """Special tokens before the words: a start token, or none."""
        return self.tokens.n_prefix

    @property
    def dtype(self) -> torch.dtype:
        """What embeddings are cast to before the first block."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return next(self.model.parameters()).device

    @property
    def vocabulary_size(self) -> int:
        """`V`: size of the table of token embeddings; `embed` takes ids below it."""
        raise NotImplementedError

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Ids `(N, context_length)` on the tower's device; ValueError if a text does not fit."""
        return self.tokens([texts] if isinstance(texts, str) else texts).to(self.device)

    def lengths(self, ids: Tensor) -> Tensor:
        """Tokens `(N,)` up to and including the last one the features depend on."""
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings `(N, L, W)` without positions."""
        raise NotImplementedError

    def encode(self, embeds: Tensor, ids: Tensor, *, deep: Tensor | None = None) -> Tensor:
        """Un-normalised features `(N, D)` of embeddings `(N, L, W)`; `ids` `(N, L)` say where texts end.

        Args:
            deep: `(depth, M, W)`; before block `i = 1..depth` (the first block is 0) the `M` hidden states
                after the start token are replaced by `deep[i - 1]`.

        Raises:
            ValueError: shapes disagree; `L < context_length` where `can_truncate` is False; `deep` given
                to a tower without deep prompts or deeper than its blocks.
        """
        raise NotImplementedError

    def trim(self, ids: Tensor) -> Tensor:
        """`ids` without the padding that no text of the batch needs, where that changes nothing."""
        return ids[:, : int(self.lengths(ids).max())] if self.can_truncate and len(ids) else ids

    def check(self, embeds: Tensor, ids: Tensor, deep: Tensor | None) -> None:
        """ValueError for inputs of `encode` that do not fit each other or this tower."""
        if embeds.ndim != 3 or embeds.shape[:2] != ids.shape or embeds.shape[2] != self.width:
            raise ValueError(
                f"embeddings {tuple(embeds.shape)} and ids {tuple(ids.shape)} do not match: "
                f"expected (N, L, {self.width}) and (N, L)"
            )
        self.check_length(ids.shape[1])
        self.check_deep(deep, ids.shape[1])

    def check_length(self, length: int) -> None:
        """ValueError for a number of tokens that the tower does not take."""
        shortest = 1 if self.can_truncate else self.context_length
        if not shortest <= length <= self.context_length:
            accepted = f"at most {self.context_length}" if self.can_truncate else f"exactly {self.context_length}"
            raise ValueError(f"{length} tokens given, this tower takes {accepted}: pad with tokenize(texts)")

    def check_deep(self, deep: Tensor | None, length: int) -> None:
        """ValueError for deep prompts that do not fit between the special tokens of `length`, or into the blocks."""
        if deep is None:
            return
        if not self.supports_deep_prompts:
            raise ValueError(f"{type(self).__name__} has no deep prompts: pass deep=None")
        room = length - self.n_prefix
        if deep.ndim != 3 or deep.shape[2] != self.width or deep.shape[1] > room:
            raise ValueError(f"deep is {tuple(deep.shape)}, expected (depth, M <= {room}, {self.width})")
        if deep.shape[0] >= len(self.blocks):
            raise ValueError(f"deep has {deep.shape[0]} layers, at most {len(self.blocks) - 1} can be replaced")

    def _verify(self) -> None:
        """Refuse a tower that computes anything else than the model's own `encode_text`."""
        ids = self.tokenize(["a", "dog"])
        with torch.no_grad(), evaluating(self.model):
            expected = first(self.model.encode_text(ids, normalize=False)).float()  # type: ignore[operator]
            got = self.encode(self.embed(ids), ids).float()
        low = self.dtype in (torch.float16, torch.bfloat16)
        error = float((got - expected).norm() / expected.norm().clamp_min(1e-12))
        if not error <= (5e-2 if low else 1e-4):
            module = getattr(self.model, "text", self.model)
            raise ValueError(
                f"text tower {type(module).__name__} (of {type(self.model).__name__}) is not reproduced: "
                f"relative error {error:.2g} against encode_text; use a model whose text tower is one of "
                "open_clip's CLIP, TextTransformer or HFTextEncoder"
            )


def encode_texts(tower: TextTower, texts: str | Sequence[str], chunk: int = 256) -> Tensor:
    """Un-normalised features `(N, D)`, fp32, of plain sentences, `chunk` at a time.

    Raises:
        ValueError: `chunk` below 1, or a text is longer than the tower reads.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1 text")
    return encode_ids(tower, tower.tokenize(texts), chunk)


def encode_ids(tower: TextTower, ids: Tensor, chunk: int = 256) -> Tensor:
    """Un-normalised features `(N, D)`, fp32, of token ids `(N, L)` as `tower.tokenize` gives them."""
    if not len(ids):
        return torch.zeros(0, tower.embed_dim, device=tower.device)
    pieces = [tower.trim(part) for part in ids.split(chunk)]
    return torch.cat([tower.encode(tower.embed(part), part).float() for part in pieces])


def first(features: Any) -> Tensor:
    """The pooled features where a tower also returns its tokens."""
    return features[0] if isinstance(features, (tuple, list)) else features


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; every submodule gets back its own mode after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
