"""The report: what it says, that it is safe and whole, and the arithmetic behind its pictures."""

from __future__ import annotations

import base64
import copy
import io
import math
import random
import re
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from PIL import Image

from ogenlib.evaluate.scores import harmonic_mean
from ogenlib.report import html
from ogenlib.report.format import mean_of, number, p_value, plus_minus, signed, std_of
from ogenlib.report.html import join, page, table, tag
from ogenlib.report.page import build_report, write_report
from ogenlib.report.plots import lines as plots

DOMAINS = ["noto", "emojione", "fluent-emoji-flat", "openmoji", "emojione-monotone", "fluent-emoji-high-contrast"]
BASE = ["animal-mammal", "animal-bird", "food-fruit", 'quotes "and" <tags> & more', "zodiac sign"]
NEW = ["musical instrument", "sky & weather", "tool", "<script>alert(1)</script>"]
ZERO_LEVELS = (20.5, 20.6)
SIDES = ("base", "new", "H", "joint_base", "joint_new", "joint_H", "ece_base", "ece_new", "ece_joint")


def thumbnail(seed: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (seed, 255 - seed, 128)).save(stream, "webp")
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def pair(values: list[float]) -> list[float | None]:
    return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None]


def fake_results(seeds: tuple[int, ...] = (1, 2, 3), epochs: int = 50) -> dict[str, Any]:
    """A results document as `ogen bench` writes it: CoOp overfits, CoOp + OGEN does so less."""
    rng = random.Random(0)
    ends = {("zero_shot", False): ZERO_LEVELS, ("coop", False): (36.8, 14.4), ("coop", True): (29.6, 19.9)}
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for index, domain in enumerate(DOMAINS):
        fade = 1 - 0.13 * index
        for (host, ogen), (base, new) in ends.items():
            zero = host == "zero_shot"
            for seed in (0,) if zero else seeds:
                b = base * fade + (0 if zero else rng.gauss(0, 0.8))
                n = new * fade + (0 if zero else rng.gauss(0, 0.8))
                jb, jn = 0.8 * b, 0.6 * n
                values = (b, n, harmonic_mean(b, n), jb, jn, harmonic_mean(jb, jn), 6.0, 9.0 + b / 5, 8.0 + b / 9)
                row = {"dataset": "emoji-categories", "domain": domain, "host": host, "ogen": ogen, "seed": seed}
                measured = dict(zip(SIDES, values, strict=True))
                rows.append(row | measured | {"epochs": 0 if zero else epochs, "seconds": 6.2})
                if zero or index:
                    continue
                steps = list(range(1, epochs + 1))
                up = [(b - ZERO_LEVELS[0]) * (1 - math.exp(-e / 6)) - 4 * math.exp(-e / 2) for e in steps]
                down = [(n - ZERO_LEVELS[1]) * (1 - math.exp(-e / 6)) + 1.5 * math.exp(-e / 3) for e in steps]
                curve = {
                    "base": [ZERO_LEVELS[0] + x + rng.gauss(0, 0.3) for x in up],
                    "new": [ZERO_LEVELS[1] + x + rng.gauss(0, 0.3) for x in down],
                }
                curves.append(row | {"epoch": steps} | curve)
    summary = []
    for domain in DOMAINS:
        for host, ogen in ends:
            group = [r for r in rows if (r["domain"], r["host"], r["ogen"]) == (domain, host, ogen)]
            entry: dict[str, Any] = {"dataset": "emoji-categories", "domain": domain, "host": host, "ogen": ogen}
            entry |= {"n_seeds": len(group)} | {side: pair([r[side] for r in group]) for side in SIDES}
            summary.append(entry | {"H_of_means": harmonic_mean(entry["base"][0], entry["new"][0])})
    confusions = [
        {
            "host": host,
            "ogen": ogen,
            "domain": "noto",
            "seed": seed,
            "true": true,
            "predicted": predicted,
            "count": 9 - 2 * k + ogen,
            "of": 12,
            "true_is": "new",
            "predicted_is": "base",
            "thumbnails": [thumbnail(10 * k + i) for i in range(4)],
        }
        for host, ogen in ends
        for seed in ((0,) if host == "zero_shot" else seeds)
        for k, (true, predicted) in enumerate(zip(NEW, reversed(BASE), strict=False))
    ]
    per_class = [
        {
            "host": host,
            "ogen": ogen,
            "domain": "noto",
            "class": name,
            "side": side,
            "n": 12 + i,
            "accuracy": pair([level + 9 * math.sin(3 * i + j + len(host) * i) for j, _ in enumerate(seeds)]),
            "joint_accuracy": pair([0.7 * level + j for j, _ in enumerate(seeds)]),
        }
        for (host, ogen), levels in ends.items()
        for side, names, level in (("base", BASE, levels[0]), ("new", NEW, levels[1]))
        for i, name in enumerate(names)
    ]
    tests = [
        {"domain": domain, "a": a, "b": "coop", "metric": "joint_H", "difference": d, "p": p, "n": len(seeds)}
        for domain in DOMAINS[:2]
        for a, d, p in (("zero_shot", -0.7, 0.0004), ("coop+ogen", 2.1, float("nan")))
    ]
    protocol = {
        "name": "base-to-new",
        "dataset": "emoji-categories",
        "data_hash": "0123456789abcdef",
        "split_hash": "fedcba9876543210",
        "n_base": 26,
        "n_new": 25,
        "backbone": {
            "name": "ogen-tiny",
            "pretrained": None,
            "weights_hash": "00ff00ff00ff00ff",
            "quick_gelu": False,
            "embed_dim": 256,
            "preprocess": {"size": [64, 64], "mean": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
        },
        "shots": 16,
        "seeds": list(seeds),
        "epochs": epochs,
        "views": 8,
        "hosts": {"coop": {"n_context": 4, "position": "end", "lr": 0.002, "class_specific": False}},
        "selection": "none: last epoch",
        "new_names_known_in_training": False,
        "train_domains": ["noto"],
        "test_domains": DOMAINS,
        "skipped": [{"file": "birds/broken <1>.png", "reason": "image file is truncated"}],
        "versions": {"ogenlib": "0.1.0", "torch": "2.11.0", "open_clip": "3.2.0", "python": "3.11.7"},
        "command": "ogen bench --out out --both",
        "git": None,
        "date": "2026-01-02T03:04:05",
        "seconds": 171.23456,
    }
    return {
        "schema": "ogenlib.results/1",
        "protocol": protocol,
        "rows": rows,
        "summary": summary,
        "curves": curves,
        "tests": tests,
        "confusions": confusions,
        "per_class": per_class,
    }


class Collector(HTMLParser):
    """Tags, their attributes and the visible text of a page; knows whether tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return fake_results()


@pytest.fixture(scope="module")
def html_page(results: dict[str, Any]) -> str:
    pytest.importorskip("matplotlib")
    return build_report(results)


@pytest.fixture()
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed; drawing takes most of the time of a report."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def text_of(page: str) -> str:
    return " ".join(Collector(page).text.split())


def with_means(base: float, new: float, std: float | None = 0.1, ogen: bool = False) -> dict[str, Any]:
    """A document with zero-shot at 20 / 20 and CoOp at the given means, nothing else."""
    common = {"dataset": "d", "domain": "x", "n_seeds": 3}
    summary = [
        common | {"host": "zero_shot", "ogen": False, "base": [20.0, 0.0], "new": [20.0, 0.0], "H": [20.0, 0.0]},
        common | {"host": "coop", "ogen": ogen, "base": [base, std], "new": [new, std], "H": [18.0, std]},
    ]
    return {"schema": "ogenlib.results/1", "protocol": {"dataset": "d", "train_domains": ["x"]}, "summary": summary}


@pytest.mark.parametrize(
    ("base", "new", "expected"),
    [
        ([19, 25, 30, 31], [22, 19, 18, 17], 2),
        ([25, 25, 30, 31], [19, 19, 18, 17], 1),  # from the first epoch
        ([25, 25, 30, 31], [19, 21, 18, 17], 3),  # an earlier stretch does not count once new came back
        ([25, 25, 30, 31], [19, 19, 18, 21], None),  # new recovers at the end
        ([25, 25, 30, 19], [19, 19, 18, 17], None),  # base falls below its own level at the end
        ([25, 25, 30, 31], [20, 20, 20, 20], None),  # equal is not below
        ([20, 20, 20, 20], [19, 19, 18, 17], None),  # equal is not above
        ([25, 25, 30, 31], [21, 22, 23, 24], None),  # both gain
    ],
)
def test_parting_epoch(base: list[float], new: list[float], expected: int | None) -> None:
    assert plots.parting_epoch([1, 2, 3, 4], base, new, 20.0, 20.0) == expected


def test_parting_epoch_of_a_closed_form() -> None:
    # base rises as 20 + 2 (e - 5), new falls as 20 - (e - 12): together first at epoch 13
    epochs = list(range(1, 31))
    base, new = [20 + 2.0 * (e - 5) for e in epochs], [20.0 - (e - 12) for e in epochs]
    assert plots.parting_epoch(epochs, base, new, 20.0, 20.0) == 13
    every_fifth = slice(4, None, 5)
    assert plots.parting_epoch(epochs[every_fifth], base[every_fifth], new[every_fifth], 20.0, 20.0) == 15
    assert plots.parting_epoch([1], [30.0], [10.0], None, 20.0) is None
    assert plots.parting_epoch([1], [30.0], [10.0], 20.0, None) is None
    assert plots.parting_epoch([], [], [], 20.0, 20.0) is None


def test_mean_curve_averages_seeds_and_skips_holes() -> None:
    first = {"epoch": [1, 2, 3], "base": [10.0, 20.0, float("nan")], "new": [5.0, None, 7.0]}
    second = {"epoch": [1, 2], "base": [14.0, 30.0], "new": [3.0, 9.0]}
    curve = plots.mean_curve([first, second, {"epoch": [], "base": None}])
    assert curve.epochs == (1, 2)
    assert curve.base == ((12.0, 10.0, 14.0), (30.0, 30.0, 30.0))
    assert curve.new == ((4.0, 3.0, 5.0), (9.0, 9.0, 9.0))
    assert curve.n_seeds == 2


def test_spread_keeps_order_and_gaps_and_leaves_distant_labels() -> None:
    moved = plots.spread([20.6, 20.5, 40.0, 19.8], 2.0)
    assert moved[2] == 40.0 and moved[3] < moved[1] < moved[0]
    assert moved[1] - moved[3] == pytest.approx(2.0) and moved[0] - moved[1] == pytest.approx(2.0)
    assert sum(moved[i] for i in (0, 1, 3)) == pytest.approx(20.6 + 20.5 + 19.8)


@pytest.mark.parametrize(
    ("base", "new", "sentence"),
    [
        (36.3, 13.8, "CoOp gains 16.3 points on base names and loses 6.2 on new names against zero-shot."),
        (17.0, 21.5, "CoOp loses 3.0 points on base names and gains 1.5 on new names against zero-shot."),
        (20.01, 15.0, "CoOp stays level on base names and loses 5.0 points on new names against zero-shot."),
        (30.0, 20.08, "gains 10.0 points on base names and gains 0.1 on new names (within the spread of seeds)"),
    ],
)
def test_finding_says_what_happened(base: float, new: float, sentence: str) -> None:
    assert sentence in text_of(build_report(with_means(base, new)))


def test_finding_of_ogen(html_page: str) -> None:
    assert re.search(
        r"CoOp gains 1\d\.\d points on base names and loses \d\.\d on new names against zero-shot; "
        r"with OGEN it gains \d\.\d on base names and loses \d\.\d on new names",
        text_of(html_page),
    )
    assert "CoOp + OGEN − CoOp noto joint H +2.1 – 3" in text_of(html_page)
    alone = text_of(build_report(with_means(30.0, 18.0, ogen=True)))
    assert "CoOp + OGEN gains 10.0 points on base names and loses 2.0 on new names against zero-shot." in alone


def test_summary_holds_both_kinds_of_h() -> None:
    text = text_of(build_report(with_means(30.0, 10.0)))
    assert "mean of per-seed H" in text and "of the means" in text
    assert "18.0 ± 0.1 −2.0" in text  # as given, and against zero-shot
    assert "15.0 −5.0" in text  # 2 * 30 * 10 / (30 + 10), worked out where the document lacks it


def test_page_is_whole_loads_nothing_and_has_the_words(html_page: str, results: dict[str, Any]) -> None:
    page = Collector(html_page)
    assert not page.open
    tags = [name for name, _ in page.seen]
    assert not {"script", "link", "iframe", "object", "base"} & set(tags)
    for name, attributes in page.seen:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "srcset"):
                assert value and value.startswith(("data:image/", "#")), (name, key, value)
    assert "@import" not in html_page and not re.search(r"url\((?!#)", html_page)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:url\(|href=")#([^)"]+)', html_page))
    assert references and references <= set(ids)
    assert tags.count("svg") >= 2 + 3
    assert all(domain in page.text for domain in DOMAINS)
    assert results["protocol"]["command"] in page.text and "git" in page.text
    text = text_of(html_page)
    assert re.search(r"parting: epoch \d+", text)
    assert re.search(r"Base and new part at epoch \d+\. At the end base is 3\d\.\d and new 1\d\.\d", text)
    assert "zero-shot base 20.5" in text and "zero-shot new 20.6" in text
    assert not re.search("#0a0[bc]0", html_page)  # every stand-in became a CSS variable


def test_no_parting_is_said() -> None:
    document = with_means(30.0, 22.0)
    curve = {"dataset": "d", "domain": "x", "host": "coop", "ogen": False, "seed": 1}
    document["curves"] = [curve | {"epoch": [1, 2], "base": [25.0, 30.0], "new": [19.0, 22.0]}]
    text = text_of(build_report(document))
    assert "Base and new do not part: new does not end below zero-shot." in text
    assert "parting: epoch" not in text


def test_strings_are_escaped(html_page: str) -> None:
    text = text_of(html_page)
    for name in (*BASE, *NEW, "birds/broken <1>.png"):
        assert name in text
    assert "<script" not in html_page and "<tags>" not in html_page and "<1>" not in html_page


def test_no_text_of_a_document_becomes_markup(no_plots: None, results: dict[str, Any]) -> None:
    kept = ("schema", "thumbnails", "side")  # what decides whether there is something to show

    def poisoned(value: Any, key: object = None) -> Any:
        if isinstance(value, dict):
            return {f"{k}<i x=\"'&" if key == "hosts" else k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(item, key) for item in value]
        return f"{value}<i x=\"'&" if isinstance(value, str) and key not in kept else value

    page = Collector(build_report(poisoned(results)))
    assert not page.open and "i" not in {name for name, _ in page.seen}
    assert page.text.count("<i x=\"'&") > 100
    assert {"i", "x"}.isdisjoint(key for _, attributes in page.seen for key in attributes)


def test_pieces_of_a_page() -> None:
    assert tag("p", "a < b & c", None, tag("b", "\"'"), 3) == "<p>a &lt; b &amp; c<b>&#34;&#39;</b>3</p>"
    assert tag("img", alt='"', data_x=0, title=None, cls="k") == '<img class="k" alt="&#34;" data-x="0">'
    assert join(["<", Markup("<br>"), None]) == "&lt;<br>"
    assert table([], [["<a>", Markup('<td class="best">1</td>'), "<td>"]]).count("<td") == 2
    style = (Path(html.__file__).parent / "style.css").read_text(encoding="utf-8")
    assert f"<style>\n{style}</style>" in page("<", "body") and "<title>&lt;</title>" in page("<", None, "")


def test_strange_domains_hosts_and_thumbnails(results: dict[str, Any]) -> None:
    document = copy.deepcopy(results)
    for part in ("rows", "summary", "curves", "tests", "confusions", "per_class"):
        for item in document[part]:
            if item.get("host") == "coop":
                item["host"] = 'my<b>"host"'
            if item["domain"] == "noto":
                item["domain"] = "$x_1$ & <noto>"
    document["protocol"]["train_domains"] = ["$x_1$ & <noto>"]
    bad = ["https://example.org/a.png", 'data:image/png;base64,AA"onerror="x', "javascript:1", 3, thumbnail(77)]
    document["confusions"] = [document["confusions"][1] | {"thumbnails": bad}]
    html_page = build_report(document)
    page = Collector(html_page)
    assert not page.open
    assert [attributes["src"] for name, attributes in page.seen if name == "img"] == [thumbnail(77)]
    assert 'my<b>"host"' in page.text and "$x_1$ & <noto>" in page.text
    assert re.search(r"<text[^>]*>\$x_1\$ &amp; &lt;noto&gt;</text>", html_page)
    assert "example.org" not in html_page and "b" not in [name for name, _ in page.seen]


def test_missing_parts_are_left_out(no_plots: None, results: dict[str, Any]) -> None:
    everything = text_of(build_report(results))
    headings = {"curves": "over training", "tests": "Paired tests", "per_class": "Every class", "rows": "Every run"}
    for part, heading in {**headings, "confusions": "Confusions"}.items():
        without = {key: value for key, value in results.items() if key != part}
        for less in (without, results | {part: None}, results | {part: []}):
            assert heading in everything and heading not in text_of(build_report(less))
    assert "1 file skipped" in everything
    assert "skipped" not in text_of(build_report(results | {"protocol": None}))
    assert "No finished runs." in text_of(build_report({"schema": "ogenlib.results/1"}))
    one = results | {"summary": [entry for entry in results["summary"] if entry["domain"] == "noto"]}
    assert "Every test domain" in everything and "Every test domain" not in text_of(build_report(one))
    parts = {part: [i for i in results[part] if i["host"] != "zero_shot"] for part in ("rows", "summary")}
    text = text_of(build_report(results | parts))
    assert "there is no zero-shot result to compare with" in text
    assert "there is no moment of parting" in text


def test_single_seed_has_no_spread() -> None:
    text = text_of(build_report(fake_results(seeds=(1,), epochs=1)))
    assert " ± " not in text and "One seed" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_nan_and_none_become_dashes(no_plots: None, results: dict[str, Any]) -> None:
    document = copy.deepcopy(results)
    for index, entry in enumerate(document["summary"]):
        entry["base"] = ([float("nan"), None], None, [None, None])[index % 3]
        entry.pop("ece_joint")
    text = text_of(build_report(document))
    assert not re.search(r"\b(nan|None)\b", text)
    assert "lower is better" not in text  # a column without a number is not shown


def test_confusions_add_seeds_and_stay_below_the_limit(no_plots: None) -> None:
    document = fake_results()
    first = [c for c in document["confusions"] if c["host"] == "coop" and not c["ogen"]][::4]
    assert [c["count"] for c in first] == [9, 9, 9]
    assert "75.0 % · 27 of 36 images over 3 seeds" in text_of(build_report(document))
    document["confusions"] = [first[0] | {"true": f"class {i:02}", "count": i % 12} for i in range(40)]
    text = text_of(build_report(document))
    assert text.count(" of 12 images") == 12 and "class 11" in text and "class 12" not in text


def test_per_class_is_sorted_by_loss(html_page: str, results: dict[str, Any]) -> None:
    def accuracy(host: str, name: str) -> float:
        rows = results["per_class"]
        return next(r["accuracy"][0] for r in rows if (r["host"], r["ogen"], r["class"]) == (host, False, name))

    expected = sorted(NEW, key=lambda name: accuracy("coop", name) - accuracy("zero_shot", name))
    part = text_of(html_page).split("New names (4)")[1].split("Paired tests")[0]
    assert sorted(NEW, key=part.index) == expected


def test_without_matplotlib(html_page: str, no_plots: None, results: dict[str, Any]) -> None:
    assert not plots.plots_available()
    plain = build_report(results)
    assert 'pip install "ogenlib[plot]"' in text_of(plain) and "ogenlib[plot]" not in html_page
    assert "<figure><svg" not in plain
    tables = [name for name, _ in Collector(html_page).seen].count("table")
    assert [name for name, _ in Collector(plain).seen].count("table") == tables
    assert "Base and new part at epoch" in text_of(plain)


def test_same_document_same_file(html_page: str, results: dict[str, Any], tmp_path: Path) -> None:
    write_report(copy.deepcopy(results), tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == html_page
    assert len(list((tmp_path / "deep").iterdir())) == 1


@pytest.mark.parametrize("bad", [{}, {"schema": "ogenlib.speed/1"}, []])
def test_other_documents_are_refused(bad: Any, tmp_path: Path) -> None:
    (target := tmp_path / "report.html").write_text("the old report")
    with pytest.raises(ValueError, match=r"ogenlib\.results/1.*ogen bench"):
        write_report(bad, target)
    assert target.read_text() == "the old report"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_numbers() -> None:
    assert [number(v) for v in (12.345, -0.04, -3.21)] == ["12.3", "0.0", "−3.2"]
    assert [number(v) for v in (None, float("nan"), float("inf"), True)] == ["–"] * 4
    assert [signed(v) for v in (1.26, -6.2, 0.01, None)] == ["+1.3", "−6.2", "±0.0", "–"]
    assert [plus_minus(v) for v in ([36.8, 0.71], [36.8, None], [36.8], 36.8)] == ["36.8 ± 0.7", *["36.8"] * 3]
    assert [plus_minus(v) for v in ([None, 1.0], None)] == ["–", "–"]
    assert [mean_of(v) for v in ([2.0, 1.0], (2.0,), 2, [], None)] == [2.0, 2.0, 2.0, None, None]
    assert [std_of(v) for v in ([2.0, 1.0], (2.0,), 2, [])] == [1.0, None, None, None]
    assert [p_value(v) for v in (0.0004, 0.0312, float("nan"))] == ["< 0.001", "0.031", "–"]
