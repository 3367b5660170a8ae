"""Prompts with learned context: where the context tokens stand, and the text features they give.

Notation: `C` classes, `R` images, `L` tokens, `M` context tokens, `P` prefix tokens, `W` text width,
`D` embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ogenlib.towers.prefix import encode_shared_prefix
from ogenlib.towers.text import TextTower

POSITIONS = ("end", "middle", "front")
PATHS = ("auto", "plain", "shared")
_PLACEHOLDERS = ("x", "a", "the", "of", "to")


@dataclass(frozen=True)
class PromptTokens:
    """Tokenised prompts with slots for the context.

    Attributes:
        ids: `(C, L)`, cut to the longest prompt where the tower allows it; slots hold a placeholder word.
        slots: `(C, M)` places of the context tokens in `ids`.
        spans: first and one-past-last place of every class name.
        lengths: `(C,)` tokens up to the pooled one.
        n_prefix: special tokens before the prompt.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    position: str
    n_context: int
    n_prefix: int
    ids: Tensor
    slots: Tensor
    spans: tuple[tuple[int, int], ...]
    lengths: Tensor

    @property
    def context_first(self) -> bool:
        """The context stands before anything that differs between classes."""
        return self.position == "end" or self.n_context == 0


def prompt_tokens(
    tower: TextTower, names: Sequence[str], n_context: int, position: str = "end", suffix: str = "."
) -> PromptTokens:
    """Tokenise `[context][name][suffix]` for every name, once, before training.

    Args:
        names: class names; underscores read as spaces, as in CoOp.
        position: where the name stands. "end": context, name; "middle": half of the context (rounded
            down) before it and the rest after it; "front": name, context. CoOp's `CLASS_TOKEN_POSITION`.
        suffix: text right after the last word; "." as in CoOp (some tokenizers drop punctuation).

    Raises:
        ValueError: a prompt needs more tokens than the tower reads (the class, its tokens and the limit are
            named), a name is empty, or `position` or `n_context` is out of range.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"names is {names!r}, expected a list of at least one class name")
    if position not in POSITIONS:
        raise ValueError(f"position is {position!r}, expected one of {', '.join(POSITIONS)}")
    if n_context < 0:
        raise ValueError(f"n_context is {n_context}, expected 0 or more")
    clean = [" ".join(name.replace("_", " ").split()) for name in names]
    for name, words in zip(names, clean, strict=True):
        if not words:
            raise ValueError(f"class name {name!r} is empty: give it at least one word")
    before = {"end": n_context, "middle": n_context // 2, "front": 0}[position]
    word = _placeholder(tower, n_context)
    heads = [" ".join([word] * before + [name]) for name in clean]
    bodies = [" ".join([head] + [word] * (n_context - before)) for head in heads]
    texts = [body + suffix for body in bodies]
    _refuse_overflow(tower, names, texts, n_context)

    ends = [len(piece) for piece in tower.tokens.pieces(heads)]
    totals = [len(piece) for piece in tower.tokens.pieces(bodies)]
    start, offset = before + tower.n_prefix, tower.n_prefix
    positions, spans = [], []
    for name, end, total in zip(names, ends, totals, strict=True):
        if total - end != n_context - before or end <= before:
            raise ValueError(
                f"class {name!r}: the tokenizer does not keep {n_context} context words apart from the name; "
                "use position='end' or another spelling of the name"
            )
        spans.append((start, end + offset))
        positions.append([*range(offset, start), *range(end + offset, total + offset)])
    ids = tower.trim(tower.tokenize(texts))
    slots = torch.tensor(positions, dtype=torch.long, device=ids.device).reshape(len(texts), n_context)
    return PromptTokens(
        tuple(names), tuple(texts), position, n_context, tower.n_prefix, ids, slots, tuple(spans), tower.lengths(ids)
    )


def context_from_words(tower: TextTower, words: str) -> Tensor:
    """Token embeddings `(M, W)`, fp32, of init words such as `"an icon of a"`; a copy, safe to train.

    Raises:
        ValueError: `words` holds no token.
    """
    n_words = len(tower.tokens.pieces([words])[0])
    if n_words == 0:
        raise ValueError(f"context words {words!r} hold no token: give at least one word")
    ids = tower.tokenize([words])[:, tower.n_prefix : tower.n_prefix + n_words]
    return tower.embed(ids)[0].detach().float().clone()


def encode_prompts(
    tower: TextTower,
    tokens: PromptTokens,
    context: Tensor,
    *,
    per_image: bool = False,
    deep: Tensor | None = None,
    chunk: int | None = None,
    path: str = "auto",
) -> Tensor:
    """Un-normalised text features of prompts with `context` in their slots.

    Args:
        context: `(M, W)` for all classes, `(C, M, W)` one per class, or with `per_image` `(R, M, W)` one
            per image. Stays in its own dtype (fp32) outside; cast to the tower's inside.
        deep: as in `TextTower.encode`.
        chunk: classes encoded at a time; bounds memory in forward and backward, same result.
        path: "shared" computes the common prefix once, "plain" runs every prompt whole, "auto" shares
            where that is exact.

    Returns:
        `(C, D)`, or `(R, C, D)` with `per_image`.

    Raises:
        ValueError: shapes disagree, or `path="shared"` where the prefix differs between classes.
    """
    _check(tower, tokens, context, per_image, chunk, path)
    per_class = context.ndim == 3 and not per_image
    reason = _why_not_shared(tower, tokens, per_class)
    if path == "shared" and reason:
        raise ValueError(f"path='shared' is not exact here: {reason}; use path='auto' or 'plain'")
    if path == "plain" or reason:
        return _encode_plain(tower, tokens, context, per_image, deep, chunk)
    cut = tokens.n_prefix + tokens.n_context
    embeds = tower.embed(tokens.ids).to(tower.dtype)
    start = embeds[0, : tokens.n_prefix]
    if per_image:
        start = start.expand(len(context), -1, -1)
    prefix = torch.cat([start, context.to(tower.dtype)], dim=-2)
    return encode_shared_prefix(tower, prefix, embeds[:, cut:], tokens.ids, deep=deep, chunk=chunk)


def _encode_plain(
    tower: TextTower, tokens: PromptTokens, context: Tensor, per_image: bool, deep: Tensor | None, chunk: int | None
) -> Tensor:
    """Every prompt through the whole tower, `(C, D)` or `(R, C, D)`."""
    n_classes = len(tokens.ids)
    size = chunk or n_classes

    def piece(start: int, end: int) -> Tensor:
        ids, slots = tokens.ids[start:end], tokens.slots[start:end]
        if per_image:
            n_images, n_here = len(context), len(ids)
            ids, slots = ids.repeat(n_images, 1), slots.repeat(n_images, 1)
            words = context[:, None].expand(-1, n_here, -1, -1).flatten(0, 1)
        else:
            words = context[start:end] if context.ndim == 3 else context.expand(len(ids), -1, -1)
        embeds = tower.embed(ids).to(tower.dtype)
        index = slots[..., None].expand(-1, -1, tower.width)
        features = tower.encode(embeds.scatter(1, index, words.to(embeds.dtype)), ids, deep=deep)
        return features.unflatten(0, (len(context), -1)) if per_image else features

    pieces = []
    for start in range(0, n_classes, size):
        end = min(start + size, n_classes)
        if chunk is not None and torch.is_grad_enabled():
            redo = tower.model.training
            pieces.append(checkpoint(piece, start, end, use_reentrant=False, preserve_rng_state=redo))
        else:
            pieces.append(piece(start, end))
    return torch.cat(pieces, dim=1 if per_image else 0)


def _placeholder(tower: TextTower, n_context: int) -> str:
    """A word that the tokenizer always keeps as one token."""
    if n_context == 0:
        return _PLACEHOLDERS[0]
    pieces = tower.tokens.pieces([" ".join([word] * n_context) for word in _PLACEHOLDERS])
    for word, piece in zip(_PLACEHOLDERS, pieces, strict=True):
        if len(piece) == n_context:
            return word
    raise ValueError(f"this tokenizer has no one-token word among {', '.join(_PLACEHOLDERS)}")


def _refuse_overflow(tower: TextTower, names: Sequence[str], texts: Sequence[str], n_context: int) -> None:
    limit = tower.context_length
    for name, needed in zip(names, tower.tokens.count(texts), strict=True):
        if needed > limit:
            room = n_context - (needed - limit)
            fix = f"use n_context={room} or less, or shorten the name" if room >= 0 else "shorten the name"
            raise ValueError(
                f"the prompt of class {name!r} needs {needed} tokens ({n_context} of them context), "
                f"this text tower reads {limit}: {fix}"
            )


def _why_not_shared(tower: TextTower, tokens: PromptTokens, per_class: bool) -> str:
    if not tower.can_share_prefix:
        return "the text tower is not causal, appends a class token or has blocks with scale options"
    if per_class and tokens.n_context:
        return "the context is class-specific"
    if not tokens.context_first:
        return f"the class name stands at the {tokens.position}"
    return ""


def _check(
    tower: TextTower, tokens: PromptTokens, context: Tensor, per_image: bool, chunk: int | None, path: str
) -> None:
    if path not in PATHS:
        raise ValueError(f"path is {path!r}, expected one of {', '.join(PATHS)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected None or at least 1 class")
    inner, n_classes = (tokens.n_context, tower.width), len(tokens.ids)
    shape = tuple(context.shape)
    if per_image:
        accepted = f"(R, {inner[0]}, {inner[1]}) with per_image=True"
        fits = len(shape) == 3 and shape[1:] == inner
    else:
        accepted = f"{inner} or ({n_classes}, {inner[0]}, {inner[1]})"
        fits = shape in (inner, (n_classes, *inner))
    if not fits:
        raise ValueError(f"context is {shape}, expected {accepted}")
