"""Which names an image may be called: those of the training, those of a test, and both merged.

Two datasets may hold the same class. Where all names compete there must be one of it, or an image of it could be
right and wrong at once; so names that are the same but for case and spaces are one column.

Notation: `C` columns, one a name: the known names first, then those that only tests have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ogenlib.data.dataset import normal_name


@dataclass(frozen=True)
class LabelSpace:
    """The columns of base names and of new names; a class that is both is in both.

    base: column of each label of a base image. new: column of each label of a new image.
    """

    base: tuple[int, ...]
    new: tuple[int, ...]

    @property
    def joint(self) -> tuple[int, ...]:
        """Columns that compete where all names do: base, then the new ones that base lacks."""
        return tuple(dict.fromkeys((*self.base, *self.new)))

    @property
    def shared(self) -> int:
        """How many classes are on both sides."""
        return len(set(self.base) & set(self.new))


def label_spaces(
    known: Sequence[str], targets: Iterable[Sequence[str]]
) -> tuple[tuple[str, ...], tuple[LabelSpace, ...]]:
    """All names, each once and as it was spelled first, and the label space of every target beside `known`.

    known, targets: class names in the order of their labels, each list without repetitions.
    """
    column = {normal_name(name): i for i, name in enumerate(known)}
    names, spaces = list(known), []
    for target in targets:
        for name in target:
            if column.setdefault(normal_name(name), len(names)) == len(names):
                names.append(name)
        spaces.append(LabelSpace(tuple(range(len(known))), tuple(column[normal_name(name)] for name in target)))
    return tuple(names), tuple(spaces)
