"""From single runs to tables: means over seeds, paired tests, and the document ``ogenlib.results/1``.

Accuracies are in percent; std is the sample standard deviation, None with one seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import ttest_rel

from ogenlib.evaluate.scores import harmonic_mean
from ogenlib.results.types import (
    DETECTION_METRICS,
    METRICS,
    RETRIEVAL_METRICS,
    DetectionMetric,
    Kind,
    Measure,
    Metric,
    Number,
    Pair,
    PairedTest,
    Row,
    Score,
    Summary,
)

SCHEMA = "ogenlib.results/1"
"""The format of a document of results, as `schema` in it."""
AVERAGE = "average"  # the dataset of mean rows
TESTED_DETECTION: tuple[DetectionMetric, ...] = ("auroc", "fpr95_ood_positive")
TESTED: tuple[Metric, ...] = ("base", "new", "H", "joint_H", *RETRIEVAL_METRICS, *TESTED_DETECTION)
MEAN_TASKS = ("far", "shift")  # tasks of ood that there may be several of


class RowSetting(NamedTuple):
    """What a row is of, besides its method and seed; None for what the row does not say."""

    dataset: str
    domain: str
    shots: int | None = None
    task: str | None = None
    detector: str | None = None

    def kind(self) -> Kind:
        """What tells settings of a dataset and domain apart, where it is said."""
        kind: Kind = {}
        if self.shots is not None:
            kind["shots"] = self.shots
        if self.task is not None:
            kind["task"] = self.task
        if self.detector is not None:
            kind["detector"] = self.detector
        return kind


def mean_std(values: Sequence[Number]) -> Pair:
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


def summarize(rows: Iterable[Row]) -> list[Summary]:
    """One entry for each setting (`setting_of`), host and OGEN switch, in their order.

    ``H`` is the mean of the seeds' harmonic means; ``H_of_means`` the harmonic mean of the mean accuracies.
    """
    groups: dict[tuple[RowSetting, str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((setting_of(row), row["host"], row["ogen"]), []).append(row)
    return [_summary(setting, host, ogen, members) for (setting, host, ogen), members in groups.items()]


def _summary(setting: RowSetting, host: str, ogen: bool, members: Sequence[Row]) -> Summary:
    entry: Summary = {
        "dataset": setting.dataset,
        "domain": setting.domain,
        **setting.kind(),
        "host": host,
        "ogen": ogen,
        "n_seeds": len(members),
    }
    for metric in measured(members):
        entry[metric] = mean_std([row[metric] for row in members])
    entry["H_of_means"] = h_of(full_mean([row["base"] for row in members]), full_mean([row["new"] for row in members]))
    entry["seconds"] = mean_std([row["seconds"] for row in members])
    return entry


def measured(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """`METRICS`, and those of retrieval and of detectors where the rows have them."""
    more: tuple[Metric, ...] = (*RETRIEVAL_METRICS, *DETECTION_METRICS)
    return (*METRICS, *(m for m in more if all(m in row for row in rows)))


def setting_of(row: Row) -> RowSetting:
    """Dataset, domain, and shots, task and detector where the row says them."""
    return RowSetting(row["dataset"], row["domain"], row.get("shots"), row.get("task"), row.get("detector"))


def average_rows(rows: Sequence[Row], over: str) -> list[Row]:
    """One row for each host, OGEN switch, seed and number of shots: the mean over settings, its dataset "average".

    Args:
        over: "datasets": within each domain, where every dataset has it; "all": over datasets and domains; "": none.

    So H of an average row is the mean of the harmonic means; `summarize` adds the harmonic mean of the means.
    A metric that some setting lacks is None.
    """
    if not over:
        return []
    groups: dict[tuple[RowSetting, str, bool, int], list[Row]] = {}
    for row in rows:
        mean_of = setting_of(row)._replace(dataset=AVERAGE, domain=row["domain"] if over == "datasets" else "")
        groups.setdefault((mean_of, row["host"], row["ogen"], row["seed"]), []).append(row)
    datasets = {row["dataset"] for row in rows}
    averaged = []
    for (setting, host, ogen, seed), members in groups.items():
        if {row["dataset"] for row in members} != datasets:
            continue
        average: Row = {"dataset": AVERAGE, "domain": setting.domain, "host": host, "ogen": ogen, "seed": seed}
        average.update(setting.kind())
        measures: tuple[Measure, ...] = (*measured(members), "seconds")
        for metric in measures:
            average[metric] = full_mean([member[metric] for member in members])
        averaged.append(average)
    return averaged


def all_tests(rows: Sequence[Row]) -> list[PairedTest]:
    """`paired_tests` in every setting, each test with its dataset (and shots, task, detector)."""
    groups: dict[RowSetting, list[Row]] = {}
    for row in rows:
        groups.setdefault(setting_of(row), []).append(row)
    return [
        {"dataset": setting.dataset, **setting.kind(), **test}
        for setting, members in groups.items()
        for test in paired_tests(members, setting.domain)
    ]


def paired_tests(rows: Sequence[Score], domain: str, reference: str = "zero_shot") -> list[PairedTest]:
    """Two-sided paired t-tests over seeds in one domain: every host against `reference`, OGEN also against its host.

    ``p`` is None with fewer than two common seeds, or where every difference is the same number. A metric that was
    not measured is not tested.
    """

    def by_seed(host: str, ogen: bool) -> dict[int, Score]:
        return {r["seed"]: r for r in rows if (r["host"], r["ogen"], r["domain"]) == (host, ogen, domain)}

    hosts = list(dict.fromkeys((r["host"], r["ogen"]) for r in rows))
    pairs = [((h, o), other) for h, o in hosts for other in ([(h, False)] if o else []) + [(reference, False)]]
    tests: list[PairedTest] = []
    for (host, ogen), other in pairs:
        if other == (host, ogen) or other not in hosts:
            continue
        a, b = by_seed(host, ogen), by_seed(*other)
        seeds = sorted(a.keys() & b.keys())
        for metric in TESTED:
            first, second = (known_values([runs[s].get(metric) for s in seeds]) for runs in (a, b))
            if first is None or second is None:
                continue
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


def known_values(values: Sequence[Number]) -> list[float] | None:
    """The values, or None where one was not measured."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None
