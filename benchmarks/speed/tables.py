"""Table of docs/anchors.md from the results of `speed/anchor_pool.py`."""

from __future__ import annotations

from typing import Any

from benchmarks.common.markdown import number, table

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
        lines.append([what, *seconds, _whole(memory), _whole(size), number(row.get("recall"))])
    header = ["", "s", "ms a query", "MiB more", "MiB written", f"recall@{card['k']}, %"]
    threads = f"{card['threads']} thread" + "s" * (card["threads"] > 1)
    return table(header, lines) + (
        f"\n{card['rows']:,} pairs of {card['dim']} dimensions in half precision, {card['queries']} queries, "
        f"{threads}; other programs ran on the same machine. MiB more: private memory above that before the step; for "
        "writing, all of the largest process.\n"
    )


def _lists(document: dict[str, Any], kind: str) -> str:
    built = next(row for row in document["rows"] if row["case"] == f"build {kind}")
    return f"{built['lists']:,}"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


BLOCKS = {"anchor-pool": ("anchor-pool.json", pool)}
