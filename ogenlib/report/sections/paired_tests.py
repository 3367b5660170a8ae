"""Paired tests over seeds, those behind the headline in view."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from ogenlib.report.findings import Findings, items, setting_of
from ogenlib.report.format import DASH, MINUS, Variant, label, p_value, signed
from ogenlib.report.html import details, section, table, tag
from ogenlib.results.types import PairedTest


def tests_section(findings: Findings) -> Markup | None:
    tests = items(findings.results.get("tests"))
    headline = {findings.headline[0], ""} if findings.headline != findings.training else {findings.training[0], ""}
    inside = [t for t in tests if setting_of(t)[1] == findings.headline[1] and setting_of(t)[0] in headline]
    outside = [t for t in tests if t not in inside]
    place = findings.place(findings.headline) if findings.headline != findings.training else ""
    if not tests:
        return None
    return section(
        "Paired tests",
        "Differences in points, paired by seed; p-values are not corrected for the number of comparisons.",
        tag("h3", place[:1].upper() + place[1:]) if place and inside else None,
        tests_table(inside) if inside else None,
        details(
            f"Other domains ({len(outside)})"
            if findings.headline == findings.training
            else f"Every test set ({len(outside)})",
            tests_table(outside),
        )
        if outside
        else None,
    )


def tests_table(tests: Iterable[PairedTest]) -> Markup:
    """Paired tests; `a` and `b` are `Variant.name`."""

    def named(value: object) -> str:
        return label(Variant.named(value))

    lines = [
        [
            f"{named(t.get('a'))} {MINUS} {named(t.get('b'))}",
            " / ".join(part for part in setting_of(t) if part) or DASH,
            str(t.get("metric") or DASH).replace("_", " "),
            signed(t.get("difference")),
            p_value(t.get("p")),
            t.get("n", DASH),
        ]
        for t in tests
    ]
    return table(["Compared", "Domain", "Metric", "Difference", "p", "Pairs"], lines)
