"""Tables of docs/ogen.md from what `evidence.py` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from scipy.stats import ttest_rel

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import MEASURES, METHOD_NAMES, difference, number, plus_minus, seeds_of, table

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
            values = [mean(entry[score][0] for entry in own) for score in MEASURES]
            lines.append([f"{METHOD_NAMES[host]}: {NAMES.get(variant, variant)}", *map(number, values)])
    families = ", ".join(dict.fromkeys(entry["family"] for entry in document["summary"]))
    more = f"\nMeans over the families (CoOp has those of drawings only): {families}. Seeds {seeds_of(document)}.\n"
    return table(["", *MEASURES.values()], lines) + more


def reported(document: dict[str, Any]) -> str:
    """Every row of every task, and what OGEN with evidence has over the best control, paired over the seeds."""
    home = "noto"
    lines, said = [], []
    for (host, family), entries in grouped(document["summary"], "host", "family").items():
        shown = [entry for entry in entries if entry["domain"] in ("", home)]
        where = f"{FAMILIES[family]}, {METHOD_NAMES[host]}"
        for entry in shown:
            name = NAMES.get(entry["variant"], entry["variant"])
            lines.append([f"{where}: {name}", *(plus_minus(entry[score]) for score in MEASURES)])
        rows = [row for row in document["rows"] if (row["host"], row["family"]) == (host, family)]
        near = [row for row in rows if row["domain"] == home or family != "emoji"]
        said.append(f"{where}: " + "; ".join(_over_best(near, OURS, score) for score in COMPARED))
        others = [row for row in rows if family == "emoji" and row["domain"] != home]
        if others:
            compared = "; ".join(_over_best(others, OURS, score) for score in COMPARED)
            said.append(f"the mean of the other icon sets: {compared}")
    body = table(["", *MEASURES.values()], lines)
    return body + f"\nSeeds {seeds_of(document)}. OGEN over the best control: " + ". ".join(said) + ".\n"


def hosts(document: dict[str, Any]) -> str:
    """Every host alone, its best control, and OGEN: on noto, and what OGEN adds on the other icon sets."""
    lines, gained = [], {score: 0 for score in COMPARED}
    for host, rows in grouped(document["rows"], "host").items():
        near, others = ([row for row in rows if (row["domain"] == "noto") == home] for home in (True, False))
        cells = []
        for score in COMPARED:
            means = _means(near, score)
            best, change, p = _gain(near, OURS, score)
            values = (mean(means[variant].values()) for variant in ("host alone", best, OURS))
            cells += [" / ".join(map(number, values)), f"{difference(change)} ({p:.1g})"]
            gained[score] += change > 0
        lines.append([METHOD_NAMES[host], *cells, difference(_gain(others, OURS, "joint_H")[1])])
    header = [f"{MEASURES[score]}{more}" for score in COMPARED for more in ("", ": OGEN adds")]
    said = ", ".join(f"{count} in {MEASURES[score]}" for score, count in gained.items())
    return (
        table(["on noto", *header, "joint H, other sets: OGEN adds"], lines)
        + f"\nHost alone / its best control / OGEN; seeds {seeds_of(document)}. OGEN adds to the best of four "
        "controls by the mean of the score, the host alone among them (p of a paired t-test). "
        f"Of {len(lines)} hosts above it: {said}.\n"
    )


def _over_best(rows: Sequence[Mapping[str, Any]], ours: str, score: str) -> str:
    best, change, p = _gain(rows, ours, score)
    return f"{MEASURES[score]} {difference(change)} (p {p:.1g}, over {NAMES.get(best, best)})"


def _gain(rows: Sequence[Mapping[str, Any]], ours: str, score: str) -> tuple[str, float, float]:
    """The control of the largest mean, the difference to it, and p, paired over the seeds."""
    means = _means(rows, score)
    best = max((control for control in CONTROLS if control in means), key=lambda control: mean(means[control].values()))
    seeds = sorted(means[ours])
    a, b = ([means[variant][seed] for seed in seeds] for variant in (ours, best))
    return best, mean(a) - mean(b), float(ttest_rel(a, b).pvalue) if len(seeds) > 1 else float("nan")


def _means(rows: Sequence[Mapping[str, Any]], score: str) -> dict[str, dict[int, float]]:
    """Of each variant and seed, domains averaged."""
    return {
        variant: {seed: mean(row[score] for row in own) for seed, own in grouped(group, "seed").items()}
        for variant, group in grouped(rows, "variant").items()
    }


BLOCKS = {
    "ogen-evidence-choose": ("ogen-evidence-choose.json", chosen),
    "ogen-evidence-real": ("ogen-evidence-real.json", reported),
    "ogen-evidence-emoji": ("ogen-evidence-emoji.json", reported),
    "hosts-controls": ("ogen-evidence-hosts.json", hosts),
}
