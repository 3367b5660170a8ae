"""Tables of docs/ood.md from the results of `ood/study.py`, `ood/emoji.py` and their like."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import named, number, plus_minus, seeds_of, table, whole

TASKS = {
    "imagenet-dtd": "ImageNet: DTD", "imagenet-ucf101": "UCF101", "imagenet-flowers": "Flowers",
    "dtd-base-new": "DTD new", "cars-base-new": "Cars new", "imagenet-first-last": "ImageNet last",
}  # fmt: skip
SETTINGS = {
    "names": "Names only",
    "images": "A few images of each known class",
    "unknown names": "Names of the unknown",
}

DETECTORS = {
    "mcm": "MCM",
    "max_logit": "MaxLogit",
    "energy": "Energy",
    "ogen": "OGENDetector",
    "ogen_images": "OGENDetector, images",
}


def _pair(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{number(row['auroc'])} / {number(row['fpr95_ood_positive'])}"


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {key: mean(row[key] for row in rows) for key in ("auroc", "fpr95_ood_positive")}


def tasks(document: dict[str, Any]) -> str:
    """AUROC / FPR95 of each detector on each task, by what the detector is told."""
    parts = []
    for setting, title in SETTINGS.items():
        lines = []
        for name, own in grouped((r for r in document["rows"] if r["setting"] == setting), "detector").items():
            of = grouped(own, "task")
            cells = [_pair(_mean(of[task]) if task in of else None) for task in TASKS]
            groups = {s["tasks"]: s for s in document["summary"] if s["detector"] == name}
            lines.append([name, *cells, _pair(groups.get("far")), _pair(groups.get("near"))])
        if lines:
            header = ["detector", *TASKS.values(), "mean far", "mean near"]
            parts.append(f"**{title}**\n\n" + table(header, lines))
    failed = "".join(f" {name} could not be run: {why}." for name, why in document.get("failed", {}).items())
    return "\n".join(parts) + (
        "\nAUROC / FPR95 with unknown positive (the share of known images flagged where 95 % of the unknown are "
        f"caught), percent; means over seeds {seeds_of(document)} where rows are drawn.{failed}\n"
    )


def conventions(document: dict[str, Any]) -> str:
    """All measures, both conventions of FPR95."""
    header = ["detector", "tasks", "AUROC", "AUPR-in", "AUPR-out", "FPR95, unknown positive", "FPR95, known positive"]
    keys = ("auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive")
    lines = [[s["detector"], s["tasks"], *[number(s[k]) for k in keys]] for s in document["summary"]]
    return table(header, lines)


def unexcluded(document: dict[str, Any]) -> str:
    """The far tasks with all classes left in."""
    names = list(TASKS)[:3]
    lines = []
    for name, own in grouped(document["without_exclusions"], "detector").items():
        of = {r["task"]: r for r in own}
        lines.append([name, *[_pair(of[t]) for t in names], _pair(_mean([of[t] for t in names]))])
    return table(["detector", *[TASKS[t] for t in names], "mean"], lines)


def excluded(document: dict[str, Any]) -> str:
    """Class names that were left out."""
    lines = [f"- {TASKS[task]}: {', '.join(names)}" for task, names in document["protocol"]["excluded"].items()]
    return "\n".join(lines) + "\n"


def validation(document: dict[str, Any]) -> str:
    """What was tried on the validation tasks; the chosen setting is bold."""
    lines = []
    for name, of in document["validation"].items():
        for trial in of["tried"]:
            text = ", ".join(f"{k} {v:g}" for k, v in trial["settings"].items()) or "default"
            text = f"**{text}**" if trial["settings"] == of["chosen"] else text
            lines.append([name, text, str(trial["tasks"]), _pair(trial)])
    return table(["detector", "setting", "tasks", "AUROC / FPR95"], lines)


def tries(document: dict[str, Any]) -> str:
    """Names-only scores on the validation tasks, over all and over dataset against dataset; the best of all bold."""
    rows = document["rows"]
    best = max(row["means"]["all"]["auroc"] for row in rows)
    lines = []
    for row in rows:
        name = row["try"] + (f", {row['setting']}" if row["setting"] else "")
        name = f"**{name}**" if row["means"]["all"]["auroc"] == best else name
        lines.append([name, *[_pair(row["means"][group]) for group in ("all", "far")]])
    return table(["score", "all thirteen", "dataset against dataset"], lines) + (
        "\nAUROC / FPR95 with unknown positive, percent, on validation tasks.\n"
    )


def speed(document: dict[str, Any]) -> str:
    """Rows a second of each detector, and what one call on all rows needs besides them."""
    threads = list(dict.fromkeys(row["threads"] for row in document["throughput"]))
    rows_of = list(dict.fromkeys(row["rows"] for row in document["memory"]))
    lines = []
    for name in dict.fromkeys(row["detector"] for row in document["throughput"]):
        rates = {row["threads"]: row for row in document["throughput"] if row["detector"] == name}
        peaks = {row["rows"]: row["peak_over_features_mib"] for row in document["memory"] if row["detector"] == name}
        cells = [whole(rates[count]["rows_a_second"]) for count in threads]
        lines.append([name, *cells, *[whole(peaks.get(n)) for n in rows_of]])
    header = ["detector", *[f"features/s, {n} thread{'s' * (n > 1)}" for n in threads]]
    header += [f"MiB, {n:,} features" for n in rows_of]
    card, first = document["protocol"], document["throughput"][0]
    # Absent from results of the time when fitting was not measured.
    fitted = document.get("fitting", {}).get("rows", ())
    return (
        table(header, lines)
        + (
            f"\nRandom rows of {card['dimensions']} numbers in fp32, {card['classes']:,} names, "
            f"on {card['device'].upper()}. Speed: detectors take turns on {first['rows']:,} rows in pieces of "
            f"{first['rows_a_call']:,}. "
            "Memory: the peak of a process beyond what it had with the features, in one call on all of them.\n"
        )
        + "".join(
            f"\nFitting {row['rows']:,} features in {row['dtype']} ({row['features_mib']:,} MiB): "
            f"{row['peak_over_features_mib']:,} MiB beyond them.\n"
            for row in fitted
        )
    )


def emoji(document: dict[str, Any]) -> str:
    """Each detector on each method, embedded data: the means over tasks of a kind."""
    rows = document["summary"]
    columns = (
        ("near", "auroc"),
        ("near", "fpr95_ood_positive"),
        ("far", "auroc"),
        ("full-spectrum", "auroc"),
        ("shift", "flagged"),
    )
    lines = []
    for detector, title in DETECTORS.items():
        for host, ogen in dict.fromkeys((r["host"], r["ogen"]) for r in rows):
            own = [r for r in rows if (r["host"], r["ogen"], r["detector"]) == (host, ogen, detector)]
            if own:
                # A kind with several tasks has a row of their mean; it goes before its tasks.
                own = sorted(own, key=lambda r: r["dataset"] != "average")
                cells = [plus_minus(next(r for r in own if r["task"] == task)[measure]) for task, measure in columns]
                lines.append([f"{title}: {named(host, ogen)}", *cells])
    header = ["detector: method", "near AUROC", "near FPR95", "far AUROC", "full-spectrum AUROC", "shifted, flagged"]
    return table(header, lines) + (
        f"\nPercent, mean ± standard deviation over seeds {seeds_of(document)}. FPR95: known images flagged where 95 % "
        "of the unknown are caught. Flagged: known things in another icon set, where 95 % of those at home pass.\n"
    )


BLOCKS = {
    "ood-emoji": ("ood-emoji.json", emoji),
    "ood-tries": ("ood-tries.json", tries),
    "ood-speed": ("ood-speed.json", speed),
    "ood-tasks": ("ood.json", tasks),
    "ood-measures": ("ood.json", conventions),
    "ood-unexcluded": ("ood.json", unexcluded),
    "ood-excluded": ("ood.json", excluded),
    "ood-validation": ("ood.json", validation),
}
