"""What stands beside a run's own table: accuracy by number of shots, and published numbers."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.report.findings import ZERO, items, setting_of, variant_of
from ogenlib.report.format import DASH, finite, label, mean_of, number, plus_minus
from ogenlib.report.html import details, section, table, tag
from ogenlib.report.plots import lines as plots
from ogenlib.results.tables import AVERAGE
from ogenlib.results.types import ProtocolCard, Results


def shots_section(results: Results) -> Markup | None:
    """Accuracy of every method for every number of shots, in the setting of training; None for one number."""
    entries = [entry for entry in items(results.get("summary")) if finite(entry.get("shots")) is not None]
    shots = sorted({int(entry["shots"]) for entry in entries})
    if len(shots) < 2:
        return None
    card: ProtocolCard = results.get("protocol") or {}
    home = str(card.get("home_domain") or "")
    here = [entry for entry in entries if setting_of(entry)[1] == home]
    means = [entry for entry in here if setting_of(entry)[0] == AVERAGE]
    values = {(variant_of(entry), int(entry["shots"])): entry.get("base") for entry in means or here}
    variants = sorted(dict.fromkeys(variant for variant, _ in values), key=lambda v: v != ZERO)
    body = [[label(v), *[plus_minus(values.get((v, n))) for n in shots]] for v in variants]
    series = {label(v): [mean_of(values.get((v, n))) for n in shots] for v in variants}
    drawn = plots.plots_available()
    return section(
        "Accuracy by number of training images",
        "Test accuracy in percent, all names trained" + f", on {home}" * bool(home) + ", mean over seeds; images of a "
        f"class across. The other sections are of {shots[-1]} images a class.",
        plots.host_key(variants),
        tag("div", tag("figure", plots.shots_figure(shots, series)), cls="figures single") if drawn else None,
        table(["Host", *shots], body),
    )


def published_section(results: Results) -> Markup | None:
    """Published numbers on the same datasets: the average in view, the datasets to open."""
    published = items(results.get("published"))
    if not published:
        return None
    head = ["Method", "Base", "New", "H", "Read in"]

    def block(dataset: str) -> Markup:
        return table(
            head,
            [
                [
                    row.get("method") or DASH,
                    *[number(row.get(side)) for side in ("base", "new", "H")],
                    f"[{row.get('tag')}] {row.get('source')}",
                ]
                for row in published
                if row.get("dataset") == dataset
            ],
        )

    datasets = list(dict.fromkeys(str(row.get("dataset")) for row in published))
    settings = ", ".join(dict.fromkeys(str(row.get("setting")) for row in published))
    others = [tag("div", tag("h3", name), block(name)) for name in datasets if name != AVERAGE]
    return section(
        "Published beside it",
        f"{settings}. Only numbers read in the named source; H is worked out from base and new, and averages from the "
        "datasets where they are published one by one. Compare with H of the means.",
        block(AVERAGE) if AVERAGE in datasets else None,
        details(f"By dataset ({len(others)})", *others, is_open=AVERAGE not in datasets) if others else None,
    )
