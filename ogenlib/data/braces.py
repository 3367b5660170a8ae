"""How many names a brace pattern stands for, counted before any of them is made.

The rules are those of https://github.com/trendels/braceexpand, which webdataset expands names by.
"""

from __future__ import annotations

import re

MOST = 1_000_000  # names; as many shards of a thousand images are a billion images
_DEEPEST = 20  # braces inside braces
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?\d+)?")


def refuse_many(pattern: str) -> None:
    """ValueError for a pattern of more than `MOST` names, or with braces that are nested too deep or not closed."""
    count = sum(count_names(part) for part in pattern.split("::"))
    if count > MOST:
        shown = f"{count:,}" if count < 10**18 else "10^18 or more"
        raise ValueError(f"{pattern}: stands for {shown} names, and {MOST:,} are the most; give a folder, or fewer")


def count_names(pattern: str) -> int:
    """How many names a pattern stands for, repeats included, or somewhat more where a range has a step of letters."""
    open_braces: list[tuple[int, int, int]] = []  # alternatives before this one, names of the text before, its start
    before, names, position = 0, 1, 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif character == "{":
            if len(open_braces) == _DEEPEST:
                raise ValueError(f"{pattern[:80]}: has braces in braces more than {_DEEPEST} deep")
            open_braces.append((before, names, position + 1))
            before, names = 0, 1
        elif character == "," and open_braces:
            before, names = before + names, 1
        elif character == "}" and open_braces:
            outer, text, start = open_braces.pop()
            inside = _count_range(pattern[start:position]) or before + names
            before, names = outer, text * inside
        elif character == "}":
            break
        position += 1
    if open_braces or position < len(pattern):
        raise ValueError(f"{pattern[:80]}: has braces that are not closed, or not opened")
    return names


def _count_range(text: str) -> int | None:
    """Of ``000..127`` and ``a..z``, None for what is no range."""
    if match := _LETTERS.fullmatch(text):
        return abs(ord(match[1]) - ord(match[2])) + 1
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return None
    if any(len(digits or "") > 18 for digits in match.groups()):
        return 10**18
    return abs(int(match[1]) - int(match[2])) // (int(match[3] or 1) or 1) + 1
