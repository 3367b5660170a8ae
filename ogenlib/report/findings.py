"""What the sections of a report look up again and again in a results document.

Notation: a *variant* is a host, alone, with OGEN or as a control; a *setting* is `(dataset, domain)`; the setting of
training is the first of `protocol.train_domains`. Accuracies are percent, differences are points against zero-shot in
that setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from ogenlib.bench.protocols.registry import Shown, shown_as
from ogenlib.report.format import Variant, counted, finite, mean_of, plus_minus, signed, std_of
from ogenlib.report.html import tag
from ogenlib.results.tables import AVERAGE, h_of
from ogenlib.results.types import Metric, ProtocolCard, Results, Summary, SummaryMetric

Setting = tuple[str, str]
Item = TypeVar("Item", bound=Mapping[str, object])
ZERO = Variant("zero_shot")


def items(part: Sequence[Item] | None) -> list[Item]:
    """What a part of a document holds; nothing for a part that is not there."""
    return [item for item in part or () if isinstance(item, Mapping)]


def setting_of(item: Mapping[str, object]) -> tuple[str, str]:
    return str(item.get("dataset") or ""), str(item.get("domain") or "")


variant_of = Variant.of


@dataclass(frozen=True)
class Findings:
    """A results document with what the sections look up again and again."""

    results: Results
    protocol: ProtocolCard
    entries: Mapping[tuple[Setting, Variant], Summary]
    headline: Setting  # the mean over settings where there is one, else that of training
    training: Setting
    variants: list[Variant]  # zero-shot first, controls and then OGEN right after their host

    @classmethod
    def of(cls, results: Results) -> Findings:
        results = largest_shots(results)
        protocol: ProtocolCard = results.get("protocol") or {}
        entries = {(setting_of(e), variant_of(e)): e for e in items(results.get("summary"))}
        means = [setting for setting, _ in entries if setting[0] == AVERAGE]
        settings = [setting for setting, _ in entries if setting[0] != AVERAGE]
        domain = str((list(protocol.get("train_domains") or []) or [""])[0])
        asked = (str(protocol.get("dataset", "")), domain)
        same_domain = [setting for setting in settings if setting[1] == domain]
        training = asked if asked in settings else next(iter(same_domain + settings), asked)
        headline = next((s for s in means if s[1] == domain), next(iter(means), training))
        found = list(dict.fromkeys(v for _, v in entries))
        hosts = [v.host for v in found]
        variants = sorted(found, key=lambda v: (v != ZERO, hosts.index(v.host), v.ogen, bool(v.control)))
        return cls(results, protocol, entries, headline, training, variants)

    def mean(self, variant: Variant, metric: SummaryMetric, setting: Setting | None = None) -> float | None:
        entry = self.entries.get((setting or self.headline, variant))
        if entry is None:
            return None
        if metric == "H_of_means" and finite(entry.get(metric)) is None:
            return h_of(mean_of(entry.get("base")), mean_of(entry.get("new")))
        return mean_of(entry.get(metric))

    def change(self, variant: Variant, metric: SummaryMetric, setting: Setting | None = None) -> float | None:
        """Points above zero-shot, None for zero-shot itself or where either is missing."""
        here, there = self.mean(variant, metric, setting), self.mean(ZERO, metric, setting)
        return None if variant == ZERO or here is None or there is None else here - there

    def settings(self) -> list[Setting]:
        """Those with results, without means, the training one first."""
        settings = [s for s in dict.fromkeys(setting for setting, _ in self.entries) if s[0] != AVERAGE]
        return sorted(settings, key=lambda setting: setting != self.training)

    def rank(self, variant: Variant) -> tuple[int, Variant]:
        """Sorts variants as in the summary, unknown ones last."""
        known = variant in self.variants
        return self.variants.index(variant) if known else len(self.variants), variant

    def place(self, setting: Setting) -> str:
        """The domain, with its dataset where the document holds several."""
        if setting[0] == AVERAGE:
            count = len({s for s in self.settings() if self.averaged(s)})
            return f"the mean of {counted(count, 'dataset' if self.protocol.get('suite') else 'target')}"
        several = len({dataset for dataset, _ in self.settings()}) > 1
        return " / ".join(part for part in setting if part) if several or not setting[1] else setting[1]

    def trained_on(self) -> str:
        """Where training images are from: the setting of training, or other domains that it stands in for."""
        return ", ".join(self.protocol["train_domains"]) if self.stands_in() else self.place(self.training)

    def stands_in(self) -> bool:
        """Whether the setting of training is a reference: tested as its domain, but of another than the images."""
        domains = self.protocol.get("train_domains") or []
        return bool(self.training[1] and domains) and self.training[1] not in domains

    def marked(self, setting: Setting) -> str:
        """`place`, and what the setting of training is."""
        mark = "" if setting != self.training else " (reference)" if self.stands_in() else " (training)"
        return self.place(setting) + mark

    def averaged(self, setting: Setting) -> bool:
        """Whether a setting is part of the headline's mean."""
        domain_fits = not self.headline[1] or setting[1] == self.headline[1]
        return domain_fits and (bool(self.protocol.get("suite")) or setting != self.training)

    def sides(self) -> Mapping[Metric, str]:
        """The measured sides and how sentences name them."""
        return self.shown().sides

    def shown(self) -> Shown:
        """How the protocol declares that its results are shown."""
        return shown_as(str(self.protocol.get("name")))


def largest_shots(results: Results) -> Results:
    """The document with what is of the largest number of shots, where it says numbers of shots."""
    shots = [int(item["shots"]) for item in items(results.get("summary")) if finite(item.get("shots")) is not None]
    if not shots:
        return results

    def kept(part: Sequence[Item] | None) -> list[Item]:
        return [item for item in items(part) if item.get("shots", max(shots)) == max(shots)]

    return {
        **results,
        "rows": kept(results.get("rows")),
        "summary": kept(results.get("summary")),
        "curves": kept(results.get("curves")),
        "stacking": kept(results.get("stacking")),
        "tests": kept(results.get("tests")),
        "confusions": kept(results.get("confusions")),
        "per_class": kept(results.get("per_class")),
        "projection": kept(results.get("projection")),
    }


def metric_cell(findings: Findings, variant: Variant, metric: SummaryMetric, setting: Setting | None = None) -> Markup:
    """`36.8 ± 0.7` with `+16.3`; the best mean of its column in bold."""
    where = setting or findings.headline
    entry = findings.entries.get((where, variant))
    # Zero-shot has nothing random but the constant, which is chosen on the seed's training images.
    fixed = variant == ZERO and metric != "joint_H_calibrated"
    spread = None if entry is None or entry.get("n_seeds") == 1 or fixed else std_of(entry.get(metric))
    mean = findings.mean(variant, metric, where)
    others = [findings.mean(v, metric, where) for v in findings.variants]
    known = [round(other, 1) for other in others if other is not None]
    best = (min if metric.startswith("ece") else max)(known, default=None)
    is_best = len(known) > 1 and mean is not None and round(mean, 1) == best
    change = findings.change(variant, metric, where)
    text = plus_minus((mean, spread))
    small = tag("small", signed(change) if change is not None else "", cls="change")
    return tag("td", text, " ", small, cls="best" if is_best else "")
