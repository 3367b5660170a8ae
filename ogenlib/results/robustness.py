"""In-distribution, shifted and zero-shot accuracy together, and what is gained over the line of fine-tuning.

"Measuring Robustness to Natural Distribution Shifts in Image Classification", Taori et al., NeurIPS 2020.
https://arxiv.org/abs/2007.00644

Reproduced: effective robustness, accuracy under shift beyond what accuracy without it predicts.
Different: their prediction is a fit over many models; here it is the straight line through two, zero-shot and the
fine-tuned reference of the same seed: ``OOD - (OOD_zs + (ID - ID_zs) * (OOD_ft - OOD_zs) / (ID_ft - ID_zs))``.
The reference is full fine-tuning where it is among the methods, else the method itself, whose own value is then 0.

An *entry* is one host trained with one seed: `host`, `ogen`, `seed`, `val`, `id`, `ood`, `zero_shot`, and `curve`, a
list of the four at every `alpha`, or None; `others`, if there, has further points by name. A *point* of it is what was
tested: ``trained`` (alpha 1), ``chosen`` (the alpha of the highest `val`) or ``half`` (alpha 0.5). Accuracies are in
percent.
"""

from __future__ import annotations

from collections.abc import Sequence

from ogenlib.merge.states import ALPHA, best_alpha
from ogenlib.results.tables import known_values, mean_std
from ogenlib.results.types import (
    ROBUST_METRICS,
    AlphaPoint,
    Number,
    PointMeasure,
    Robustness,
    RobustnessSummary,
    RobustnessTables,
)

REFERENCE = "full_ft"
ZERO_SHOT = "zero_shot"
MIN_GAP = 1.0  # points between the two ends of the line; less, and their noise decides its slope
FORMULA = (
    "OOD - (OOD_zs + (ID - ID_zs) * (OOD_ft - OOD_zs) / (ID_ft - ID_zs)); zs: zero-shot; ft: {ft}, of the same seed; "
    f"none where ID_ft and ID_zs are less than {MIN_GAP:g} point apart"
)
SUMMARIZED: tuple[PointMeasure, ...] = ("alpha", "val", *ROBUST_METRICS, "effective_robustness")


def effective_robustness(model: AlphaPoint | Robustness, zero_shot: Robustness, tuned: Robustness) -> Number:
    """Points of `ood` above the line through `zero_shot` and `tuned` at the `id` of `model`.

    None where the ends are less than `MIN_GAP` apart in `id`, or something was not measured.
    """
    values = [value for scores in (model, zero_shot, tuned) for value in (scores.get("id"), scores.get("ood"))]
    known = known_values(values)
    if known is None:
        return None
    at, reached, id_zs, ood_zs, id_ft, ood_ft = known
    if abs(id_ft - id_zs) < MIN_GAP:
        return None
    return reached - (ood_zs + (at - id_zs) * (ood_ft - ood_zs) / (id_ft - id_zs))


def chosen_alpha(curve: Sequence[AlphaPoint]) -> float:
    """The alpha of the highest validation accuracy; of equals the smallest."""
    validated = ((point["alpha"], point["val"]) for point in curve)
    return best_alpha([(alpha, val) for alpha, val in validated if alpha is not None and val is not None])


def points_of(entry: Robustness) -> dict[str, AlphaPoint]:
    """The tested points of one entry by name: ``trained``, and ``half`` and ``chosen`` where it has a curve."""
    end: AlphaPoint = {"alpha": None, "val": entry.get("val")}
    for metric in ROBUST_METRICS:
        end[metric] = entry.get(metric)
    points: dict[str, AlphaPoint] = {"trained": end}
    for name, other in (entry.get("others") or {}).items():
        points[name] = {"alpha": None, **other}
    curve = entry.get("curve")
    if not curve:
        return points
    end["alpha"] = 1.0
    at = {point["alpha"]: _tested(point) for point in curve}
    if ALPHA in at:
        points["half"] = at[ALPHA]
    return {**points, "chosen": at[chosen_alpha(curve)]}


def _tested(point: AlphaPoint) -> AlphaPoint:
    """The accuracies of a point of a curve, without what they are means of."""
    tested: AlphaPoint = {"alpha": point["alpha"], "val": point["val"]}
    for metric in ROBUST_METRICS:
        tested[metric] = point[metric]
    return tested


def robustness_tables(entries: Sequence[Robustness]) -> RobustnessTables:
    """What a results document gets: ``robustness``, the entries with their points, and ``robustness_summary``."""
    ends = {(e["host"], e["ogen"], e["seed"]): e for e in entries}
    rows: list[Robustness] = []
    for entry in entries:
        zero = ends.get((ZERO_SHOT, False, entry["seed"]))
        tuned = ends.get((REFERENCE, False, entry["seed"]), entry)
        points = points_of(entry)
        for point in points.values():
            point["effective_robustness"] = None if zero is None else effective_robustness(point, zero, tuned)
        rows.append({**entry, "points": points})
    return {"robustness": rows, "robustness_summary": summarize(rows)}


def summarize(rows: Sequence[Robustness]) -> list[RobustnessSummary]:
    """[mean, std] over seeds of every point of every host; None where a seed lacks it."""
    groups: dict[tuple[str, bool, str], list[AlphaPoint]] = {}
    for row in rows:
        for name, point in row["points"].items():
            groups.setdefault((row["host"], row["ogen"], name), []).append(point)
    summary = []
    for (host, ogen, name), points in groups.items():
        entry: RobustnessSummary = {"host": host, "ogen": ogen, "point": name, "n_seeds": len(points)}
        for key in SUMMARIZED:
            entry[key] = mean_std([point.get(key) for point in points])
        summary.append(entry)
    return summary
