"""Which names were taken for which: cards with the share of wrong images and some of their pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from markupsafe import Markup

from ogenlib.report.findings import ZERO, Findings, items, variant_of
from ogenlib.report.format import Variant, counted, finite, label, number
from ogenlib.report.html import details, section, tag
from ogenlib.results.types import Confusion

THUMBNAIL = re.compile(r"data:image/(png|webp|jpeg|gif);base64,[A-Za-z0-9+/]+=*")
MAX_THUMBNAILS = 5
MAX_CARDS = 12


@dataclass
class Pair:
    """A name and the one chosen instead, with the side that each is of; images and pictures of all seeds together."""

    true_is: object
    predicted_is: object
    count: float = 0.0
    of: float = 0.0
    seeds: set[object] = field(default_factory=set)
    thumbnails: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0

    def add(self, item: Confusion) -> None:
        """What one seed counted."""
        self.count += finite(item.get("count")) or 0.0
        self.of += finite(item.get("of")) or 0.0
        self.seeds.add(item.get("seed"))
        self.thumbnails += [text for text in item.get("thumbnails") or [] if isinstance(text, str)]


def confusion_section(findings: Findings) -> Markup | None:
    """Seeds added up; per host the pairs with the largest share of wrong images, worst first."""
    merged: dict[Variant, dict[tuple[str, str, str], Pair]] = {}
    for item in items(findings.results.get("confusions")):
        setting = str(item.get("dataset") or findings.training[0]), str(item.get("domain") or "")
        place = findings.place(setting) if setting != findings.training else ""
        key = (place, str(item.get("true")), str(item.get("predicted")))
        fresh = Pair(item.get("true_is"), item.get("predicted_is"))
        merged.setdefault(variant_of(item), {}).setdefault(key, fresh).add(item)
    variants = sorted(merged, key=findings.rank)
    opened = next((v for v in variants if v != ZERO), ZERO)
    parts: list[Markup] = []
    for variant in variants:
        pairs = sorted(merged[variant].items(), key=lambda kv: (-kv[1].share, -kv[1].count, kv[0]))[:MAX_CARDS]
        crossing = sum((pair.true_is, pair.predicted_is) == ("new", "base") for _, pair in pairs)
        note = f"{crossing} of these {len(pairs)} take a new name for a base name." if crossing else ""
        cards = tag("div", *[confusion_card(*key, pair) for key, pair in pairs], cls="cards")
        parts.append(details(label(variant), tag("p", note), cards, is_open=variant == opened))
    intro = (
        "True name → the name chosen instead when all names compete; the bar is the share of the class’s test "
        "images that went there, the pictures are some of them."
    )
    return section("Confusions of the worst classes", intro, *parts) if parts else None


def confusion_card(domain: str, true: str, predicted: str, pair: Pair) -> Markup:
    """A pair of classes; `domain` is named unless empty. Pictures that are not inline are left out."""
    percent = 100 * pair.share
    counts = f"{pair.count:.0f} of {pair.of:.0f} images" if pair.of else counted(int(pair.count), "image")
    counts += f" over {len(pair.seeds)} seeds" if len(pair.seeds) > 1 else ""
    counts += f", {domain}" if domain else ""
    safe = [text for text in dict.fromkeys(pair.thumbnails) if THUMBNAIL.fullmatch(text)][:MAX_THUMBNAILS]
    images = [tag("img", src=text, alt=true, loading="lazy", width=48, height=48) for text in safe]
    return tag(
        "div",
        tag("div", tag("strong", true), side_chip(pair.true_is)),
        tag("div", "→ ", predicted, side_chip(pair.predicted_is)),
        tag("div", tag("span", style=f"width:{percent:.1f}%"), cls="bar"),
        tag("small", f"{number(percent)} % · {counts}"),
        tag("div", *images, cls="thumbs") if images else None,
        cls="card-box",
    )


def side_chip(side: object) -> Markup | None:
    return tag("span", side, cls=f"side {side}") if side in ("base", "new") else None
