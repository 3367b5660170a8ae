"""Measure every generator on unknown classes, against their real features.

    python -m benchmarks.ogen.generators --features DIR    # writes benchmarks/results/generators.json

`emoji-categories` with ogen-tiny, and real CLIP features of DTD and Stanford Cars where their folder is given.
Generators are trained on the known half of the names. The row `real` stands in the place of a generator that is
perfect: real training rows of the unknown classes, as many as are synthesized. The row `text` is one feature per class,
its embedding. Numbers of a generator are those of `measure_synthesized`; shares in percent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.clip_features import DATASETS, add_option, file_hashes, load_clip_features
from benchmarks.common.groups import grouped
from benchmarks.common.options import add_seeds, parser_of
from benchmarks.common.results_file import write_results
from ogenlib.data import FeatureBank, base_new_split, few_shot, load_dataset
from ogenlib.generators import (
    class_cosine,
    fit_generator,
    list_variants,
    measure_synthesized,
    nearest_mean_accuracy,
    zero_shot_accuracy,
)
from ogenlib.hosts.zero_shot import zero_shot_weights
from ogenlib.results import tables as results
from ogenlib.towers import Backbone, load_backbone

SCHEMA = "ogenlib.generators/1"
DOMAIN, SHOTS, VIEWS = "noto", 16, 8
PERCENT = ("pass_rate", "nearest_mean", "ridge", "zero_shot")
DISTANCES = ("cosine", "cosine_centred", "frechet", "mmd", "density", "coverage")


@dataclass(frozen=True)
class Task:
    """Known classes to train on, unknown ones to measure on. Labels count from 0 on each side.

    Attributes:
        spare, spare_labels: real training rows of the unknown classes, for the row `real` only.
        card: what the features are, JSON-able.
    """

    name: str
    known: Tensor
    known_labels: Tensor
    known_text: Tensor
    real: Tensor
    real_labels: Tensor
    text: Tensor
    spare: Tensor
    spare_labels: Tensor
    card: dict[str, Any]


def emoji_task(clip: Backbone, seed: int) -> Task:
    """The 16-shot training bank of `ogen bench` for `seed`, on known and on unknown names."""
    data = load_dataset("emoji-categories", test_domains=[DOMAIN])
    split = base_new_split(data.classnames)

    def bank(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        picked = few_shot(data.train, SHOTS, seed).of_classes(names)
        extracted = FeatureBank.extract(clip, picked, views=VIEWS, seed=seed)
        return extracted.features.flatten(0, 1), extracted.labels.repeat_interleave(extracted.features.shape[1])

    test = FeatureBank.extract(clip, data.test.of_classes(split.new))
    known, unknown = (zero_shot_weights(clip, names, data.templates) for names in (split.base, split.new))
    card = {
        "domain": DOMAIN,
        "data_hash": data.hash(),
        "backbone": clip.fingerprint(),
        "templates": list(data.templates),
        "shots": SHOTS,
        "views": VIEWS,
        "known_rows": "training drawings, augmented views",
        "real_rows": "test drawings, clean view",
    }
    real = test.features[:, 0], test.labels
    return _task("emoji-categories", bank(split.base), known, real, unknown, bank(split.new), card)


def clip_task(name: str, folder: Path) -> Task:
    """DTD or Stanford Cars: the first half of the names is known."""
    data = load_clip_features(name, folder)
    n_known = len(base_new_split(data.classnames).base)
    train, test = data.train_y < n_known, data.test_y < n_known
    card = {
        "backbone": "OpenAI CLIP ViT-B/32, precomputed features",
        "sha256": file_hashes(name, folder),
        "known_rows": {"dtd": "val", "stanford_cars": "train16, means of ten augmented views"}[name],
        "real_rows": {"dtd": "test", "stanford_cars": "val"}[name],
    }
    return _task(
        name,
        (data.train_x[train], data.train_y[train]),
        data.text[:n_known],
        (data.test_x[~test], data.test_y[~test] - n_known),
        data.text[n_known:],
        (data.train_x[~train], data.train_y[~train] - n_known),
        card,
    )


def _task(
    name: str,
    known: tuple[Tensor, Tensor],
    known_text: Tensor,
    real: tuple[Tensor, Tensor],
    text: Tensor,
    spare: tuple[Tensor, Tensor],
    card: dict[str, Any],
) -> Task:
    counts = {
        "n_known": len(known_text),
        "n_unknown": len(text),
        "n_known_rows": len(known[0]),
        "n_real_rows": len(real[0]),
        "n_synthesized_rows": len(spare[0]),
    }
    return Task(name, *known, known_text, *real, text, *spare, card | counts)


def measure(task: Task, seed: int, variants: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one task and seed; each variant is trained once, `spread` only decides how it synthesizes."""

    def row(variant: str, spread: str | None, numbers: dict[str, float], seconds: float = 0.0) -> dict[str, Any]:
        percent = {k: 100 * v if k in PERCENT else v for k, v in numbers.items()}
        return {"dataset": task.name, "variant": variant, "spread": spread, "seed": seed, "seconds": seconds, **percent}

    def everything(features: Tensor, labels: Tensor) -> dict[str, float]:
        return measure_synthesized(features, labels, task.real, task.real_labels, task.text)

    rows = [row("real", None, everything(task.spare, task.spare_labels)), row("text", None, text_only(task))]
    counts = torch.bincount(task.spare_labels)
    labels = torch.arange(len(counts)).repeat_interleave(int(counts.max()))
    place = torch.arange(len(labels)) % int(counts.max())
    kept = place < counts[labels]  # as many rows of every class as the row `real` has
    for variant in variants:
        began = time.perf_counter()
        generator = fit_generator(task.known, task.known_labels, task.known_text, variant, seed=seed)
        seconds = time.perf_counter() - began
        for generator.spread in ("residual", "none"):
            draws = torch.Generator().manual_seed(seed)
            synthesized = generator.synthesize(task.text, int(counts.max()), generator=draws)
            rows.append(row(variant, generator.spread, everything(synthesized[kept], labels[kept]), seconds))
    return rows


def text_only(task: Task) -> dict[str, float]:
    """What makes sense for a single feature per class, the class embedding."""
    four = task.text, torch.arange(len(task.text)), task.real, task.real_labels
    return {
        "cosine": class_cosine(*four),
        "cosine_centred": class_cosine(*four, centred=True),
        "nearest_mean": nearest_mean_accuracy(*four),
        "zero_shot": zero_shot_accuracy(task.real, task.real_labels, task.text),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """[mean, std] over seeds of every metric for each dataset, variant and spread in order of appearance."""
    summary = []
    for (dataset, variant, spread), members in grouped(rows, "dataset", "variant", "spread").items():
        entry = {"dataset": dataset, "variant": variant, "spread": spread, "n_seeds": len(members)}
        metrics = [m for m in (*DISTANCES, *PERCENT, "seconds") if m in members[0]]
        summary.append(entry | {m: results.mean_std([r[m] for r in members]) for m in metrics})
    return summary


def main() -> None:
    parser = parser_of(__doc__, "generators.json")
    add_option(parser)
    add_seeds(parser)
    args = parser.parse_args()
    began = time.perf_counter()
    clip = load_backbone("ogen-tiny")
    if args.features is None:
        print(f"no folder of real CLIP features given (--features DIR): {', '.join(DATASETS)} are skipped", flush=True)
    names = ("emoji-categories", *(DATASETS if args.features else ()))
    rows: list[dict[str, Any]] = []
    cards: dict[str, Any] = {}
    for name in names:
        for seed in args.seeds:
            task = emoji_task(clip, seed) if name == "emoji-categories" else clip_task(name, args.features)
            cards[name] = task.card
            rows += measure(task, seed, list_variants())
            print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    card = {
        "name": "generators",
        "datasets": cards,
        "seeds": args.seeds,
        "k_coverage": 5,
        "selection": "none",
        "unknown_images_seen_in_training": False,
    }
    parts = {"rows": rows, "summary": summarize(rows)}
    write_results(args.out, SCHEMA, "ogen.generators", card, began=began, **parts)


if __name__ == "__main__":
    main()
