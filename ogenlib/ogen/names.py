"""Names that OGEN trains with besides those that have images: checked, and dealt out to groups.

Notation: `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ogenlib.data.dataset import normal_name
from ogenlib.ogen.config import MAX_NAME_GROUPS


def other_names(
    names: tuple[str, ...], known: Sequence[str] | None, unknown: Sequence[str] | None, vocabulary: Sequence[str] | None
) -> tuple[str, ...]:
    """The unknown names, or the vocabulary without what it shares with the host's `names`; each once.

    Two spellings of one name (underscores for spaces, capitals) are the same name.

    Raises:
        ValueError: `known` that are not `names`, an unknown name that is among them, unknown names and a vocabulary
            both, or a string in place of a list.
    """
    if known is not None and tuple(known) != names:
        raise ValueError(
            f"known ({len(tuple(known))} names) is not what the host was made for ({len(names)} names); "
            "make the host with the known names: CoOp(clip, known)"
        )
    if unknown is not None and vocabulary is not None:
        raise ValueError("unknown and vocabulary were both given; a vocabulary stands in for names held out")
    for argument, given in (("unknown", unknown), ("vocabulary", vocabulary)):
        if isinstance(given, str):
            raise ValueError(f"{argument}={given!r}: pass a list of names")
    others = tuple(dict.fromkeys(unknown or vocabulary or ()))
    spelled = {normal_name(n) for n in names}
    both = sorted(n for n in others if normal_name(n) in spelled)
    if both and unknown is not None:
        raise ValueError(f"{both[:5]} are in known and unknown; unknown names are those without images")
    return tuple(n for n in others if n not in both)


def name_groups(others: tuple[str, ...], n_known: int, count: int | None) -> list[tuple[str, ...]]:
    """The unknown names dealt out to `count` groups, None for groups a third as large as the known names.

    One empty group without names.
    """
    if not others:
        return [()]
    if count is None:
        count = round(len(others) / max(1, n_known / 3))
    count = min(max(count, 1), MAX_NAME_GROUPS, len(others))
    return [others[i::count] for i in range(count)]
