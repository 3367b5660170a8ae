"""Tables of docs/performance.md and docs/anchors.md from the results of this folder's scripts."""

from __future__ import annotations

from typing import Any

from benchmarks.common.markdown import number, table, whole

NAMES = {
    "write": "writing the pool", "open": "opening it", "exact": "exact search", "build": "building", "search": "search",
}  # fmt: skip
KINDS = {"ivf": "`ivf`", "ivf-pq": "`ivf-pq`"}


def pool(document: dict[str, Any]) -> str:
    """Seconds, memory and recall of every step."""
    card, lines = document["protocol"], []
    for row in document["rows"]:
        step, _, kind = row["case"].partition(" ")
        what = NAMES[step] + (f" {KINDS[kind]}" if kind else "")
        if step == "write":
            what += f", {card['processes']} processes"
        if "probe" in row:
            what += f", {row['probe']} of {_lists(document, kind)} lists"
        memory = row.get("extra_mib", row.get("largest_process_mib"))
        size = row.get("disk_mib", row.get("index_mib"))
        seconds = [number(row["seconds"], 2), number(row.get("ms_a_query"), 2)]
        lines.append([what, *seconds, whole(memory), whole(size), number(row.get("recall"))])
    header = ["", "s", "ms a query", "MiB more", "MiB written", f"recall@{card['k']}, %"]
    threads = f"{card['threads']} thread" + "s" * (card["threads"] > 1)
    return table(header, lines) + (
        f"\n{card['rows']:,} pairs of {card['dim']} dimensions in half precision, {card['queries']} queries, "
        f"{threads}; other programs ran on the same machine. MiB more: private memory above that before the step; for "
        "writing, all of the largest process.\n"
    )


def speed(document: dict[str, Any]) -> str:
    """Seconds, peak memory and counted FLOPs of the textbook loop and ours."""

    def times(more: float | None, less: float | None) -> str:
        return "–" if more is None or not less else f"{more / less:.1f}×"

    def pair(a: float | None, b: float | None, digits: int = 0, unit: float = 1.0) -> str:
        return " / ".join("–" if v is None else f"{v / unit:,.{digits}f}" for v in (a, b))

    lines = []
    for row in document["rows"]:
        seconds = (row["textbook_seconds"], row["ours_seconds"])
        peaks = (row["textbook_peak_mib"], row["ours_peak_mib"])
        flops = (row["flops_textbook"], row["flops_ours"])
        over = number(row["over_floor"], 2, "×")
        lines.append(
            [row["case"], pair(*seconds, 3), times(*seconds), pair(*peaks), times(*peaks), pair(*flops, 1, 1e9), over]
        )
    header = ["case", "seconds", "faster", "peak MiB", "smaller", "GFLOP", "ours over its FLOP floor"]
    return table(header, lines) + "\nPairs are textbook / ours.\n"


def startup(document: dict[str, Any]) -> str:
    """Median and largest seconds of every case."""
    lines = [[f"`{row['case']}`", number(row["seconds"], 2), number(row["most"], 2)] for row in document["rows"]]
    turns = document["protocol"]["turns"]
    return table(["", "s", "slowest"], lines) + f"\nMedian of {turns} turns, a process each, on an idle machine.\n"


def _lists(document: dict[str, Any], kind: str) -> str:
    built = next(row for row in document["rows"] if row["case"] == f"build {kind}")
    return f"{built['lists']:,}"


BLOCKS = {
    "anchor-pool": ("anchor-pool.json", pool),
    "speed": ("speed.json", speed),
    "speed-hosts": ("speed-hosts.json", speed),
    "startup": ("startup.json", startup),
}
