"""`report.html`: what a results document (`ogenlib.results/1`) says, on one page that needs no network.

Notation: a *variant* is `(host, ogen)`, a *setting* is `(dataset, domain)`; the setting of training is the first of
`protocol.train_domains`. Accuracies are percent, differences are points against zero-shot in the same setting.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import plots
from .files import atomic_write
from .report_style import (
    DASH,
    Html,
    details,
    escaped,
    finite,
    frame,
    join,
    mean_std,
    number,
    p_value,
    page,
    plus_minus,
    row,
    signed,
    table,
    tag,
)

Variant = tuple[str, bool]
Setting = tuple[str, str]
ZERO: Variant = ("zero_shot", False)
SCHEMA = "ogenlib.results/1"
SPELLINGS = {
    "zero_shot": "Zero-shot", "coop": "CoOp", "cocoop": "CoCoOp", "kgcoop": "KgCoOp", "vpt": "VPT", "ivlp": "IVLP",
    "maple": "MaPLe", "promptsrc": "PromptSRC", "clip_adapter": "CLIP-Adapter", "full": "Full fine-tuning",
    "flyp": "FLYP", "lipsum": "Lipsum-FT", "r_adapter": "R-Adapter", "arf": "ARF",
}  # fmt: skip
THUMBNAIL = re.compile(r"data:image/(png|webp|jpeg|gif);base64,[A-Za-z0-9+/]+=*")
MAX_CARDS, MAX_THUMBNAILS = 12, 6


@dataclass(frozen=True)
class Findings:
    """A results document with what the sections look up again and again."""

    results: Mapping[str, Any]
    protocol: Mapping[str, Any]
    entries: Mapping[tuple[Setting, Variant], Mapping[str, Any]]  # of the summary
    training: Setting
    variants: list[Variant]  # zero-shot first, OGEN right after its host

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Findings:
        protocol = results.get("protocol") or {}
        entries = {(setting_of(e), variant_of(e)): e for e in items(results, "summary")}
        settings = [setting for setting, _ in entries]
        domain = str((list(protocol.get("train_domains") or []) or [""])[0])
        asked = (str(protocol.get("dataset", "")), domain)
        same_domain = [setting for setting in settings if setting[1] == domain]
        training = asked if asked in settings else next(iter(same_domain + settings), asked)
        first: dict[str, int] = {}
        for _, (host, _ogen) in entries:
            first.setdefault(host, len(first))
        variants = sorted({v for _, v in entries}, key=lambda v: (v != ZERO, first[v[0]], v[1]))
        return cls(results, protocol, entries, training, variants)

    def mean(self, variant: Variant, metric: str, setting: Setting | None = None) -> float | None:
        entry = self.entries.get((setting or self.training, variant), {})
        if metric == "H_of_means" and finite(entry.get(metric)) is None:
            return harmonic(mean_std(entry.get("base"))[0], mean_std(entry.get("new"))[0])
        return mean_std(entry.get(metric))[0]

    def change(self, variant: Variant, metric: str, setting: Setting | None = None) -> float | None:
        """Points above zero-shot, None for zero-shot itself or where either is missing."""
        here, there = self.mean(variant, metric, setting), self.mean(ZERO, metric, setting)
        return None if variant == ZERO or here is None or there is None else here - there

    def settings(self) -> list[Setting]:
        """Those with results, the training one first."""
        found = dict.fromkeys(setting for setting, _ in self.entries)
        return sorted(found, key=lambda setting: setting != self.training)

    def place(self, setting: Setting) -> str:
        """The domain, with its dataset where the document holds several."""
        several = len({dataset for dataset, _ in self.settings()}) > 1
        return " / ".join(part for part in setting if part) if several or not setting[1] else setting[1]


def build_report(results: Mapping[str, Any]) -> str:
    """The page for a results document, the same text for the same document.

    Parts that the document lacks are left out; None and NaN are written as a dash. Without matplotlib the page
    has every table and says how to get the plots.

    Raises ValueError if `results` is not an `ogenlib.results/1` document.
    """
    schema = results.get("schema") if isinstance(results, Mapping) else type(results).__name__
    if schema != SCHEMA:
        raise ValueError(
            f"not a results document: schema {schema!r}, accepted is {SCHEMA!r}; `ogen bench --out DIR` writes one "
            "as DIR/results.json"
        )
    found = Findings.of(results)
    name, dataset = str(found.protocol.get("name") or "results"), str(found.protocol.get("dataset") or "")
    title = " · ".join(part for part in ("ogenlib", name, dataset) if part)
    return page(
        title,
        tag(
            "header",
            tag("h1", title),
            tag("p", finding(found), cls="finding"),
            tag("p", how(found), cls="soft"),
        ),
        summary_section(found),
        curve_section(found),
        domain_section(found),
        confusion_section(found),
        class_section(found),
        tests_section(found),
        skipped_section(found),
        protocol_section(found),
    )


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, whole or not at all (ValueError as in `build_report`)."""
    text = build_report(results)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def items(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [item for item in results.get(key) or [] if isinstance(item, Mapping)]


def setting_of(item: Mapping[str, Any]) -> Setting:
    return str(item.get("dataset") or ""), str(item.get("domain") or "")


def variant_of(item: Mapping[str, Any]) -> Variant:
    return str(item.get("host") or "?"), bool(item.get("ogen"))


def label(variant: Variant) -> str:
    """The host as its paper spells it, `+ OGEN` where it is on."""
    return SPELLINGS.get(variant[0], variant[0].replace("_", " ")) + (" + OGEN" if variant[1] else "")


def harmonic(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def counted(count: object, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def finding(found: Findings) -> str:
    """One sentence about the first trained host (and OGEN on it) against zero-shot, whichever way it went."""
    trained = [variant for variant in found.variants if variant != ZERO]
    if not trained:
        levels = ", ".join(f"{number(found.mean(ZERO, side))} on {side} names" for side in ("base", "new"))
        return (
            f"Zero-shot reaches {levels}; no other host was run." if found.variants else "No finished runs."
        )
    first = next((variant for variant in trained if not variant[1]), trained[0])
    if found.change(first, "base") is None or found.change(first, "new") is None:
        parts = [
            f"{number(found.mean(first, metric))} {words}"
            for metric, words in (("base", "on base names"), ("new", "on new names"), ("H", "H"))
            if found.mean(first, metric) is not None
        ]
        return f"{label(first)} reaches {', '.join(parts) or 'no measured accuracy'}; zero-shot is not in this run."
    text = f"{label(first)} {moves(found, first, ' points')} against zero-shot"
    partner = (first[0], True)
    if (
        partner != first
        and found.change(partner, "base") is not None
        and found.change(partner, "new") is not None
    ):
        text += f"; with OGEN it {moves(found, partner, '')}"
    return text + "."


def moves(found: Findings, variant: Variant, unit: str) -> str:
    """`gains 16.3 points on base names and loses 6.2 on new names`; says so when seeds differ by more."""
    parts = []
    for side in ("base", "new"):
        by = found.change(variant, side) or 0.0
        std = mean_std(found.entries[found.training, variant].get(side))[1]
        if abs(by) < 0.05:
            parts.append(f"stays level on {side} names")
            continue
        within = " (within the seeds’ spread)" if std is not None and abs(by) <= std else ""
        parts.append(f"{'gains' if by > 0 else 'loses'} {abs(by):.1f}{unit} on {side} names{within}")
        unit = ""
    return " and ".join(parts)


def how(found: Findings) -> str:
    """What was run, from the protocol card."""
    card = found.protocol
    seeds, backbone = card.get("seeds") or [], card.get("backbone")
    model = backbone.get("name") if isinstance(backbone, Mapping) else backbone
    parts = [
        f"trained on {found.place(found.training)}" if found.training[1] else "",
        counted(card["shots"], "image") + " per class" if finite(card.get("shots")) is not None else "",
        f"{card['n_base']} base and {card['n_new']} new names"
        if "n_base" in card and "n_new" in card
        else "",
        counted(len(seeds), "seed") if seeds else "",
        counted(card["epochs"], "epoch") if finite(card.get("epochs")) is not None else "",
        f"model {model}" if model else "",
        f"{str(card['date'])[:10]}" if card.get("date") else "",
    ]
    text = ", ".join(part for part in parts if part)
    return text[:1].upper() + text[1:] + "." if text else ""


def metric_cell(found: Findings, variant: Variant, metric: str, setting: Setting | None = None) -> Html:
    """`36.8 ± 0.7` over `+16.3`; the best mean of its column in bold."""
    where = setting or found.training
    entry = found.entries.get((where, variant), {})
    single = entry.get("n_seeds") == 1 or variant == ZERO  # zero-shot has nothing random
    pair = (found.mean(variant, metric, where), None if single else mean_std(entry.get(metric))[1])
    change = found.change(variant, metric, where)
    means = [found.mean(v, metric, where) for v in found.variants]
    known = [round(mean, 1) for mean in means if mean is not None]
    best = (min if metric.startswith("ece") else max)(known, default=None)
    is_best = len(known) > 1 and pair[0] is not None and round(pair[0], 1) == best
    small = tag("small", signed(change)) if change is not None else None
    return tag("td", plus_minus(pair), small, cls="best" if is_best else "")


def summary_section(found: Findings) -> Html | None:
    columns: list[tuple[str, object]] = [
        ("base", "Base"),
        ("new", "New"),
        ("H", join(["H", tag("small", "mean of per-seed H")])),
        ("H_of_means", join(["H", tag("small", "of the means")])),
        ("joint_H", "Joint H"),
        ("ece_joint", join(["ECE", tag("small", "lower is better")])),
    ]
    here = [v for v in found.variants if (found.training, v) in found.entries]
    shown = [column for column in columns if any(found.mean(v, column[0]) is not None for v in here)]
    if not here or not shown:
        return None
    body = [[label(v), *[metric_cell(found, v, key) for key, _ in shown]] for v in here]
    seeds = max(int(finite(found.entries[found.training, v].get("n_seeds")) or 1) for v in here)
    spread = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    return tag(
        "section",
        tag("h2", f"Summary on {found.place(found.training)}" if found.training[1] else "Summary"),
        table(["Host", *[heading for _, heading in shown]], body),
        tag(
            "p",
            f"{spread}, in percent; below it the difference to zero-shot in points. Best in bold.",
            cls="soft",
        ),
        glossary(),
        runs_table(found),
    )


def glossary() -> Html:
    terms = {
        "Base": "accuracy on the names that were trained, choosing among base names only",
        "New": "accuracy on names no image was trained for, choosing among new names only",
        "H": "harmonic mean of base and new: high only if both are. Per seed and then averaged, or of the two averages",
        "Joint H": "the same, when every image has to choose among base and new names together",
        "ECE": "expected calibration error in the joint choice: how far confidence is from accuracy",
    }
    return (
        tag("dl", *[tag("dt", term) + tag("dd", text) for term, text in terms.items()]) if terms else Html("")
    )


def runs_table(found: Findings) -> Html | None:
    """Every run behind the summary, one line per seed."""
    rows = [item for item in items(found.results, "rows") if setting_of(item) == found.training]
    keys = {
        "base": "Base", "new": "New", "H": "H", "joint_base": "Joint base", "joint_new": "Joint new",
        "joint_H": "Joint H", "ece_base": "ECE base", "ece_new": "ECE new", "ece_joint": "ECE joint",
        "seconds": "Seconds",
    }  # fmt: skip
    shown = [key for key in keys if any(finite(item.get(key)) is not None for item in rows)]
    if not rows or not shown:
        return None
    order = {variant: index for index, variant in enumerate(found.variants)}
    rows.sort(key=lambda item: (order.get(variant_of(item), len(order)), finite(item.get("seed")) or 0))
    body = [
        [label(variant_of(r)), r.get("seed", DASH), r.get("epochs", DASH), *[number(r.get(k)) for k in shown]]
        for r in rows
    ]
    return details(
        f"Every run ({len(rows)})", table(["Host", "Seed", "Epochs", *[keys[key] for key in shown]], body)
    )


def curve_section(found: Findings) -> Html | None:
    curves = [curve for curve in items(found.results, "curves") if variant_of(curve) != ZERO]
    here = [curve for curve in curves if setting_of(curve) == found.training] or [
        curve for curve in curves if setting_of(curve) == setting_of(curves[0])
    ]
    setting = setting_of(here[0]) if here else found.training
    order = {variant: index for index, variant in enumerate(found.variants)}
    present = sorted({variant_of(c) for c in here}, key=lambda v: (order.get(v, len(order)), v))
    grouped = {v: plots.mean_curve([c for c in here if variant_of(c) == v]) for v in present}
    grouped = {v: curve for v, curve in grouped.items() if curve.epochs}
    if not grouped:
        return None
    zero = found.mean(ZERO, "base", setting), found.mean(ZERO, "new", setting)
    y_range = plots.limits(list(grouped.values()), zero)
    figures = []
    for variant, curve in grouped.items():
        seeds = [plots.mean_curve([c]) for c in here if variant_of(c) == variant]
        caption = tag("figcaption", parting_words(curve, seeds, *zero))
        picture = plots.curve_figure(curve, *zero, y_range, label(variant)) if plots.plots_available() else ""
        figures.append(tag("figure", tag("h3", label(variant)), Html(picture), caption))
    band = (
        "; bands span the lowest to the highest seed" if any(c.n_seeds > 1 for c in grouped.values()) else ""
    )
    selection = found.protocol.get("selection")
    return tag(
        "section",
        tag("h2", "Base and new names over training"),
        tag(
            "p",
            f"Test accuracy on {found.place(setting) or 'the training domain'} after each epoch, "
            f"mean over seeds{band}. Dashed: zero-shot. Base and new part at the first epoch from which, to the "
            "end, new stays below zero-shot while base stays above it."
            + (f" Checkpoint selection: {selection}." if selection else ""),
        ),
        missing_plots(),
        tag("div", *figures, cls="figures single" if len(figures) == 1 else "figures"),
    )


def missing_plots() -> Html | None:
    """One line that says how to get the plots, where they cannot be drawn."""
    if plots.plots_available():
        return None
    return tag(
        "p",
        "Plots need matplotlib: ",
        tag("code", 'pip install "ogenlib[plot]"'),
        ", then write the report again.",
    )


def parting_words(
    curve: plots.Curve, seeds: Sequence[plots.Curve], zero_base: float | None, zero_new: float | None
) -> str:
    """What the picture shows, in words, also for the seeds one by one."""
    base, new = curve.base_mean, curve.new_mean
    end = f"At the end base is {number(base[-1])} and new {number(new[-1])}"
    if zero_base is None or zero_new is None:
        return f"{end}; without zero-shot in this run there is no moment of parting."
    levels = f"(zero-shot {number(zero_base)} and {number(zero_new)})"
    part = plots.parting_epoch(curve.epochs, base, new, zero_base, zero_new)
    each = [
        plots.parting_epoch(c.epochs, c.base_mean, c.new_mean, zero_base, zero_new) for c in seeds if c.epochs
    ]
    per_seed = f" Seed by seed: {', '.join(str(e or 'none') for e in each)}." if len(each) > 1 else ""
    if part is not None:
        return f"Base and new part at epoch {part}. {end} {levels}.{per_seed}"
    why = [] if new[-1] < zero_new else ["new does not end below zero-shot"]
    why += [] if base[-1] > zero_base else ["base does not end above zero-shot"]
    return f"Base and new do not part: {' and '.join(why)}. {end} {levels}.{per_seed}"


def domain_section(found: Findings) -> Html | None:
    settings = found.settings()
    if len(settings) < 2:
        return None
    metrics = {"base": "Base", "new": "New", "H": "H", "joint_H": "Joint H"}
    names = {s: found.place(s) + (" (training)" if s == found.training else "") for s in settings}
    groups = []
    for setting in settings:
        here = [v for v in found.variants if (setting, v) in found.entries]
        lines = [
            row(
                [
                    names[setting] if not i else "",
                    tag("td", label(v)),
                    *[metric_cell(found, v, m, setting) for m in metrics],
                ]
            )
            for i, v in enumerate(here)
        ]
        groups.append(tag("tbody", *lines, cls="group"))
    others = settings[1:]
    means = [[others_mean(found, others, v, m) for m in metrics] for v in found.variants]
    lines = [
        row(
            [
                f"Mean of the other {len(others)}" if not i else "",
                tag("td", label(v)),
                *[number(x) for x in means[i]],
            ]
        )
        for i, v in enumerate(found.variants)
    ]
    if len(others) > 1:
        groups.append(tag("tbody", *lines, cls="group"))
    pictures: list[Html] = []
    if plots.plots_available():
        for metric, heading in metrics.items():
            series = {label(v): [found.mean(v, metric, s) for s in settings] for v in found.variants}
            if metric != "joint_H" and any(x is not None for values in series.values() for x in values):
                svg = plots.domain_figure(
                    heading, [found.place(s) for s in settings], series, f"domains-{metric}"
                )
                pictures.append(tag("figure", Html(svg)))
    key = [tag("span", Html(plots.host_marker(i)), label(v)) for i, v in enumerate(found.variants)]
    return tag(
        "section",
        tag("h2", "Every test domain"),
        tag("p", f"Trained on {found.place(found.training)} only; the first row of dots is that domain."),
        missing_plots(),
        tag("div", *key, cls="key") if pictures else None,
        tag("div", *pictures, cls="figures three") if pictures else None,
        details(
            f"Table: {len(settings)} domains",
            frame(["Domain", "Host", *metrics.values()], groups),
            is_open=True,
        ),
    )


def others_mean(found: Findings, settings: Sequence[Setting], variant: Variant, metric: str) -> float | None:
    """Mean over settings, None unless all of them were measured (a mean over fewer is not comparable)."""
    values = [found.mean(variant, metric, setting) for setting in settings]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def side_chip(side: object) -> Html | None:
    return tag("span", side, cls=f"side {side}") if side in ("base", "new") else None


def confusion_section(found: Findings) -> Html | None:
    """Seeds added up; per host the pairs with the largest share of wrong images, worst first."""
    merged: dict[Variant, dict[tuple[str, str, str], dict[str, Any]]] = {}
    for item in items(found.results, "confusions"):
        key = str(item.get("domain") or ""), str(item.get("true")), str(item.get("predicted"))
        pair = merged.setdefault(variant_of(item), {}).setdefault(
            key, {"count": 0.0, "of": 0.0, "seeds": set(), "thumbnails": {}, "sides": item}
        )
        pair["count"] += finite(item.get("count")) or 0.0
        pair["of"] += finite(item.get("of")) or 0.0
        pair["seeds"].add(item.get("seed"))
        pair["thumbnails"].update(
            dict.fromkeys(t for t in item.get("thumbnails") or [] if isinstance(t, str))
        )
    if not merged:
        return None
    parts: list[Html] = []
    order = sorted(merged, key=lambda v: (found.variants.index(v) if v in found.variants else 99, v))
    opened = next((v for v in order if v != ZERO), order[0])
    for variant in order:
        pairs = sorted(merged[variant].items(), key=lambda kv: (-share(kv[1]), -kv[1]["count"], kv[0]))
        cards = [confusion_card(found, key, pair) for key, pair in pairs[:MAX_CARDS]]
        crossing = sum(
            pair["sides"].get("true_is") == "new" and pair["sides"].get("predicted_is") == "base"
            for _, pair in pairs[:MAX_CARDS]
        )
        note = f"{crossing} of these {len(cards)} take a new name for a base name." if crossing else ""
        body = tag("div", *cards, cls="cards")
        parts.append(
            details(
                label(variant), tag("p", note, cls="soft") if note else None, body, is_open=variant == opened
            )
        )
    return tag(
        "section",
        tag("h2", "Confusions of the worst classes"),
        tag(
            "p",
            "True name → the name chosen instead, among all names; the share of that class’s test images, and some of them.",
        ),
        *parts,
    )


def share(pair: Mapping[str, Any]) -> float:
    return pair["count"] / pair["of"] if pair["of"] else 0.0


def confusion_card(found: Findings, key: tuple[str, str, str], pair: Mapping[str, Any]) -> Html:
    domain, true, predicted = key
    sides = pair["sides"]
    percent = 100 * share(pair)
    counts = (
        f"{pair['count']:.0f} of {pair['of']:.0f} images"
        if pair["of"]
        else counted(int(pair["count"]), "image")
    )
    counts += f" over {len(pair['seeds'])} seeds" if len(pair["seeds"]) > 1 else ""
    counts += f", {domain}" if domain and domain != found.training[1] else ""
    safe = [text for text in pair["thumbnails"] if THUMBNAIL.fullmatch(text)][:MAX_THUMBNAILS]
    images = [tag("img", src=Html(text), alt=true, loading="lazy", width=48, height=48) for text in safe]
    return tag(
        "div",
        tag("div", tag("strong", true), side_chip(sides.get("true_is"))),
        tag("div", "→ ", predicted, side_chip(sides.get("predicted_is"))),
        tag("div", tag("span", style=f"width:{percent:.1f}%"), cls="bar"),
        tag("small", f"{number(percent)} % · {counts}"),
        tag("div", *images, cls="thumbs") if images else None,
        cls="card-box",
    )


def class_section(found: Findings) -> Html | None:
    """Accuracy per class on the training domain, the largest loss of the first trained host on top."""
    rows = items(found.results, "per_class")
    here = [item for item in rows if str(item.get("domain") or "") == found.training[1]] or rows
    if not here:
        return None
    order = sorted(
        {variant_of(r) for r in here},
        key=lambda v: (found.variants.index(v) if v in found.variants else 99, v),
    )
    trained = next((v for v in order if v != ZERO), order[0])
    parts = []
    for side in ("base", "new"):
        cells = {(str(r.get("class")), variant_of(r)): r for r in here if r.get("side") == side}
        names = list(dict.fromkeys(name for name, _ in cells))

        def change(name: str, cells: Mapping[tuple[str, Variant], Mapping[str, Any]] = cells) -> float:
            values = [mean_std(cells.get((name, v), {}).get("accuracy"))[0] for v in (trained, ZERO)]
            return float("inf") if values[0] is None or values[1] is None else round(values[0] - values[1], 6)

        body = []
        for name in sorted(names, key=change):
            n = next((cells[name, v].get("n") for v in order if (name, v) in cells), None)
            body.append(
                [name, n if n is not None else DASH, *[class_cell(cells.get((name, v), {})) for v in order]]
            )
        if body:
            head = ["Class", "Images", *[label(v) for v in order]]
            parts.append(details(f"{side.capitalize()} names ({len(body)})", table(head, body)))
    if not parts:
        return None
    text = "Accuracy within the side, below it in the joint choice among all names. "
    if ZERO in order and trained != ZERO:
        text += f"Sorted by {label(trained)} minus zero-shot, the largest loss first."
    return tag("section", tag("h2", "Every class"), tag("p", text), *parts)


def class_cell(item: Mapping[str, Any]) -> Html:
    joint = item.get("joint_accuracy")
    small = tag("small", "joint ", plus_minus(joint)) if mean_std(joint)[0] is not None else None
    return tag("td", plus_minus(item.get("accuracy")), small)


def tests_section(found: Findings) -> Html | None:
    tests = items(found.results, "tests")
    if not tests:
        return None

    def named(value: object) -> str:
        host, _, rest = str(value).partition("+")
        return (
            label((host.strip(), rest.strip().lower() == "ogen"))
            if rest.strip().lower() in ("", "ogen")
            else str(value)
        )

    def lines(chosen: Iterable[Mapping[str, Any]]) -> Html:
        return table(
            ["Compared", "Domain", "Metric", "Difference", "p", "Pairs"],
            [
                [
                    f"{named(t.get('a'))} − {named(t.get('b'))}",
                    t.get("domain") or DASH,
                    str(t.get("metric") or DASH).replace("_", " "),
                    signed(t.get("difference")),
                    p_value(t.get("p")),
                    t.get("n", DASH),
                ]
                for t in chosen
            ],
        )

    inside = [t for t in tests if str(t.get("domain") or "") == found.training[1]]
    outside = [t for t in tests if t not in inside]
    return tag(
        "section",
        tag("h2", "Paired tests"),
        tag(
            "p",
            "Differences in points, paired by seed. p-values are two-sided as computed by the run, not corrected for many comparisons.",
        ),
        lines(inside) if inside else None,
        details(f"Other domains ({len(outside)})", lines(outside), is_open=not inside) if outside else None,
    )


def skipped_section(found: Findings) -> Html | None:
    skipped = found.protocol.get("skipped") or []
    if not skipped:
        return None
    rows = [
        [tag("code", item.get("file", DASH)), tag("td", item.get("reason") or DASH, cls="wide")]
        if isinstance(item, Mapping)
        else [tag("code", item), DASH]
        for item in skipped
    ]
    listing = table(["File", "Reason"], rows, cls="words")
    return tag(
        "section",
        tag("h2", f"{counted(len(skipped), 'file')} skipped"),
        tag("p", "These could not be read and are in no number above."),
        listing if len(rows) <= 5 else details("List", listing),
    )


def protocol_section(found: Findings) -> Html:
    card = {key: value for key, value in found.protocol.items() if key not in ("command", "skipped")}
    rows = [[key, tag("td", value)] for key, value in flat(card)]
    command = found.protocol.get("command")
    text = " ".join(str(part) for part in command) if isinstance(command, (list, tuple)) else command
    return tag(
        "section",
        tag("h2", "Protocol card"),
        tag("div", tag("table", tag("tbody", *[row(cells) for cells in rows]), cls="card")) if rows else None,
        join([tag("h3", "To reproduce"), tag("pre", tag("code", text))]) if text else None,
    )


def flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Html]]:
    """The card's lines; nested parts become `outer: inner`, what lies deeper is written as JSON."""
    lines: list[tuple[str, Html]] = []
    for key, value in card.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping) and not prefix:
            lines += flat(value, f"{name}: ")
        elif isinstance(value, bool):
            lines.append((name, escaped("yes" if value else "no")))
        elif value is None or value == []:
            lines.append((name, escaped(DASH)))
        elif isinstance(value, (list, tuple)) and not any(
            isinstance(v, (Mapping, list, tuple)) for v in value
        ):
            lines.append((name, escaped(", ".join(str(v) for v in value))))
        elif isinstance(value, (Mapping, list, tuple)):
            lines.append((name, tag("code", json.dumps(value, ensure_ascii=False))))
        else:
            lines.append((name, escaped(round(value, 3) if isinstance(value, float) else value)))
    return lines
