"""Every setting that was tested, in pictures and a table; the mean where a protocol has one."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.report.findings import Findings, Setting, metric_cell
from ogenlib.report.format import label, number
from ogenlib.report.html import details, frame, host_rows, section, tag
from ogenlib.report.plots import lines as plots
from ogenlib.report.sections.glossary import HEADINGS
from ogenlib.results.tables import full_mean
from ogenlib.results.types import COMPETING_METRICS, Metric


def domain_section(findings: Findings) -> Markup | None:
    settings = findings.settings()
    if len(settings) < 2:
        return None
    suite = bool(findings.protocol.get("suite"))
    metrics: dict[Metric, str] = {"base": "Base", "new": "New", "H": "H", "joint_H": "Joint H"}
    for key in COMPETING_METRICS:
        if any(findings.mean(v, key, s) is not None for s in settings for v in findings.variants):
            metrics[key] = HEADINGS[key]
    dense = "dense" if len(metrics) > 4 else ""
    groups = []
    for setting in settings:
        name = findings.place(setting) if suite else findings.marked(setting)
        here = [v for v in findings.variants if (setting, v) in findings.entries]
        cells = [[metric_cell(findings, v, metric, setting) for metric in metrics] for v in here]
        groups.append(host_rows(name, here, cells))
    others = settings if suite else settings[1:]
    if findings.headline != findings.training:
        lines = [[metric_cell(findings, v, metric) for metric in metrics] for v in findings.variants]
        groups.append(host_rows(findings.place(findings.headline).capitalize(), findings.variants, lines))
    elif len(others) > 1:
        means = [
            [full_mean([findings.mean(v, metric, s) for s in others]) for metric in metrics] for v in findings.variants
        ]
        averages = [[tag("td", number(m), " ", tag("small", cls="change")) for m in line] for line in means]
        groups.append(host_rows(f"Mean of the other {len(others)}", findings.variants, averages))
    drawn = plots.plots_available()
    one_dataset = len({dataset for dataset, _ in settings}) == 1
    unit = "domain" if one_dataset else "dataset"
    first = f"the reference {unit}" if findings.stands_in() else f"that {unit}"
    return section(
        "Every dataset" if suite else "Every test domain" if one_dataset else "Every test set",
        "Each trained and tested by itself."
        if suite
        else f"Trained on {findings.trained_on()} only" + f"; the first row of dots is {first}." * drawn,
        plots.missing_plots(),
        plots.host_key(findings.variants),
        tag("div", *domain_pictures(findings, settings), cls="figures three") if drawn else None,
        details(
            f"Table: {len(settings)} {unit}s",
            frame([f"{unit.capitalize()} and host", *metrics.values()], groups, cls=dense),
            is_open=True,
        ),
    )


def domain_pictures(findings: Findings, settings: list[Setting]) -> list[Markup]:
    pictures = []
    shown: tuple[Metric, ...] = ("base", "new", "H")
    for metric in shown:
        series = {label(v): [findings.mean(v, metric, s) for s in settings] for v in findings.variants}
        if any(value is not None for values in series.values() for value in values):
            places = [findings.place(s) for s in settings]
            heading = metric if metric == "H" else metric.capitalize()
            svg = plots.domain_figure(heading, places, series, f"domains-{metric}")
            pictures.append(tag("figure", svg))
    return pictures
