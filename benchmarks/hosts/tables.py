"""Tables of docs/hosts.md from the results of `hosts/study.py`."""

from __future__ import annotations

from typing import Any

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import COLUMNS, difference, named, number, over_seeds, plus_minus, scores_of, table
from benchmarks.hosts.study import HOME, OTHERS
from benchmarks.ogen.variants import CONTROL
from ogenlib.utils.variant import ZERO_SHOT


def categories(document: dict[str, Any]) -> str:
    """`emoji-categories`."""
    return scores(document, "emoji")


def concepts(document: dict[str, Any]) -> str:
    """The mean of `emoji-concepts/*`."""
    return scores(document, "emoji-concepts")


def cost(document: dict[str, Any]) -> str:
    """Trained parameters, seconds and peak memory, alone and with OGEN."""
    lines = []
    for host, entries in grouped(document["costs"], "host").items():
        of = {entry["variant"]: entry for entry in entries}
        alone, added = of["host alone"], of.get("ogenlib", {})
        trains = alone["epochs"] if alone["parameters"] else None
        lines.append(
            [
                named(host),
                f"{alone['parameters']:,}",
                "–" if trains is None else str(trains),
                *[number(x.get("seconds")) for x in (alone, added)],
                *[number(x.get("peak_mib"), 0) for x in (alone, added)],
            ]
        )
    header = ["", "parameters", "epochs", "s", "s with OGEN", "peak MiB", "peak MiB with OGEN"]
    return table(header, lines) + "\nOne training on emoji-categories, mean over the seeds.\n"


def scores(document: dict[str, Any], family: str) -> str:
    """Scores on noto, H on the other sets, and what OGEN adds to each method."""
    entries = {(e["host"], e["variant"], e["domain"]): e for e in document["summary"] if e["family"] == family}
    added = {(g["host"], g["domain"], g["metric"]): g for g in document["gains"] if g["family"] == family}
    lines = []
    for host, variant in dict.fromkeys((h, v) for h, v, _ in entries):
        near, far = entries[host, variant, HOME], entries[host, variant, OTHERS]
        ogen = variant == "ogenlib"
        gain = [
            _gain(added[host, domain, metric]) if ogen else ""
            for domain, metric in ((HOME, "H"), (HOME, "joint_H"), (OTHERS, "H"))
        ]
        control = ZERO_SHOT if variant.endswith(CONTROL) else ""
        lines.append([named(host, ogen, control), *scores_of(near), plus_minus(far["H"]), *gain])
    gains = ("OGEN adds to H", "to joint H", "to H, other sets")
    header = ["on noto", *COLUMNS.values(), "H, other sets", *gains]
    pairs = next((g for g in document["gains"] if g["family"] == family), None)
    over = "" if pairs is None else f" In brackets p of a paired t-test over the {pairs['n']} {pairs['pairs']}s."
    over = over.replace("tasks", "datasets")
    return table(header, lines) + over_seeds(document, "Percent, means", over)


def _gain(gain: dict[str, Any]) -> str:
    p = gain["p"]
    chance = "" if p is None else " (<0.001)" if p < 0.001 else f" ({p:.3f})" if p < 0.1 else f" ({p:.2f})"
    return difference(gain["difference"]) + chance


BLOCKS = {
    "hosts-categories": ("hosts.json", categories),
    "hosts-concepts": ("hosts.json", concepts),
    "hosts-cost": ("hosts.json", cost),
}
