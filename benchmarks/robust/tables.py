"""Tables of docs/robust.md and docs/r-adapter.md."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import difference, named, number, over_seeds, plus_minus, seeds_of, table
from benchmarks.hosts import tables as hosts_tables
from ogenlib.results import tables as results

MEASURES = {"id": "ID", "ood": "mean OOD", "zero_shot": "mean zero-shot", "effective_robustness": "effective"}
SIDES = tuple(MEASURES)[:3]  # what is measured; the last is made of them
REFERENCE, ZERO_SHOT = ("full_ft", False), ("zero_shot", False)


def trained(document: dict[str, Any]) -> str:
    """The end of every training, and what its shifts gain on full fine-tuning's."""

    def of(task: str) -> str:
        at = _points(document, task, "trained")
        reference = at.get(REFERENCE)
        lines = []
        for key, entry in at.items():
            gain = "–"
            if reference is not None and key not in (REFERENCE, ZERO_SHOT):
                gain = difference(entry["ood"][0] - reference["ood"][0])
            lines.append([named(*key), *_measures(entry), gain])
        return table(["", *MEASURES.values(), "OOD, over full fine-tuning"], lines)

    return _by_dataset(document, of) + over_seeds(document, "Percent, means")


def concepts(document: dict[str, Any]) -> str:
    """The end of every training, and WiSE-FT of each at the chosen alpha: means over the datasets."""
    tasks = list(document["protocol"]["datasets"])
    points = [(point, key) for point in ("trained", "chosen") for key in _points(document, tasks[0], point)]
    reference = [_points(document, task, "trained")[REFERENCE] for task in tasks]
    lines = []
    for point, key in points:
        entries = [_points(document, task, point)[key] for task in tasks]
        values_of = {m: [entry[m][0] for entry in entries] for m in SIDES}
        gains = [mean(values) - mean(entry[m][0] for entry in reference) for m, values in values_of.items()]
        shown = key != ZERO_SHOT and (point, key) != ("trained", REFERENCE)
        lines.append(
            [
                named(*key) + (" · WiSE-FT" if point == "chosen" else ""),
                *[plus_minus(results.mean_std(values)) for values in values_of.values()],
                " / ".join(map(difference, gains)) if shown else "–",
            ]
        )
    header = ["", "ID", "mean OOD", "mean zero-shot", "over full fine-tuning"]
    return table(header, lines) + (
        f"\nPercent, means ± standard deviation over {len(tasks)} datasets ({', '.join(tasks)}), each the mean of "
        f"seeds {seeds_of(document)}.\n"
    )


def over(document: dict[str, Any]) -> str:
    """What the end of every training has over full fine-tuning's, and over WiSE-FT of it: ID / OOD / zero-shot."""

    def of(task: str) -> str:
        beside = [_points(document, task, point).get(REFERENCE) for point in ("trained", "chosen")]
        lines = [
            [named(*key), *[_differences(entry, one) for one in beside]]
            for key, entry in _points(document, task, "trained").items()
            if key not in (REFERENCE, ZERO_SHOT)
        ]
        return table(["ID / mean OOD / mean zero-shot, over", "full fine-tuning", "its WiSE-FT, alpha chosen"], lines)

    return _by_dataset(document, of)


def _differences(entry: dict[str, Any], other: dict[str, Any] | None) -> str:
    if other is None:
        return "–"
    return " / ".join(difference(entry[m][0] - other[m][0]) for m in SIDES)


def paired(document: dict[str, Any]) -> str:
    """What the end of every training has over full fine-tuning's of the same seed."""
    seeds = document["protocol"]["seeds"]
    of = {key: {row["seed"]: row for row in own} for key, own in grouped(document["rows"], "host", "ogen").items()}
    lines = []
    for key, own in of.items():
        if key not in (REFERENCE, ZERO_SHOT):
            gains = [results.mean_std([own[s][m] - of[REFERENCE][s][m] for s in seeds]) for m in SIDES]
            lines.append([named(*key), *[plus_minus(gain, difference) for gain in gains]])
    return table(["over full fine-tuning", *(MEASURES[m] for m in SIDES)], lines) + (
        f"\nPoints, means ± standard deviation of the differences over {len(seeds)} seeds.\n"
    )


def wise(document: dict[str, Any]) -> str:
    """WiSE-FT at the alpha that validation images choose."""
    return _of_points(document, {"chosen": ""}, with_alpha=True)


def vrf(document: dict[str, Any]) -> str:
    """VRF in both forms."""
    return _of_points(document, {f"VRF, {form}": f" · {form}" for form in ("paper", "released-code")})


def curves(document: dict[str, Any]) -> str:
    """ID / mean OOD / mean zero-shot at every alpha, means over seeds."""
    alphas = document["protocol"]["alphas"]

    def of(task: str) -> str:
        rows = [row for row in document["rows"] if row["task"] == task and row.get("curve")]
        lines = [
            [named(*key), *[_triple([row["curve"][i] for row in own]) for i in range(len(alphas))]]
            for key, own in grouped(rows, "host", "ogen").items()
        ]
        return table(["alpha", *[f"{a:g}" for a in alphas]], lines)

    return _by_dataset(document, of) + "\nID / mean OOD / mean zero-shot, percent, means over seeds.\n"


def cost(document: dict[str, Any]) -> str:
    """One table for each model: seconds a step and peak memory, beside full fine-tuning's."""
    parts = []
    for model, card in document["protocol"]["models"].items():
        own = [row for row in document["rows"] if row["model"] == model]
        full = next(row for row in own if row["case"] == document["protocol"]["reference"])
        lines = []
        for row in own:
            name = named(row["host"]) + row["case"].removeprefix(row["host"])
            peak = row["peak_mib"]
            if "seconds" not in row:
                lines.append([name, "–", "–", number(peak, 0), "–"])
                continue
            share = f"{100 * row['parameters'] / full['parameters']:.1f} %"
            more = "–" if peak is None or full["peak_mib"] is None else f"{peak / full['peak_mib']:.2f}×"
            lines.append([name, share, f"{row['ratio']:.2f}×", number(peak, 0), more])
        header = ["", "trained parameters", "seconds a step", "peak MiB", "peak memory"]
        about = f"**{model}**, {card['batch']} images of {card['classes']} classes, {card['rounds']} rounds, "
        about += f"{card['threads']} thread" + "s" * (card["threads"] > 1)
        about += f"; a step of full fine-tuning took {number(full['seconds'], 1)} s"
        parts.append(f"{about}\n\n{table(header, lines)}")
    said = (
        "Shares and factors are over full fine-tuning's: of seconds, the median over rounds of the factor within a "
        "round. Other programs ran on the same machine."
    )
    return "\n".join(parts) + f"\n{said}\n"


def rates(document: dict[str, Any]) -> str:
    """Validation accuracy of every factor that was tried, and the rate that counts."""
    lines = []
    factors = sorted({row["factor"] for row in document["rows"]})
    for host, entry in document["chosen"].items():
        tried = {row["factor"]: row["val"] for row in document["rows"] if row["host"] == host}
        cells = [("failed" if tried[f] is None else number(tried[f])) if f in tried else "" for f in factors]
        if not tried:
            cells[0] = "as " + named(entry["of"])
        lines.append([named(host), f"{entry['lr'] / entry['factor']:g}", *cells, f"{entry['lr']:g}"])
    header = ["", "own rate", *[f"× {factor:g}" for factor in factors], "used"]
    card = document["protocol"]
    return table(header, lines) + (
        f"\nPercent of the {card['validation']['images']} validation images, seed {card['seed']}, {card['epochs']} "
        "epochs.\n"
    )


def r_adapter_tries(document: dict[str, Any]) -> str:
    """Validation accuracy of every setting, and the scores of those that were tested too."""
    lines = []
    for name in dict.fromkeys(row["setting"] for row in [*document["tried"], *document["tested"]]):
        validated = [row["val"] for row in document["tried"] if row["setting"] == name]
        tested = [row for row in document["tested"] if row["setting"] == name]
        cells = [plus_minus(results.mean_std([row[m] for row in tested])) if tested else "" for m in SIDES]
        shown = f"**{name}**" if name == document["chosen"] else name
        lines.append([shown, plus_minus(results.mean_std(validated)) if validated else "–", *cells])
    card = document["protocol"]
    return table(["", "validation", "ID", "mean OOD", "mean zero-shot"], lines) + (
        f"\nPercent, means ± standard deviation: of the {card['validation']['images']} validation images over seeds "
        f"{seeds_of(document, 'seeds_of_choice')}, of the tests over seeds {seeds_of(document)}. Emphasis: chosen by "
        "validation.\n"
    )


def base_to_new(document: dict[str, Any]) -> str:
    """As the tables of docs/hosts.md."""
    return hosts_tables.scores(document, "emoji")


def search(document: dict[str, Any]) -> str:
    """OGEN's settings on the selection tasks: base / new / H / joint H, means over the tasks of a family."""
    families = list(dict.fromkeys(e["family"] for e in document["summary"]))
    lines: dict[tuple[str, str], list[str]] = {}
    for entry in document["summary"]:
        cell = " / ".join(number(entry[key][0]) for key in ("base", "new", "H", "joint_H"))
        lines.setdefault((entry["host"], entry["variant"]), []).append(cell)
    body = [
        [named(host) + (f", {name}" if host != "zero_shot" else ""), *cells] for (host, name), cells in lines.items()
    ]
    card = document["protocol"]
    return table(["base / new / H / joint H", *families], body) + (
        f"\nPercent, means over {len(card['datasets'])} tasks in all, seed {card['seeds'][0]}, {card['epochs']} "
        "epochs.\n"
    )


def _of_points(document: dict[str, Any], points: dict[str, str], *, with_alpha: bool = False) -> str:
    def of(task: str) -> str:
        lines = []
        for name, more in points.items():
            for key, entry in _points(document, task, name).items():
                alpha = [plus_minus(entry["alpha"])] * with_alpha
                lines.append([named(*key) + more, *alpha, *_measures(entry)])
        return table(["", *["alpha"] * with_alpha, *MEASURES.values()], lines)

    return _by_dataset(document, of) + over_seeds(document, "Percent, means")


def _measures(entry: dict[str, Any]) -> list[str]:
    return [plus_minus(entry[measure]) for measure in MEASURES]


def _points(document: dict[str, Any], task: str, point: str) -> dict[tuple[str, bool], dict[str, Any]]:
    return {(e["host"], e["ogen"]): e for e in document["summary"] if (e["task"], e["point"]) == (task, point)}


def _triple(points: list[dict[str, Any]]) -> str:
    return " / ".join(number(results.full_mean([point[key] for point in points])) for key in SIDES)


def _by_dataset(document: dict[str, Any], of: Callable[[str], str]) -> str:
    """What there is of each dataset, below its name where there are several."""
    tasks = document["protocol"]["datasets"]
    return "\n".join(f"**{task}**\n\n{of(task)}" if len(tasks) > 1 else of(task) for task in tasks)


BLOCKS = {
    "robust-trained": ("robust.json", trained),
    "robust-over": ("robust.json", over),
    "robust-seeds": ("robust-seeds.json", paired),
    "robust-concepts": ("robust-concepts.json", concepts),
    "robust-wise": ("robust.json", wise),
    "robust-vrf": ("robust.json", vrf),
    "robust-curves": ("robust.json", curves),
    "robust-cost": ("robust-cost.json", cost),
    "robust-rates": ("robust-rates.json", rates),
    "r-adapter-tries": ("r-adapter-tries.json", r_adapter_tries),
    "robust-base-to-new": ("robust-base-to-new.json", base_to_new),
    "robust-ogen-search": ("robust-ogen-search.json", search),
}
