"""Tables of docs/ogen.md from what `evidence.py` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from scipy.stats import ttest_rel

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import METHOD_NAMES, difference, number, plus_minus, seeds_of, table

COLUMNS = {"base": "base", "new": "new", "H": "H", "joint_H": "joint H", "ausuc": "AUSUC", "gate_auroc": "gate AUROC"}
FAMILIES = {"dtd": "DTD", "stanford_cars": "Stanford Cars", "emoji": "emoji-categories"}
CONTROLS = ("host alone", "control", "KL 0.3", "KL 0.3, control", "KL 1", "KL 1, control")  # without a generator
OURS = "OGEN"
COMPARED = ("H", "joint_H", "ausuc")
NAMES = {
    "control": "its control: zero-shot for new names",
    **{f"KL {weight}": f"KL to zero-shot, weight {weight}" for weight in ("0.3", "1")},
    **{f"KL {weight}, control": f"KL {weight}, with that control" for weight in ("0.3", "1")},
}


def chosen(document: dict[str, Any]) -> str:
    """Joint H and AUSUC of every share on the tasks that settings are chosen on, by host: means over families."""
    variants = list(dict.fromkeys(entry["variant"] for entry in document["summary"]))
    lines = []
    for host, entries in grouped(document["summary"], "host").items():
        for variant in variants:
            own = [entry for entry in entries if entry["variant"] == variant]
            values = [mean(entry[score][0] for entry in own) for score in COLUMNS]
            lines.append([f"{METHOD_NAMES[host]}: {NAMES.get(variant, variant)}", *map(number, values)])
    families = ", ".join(dict.fromkeys(entry["family"] for entry in document["summary"]))
    more = f"\nMeans over the families (CoOp has those of drawings only): {families}. Seeds {seeds_of(document)}.\n"
    return table(["", *COLUMNS.values()], lines) + more


def reported(document: dict[str, Any]) -> str:
    """Every row of every task, and what OGEN with evidence has over the best control, paired over the seeds."""
    home = "noto"
    lines, said = [], []
    for (host, family), entries in grouped(document["summary"], "host", "family").items():
        shown = [entry for entry in entries if entry["domain"] in ("", home)]
        where = f"{FAMILIES[family]}, {METHOD_NAMES[host]}"
        for entry in shown:
            name = NAMES.get(entry["variant"], entry["variant"])
            lines.append([f"{where}: {name}", *(plus_minus(entry[score]) for score in COLUMNS)])
        rows = [row for row in document["rows"] if (row["host"], row["family"]) == (host, family)]
        near = [row for row in rows if row["domain"] == home or family != "emoji"]
        said.append(f"{where}: " + "; ".join(_over_best(near, OURS, score) for score in COMPARED))
        others = [row for row in rows if family == "emoji" and row["domain"] != home]
        if others:
            compared = "; ".join(_over_best(others, OURS, score) for score in COMPARED)
            said.append(f"the mean of the other icon sets: {compared}")
    body = table(["", *COLUMNS.values()], lines)
    return body + f"\nSeeds {seeds_of(document)}. OGEN over the best control: " + ". ".join(said) + ".\n"


def _over_best(rows: Sequence[Mapping[str, Any]], ours: str, score: str) -> str:
    """The difference to the control of the largest mean, paired over the seeds; domains of a seed are averaged."""
    by_variant = {
        variant: {seed: mean(row[score] for row in own) for seed, own in grouped(group, "seed").items()}
        for variant, group in grouped(rows, "variant").items()
    }
    best = max((c for c in CONTROLS if c in by_variant), key=lambda control: mean(by_variant[control].values()))
    seeds = sorted(by_variant[ours])
    a, b = ([by_variant[variant][seed] for seed in seeds] for variant in (ours, best))
    change = mean(a) - mean(b)
    p = float(ttest_rel(a, b).pvalue) if len(seeds) > 1 else float("nan")
    return f"{COLUMNS[score]} {difference(change)} (p {p:.1g}, over {NAMES.get(best, best)})"


BLOCKS = {
    "ogen-evidence-choose": ("ogen-evidence-choose.json", chosen),
    "ogen-evidence-real": ("ogen-evidence-real.json", reported),
    "ogen-evidence-emoji": ("ogen-evidence-emoji.json", reported),
}
