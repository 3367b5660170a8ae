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
    COMPETING_METRICS,
    DETECTION_METRICS,
    METRICS,
    RETRIEVAL_METRICS,
    DetectionMetric,
    Kind,
    Measure,
    Metric,
    Number,
    Of,
    Pair,
    PairedTest,
    Row,
    Score,
    Summary,
)
from ogenlib.utils.variant import Variant

SCHEMA = "ogenlib.results/1"
"""The format of a document of results, as `schema` in it."""
AVERAGE = "average"  # the dataset of mean rows
TESTED_DETECTION: tuple[DetectionMetric, ...] = ("auroc", "fpr95_ood_positive")
TESTED: tuple[Metric, ...] = ("base", "new", "H", "joint_H", "ausuc", *RETRIEVAL_METRICS, *TESTED_DETECTION)
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
    """One entry for each setting (`setting_of`) and variant, in their order.

    ``H`` is the mean of the seeds' harmonic means; ``H_of_means`` the harmonic mean of the mean accuracies.
    """
    groups: dict[tuple[RowSetting, Variant], list[Row]] = {}
    for row in rows:
        groups.setdefault((setting_of(row), Variant.of(row)), []).append(row)
    return [_summary(setting, variant, members) for (setting, variant), members in groups.items()]


def _summary(setting: RowSetting, variant: Variant, members: Sequence[Row]) -> Summary:
    entry: Summary = {
        "dataset": setting.dataset,
        "domain": setting.domain,
        **setting.kind(),
        **fields_of(variant),
        "n_seeds": len(members),
    }
    for metric in measured(members):
        entry[metric] = mean_std([row[metric] for row in members])
    entry["H_of_means"] = h_of(full_mean([row["base"] for row in members]), full_mean([row["new"] for row in members]))
    entry["seconds"] = mean_std([row["seconds"] for row in members])
    return entry


def fields_of(variant: Variant) -> Of:
    """What an item of this variant says of it."""
    said: Of = {"host": variant.host, "ogen": variant.ogen}
    if variant.control:
        said["control"] = variant.control
    return said


def measured(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """`METRICS`, and those of competing names, of retrieval and of detectors where the rows have them."""
    more: tuple[Metric, ...] = (*COMPETING_METRICS, *RETRIEVAL_METRICS, *DETECTION_METRICS)
    return (*METRICS, *(m for m in more if all(m in row for row in rows)))


def setting_of(row: Row) -> RowSetting:
    """Dataset, domain, and shots, task and detector where the row says them."""
    return RowSetting(row["dataset"], row["domain"], row.get("shots"), row.get("task"), row.get("detector"))


def average_rows(rows: Sequence[Row], over: str) -> list[Row]:
    """One row for each variant, seed and number of shots: the mean over settings, its dataset "average".

    Args:
        over: "datasets": within each domain, where every dataset has it; "all": over datasets and domains; "": none.

    So H of an average row is the mean of the harmonic means; `summarize` adds the harmonic mean of the means.
    A metric that some setting lacks is None.
    """
    if not over:
        return []
    groups: dict[tuple[RowSetting, Variant, int], list[Row]] = {}
    for row in rows:
        mean_of = setting_of(row)._replace(dataset=AVERAGE, domain=row["domain"] if over == "datasets" else "")
        groups.setdefault((mean_of, Variant.of(row), row["seed"]), []).append(row)
    datasets = {row["dataset"] for row in rows}
    averaged = []
    for (setting, variant, seed), members in groups.items():
        if {row["dataset"] for row in members} != datasets:
            continue
        average: Row = {"dataset": AVERAGE, "domain": setting.domain, **fields_of(variant), "seed": seed}
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
    """Two-sided paired t-tests over seeds in one domain: every host against `reference`, OGEN also against its host
    and the controls of it.

    ``p`` is None with fewer than two common seeds, or where every difference is the same number. A metric that was
    not measured is not tested.
    """

    def by_seed(variant: Variant) -> dict[int, Score]:
        return {r["seed"]: r for r in rows if r["domain"] == domain and Variant.of(r) == variant}

    variants = list(dict.fromkeys(map(Variant.of, rows)))
    pairs = [
        (variant, other)
        for variant in variants
        if not variant.control
        for other in [*controls_of(variant, variants), Variant(reference)]
    ]
    tests: list[PairedTest] = []
    for variant, other in pairs:
        if other == variant or other not in variants:
            continue
        a, b = by_seed(variant), by_seed(other)
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
                    "a": variant.name,
                    "b": other.name,
                    "metric": metric,
                    "difference": mean(differences) if seeds else None,
                    "p": p,
                    "n": len(seeds),
                }
            )
    return tests


def controls_of(variant: Variant, variants: Iterable[Variant]) -> list[Variant]:
    """The host of OGEN without it, and the controls beside it; none of a host without OGEN."""
    return [one for one in variants if variant.ogen and one.host == variant.host and not one.ogen]


def known_values(values: Sequence[Number]) -> list[float] | None:
    """The values, or None where one was not measured."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None
