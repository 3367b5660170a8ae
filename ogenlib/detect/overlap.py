"""Which classes of other data are known ones in other words: images of those are not of no known class."""

from __future__ import annotations

import re
from collections.abc import Sequence


def words(name: str) -> list[str]:
    """Lower-case words without a plural s or a participle's ed."""
    return [re.sub(r"(?<=\w{3})(ed|s)$", "", w) for w in re.findall(r"[a-z]+", name.lower())]


def overlapping(names: Sequence[str], known: Sequence[str]) -> list[bool]:
    """Which names hold all words of a known name, one after the other; commas in a known name part synonyms."""
    known_names = {" ".join(words(synonym)) for line in known for synonym in line.split(",")} - {""}
    overlaps = []
    for name in names:
        w = words(name)
        overlaps.append(any(" ".join(w[i:j]) in known_names for i in range(len(w)) for j in range(i + 1, len(w) + 1)))
    return overlaps
