"""The trade between base and new names of every method, where all names compete."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from ogenlib.report.findings import ZERO, Findings, items, variant_of
from ogenlib.report.format import Variant, finite, label, number
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
    place = str(curves[0].get("domain") or "")
    return section(
        "Base against new" + f" on {place}" * bool(place),
        "Joint accuracy while a constant is taken from the base names’ logits: down to the right nothing is taken for "
        "new, up to the left everything. AUSUC is the area below a line. Markers: no constant; rings: the constant "
        "that was chosen on training images. Means over seeds.",
        plots.missing_plots(),
        _pictures(found) if plots.plots_available() else None,
        details(
            "Both points in numbers",
            table(["Host", "Joint base", "Joint new", "Constant", "Joint base, with it", "Joint new, with it"], body),
        ),
    )


def _pictures(found: Mapping[Variant, Stacked]) -> Markup:
    """One picture with a key, or one for each host, zero-shot in all, where there are too many lines for one."""
    points = [point for one in found.values() for point in one.curve]
    most = max(base for base, _ in points), max(new for _, new in points)
    groups = [list(found)]
    if len(found) > len(plots.HOSTS):
        hosts = dict.fromkeys(variant.host for variant in found if variant != ZERO)
        groups = [[variant for variant in found if variant.host in (ZERO.host, host)] for host in hosts]
    figures = [
        tag("figure", plots.host_key(group), stacking_figure([found[v] for v in group], most, f"stacking-{index}"))
        for index, group in enumerate(groups)
    ]
    return tag("div", *figures, cls="figures single" if len(figures) == 1 else "figures")


def _cells(stacked: Stacked, constant: float | None) -> list[str]:
    zero, chosen = stacked.zero or (None, None), stacked.chosen or (None, None)
    return [*map(number, zero), number(constant, 2), *map(number, chosen)]
