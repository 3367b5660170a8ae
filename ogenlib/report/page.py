"""`report.html`: what a results document (`ogenlib.results/1`) says, on one page that needs no network.

Notation: as in findings.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from markupsafe import Markup

from ogenlib.report.findings import ZERO, Findings, Setting, items, metric_cell, setting_of, variant_of
from ogenlib.report.format import DASH, Variant, finite, label, mean_of, number, plus_minus, std_of
from ogenlib.report.html import details, join, page, section, table, tag
from ogenlib.report.plots import lines as plots
from ogenlib.report.plots.features import feature_section
from ogenlib.report.sections.beside import published_section, shots_section
from ogenlib.report.sections.confusions import confusion_section
from ogenlib.report.sections.controls import controls_list, over_controls
from ogenlib.report.sections.glossary import HEADINGS, glossary
from ogenlib.report.sections.ood import ood_finding, ood_section, ood_tests
from ogenlib.report.sections.paired_tests import tests_section
from ogenlib.report.sections.places import domain_section
from ogenlib.report.sections.protocol_card import how, names_known, protocol_section, skipped_section
from ogenlib.report.sections.recalls import retrieval_section
from ogenlib.report.sections.robust import robust_section
from ogenlib.report.sections.stacking import stacking_section
from ogenlib.results.tables import SCHEMA
from ogenlib.results.types import Measure, PerClass, Results, SummaryMetric
from ogenlib.utils.files import atomic_write

MANY = 6  # columns beside each other at their full width


def build_report(results: Results) -> str:
    """The page for a results document, the same text for the same document.

    Parts that the document lacks are left out; None and NaN are written as a dash. Without matplotlib the
    page has every table and says how to get the plots.

    Raises ValueError if `results` is not an `ogenlib.results/1` document.
    """
    schema = results.get("schema") if isinstance(results, Mapping) else type(results).__name__
    if schema != SCHEMA:
        raise ValueError(
            f"not a results document: schema {schema!r}, accepted is {SCHEMA!r}; "
            "`ogen bench --out DIR` writes one as DIR/results.json"
        )
    findings = Findings.of(results)
    name, dataset = str(findings.protocol.get("name") or "results"), str(findings.protocol.get("dataset") or "")
    title = " · ".join(part for part in ("ogenlib", name, dataset) if part)
    said = names_known(findings.protocol, any(variant.ogen for variant in findings.variants))
    suite = findings.protocol.get("suite")
    compared = next((text for v in findings.variants if v.ogen and (text := over_controls(findings, v.host))), "")
    head = (
        tag("h1", title),
        tag("p", ood_finding(results) or finding(findings), cls="finding"),
        tag("p", compared, cls="lead") if compared else None,
        tag("p", how(findings.protocol, "each dataset by itself" if suite else findings.trained_on()), cls="soft"),
        tag("p", said, cls="soft") if said else None,
    )
    sections: Mapping[str, Callable[[], Markup | None]] = {
        "detectors": lambda: ood_section(results),
        "detector tests": lambda: ood_tests(results),
        "retrieval": lambda: retrieval_section(findings),
        "summary": lambda: summary_section(findings),
        "stacking": lambda: stacking_section(findings),
        "curves": lambda: curve_section(findings),
        "features": lambda: feature_section(results),
        "shots": lambda: shots_section(results),
        "domains": lambda: domain_section(findings),
        "robustness": lambda: robust_section(results),
        "published": lambda: published_section(results),
        "confusions": lambda: confusion_section(findings),
        "classes": lambda: class_section(findings),
        "tests": lambda: tests_section(findings),
        "skipped": lambda: skipped_section(findings.protocol),
        "card": lambda: protocol_section(findings.protocol),
    }
    return page(title, tag("header", *head), *[sections[section]() for section in findings.shown().sections])


def write_report(results: Results, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, whole or not at all (ValueError as in `build_report`)."""
    text = build_report(results)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def finding(findings: Findings) -> str:
    """One sentence about the first trained host (and OGEN on it) against zero-shot, whichever way it went."""
    trained = [variant for variant in findings.variants if variant != ZERO]
    if not trained:
        levels = (f"{number(findings.mean(ZERO, side))} on {words}" for side, words in findings.sides().items())
        return f"Zero-shot reaches {' and '.join(levels)}." if findings.variants else "No finished runs."
    first = next((variant for variant in trained if not variant.ogen and not variant.control), trained[0])
    if not comparable(findings, first):
        means = [(findings.mean(first, key), words) for key, words in findings.sides().items()]
        parts = [f"{number(mean)} on {words}" for mean, words in means if mean is not None]
        reached = " and ".join(parts) or "no measured accuracy"
        return f"{label(first)} reaches {reached}; there is no zero-shot result to compare with."
    text = f"{label(first)} {moves(findings, first, ' points')} against zero-shot"
    partner = Variant(first.host, True)
    if partner != first and comparable(findings, partner):
        text += f"; with OGEN it {moves(findings, partner, '')}"
    return text + "."


def comparable(findings: Findings, variant: Variant) -> bool:
    return all(findings.change(variant, side) is not None for side in findings.sides())


def moves(findings: Findings, variant: Variant, unit: str) -> str:
    """`gains 16.3 points on base names and loses 6.2 on new names`; says so when seeds differ by more."""
    parts = []
    for side, words in findings.sides().items():
        by = findings.change(variant, side) or 0.0
        std = std_of(findings.entries[findings.headline, variant].get(side))
        if abs(by) < 0.05:
            parts.append(f"stays level on {words}")
            continue
        within = " (within the spread of seeds)" if std is not None and abs(by) <= std else ""
        parts.append(f"{'gains' if by > 0 else 'loses'} {abs(by):.1f}{unit} on {words}{within}")
        unit = ""
    return " and ".join(parts)


def summary_section(findings: Findings) -> Markup | None:
    columns: dict[SummaryMetric, object] = {
        "base": "Base",
        "new": "New",
        "H": join(["H", tag("small", "mean of per-seed H")]),
        "H_of_means": join(["H", tag("small", "of the means")]),
        "joint_H": "Joint H",
        "joint_H_calibrated": join(["Joint H", tag("small", "calibrated")]),
        "ausuc": HEADINGS["ausuc"],
        "gate_auroc": join(["Gate", tag("small", "AUROC")]),
        "ece_joint": join(["ECE", tag("small", "lower is better")]),
    }
    here = [v for v in findings.variants if (findings.headline, v) in findings.entries]
    shown = [key for key in columns if any(findings.mean(v, key) is not None for v in here)]
    if not shown:
        return None
    body = [[label(v), *[metric_cell(findings, v, key) for key in shown]] for v in here]
    seeds = max(int(finite(findings.entries[findings.headline, v].get("n_seeds")) or 1) for v in here)
    spread = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    return section(
        f"Summary on {findings.place(findings.headline)}" if findings.place(findings.headline) else "Summary",
        f"{spread}, in percent; in small print the difference to zero-shot in points. Best in bold.",
        table(["Host", *[columns[key] for key in shown]], body, cls="dense" if len(shown) > MANY else ""),
        controls_list(findings),
        glossary(findings.shown(), shown),
        runs_table(findings),
    )


def runs_table(findings: Findings) -> Markup | None:
    """Every run behind the summary, one line per seed."""
    several = findings.headline != findings.training  # the runs behind a mean are those of every test set
    runs = [item for item in items(findings.results.get("rows")) if several or setting_of(item) == findings.training]
    keys: dict[Measure, str] = {
        "base": "Base",
        "new": "New",
        "H": "H",
        "joint_base": "Joint base",
        "joint_new": "Joint new",
        "joint_H": "Joint H",
        "joint_H_calibrated": HEADINGS["joint_H_calibrated"],
        "ausuc": HEADINGS["ausuc"],
        "gate_auroc": HEADINGS["gate_auroc"],
        "ece_base": "ECE base",
        "ece_new": "ECE new",
        "ece_joint": "ECE joint",
        "seconds": "Seconds",
    }
    shown = [key for key in keys if any(finite(item.get(key)) is not None for item in runs)]
    if not shown:
        return None
    runs.sort(key=lambda item: (findings.rank(variant_of(item)), finite(item.get("seed")) or 0))
    head = ["Host", *["Test set"] * several, "Seed", "Epochs", *[keys[key] for key in shown]]
    body = [
        [
            label(variant_of(r)),
            *[findings.place(setting_of(r))] * several,
            r.get("seed", DASH),
            r.get("epochs", DASH),
            *[number(r.get(k)) for k in shown],
        ]
        for r in runs
    ]
    return details(f"Every run ({len(runs)})", table(head, body))


def curve_section(findings: Findings) -> Markup | None:
    curves = [curve for curve in items(findings.results.get("curves")) if variant_of(curve) != ZERO]
    settings = [setting_of(curve) for curve in curves]
    setting = findings.training if findings.training in settings or not settings else settings[0]
    here = [curve for curve in curves if setting_of(curve) == setting]
    variants = sorted({variant_of(curve) for curve in here}, key=findings.rank)
    grouped = {v: plots.mean_curve([c for c in here if variant_of(c) == v]) for v in variants}
    grouped = {v: curve for v, curve in grouped.items() if curve.epochs}
    if not grouped:
        return None
    where = findings.headline if setting == findings.training else setting
    zero = findings.mean(ZERO, "base", where), findings.mean(ZERO, "new", where)
    y_range = plots.limits(list(grouped.values()), zero)
    figures = []
    for variant, curve in grouped.items():
        seeds = [plots.mean_curve([c]) for c in here if variant_of(c) == variant]
        picture = plots.curve_figure(curve, *zero, y_range, label(variant)) if plots.plots_available() else ""
        heading = tag("h3", label(variant), tag("small", " accuracy, %" if picture else ""))
        caption = tag("figcaption", plots.parting_words(curve, seeds, *zero))
        figures.append(tag("figure", heading, picture, caption))
    band = "; bands span the lowest to the highest seed" * any(c.n_seeds > 1 for c in grouped.values())
    selection = findings.protocol.get("selection")
    return section(
        f"{'Base and new names' if where == setting else 'Base and new'} over training",
        f"Test accuracy on {curve_place(findings, setting, where)} after each epoch, mean over seeds"
        f"{band}. Dashed: zero-shot. Base and new part at the first epoch from which, to the end, new stays below "
        "zero-shot while base stays above it." + (f" Checkpoint selection: {selection}." if selection else ""),
        plots.missing_plots(),
        tag("div", *figures, cls="figures single" if len(figures) == 1 else "figures"),
    )


def curve_place(findings: Findings, setting: Setting, where: Setting) -> str:
    here = findings.place(setting) or "the training domain"
    return here if where == setting else f"{here} (base) and {findings.place(where)} (new)"


def class_section(findings: Findings) -> Markup | None:
    """Accuracy per class on the training domain, the largest loss of the first trained host on top."""
    scores = items(findings.results.get("per_class"))
    scores = [item for item in scores if str(item.get("domain") or "") == findings.training[1]] or scores
    several = len({item["dataset"] for item in scores if item.get("dataset")}) > 1

    def named(item: PerClass) -> str:
        where = f" ({item['dataset']})" if several and item.get("dataset") else ""
        return str(item.get("class")) + where

    variants = sorted({variant_of(item) for item in scores}, key=findings.rank)
    trained = next((v for v in variants if v != ZERO), ZERO)
    parts = []
    for side in ("base", "new"):
        cells = {(named(r), variant_of(r)): r for r in scores if r.get("side") == side}
        names = list(dict.fromkeys(name for name, _ in cells))
        changes: dict[str, float] = {}
        for name in names:
            both = [cell for v in (trained, ZERO) if (cell := cells.get((name, v))) is not None]
            known = [mean for cell in both if (mean := mean_of(cell.get("accuracy"))) is not None]
            changes[name] = round(known[0] - known[1], 6) if len(known) == 2 else float("inf")
        names.sort(key=changes.__getitem__)
        sizes = [next(cells[name, v].get("n") for v in variants if (name, v) in cells) for name in names]
        body = [
            [name, DASH if n is None else n, *[class_cell(cells.get((name, v))) for v in variants]]
            for name, n in zip(names, sizes, strict=True)
        ]
        head = ["Class", "Images", *[label(v) for v in variants]]
        if body:
            parts.append(details(f"{side.capitalize()} names ({len(body)})", table(head, body)))
    text = "Accuracy within the side; in small print in the joint choice among all names."
    if ZERO in variants and trained != ZERO:
        text += f" Sorted by {label(trained)} minus zero-shot, the largest loss first."
    return section("Every class", text, *parts) if parts else None


def class_cell(item: PerClass | None) -> Markup:
    if item is None:
        return tag("td", DASH)
    joint = item.get("joint_accuracy")
    small = tag("small", "joint ", plus_minus(joint)) if mean_of(joint) is not None else None
    return tag("td", plus_minus(item.get("accuracy")), small)
