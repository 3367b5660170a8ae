"""The report of a benchmark of detectors: one table, score histograms, ROC curves, and every task in numbers.

Notation: a *variant* as in findings.py. AUROC and FPR95 are in percent; larger scores are more unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ogenlib.report.findings import ZERO, items, setting_of, variant_of
from ogenlib.report.format import DASH, Variant, finite, label, mean_of, number, plus_minus
from ogenlib.report.html import definitions, details, frame, join, section, table, tag
from ogenlib.report.plots import lines as plots
from ogenlib.report.plots.ood import GROUPS, LINES, histogram_figure, roc_figure, swatch
from ogenlib.report.sections.paired_tests import tests_table
from ogenlib.report.text import task_mean
from ogenlib.results.tables import AVERAGE
from ogenlib.results.types import Detection, DetectionMetric, PairedTest, ProtocolCard, Results, Row, Summary

BEST_FIRST = ("ogen_images", "ogen", "energy", "max_logit", "mcm")  # which detector headlines and pictures show
COLUMNS: tuple[tuple[str, DetectionMetric, str, str], ...] = (
    ("near", "auroc", "Near", "AUROC"), ("near", "fpr95_ood_positive", "Near", "FPR95"),
    ("far", "auroc", "Far", "AUROC"), ("far", "fpr95_ood_positive", "Far", "FPR95"),
    ("full-spectrum", "auroc", "Full spectrum", "AUROC"), ("shift", "flagged", "Known, shifted", "flagged"),
)  # fmt: skip
WORDS = {
    "near": "new names",
    "far": "other datasets",
    "full-spectrum": "new names, known ones in all domains",
    "shift": "known names in another domain",
}
MEASURES: dict[DetectionMetric, str] = {
    "auroc": "AUROC", "aupr_in": "AUPR-in", "aupr_out": "AUPR-out", "fpr95_ood_positive": "FPR95, unknown positive",
    "fpr95_id_positive": "FPR95, known positive", "flagged": "Flagged",
}  # fmt: skip
OPEN = 3  # variants whose pictures need no unfolding
Summaries = Sequence[Summary]


def _summary(results: Results) -> list[Summary]:
    return [row for row in items(results.get("summary")) if row.get("detector")]


def _titles(results: Results) -> dict[str, str]:
    """Detectors by name, in the card's order, with how they are written."""
    card: ProtocolCard = results.get("protocol") or {}
    given = card.get("detectors") or {}
    return {
        name: str(given.get(name, name))
        for name in dict.fromkeys([*given, *[str(row["detector"]) for row in _summary(results)]])
    }


def _variants(summary: Summaries) -> list[Variant]:
    return sorted(dict.fromkeys(variant_of(row) for row in summary), key=lambda v: v != ZERO)


def _of(summary: Summaries, variant: Variant, detector: str) -> list[Summary]:
    return [row for row in summary if variant_of(row) == variant and row.get("detector") == detector]


def _value(summary: Summaries, variant: Variant, detector: str, task: str, metric: DetectionMetric) -> float | None:
    return mean_of(task_mean(_of(summary, variant, detector), task, metric))


def ood_finding(results: Results) -> str:
    """One sentence: how well the first trained host tells new names and other datasets; "" without detectors."""
    summary = _summary(results)
    if not summary:
        return ""
    variants = _variants(summary)
    trained = [v for v in variants if v != ZERO]
    chosen = next((v for v in trained if not v[1]), next(iter(trained), ZERO))
    detector = next(d for d in (*BEST_FIRST, str(summary[0]["detector"])) if _of(summary, chosen, d))
    parts: list[str] = []
    for task, words in (("near", "new names"), ("far", "other datasets")):
        values = [_value(summary, v, detector, task, "auroc") for v in (chosen, Variant(chosen.host, True), ZERO)]
        if values[0] is None:
            continue
        said = (" with OGEN", " zero-shot", " AUROC") if not parts else ("", "", "")  # once is enough
        more = [f"{number(values[1])}{said[0]}"] if values[1] is not None and not chosen[1] else []
        more += [f"{number(values[2])}{said[1]}"] if values[2] is not None and chosen != ZERO else []
        parts.append(f"{words} at {number(values[0])}{said[2]}" + (f" ({', '.join(more)})" if more else ""))
    flagged = _value(summary, chosen, detector, "shift", "flagged")
    end = "" if flagged is None else f"; it flags {number(flagged)} % of known things in other domains"
    how = _titles(results)[detector]
    return f"By {how}, {label(chosen)} tells {' and '.join(parts)}{end}." if parts else ""


def ood_section(results: Results) -> Markup | None:
    """None for documents without detectors."""
    summary = _summary(results)
    if not summary:
        return None
    terms = {
        "Near": "test images of the base names, which are known, against those of the new names",
        "Far": "the same known images against images of other datasets, mean over these",
        "Full spectrum": "known images of all tested domains against the new names",
        "Known, shifted": "known things in another domain, mean over domains: flagged at the threshold that 95 % of "
        "known images of the domain of training pass. The same would be 5 %; these are not unknown",
        "AUROC": "the chance that an unknown image scores above a known one; 50 is guessing",
        "FPR95": "known images flagged where 95 % of the unknown are caught; lower is better",
    }
    return section(
        "Images of no known class",
        "No training and no detector was told the unknown names. Mean and standard deviation over seeds, in percent; "
        "best of each column in bold.",
        _main_table(results, summary),
        definitions(terms),
        _pictures(results),
        _missing(results),
        details(f"Every task and measure ({len(summary)})", _all_measures(results, summary)),
        _runs(results),
    )


def _main_table(results: Results, summary: Summaries) -> Markup:
    shown = [c for c in COLUMNS if any(row.get("task") == c[0] for row in summary)]
    titles, variants = _titles(results), _variants(summary)
    best: dict[tuple[str, DetectionMetric], float] = {}
    for task, metric, _, _ in shown:
        values = [v for d in titles for o in variants if (v := _value(summary, o, d, task, metric)) is not None]
        best[task, metric] = (max if metric == "auroc" else min)(round(v, 1) for v in values) if values else 0.0
    groups = []
    for variant in variants:
        lines = [tag("tr", tag("th", label(variant), colspan=1 + len(shown), scope="rowgroup"))]
        for name, title in titles.items():
            own = _of(summary, variant, name)
            if not own:
                continue
            cells = [tag("th", title, scope="row")]
            for task, metric, _, _ in shown:
                pair = task_mean(own, task, metric)
                mean = mean_of(pair)
                is_best = mean is not None and round(mean, 1) == best[task, metric]
                cells.append(tag("td", plus_minus(pair), cls="best" if is_best else ""))
            lines.append(tag("tr", *cells))
        groups.append(tag("tbody", *lines, cls="group"))
    head = ["Host and detector", *[join([name, tag("small", measure)]) for _, _, name, measure in shown]]
    return frame(head, groups)


def _pictures(results: Results) -> Markup | None:
    entries = items(results.get("detection"))
    if not entries:
        return None
    if not plots.plots_available():
        return plots.missing_plots()
    titles = _titles(results)
    ordered = sorted(entries, key=lambda entry: variant_of(entry) != ZERO)
    blocks = [_pair(entry, titles, i) for i, entry in enumerate(ordered)]
    groups = dict.fromkeys(
        name for entry in entries for one in (entry.get("detectors") or {}).values() for name in one.get("counts") or {}
    )
    key = [tag("span", swatch(GROUPS[name][1]), GROUPS[name][0]) for name in GROUPS if name in groups]
    return join(
        [
            tag("h3", "Scores of the first seed"),
            tag(
                "p",
                "Left: how the scores are spread, each group by itself; the line is the threshold that 95 % of the "
                "known images pass. Apart is good, but for the known things in other domains, which should lie with "
                "the known. Right: unknown images caught over known images flagged.",
            ),
            tag("div", *key, cls="key"),
            *blocks[:OPEN],
            details(f"More hosts ({len(blocks) - OPEN})", *blocks[OPEN:]) if len(blocks) > OPEN else None,
        ]
    )


def _pair(entry: Detection, titles: Mapping[str, str], index: int) -> Markup | None:
    """Histogram of the best detector and the curves of several, side by side."""
    of = entry.get("detectors") or {}
    shown = next((name for name in BEST_FIRST if name in of), next(iter(of), ""))
    if not shown:
        return None
    who = label(variant_of(entry))
    drawn = {name: of[name] for name in LINES if name in of}
    left = tag(
        "figure",
        tag("h3", who, tag("small", titles.get(shown, shown))),
        histogram_figure(of[shown], f"scores-{index}"),
        tag("figcaption", "Score, larger is more unknown; share of each group in a bin."),
    )
    right = tag(
        "figure",
        tag("h3", who, tag("small", "unknown caught, % over known flagged, %")),
        roc_figure({titles.get(n, n): (one.get("roc") or {}, LINES[n]) for n, one in drawn.items()}, f"roc-{index}"),
        tag("figcaption", "Solid: new names; dashed: other datasets."),
    )
    return tag("div", left, right, cls="figures")


def _missing(results: Results) -> Markup | None:
    """Which hosts some detector does not take, and why."""
    titles = _titles(results)
    lines = [
        tag("li", tag("strong", label(variant_of(entry))), f", {titles.get(name, name)}: {why}")
        for entry in items(results.get("detection"))
        for name, why in (entry.get("missing") or {}).items()
    ]
    return details(f"Not measured ({len(lines)})", tag("ul", *lines)) if lines else None


def _all_measures(results: Results, summary: Summaries) -> Markup:
    titles = _titles(results)
    body = [
        [
            label(variant_of(row)),
            titles[str(row["detector"])],
            WORDS.get(str(row.get("task")), row.get("task")),
            _where(row),
            *[plus_minus(row.get(metric)) for metric in MEASURES],
        ]
        for row in sorted(summary, key=lambda row: variant_of(row) != ZERO)
    ]
    return table(["Host", "Detector", "Known against", "Where", *MEASURES.values()], body)


def _where(row: Row | Summary) -> str:
    dataset, domain = setting_of(row)
    if dataset == AVERAGE:
        return f"mean over {'domains' if row.get('task') == 'shift' else 'datasets'}"
    return " / ".join(part for part in (dataset, domain) if part)


def _runs(results: Results) -> Markup:
    """The near task of every run."""
    runs = [row for row in items(results.get("rows")) if row.get("task") == "near"]
    titles = _titles(results)
    runs.sort(key=lambda row: (variant_of(row) != ZERO, variant_of(row), finite(row.get("seed")) or 0))
    body = [
        [
            label(variant_of(r)),
            titles.get(str(r.get("detector")), DASH),
            _where(r),
            r.get("seed", DASH),
            r.get("epochs", DASH),
            number(r.get("base")),
            *[number(r.get(m)) for m in MEASURES],
            number(r.get("seconds")),
        ]
        for r in runs
    ]
    head = ["Host", "Detector", "Where", "Seed", "Epochs", "Accuracy of the known", *MEASURES.values(), "Seconds"]
    return details(f"Every run, new names ({len(runs)})", table(head, body))


def ood_tests(results: Results) -> Markup | None:
    tests = [test for test in items(results.get("tests")) if test.get("detector")]
    if not tests:
        return None
    titles = _titles(results)
    named: list[PairedTest] = []
    for test in tests:
        metric, detector = str(test.get("metric")), str(test["detector"])
        where = [WORDS.get(str(test.get("task")), ""), str(test.get("domain") or "")]
        if metric in MEASURES:
            named.append(
                {
                    **test,
                    "metric": f"{MEASURES[metric]}, {titles.get(detector, detector)}",
                    "domain": ", ".join(part for part in where if part),
                }
            )
    intro = "Differences in points, paired by seed; p-values are not corrected for the number of comparisons."
    return section("Paired tests", "", details(f"All ({len(named)})", tag("p", intro), tests_table(named)))
