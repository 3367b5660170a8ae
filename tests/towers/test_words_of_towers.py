"""Vocabulary and token texts of every kind of tower and tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch

from ogenlib.towers.tokens import Tokens


@pytest.mark.parametrize("kind", ["clip", "clip-last", "siglip", "coca", "roberta"])
def test_every_id_of_the_vocabulary_has_an_embedding(kind: str, tiny: Callable[[str], Any]) -> None:
    tower = tiny(kind).tower
    last = torch.tensor([[tower.vocabulary_size - 1]])
    assert tower.embed(last).shape == (1, 1, tower.width)
    with pytest.raises(IndexError):
        tower.embed(last + 1)
    words = [tower.tokens.word(i) for i in range(10)]
    assert all(words)


def test_words_of_byte_pairs() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    tokens = Tokens(tokenizer)
    whole, start = tokenizer.encoder["dog</w>"], tokenizer.encoder["dog"]
    assert (tokens.word(whole), tokens.word(start)) == ("dog", "dog-")
    assert tokens.word(10**6) == "#1000000"
    ids = tokenizer([""])[0].tolist()
    assert all(tokens.is_special(i) for i in ids) and not tokens.is_special(whole)


def test_words_of_hugging_face(tiny: Callable[[str], Any]) -> None:
    made = tiny("roberta")
    inner = made.tokenizer.tokenizer if hasattr(made.tokenizer, "tokenizer") else None
    if inner is None:
        pytest.skip("this open_clip cannot call the installed transformers, so there is no wrapper to ask")
    tokens = made.tower.tokens
    assert tokens.word(inner.convert_tokens_to_ids("dog")) == "dog"
    assert all(tokens.is_special(inner.convert_tokens_to_ids(t)) for t in ("<s>", "</s>", "<pad>", "<unk>"))


def test_words_of_a_tokenizer_that_cannot_say_them() -> None:
    def tokenizer(texts: list[str], context_length: int = 8) -> torch.Tensor:
        rows = [[*[1, *(5 + len(w) for w in t.split())][: context_length - 1], 2] for t in texts]
        return torch.tensor([row + [0] * (context_length - len(row)) for row in rows])

    tokens = Tokens(tokenizer)
    assert tokens.word(7) == "#7" and tokens.is_special(1) and tokens.is_special(2) and tokens.is_special(0)
