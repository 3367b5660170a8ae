"""Token strings without meaning, for any text tower: what Lipsum-FT holds image features by.

Notation: `M` strings, `L` random tokens of each, `V` vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ogenlib.towers.text import TextTower


class RandomTexts:
    """Strings of `L` ids drawn uniformly, with the special tokens that the tokenizer puts around words.

    Which ids can be drawn: in CLIP's vocabulary, where start and end token come last, all ids below the two (0 among
    them, which CLIP pads with and which is "!" too). The same for any tower that pools at its highest id. Elsewhere all
    ids that the tokenizer adds to no text and does not mark as special. Start and end are found by asking the tokenizer
    (`Tokens`), never by their numbers; a padding id that the tower masks is not drawn.

    Attributes:
        ordinary: the ids that can be drawn, ascending.

    Raises:
        ValueError: strings that the tower cannot read, none at all, or a vocabulary of special tokens only.
    """

    def __init__(self, tower: TextTower, strings: int, length: int) -> None:
        for name, value in (("strings", strings), ("length", length)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more (released: 80 strings of 8 tokens)")
        tokens = tower.tokens
        around = tokens.n_prefix + tokens.n_suffix
        room = tower.context_length - around
        if length > room:
            raise ValueError(f"length={length}: beside {around} special tokens this text tower reads at most {room}")
        self.tower, self.strings, self.length = tower, strings, length
        empty = tower.tokenize([""])[0].cpu()
        self._prefix, self._suffix = empty[: tokens.n_prefix], empty[tokens.n_prefix : around]
        self.ordinary = torch.tensor(_ordinary(tower, sorted({*self._prefix.tolist(), *self._suffix.tolist()})))
        if not len(self.ordinary):
            raise ValueError("every id of this tokenizer's vocabulary is special; there are no random strings of words")

    def draw(self, generator: torch.Generator) -> Tensor:
        """Ids `(M, context_length)` on the tower's device, padded as the tokenizer pads; new ones at every call."""
        picked = torch.randint(len(self.ordinary), (self.strings, self.length), generator=generator)
        ids = torch.full((self.strings, self.tower.context_length), self.tower.tokens.pad_id)
        start, end = len(self._prefix), len(self._prefix) + self.length
        ids[:, :start] = self._prefix
        ids[:, start:end] = self.ordinary[picked]
        ids[:, end : end + len(self._suffix)] = self._suffix
        return ids.to(self.tower.device)


def _ordinary(tower: TextTower, around: list[int]) -> list[int]:
    """`around`: the ids of start and end token, ascending."""
    vocabulary, tokens = tower.vocabulary_size, tower.tokens
    last = around == list(range(vocabulary - len(around), vocabulary))
    if around and (last or getattr(tower, "pool", None) == "argmax"):
        words = list(range(around[0]))
    else:
        words = [i for i in range(vocabulary) if i not in around and not tokens.is_special(i)]
    return [i for i in words if not (tower.pads_are_masked and i == tokens.pad_id)]
