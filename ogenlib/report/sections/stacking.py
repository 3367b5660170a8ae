"""The trade between base and new names of every method, where all names compete."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.report.findings import Findings, items, variant_of
from ogenlib.report.format import finite, label, number
from ogenlib.report.html import details, section, table, tag
from ogenlib.report.plots import lines as plots
from ogenlib.report.plots.stacking import Stacked, mean_stacked, stacking_figure
from ogenlib.results.tables import full_mean


def stacking_section(findings: Findings) -> Markup | None:
    """The picture and its two points in numbers; None for documents without curves."""
    curves = items(findings.results.get("stacking"))
    found = {
        variant: stacked
        for variant in sorted({variant_of(one) for one in curves}, key=findings.rank)
        if (stacked := mean_stacked([one for one in curves if variant_of(one) == variant])) is not None
    }
    if not found:
        return None
    constants = {v: full_mean([finite(c.get("constant")) for c in curves if variant_of(c) == v]) for v in found}
    body = [[label(v), *_cells(one, constants[v])] for v, one in found.items()]
    drawn = plots.plots_available()
    place = str(curves[0].get("domain") or "")
    return section(
        "Base against new" + f" on {place}" * bool(place),
        "Joint accuracy while a constant is taken from the base names’ logits: down to the right nothing is taken for "
        "new, up to the left everything. AUSUC is the area below a line. Markers: no constant; rings: the constant "
        "that was chosen on training images. Means over seeds.",
        plots.missing_plots(),
        plots.host_key(found),
        tag("div", tag("figure", stacking_figure(list(found.values()))), cls="figures single") if drawn else None,
        details(
            "Both points in numbers",
            table(["Host", "Joint base", "Joint new", "Constant", "Joint base, with it", "Joint new, with it"], body),
        ),
    )


def _cells(stacked: Stacked, constant: float | None) -> list[str]:
    zero, chosen = stacked.zero or (None, None), stacked.chosen or (None, None)
    return [*map(number, zero), number(constant, 2), *map(number, chosen)]
