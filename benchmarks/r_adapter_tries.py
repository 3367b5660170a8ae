"""R-Adapter's settings tried on validation images, and what the chosen ones do to the tests.

    python benchmarks/r_adapter_tries.py             # writes benchmarks/results/r-adapter-tries.json
    python benchmarks/r_adapter_tries.py --validate  # only the validation images; keeps its runs in --work

With the paper's settings at the chosen rate R-Adapter loses more of the domain of training than one would like
(`robust_study.py`). Each setting is trained on `emoji-categories` at that rate with seeds that no table has; what has
the highest mean accuracy on the validation images counts. They are a fifth of the training images of noto, which no
training sees. The paper's settings, the chosen ones and full fine-tuning are then trained and tested as in the study,
with its seeds. Validation images are few (75), so that close settings are ordered by luck.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kept_rows import kept_row
from ogen_study import SEEDS, Variant
from robust_rates import DATASET, EPOCHS, PRECISION, chosen_rates, val_accuracy
from robust_world import MOST, VIEWS, World, make_host, trained, world
from tqdm import tqdm

from ogenlib.merge import states as merge
from ogenlib.results import tables as results
from ogenlib.utils.documents import write_json

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "ogenlib.r-adapter-tries/1"
HOST, REFERENCE, PAPER = "r_adapter", "full_ft", "the paper's"
SEEDS_OF_CHOICE = (0, 10, 20, 30)
TRIED: dict[str, dict[str, Any]] = {
    PAPER: {},
    "re-scaled by 0.8": {"alpha": 0.8},
    "not re-scaled": {"alpha": 1.0},
    "half the dropping": {"drop": 0.1},
    "no dropping": {"drop": 0.0},
    "no margin": {"margin": 0.0},
    "no smoothing": {"smoothing": 0.0},
    "no accumulation": {"accumulation": 0.0},
    "no dropping, no margin": {"drop": 0.0, "margin": 0.0},
    "no dropping, re-scaled by 0.8": {"drop": 0.0, "alpha": 0.8},
    "rank 16": {"rank": 16},
}


def one(variant: Variant, here: World, seed: int, epochs: int, rate: float, tested: bool) -> dict[str, Any]:
    """Train once; accuracy on the validation images and, where it is `tested`, all scores of the protocol."""
    host, began = make_host(variant, here, seed), time.perf_counter()
    trained(host, here.bank(host, seed), here.precision, epochs=epochs, seed=seed, lr=rate)
    row = {"setting": variant.name, "host": variant.host, "options": dict(variant.options), "seed": seed, "lr": rate,
           "seconds": time.perf_counter() - began}  # fmt: skip
    if not tested:
        return {**row, "val": val_accuracy(host, here)}
    return {**row, **{key: value for key, value in here.scores(host).items() if isinstance(value, float)}}


def run_all(
    variants: Sequence[Variant], seeds: Sequence[int], here: World, epochs: int, rates: Mapping[str, float],
    work: Path, *, tested: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """All rows, each kept in `work` under a name made of what decides it."""
    rows = []
    for variant, seed in tqdm([(v, s) for v in variants for s in seeds], desc="tested" if tested else "tried"):
        rate = rates[variant.host]
        decides = ("r-adapter-tries", variant.host, dict(variant.options), rate, tested, here.plan.source.train.hash(),
                   [part.images.hash() for part in here.parts], here.clip.weights_hash, seed, epochs, VIEWS,
                   here.precision)  # fmt: skip
        row = kept_row(work, decides, partial(one, variant, here, seed, epochs, rate, tested), "tries-")
        rows.append({**row, "setting": variant.name})
    return rows


def chosen(rows: Sequence[Mapping[str, Any]]) -> str:
    """The setting of the highest mean validation accuracy; of equals the first."""
    means = {name: statistics.fmean(row["val"] for row in rows if row["setting"] == name)
             for name in dict.fromkeys(row["setting"] for row in rows)}  # fmt: skip
    return max(means, key=lambda name: means[name])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the training images ({EPOCHS})")
    parser.add_argument("--precision", default=PRECISION, help=f"({PRECISION})")
    parser.add_argument("--validate", action="store_true", help="test nothing and write no results file")
    parser.add_argument("--work", type=Path, default=Path("runs/robust"), help="finished runs (runs/robust)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "r-adapter-tries.json")
    args = parser.parse_args(argv)
    vars(args).update(shots=0, alphas=list(merge.ALPHAS), retention=[], domains=None, most=MOST)
    began = time.perf_counter()
    here, rates = world(DATASET, [HOST, REFERENCE], args), chosen_rates()
    settings = [Variant(name, HOST, options=options) for name, options in TRIED.items()]
    tried = run_all(settings, SEEDS_OF_CHOICE, here, args.epochs, rates, args.work, tested=False)
    if args.validate:
        return
    picked = chosen(tried)
    variants = [Variant("full fine-tuning", REFERENCE), *(v for v in settings if v.name in (PAPER, picked))]
    tested = run_all(variants, SEEDS, here, args.epochs, rates, args.work, tested=True)
    write_json(args.out, {
        "schema": SCHEMA,
        "protocol": {
            "study": "r-adapter-tries", "backbone": here.clip.fingerprint(), "dataset": DATASET,
            "data_hash": here.plan.source.hash(), "validation": here.plan.card["validation"],
            "seeds_of_choice": list(SEEDS_OF_CHOICE), "seeds": list(SEEDS), "epochs": args.epochs, "views": VIEWS,
            "precision": args.precision, "selection": "the highest mean accuracy on the validation images",
            "versions": results.versions(), "threads": torch.get_num_threads(), "git": results.git_revision(),
            "command": "python benchmarks/r_adapter_tries.py", "date": results.now(),
            "seconds": time.perf_counter() - began,
        },
        "tried": tried, "chosen": picked, "tested": tested,
    })  # fmt: skip


if __name__ == "__main__":
    main()
