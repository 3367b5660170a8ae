"""Table of ogen-tiny's accuracy from the results of `zero_shot_tiny.py`."""

from __future__ import annotations

from typing import Any

from benchmarks.common.markdown import number, table


def ogen_tiny(document: dict[str, Any]) -> str:
    """Zero-shot accuracy of each icon set, sets never pretrained on first."""
    sets = sorted(document["sets"].items(), key=lambda pair: pair[1]["seen_in_pretraining"])
    lines = [
        [name, "yes" if row["seen_in_pretraining"] else "no", number(row["all"]), number(row["groups"])]
        for name, row in sets
    ]
    body = table(["icon set", "seen in pretraining", "all names", "mean of the groups"], lines)
    categories = document.get("categories")
    if categories:
        sides = [[domain, number(row["base"]), number(row["new"])] for domain, row in categories.items()]
        body += "\n" + table(["emoji-categories, icon set", "base names", "new names"], sides)
    return body + "\nZero-shot accuracy in percent.\n"


BLOCKS = {"ogen-tiny": ("ogen-tiny.json", ogen_tiny)}
