"""The section of a retrieval benchmark: recalls of every method, in every domain."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.evaluate.recall import short_name
from ogenlib.report.findings import Findings, Setting, items, metric_cell, setting_of, variant_of
from ogenlib.report.format import DASH, finite, label, number
from ogenlib.report.html import definitions, details, frame, host_rows, section, table
from ogenlib.results.tables import full_mean
from ogenlib.results.types import RETRIEVAL_METRICS


def retrieval_section(findings: Findings) -> Markup | None:
    """None for documents without recalls."""
    settings = [
        s for s in findings.settings() if any(findings.mean(v, "mean_recall", s) is not None for v in findings.variants)
    ]
    if not settings:
        return None
    groups = [_group(findings, setting) for setting in settings]
    others = [setting for setting in settings if setting != findings.training]
    if len(others) > 1:
        lines = [
            [number(full_mean([findings.mean(v, m, s) for s in others])) for m in RETRIEVAL_METRICS]
            for v in findings.variants
        ]
        groups.append(host_rows(f"Mean of the other {len(others)}", findings.variants, lines))
    terms = {
        "image→text @k": "images with one of their texts among the k nearest",
        "text→image @k": "texts with one of their images among the k nearest",
        "mean": "of all recalls to its left",
    }
    return section(
        "Recall",
        "In percent, among the images and texts of one domain; in small print the difference to zero-shot in points. "
        "Best in bold. Identical texts are one text with several images; ties count in expectation.",
        frame(["Domain and host", *map(short_name, RETRIEVAL_METRICS)], groups),
        definitions(terms),
        _runs(findings),
    )


def _group(findings: Findings, setting: Setting) -> Markup:
    here = [v for v in findings.variants if (setting, v) in findings.entries]
    cells = [[metric_cell(findings, v, metric, setting) for metric in RETRIEVAL_METRICS] for v in here]
    return host_rows(findings.marked(setting), here, cells)


def _runs(findings: Findings) -> Markup:
    """One line for each run and domain."""
    runs = sorted(
        items(findings.results.get("rows")), key=lambda r: (findings.rank(variant_of(r)), finite(r.get("seed")) or 0)
    )
    head = ["Host", "Domain", "Seed", "Epochs", *map(short_name, RETRIEVAL_METRICS), "Seconds"]
    body = [
        [
            label(variant_of(r)),
            findings.place(setting_of(r)),
            r.get("seed", DASH),
            r.get("epochs", DASH),
            *[number(r.get(m)) for m in RETRIEVAL_METRICS],
            number(r.get("seconds")),
        ]
        for r in runs
    ]
    return details(f"Every run ({len(runs)})", table(head, body))
