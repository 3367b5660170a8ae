"""The report: what it says, that it is safe and whole, and the arithmetic behind its pictures."""

from __future__ import annotations

import base64
import copy
import io
import math
import random
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ogenlib import plots
from ogenlib.report import build_report, write_report
from ogenlib.report_style import number, p_value, plus_minus, signed

DOMAINS = ["noto", "emojione", "fluent-emoji-flat", "openmoji", "emojione-monotone", "fluent-emoji-high-contrast"]
BASE = ["animal-mammal", "animal-bird", "food-fruit", 'quotes "and" <tags> & more', "zodiac sign"]
NEW = ["musical instrument", "sky & weather", "tool", "<script>alert(1)</script>"]
ZERO_LEVELS = (20.5, 20.6)
SIDES = ("base", "new", "H", "joint_base", "joint_new", "joint_H", "ece_base", "ece_new", "ece_joint")


def thumbnail(seed: int) -> str:
    shade = random.Random(seed)
    image = Image.new("RGB", (8, 8), tuple(shade.randrange(256) for _ in range(3)))
    stream = io.BytesIO()
    image.save(stream, "webp")
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b)


def pair(values: list[float]) -> list[float | None]:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return [mean, None]
    return [mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))]


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
                values = (b, n, harmonic(b, n), jb, jn, harmonic(jb, jn), 6.0, 9.0 + b / 5, 8.0 + b / 9)
                row = {"dataset": "emoji-categories", "domain": domain, "host": host, "ogen": ogen, "seed": seed}
                rows.append(row | dict(zip(SIDES, values, strict=True)) | {"epochs": 0 if zero else epochs, "seconds": 6.2})
                if zero or index:
                    continue
                steps = list(range(1, epochs + 1))
                ramp = [1 - math.exp(-e / 6) for e in steps]
                curve = {
                    "base": [ZERO_LEVELS[0] - 4 * math.exp(-e / 2) + (b - ZERO_LEVELS[0]) * r + rng.gauss(0, 0.3) for e, r in zip(steps, ramp, strict=True)],
                    "new": [ZERO_LEVELS[1] + 1.5 * math.exp(-e / 3) + (n - ZERO_LEVELS[1]) * r + rng.gauss(0, 0.3) for e, r in zip(steps, ramp, strict=True)],
                }
                curves.append(row | {"epoch": steps} | curve)
    summary = []
    for domain in DOMAINS:
        for host, ogen in ends:
            group = [r for r in rows if (r["domain"], r["host"], r["ogen"]) == (domain, host, ogen)]
            entry: dict[str, Any] = {"dataset": "emoji-categories", "domain": domain, "host": host, "ogen": ogen}
            entry |= {"n_seeds": len(group)} | {side: pair([r[side] for r in group]) for side in SIDES}
            summary.append(entry | {"H_of_means": harmonic(entry["base"][0], entry["new"][0])})
    confusions = [
        {
            "host": host, "ogen": ogen, "domain": "noto", "seed": seed, "true": true, "predicted": predicted,
            "count": 9 - 2 * k + ogen, "of": 12, "true_is": "new" if true in NEW else "base",
            "predicted_is": "new" if predicted in NEW else "base", "thumbnails": [thumbnail(10 * k + i) for i in range(4)],
        }
        for host, ogen in ends
        for seed in ((0,) if host == "zero_shot" else seeds)
        for k, (true, predicted) in enumerate(zip(NEW, reversed(BASE), strict=False))
    ]  # fmt: skip
    per_class = [
        {
            "host": host, "ogen": ogen, "domain": "noto", "class": name, "side": side, "n": 12 + i,
            "accuracy": pair([level + 9 * math.sin(3 * i + j) for j, _ in enumerate(seeds)]),
            "joint_accuracy": pair([0.7 * level + j for j, _ in enumerate(seeds)]),
        }
        for (host, ogen), levels in ends.items()
        for side, names, level in (("base", BASE, levels[0]), ("new", NEW, levels[1]))
        for i, name in enumerate(names)
    ]  # fmt: skip
    tests = [
        {"domain": domain, "a": a, "b": b, "metric": metric, "difference": d, "p": p, "n": len(seeds)}
        for domain in DOMAINS[:2]
        for a, b, metric, d, p in (
            ("coop", "zero_shot", "base", 16.3, 0.0004), ("coop", "zero_shot", "new", -6.2, 0.004),
            ("coop+ogen", "coop", "joint_H", 2.1, float("nan")),
        )
    ]  # fmt: skip
    protocol = {
        "name": "base-to-new", "dataset": "emoji-categories", "data_hash": "0123456789abcdef",
        "split_hash": "fedcba9876543210", "n_base": 26, "n_new": 25,
        "backbone": {
            "name": "ogen-tiny", "pretrained": None, "weights_hash": "00ff00ff00ff00ff", "quick_gelu": False,
            "embed_dim": 256, "preprocess": {"size": [64, 64], "mean": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
        },
        "shots": 16, "seeds": list(seeds), "epochs": epochs, "views": 8,
        "hosts": {"coop": {"n_context": 4, "position": "end", "lr": 0.002, "class_specific": False}},
        "selection": "none: last epoch", "new_names_known_in_training": False, "train_domains": ["noto"],
        "test_domains": DOMAINS,
        "skipped": [{"file": "birds/broken <1>.png", "reason": "image file is truncated"}],
        "versions": {"ogenlib": "0.1.0", "torch": "2.11.0", "open_clip": "3.2.0", "python": "3.11.7"},
        "command": "ogen bench --out out --both", "git": None, "date": "2026-01-02T03:04:05", "seconds": 171.23456,
    }  # fmt: skip
    return {
        "schema": "ogenlib.results/1", "protocol": protocol, "rows": rows, "summary": summary, "curves": curves,
        "tests": tests, "confusions": confusions, "per_class": per_class,
    }  # fmt: skip
