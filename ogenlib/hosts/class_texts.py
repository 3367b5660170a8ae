"""Texts of classes, for hosts that train on pairs of an image and a text: templates, captions, or both.

A text is drawn for every image of a step. Image-text retrieval is the same with one class an image: the names are the
images' keys, and `texts` holds each image's captions.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib import distributed
from ogenlib.hosts.zero_shot import check_templates


class ClassTexts:
    """The texts of any name.

    Args:
        names: the training names.
        templates: filled with a name that has no texts of its own.
        texts: name -> its texts; None for templates alone. It must hold every training name, and may hold others.

    Raises:
        ValueError: a template without ``{}``, a training name without texts, or a name with none or an empty one.
        TypeError: a string in place of a list of texts.
    """

    def __init__(
        self,
        names: Sequence[str],
        templates: str | Sequence[str],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.templates = check_templates(templates)
        self.given = None if texts is None else {name: _checked(name, own) for name, own in texts.items()}
        if self.given is not None:
            missing = [name for name in names if name not in self.given]
            if missing:
                raise ValueError(
                    f"texts has none for {len(missing)} of {len(names)} names: {missing[:5]}; give every name a list "
                    "of texts, or leave texts out to fill the templates"
                )
        self.one_each = all(len(self.of(name)) == 1 for name in names)

    def of(self, name: str) -> tuple[str, ...]:
        """Its own texts, or the templates filled with it."""
        if self.given is not None and name in self.given:
            return self.given[name]
        clean = name.replace("_", " ")
        return tuple(template.format(clean) for template in self.templates)

    def draw(self, names: Sequence[str], generator: torch.Generator | None, total: int | None = None) -> list[str]:
        """A text for each of `names` (the images of a step, `B` of them); nothing is drawn where each has only one.

        Args:
            total: images of the step over all processes, so that every process draws as many numbers; None for `B`.
        """
        own = [self.of(name) for name in names]
        if self.one_each:
            return [texts[0] for texts in own]
        chances = distributed.share(torch.rand(total or len(own), generator=generator)).tolist()
        return [texts[int(chance * len(texts))] for texts, chance in zip(own, chances, strict=True)]


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """Each text once, and `(B,)` where among them the given ones are: equal texts need to be encoded only once."""
    places: dict[str, int] = {}
    found = [places.setdefault(text, len(places)) for text in texts]
    return list(places), torch.tensor(found)


def mean_rows(encode: Callable[[list[str]], Tensor], groups: Sequence[Sequence[str]]) -> Tensor:
    """Unit rows `(C, D)`: the mean of each group's unit text features, normalised; as `zero_shot_weights`, but with
    gradients where `encode` has any."""
    rows = encode([text for group in groups for text in group])
    if all(len(group) == 1 for group in groups):
        return rows  # unit rows as they are; normalising again would only round them
    parts = rows.split([len(group) for group in groups])
    return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)


def _checked(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(texts, str):
        raise TypeError(f"texts[{name!r}] is the string {texts!r}; pass a list of texts, [{texts!r}] for one")
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"texts[{name!r}] is {list(texts)!r}: give at least one text, and none that is empty")
    return tuple(texts)
