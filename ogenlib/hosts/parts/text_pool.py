"""Texts of every class, tokenized once, of which a training step draws one for each image.

Notation: `B` images, `C` classes, `L` tokens, `N` texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts.base import Batch
from ogenlib.hosts.zero_shot import filled
from ogenlib.towers import TextTower
from ogenlib.utils import distributed

Texts = Mapping[str, Sequence[str]]


def class_texts(names: Sequence[str], texts: Texts | None, templates: str | Sequence[str]) -> list[list[str]]:
    """The texts of each name: those of `texts`, or where that is None the templates filled with the name.

    Raises:
        ValueError: a name without texts, or a string in place of a list.
    """
    if texts is None:
        return [filled(templates, [name]) for name in names]
    missing = [name for name in names if name not in texts or not len(texts[name])]
    if missing:
        raise ValueError(f"texts has none for {len(missing)} names: {missing[:5]}; give every name at least one")
    strings = [name for name in names if isinstance(texts[name], str)]
    if strings:
        raise ValueError(f"texts[{strings[0]!r}] is a string; pass a list of texts")
    return [list(texts[name]) for name in names]


class TextPool:
    """Token ids of every text of every class.

    Args:
        tower: tokenizes; ids lie on its device.
        texts: of each class, in label order.

    Attributes:
        ids: `(N, L)`, the first class's texts first.

    Raises:
        ValueError: a text is longer than the tower reads.
    """

    def __init__(self, tower: TextTower, texts: Sequence[Sequence[str]]) -> None:
        self.ids = tower.tokenize([text for group in texts for text in group])
        counts = torch.tensor([len(group) for group in texts])
        self._counts = counts.to(self.ids.device)
        self._starts = (counts.cumsum(0) - counts).to(self.ids.device)

    def draw(self, batch: Batch) -> Tensor:
        """Ids `(B, L)`: one text of each image's class, drawn anew each time.

        Without a generator in the batch, the first text of the class. The draws are made for the whole step, so that
        dividing a batch among processes does not change them.
        """
        labels = batch.labels.to(self.ids.device)
        if batch.generator is None:
            return self.ids[self._starts[labels]]
        total = batch.total or len(labels)
        drawn = torch.rand(total, generator=batch.generator, dtype=torch.float64)
        if total != len(labels):
            drawn = distributed.share(drawn)
        counts = self._counts[labels]
        among = (drawn.to(counts.device) * counts).long()  # below the count: drawn is below 1
        return self.ids[self._starts[labels] + among]


def mean_features(encode: Callable[[list[str]], Tensor], groups: Sequence[Sequence[str]]) -> Tensor:
    """Unit weights `(C, D)`: the mean of each group's unit text features, normalised; `template_weights` where the
    groups need not be of one size.

    Args:
        encode: sentences -> unit features; gradients go through where it has any.
        groups: the texts of each class, at least one.
    """
    features = encode([text for group in groups for text in group])
    if all(len(group) == 1 for group in groups):
        return features  # unit length as they are; normalising again would only round them
    parts = features.split([len(group) for group in groups])
    return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
