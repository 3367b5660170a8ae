"""What OGEN has over the best of its controls: the host alone, and what needs no generator and no evidence.

The best control is that of the largest mean of a score, so for every score it may be another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ogenlib.report.findings import Findings, items, setting_of
from ogenlib.report.format import Variant, finite, label, number, p_value, signed
from ogenlib.report.html import join, tag
from ogenlib.results.tables import controls_of
from ogenlib.results.types import Metric

COMPARED: dict[Metric, str] = {"H": "H", "joint_H": "joint H", "ausuc": "AUSUC"}
MIN_SEEDS = 3  # for a p-value
LEAST = 0.05  # points that count as more: what tables print as 0.1


class Over(NamedTuple):
    """OGEN's mean of a score less that of the best control, in points; p over the seeds, None for too few."""

    words: str
    control: Variant
    by: float
    p: float | None


def over_controls(findings: Findings, host: str, subject: str = "OGEN") -> str:
    """A sentence on one host, whichever way it went; "" where the document has no control."""
    ours = Variant(host, True)
    controls = controls_of(ours, findings.variants) if ours in findings.variants else []
    if not any(control.control for control in controls):
        return ""
    found = [one for metric in COMPARED if (one := _over_best(findings, ours, controls, metric)) is not None]
    if not found:
        return ""
    alike = len({one.control for one in found}) == 1
    best = f"its best control ({label(found[0].control)})" if alike else "its best controls"
    gains, others = ([one for one in found if (one.by >= LEAST) is more] for more in (True, False))
    less = _grouped({one: f"{one.words} {signed(one.by)}{_p(one)}" for one in others}, "against", alike)
    if not gains:
        return f"{subject} does not beat {best}: {less}."
    added = {one: f"{number(one.by)}{' points' * (one is gains[0])} of {one.words}{_p(one)}" for one in gains}
    text = f"{subject} adds {_grouped(added, 'over', alike)}"
    end = f" over {best}" if alike else ""
    return text + end + (f", and does not beat {'it' if alike else best} elsewhere: {less}." if others else ".")


def controls_list(findings: Findings) -> Markup | None:
    """The sentences of all hosts, where there are several."""
    hosts = [variant.host for variant in findings.variants if variant.ogen]
    said = [over_controls(findings, host, label(Variant(host, True))) for host in hosts]
    lines = [tag("li", sentence) for sentence in said if sentence]
    return tag("ul", join(lines)) if len(lines) > 1 else None


def _over_best(findings: Findings, ours: Variant, controls: Sequence[Variant], metric: Metric) -> Over | None:
    means = {control: mean for control in controls if (mean := findings.mean(control, metric)) is not None}
    own = findings.mean(ours, metric)
    if own is None or not means:
        return None
    best = max(means, key=means.__getitem__)
    dataset, domain = findings.headline
    test = next(
        (
            one
            for one in items(findings.results.get("tests"))
            if (one.get("a"), one.get("b"), one.get("metric")) == (ours.name, best.name, metric)
            and setting_of(one) in ((dataset, domain), ("", domain))
        ),
        None,
    )
    p = None if test is None or (finite(test.get("n")) or 0) < MIN_SEEDS else finite(test.get("p"))
    return Over(COMPARED[metric], best, own - means[best], p)


def _p(one: Over) -> str:
    return "" if one.p is None else f" (p {p_value(one.p)})"


def _grouped(pieces: Mapping[Over, str], word: str, alike: bool) -> str:
    """Pieces of one control together, with its name unless all have the same."""
    groups: dict[Variant, list[str]] = {}
    for one, piece in pieces.items():
        groups.setdefault(one.control, []).append(piece)
    named = [_listed(own) + f" {word} {label(control)}" * (not alike) for control, own in groups.items()]
    return "; ".join(named)


def _listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), parts[-1]])
