"""What a tokenizer adds around the words, found by asking it.

Notation: `N` texts, `L` tokens a text is padded to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_PROBES = ("a", "dog", "cat", "7", "blue sky", "house")


class Tokens:
    """An open_clip tokenizer with its special tokens known.

    `n_prefix` counts the special tokens before the words (a start token or none), `n_suffix` those after
    them (an end token, which for SigLIP has the same id as the padding). Nothing is read from the
    tokenizer's attributes, so any callable `tokenizer(texts, context_length=L) -> (N, L)` works.
    """

    def __init__(self, tokenizer: Callable[..., torch.Tensor], context_length: int | None = None) -> None:
        self.tokenizer = tokenizer
        empty = tokenizer([""]) if context_length is None else tokenizer([""], context_length=context_length)
        self.context_length = int(empty.shape[1])
        self.pad_id = int(empty[0, -1])
        # Wide enough that no probe is cut, even where the tower itself reads only a few tokens.
        wide = tokenizer(list(_PROBES), context_length=64)
        sequences = [_strip(row, self.pad_id) for row in wide.tolist()]
        self.n_prefix = _common(sequences)
        visible = _common([row[::-1] for row in sequences])
        # A text that overflows ends with the end token; if padding is seen there, the end token is padding.
        overflow = tokenizer(["dog " * 32], context_length=8)
        self.n_suffix = visible + int(int(overflow[0, -1]) == self.pad_id)
        self._visible_suffix = visible
        inner: Any = getattr(tokenizer, "tokenizer", None)
        marked = [*getattr(tokenizer, "all_special_ids", ()), *getattr(inner, "all_special_ids", ())]
        # A text without words shows what stands around them.
        self._special = frozenset([*marked, *(int(i) for i in empty[0].tolist()), self.pad_id])

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the words alone, of every text in full: no special tokens, no padding, nothing cut."""
        if not texts:
            return []
        room = max(4 * len(text.encode()) for text in texts) + 16
        padded = self.tokenizer(list(texts), context_length=room).tolist()
        cut = [_strip(row, self.pad_id) for row in padded]
        return [row[self.n_prefix : len(row) - self._visible_suffix] for row in cut]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens each text needs, special tokens included."""
        return [self.n_prefix + len(piece) + self.n_suffix for piece in self.pieces(texts)]

    def is_special(self, token: int) -> bool:
        """Is this id one that the tokenizer adds around words (start, end, padding), or marked so by it?"""
        return token in self._special

    def word(self, token: int) -> str:
        """One token as text: a trailing ``-`` marks the beginning of a longer word, ``#id`` a token without text."""
        pieces: Any = getattr(self.tokenizer, "decoder", None)
        if isinstance(pieces, dict):  # open_clip's own byte-pair tokenizer
            piece = pieces.get(token)
            if piece is None:
                return f"#{token}"
            text = self.tokenizer.decode([token]).strip()  # type: ignore[attr-defined]
            return (text if piece.endswith("</w>") else f"{text}-") or f"#{token}"
        inner: Any = getattr(self.tokenizer, "tokenizer", None)  # Hugging Face's, in open_clip's wrapper
        if hasattr(inner, "decode"):
            return inner.decode([token]).strip() or f"#{token}"
        return f"#{token}"

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids `(N, L)`.

        Raises:
            ValueError: a text needs more than `L` tokens (tokenizers cut such a text without a word).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        for text, needed in zip(texts, self.count(texts), strict=True):
            if needed > self.context_length:
                raise ValueError(
                    f"text {text!r} needs {needed} tokens, the text tower reads {self.context_length}: "
                    f"shorten it by {needed - self.context_length} tokens"
                )
        return self.tokenizer(texts, context_length=self.context_length)


def _strip(row: list[int], pad_id: int) -> list[int]:
    end = len(row)
    while end and row[end - 1] == pad_id:
        end -= 1
    return row[:end]


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest start that all sequences share."""
    shared = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared
