"""From single runs to tables: means over seeds, paired tests, and the document ``ogenlib.results/1``.

Accuracies are in percent; std is the sample standard deviation, None with one seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_rel

from ogenlib.detect.measures import METRICS as DETECTION
from ogenlib.evaluate.recall import KS, Recalls
from ogenlib.evaluate.scores import harmonic_mean
from ogenlib.utils.provenance import git_revision as git_revision
from ogenlib.utils.provenance import now as now
from ogenlib.utils.provenance import versions as versions

SCHEMA = "ogenlib.results/1"
"""The format of a document of results, as `schema` in it."""
AVERAGE = "average"  # the dataset of mean rows
SETTING = ("dataset", "domain", "shots", "task", "detector")  # what a row is of, besides its method and seed
RETRIEVAL_METRICS = tuple(name for name in Recalls(*[dict.fromkeys(KS, 0.0)] * 2).as_row())  # in rows of retrieval
DETECTION_METRICS = (*DETECTION, "flagged")  # in rows of ood
TESTED_DETECTION = ("auroc", "fpr95_ood_positive")
MEAN_TASKS = ("far", "shift")  # tasks of ood that there may be several of
METRICS = (
    "base", "new", "H", "joint_base", "joint_new", "joint_H", "ece_base", "ece_new", "ece_joint",
)  # fmt: skip


def mean_std(values: Sequence[float | None]) -> list[float | None]:
    """[mean, sample std]; std is None for one value, both are None if any value is missing."""
    known = [v for v in values if v is not None and not math.isnan(v)]
    return [full_mean(values), stdev(known) if len(values) == len(known) > 1 else None]


def full_mean(values: Sequence[float | None]) -> float | None:
    """None unless every value was measured: a mean over fewer is not comparable."""
    known = [v for v in values if v is not None and not math.isnan(v)]
    return mean(known) if known and len(known) == len(values) else None


def h_of(base: float | None, new: float | None) -> float | None:
    """Their harmonic mean; None where a side was not measured."""
    return None if base is None or new is None else harmonic_mean(base, new)


def summarize(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each setting (`setting_of`), host and OGEN switch, in their order.

    ``H`` is the mean of the seeds' harmonic means; ``H_of_means`` the harmonic mean of the mean accuracies.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (*setting_of(row), row["host"], row["ogen"])
        groups.setdefault(key, []).append(row)
    summary = []
    for members in groups.values():
        first = members[0]
        entry: dict[str, Any] = {k: first[k] for k in (*SETTING, "host", "ogen") if k in first}
        entry["n_seeds"] = len(members)
        entry |= {m: mean_std([r[m] for r in members]) for m in measured(members)}
        entry["H_of_means"] = h_of(entry["base"][0], entry["new"][0])
        entry["seconds"] = mean_std([r["seconds"] for r in members])
        summary.append(entry)
    return summary


def measured(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """`METRICS`, and those of retrieval and of detectors where the rows have them."""
    more = (*RETRIEVAL_METRICS, *DETECTION_METRICS)
    return (*METRICS, *(m for m in more if all(m in row for row in rows)))


def setting_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The row's `SETTING`: dataset, domain, and shots, task and detector where the row says them."""
    return tuple(row.get(key) for key in SETTING)


def average_rows(rows: Sequence[Mapping[str, Any]], over: str) -> list[dict[str, Any]]:
    """One row for each host, OGEN switch, seed and number of shots: the mean over settings, its dataset "average".

    Args:
        over: "datasets": within each domain, where every dataset has it; "all": over datasets and domains; "": none.

    So H of an average row is the mean of the harmonic means; `summarize` adds the harmonic mean of the means.
    A metric that some setting lacks is None.
    """
    if not over:
        return []
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        domain = row["domain"] if over == "datasets" else ""
        key = (domain, *setting_of(row)[2:], row["host"], row["ogen"], row["seed"])
        groups.setdefault(key, []).append(row)
    datasets = {row["dataset"] for row in rows}
    averaged = []
    for (domain, *setting, host, ogen, seed), members in groups.items():
        if {row["dataset"] for row in members} != datasets:
            continue
        row = {"dataset": AVERAGE, "domain": domain, "host": host, "ogen": ogen, "seed": seed}
        row |= {key: value for key, value in zip(SETTING[2:], setting, strict=True) if value is not None}
        for metric in (*measured(members), "seconds"):
            row[metric] = full_mean([member[metric] for member in members])
        averaged.append(row)
    return averaged


def all_tests(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`paired_tests` in every setting, each test with its dataset (and shots, task, detector)."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(setting_of(row), []).append(row)
    return [
        {"dataset": dataset, **{k: v for k, v in zip(SETTING[2:], more, strict=True) if v is not None}, **test}
        for (dataset, domain, *more), members in groups.items()
        for test in paired_tests(members, domain)
    ]


def paired_tests(rows: Sequence[dict[str, Any]], domain: str, reference: str = "zero_shot") -> list[dict[str, Any]]:
    """Two-sided paired t-tests over seeds in one domain: every host against `reference`, OGEN also against its host.

    ``p`` is None with fewer than two common seeds, or where every difference is the same number. A metric that was
    not measured is not tested.
    """

    def by_seed(host: str, ogen: bool) -> dict[int, dict[str, Any]]:
        return {r["seed"]: r for r in rows if (r["host"], r["ogen"], r["domain"]) == (host, ogen, domain)}

    hosts = list(dict.fromkeys((r["host"], r["ogen"]) for r in rows))
    pairs = [((h, o), other) for h, o in hosts for other in ([(h, False)] if o else []) + [(reference, False)]]
    tests = []
    for (host, ogen), other in pairs:
        if other == (host, ogen) or other not in hosts:
            continue
        a, b = by_seed(host, ogen), by_seed(*other)
        seeds = sorted(a.keys() & b.keys())
        for metric in ("base", "new", "H", "joint_H", *RETRIEVAL_METRICS, *TESTED_DETECTION):
            if any(runs[s].get(metric) is None for runs in (a, b) for s in seeds):
                continue
            first, second = [a[s][metric] for s in seeds], [b[s][metric] for s in seeds]
            differences = [x - y for x, y in zip(first, second, strict=True)]
            p = None
            if len(seeds) > 1 and max(differences) - min(differences) > 1e-9:
                p = float(ttest_rel(first, second).pvalue)
            tests.append(
                {
                    "domain": domain,
                    "a": f"{host}+ogen" if ogen else host,
                    "b": other[0],
                    "metric": metric,
                    "difference": mean(differences) if seeds else None,
                    "p": p,
                    "n": len(seeds),
                }
            )
    return tests
