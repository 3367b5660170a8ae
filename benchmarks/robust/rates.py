"""Choose the learning rate of every fine-tuning method on a small model, by validation images alone.

    python -m benchmarks.robust.rates                # writes benchmarks/results/robust-rates.json
    python -m benchmarks.robust.rates --part 1/2     # half of the runs and no results file; the other half is 2/2

The methods' rates are those of their papers, made for ViT-B/16 and larger; on ogen-tiny most of them hardly move it.
Each rate is multiplied by some factors and trained as `robust/study.py` trains, with a seed that no table has. The
factor of the highest accuracy on the validation images of `emoji-categories` counts, of equals the smallest; these are
a fifth of the training images of noto, which no training sees. No test image and no shifted one has a part in it.
Methods that add terms or an average to full fine-tuning or to FLYP have its rate and take its factor (`FAMILIES`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.kept_rows import kept_rows
from benchmarks.common.options import add_names, add_training, add_work, parser_of, part
from benchmarks.common.places import RESULTS
from benchmarks.common.results_file import read_results, write_results
from benchmarks.ogen.variants import Variant
from benchmarks.robust.world import MOST, VIEWS, World, encoded, make_host, trained, world
from ogenlib.data import FeatureBank
from ogenlib.evaluate import scores as evaluate
from ogenlib.merge import states as merge

RATES = RESULTS / "robust-rates.json"
SCHEMA = "ogenlib.rates/1"
DATASET, SEED = "emoji-categories", 0
EPOCHS, PRECISION = 10, "bf16"
FACTORS: dict[str, tuple[float, ...]] = {
    "full_ft": (1, 3, 10, 30), "lipsum_ft": (3, 10, 30, 100), "flyp": (3, 10, 30, 100),
    "r_adapter": (0.3, 1, 3, 6, 10), "linear_probe": (1, 3, 10),
}  # fmt: skip
FAMILIES = {
    "lp_ft": "full_ft", "ema": "full_ft", "l2_sp": "full_ft", "kd": "full_ft", "car_ft": "full_ft", "arf": "flyp",
    "starft": "flyp", "carot": "flyp", "tracer": "flyp",
}  # fmt: skip


def tried(host: str, factor: float, here: World, epochs: int) -> dict[str, Any]:
    """Accuracy on the validation images after training with so many times the method's own rate."""
    model = make_host(Variant("host alone", host), here, SEED)
    bank, began = here.bank(model, SEED), time.perf_counter()
    rate = factor * model.train_settings()["lr"]
    row = {"host": host, "factor": factor, "lr": rate, "val": None, "seconds": 0.0}
    try:
        trained(model, bank, here.precision, epochs=epochs, seed=SEED, lr=rate)
    except FloatingPointError as error:
        return {**row, "failed": str(error), "seconds": time.perf_counter() - began}
    return {**row, "val": val_accuracy(model, here), "seconds": time.perf_counter() - began}


def val_accuracy(model: Any, here: World) -> float:
    """Percent of the validation images, among the trained names."""
    own: FeatureBank = encoded(model, here.features[-1], here.pixels[-1], here.precision)
    w = model.class_weights(here.plan.known, z=own.features[:, 0])
    with torch.no_grad():
        return evaluate.accuracy(model.logits(own.features[:, 0], w).float(), own.labels)


def chosen(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Host -> factor and rate of its highest validation accuracy (of equals the smallest), and whose they are.

    The methods of a family have one rate in this library, so they share the product too.
    """
    best: dict[str, dict[str, Any]] = {}
    for host in dict.fromkeys(row["host"] for row in rows):
        own = {row["factor"]: row for row in rows if row["host"] == host and row["val"] is not None}
        if own:
            factor = merge.best_alpha([(factor, row["val"]) for factor, row in own.items()])
            best[host] = {"factor": factor, "lr": own[factor]["lr"], "of": host}
    for host, member in FAMILIES.items():
        if host not in best and member in best:
            best[host] = dict(best[member])
    return best


def chosen_rates(path: Path = RATES) -> dict[str, float]:
    """Host -> learning rate, of a results file of this script.

    Raises:
        FileNotFoundError: it was not run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; run python -m benchmarks.robust.rates first")
    return {host: entry["lr"] for host, entry in read_results(path)["chosen"].items()}


def rate_of(host: str, rates: Mapping[str, float]) -> dict[str, float]:
    """The setting of its training; empty for a host whose own rate counts."""
    return {"lr": rates[host]} if host in rates else {}


def run_all(cells: Sequence[tuple[str, float]], here: World, epochs: int, work: Path) -> list[dict[str, Any]]:
    """All rows, each kept in `work` under a name made of what decides it."""

    def decides(host: str, factor: float) -> tuple[Any, ...]:
        return (
            "rate",
            host,
            factor,
            here.plan.source.train.hash(),
            here.plan.parts[-1].images.hash(),
            here.clip.weights_hash,
            here.shots,
            SEED,
            epochs,
            VIEWS,
            here.precision,
        )

    return kept_rows(cells, work, decides, partial(tried, here=here, epochs=epochs), prefix="rate-", about="rates")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, RATES.name)
    add_names(parser, "--hosts", FACTORS, list(FACTORS), "methods (all that have factors)")
    add_training(parser, EPOCHS, PRECISION)
    add_work(parser, "runs/robust")
    args = parser.parse_args(argv)
    # What the protocol needs besides; none of it is tested here.
    vars(args).update(shots=0, alphas=list(merge.ALPHAS), retention=[], domains=None, most=MOST)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    began = time.perf_counter()
    here = world(DATASET, args.hosts, args)
    cells = [(host, factor) for host in args.hosts for factor in FACTORS[host]]
    rows = run_all(part(cells, args.part), here, args.epochs, args.work)
    if args.part is not None:
        return
    card = {
        "study": "robust-rates",
        "backbone": here.clip.fingerprint(),
        "dataset": DATASET,
        "data_hash": here.plan.source.hash(),
        "train_images": len(here.plan.source.train),
        "validation": here.plan.card["validation"],
        "seed": SEED,
        "epochs": args.epochs,
        "views": VIEWS,
        "precision": args.precision,
        "families": FAMILIES,
        "selection": "the factor of the highest accuracy on the validation images, of equals the smallest",
        "arguments": {"epochs": args.epochs, "precision": args.precision, "hosts": args.hosts},
    }
    write_results(args.out, SCHEMA, "robust.rates", card, began=began, rows=rows, chosen=chosen(rows))


if __name__ == "__main__":
    main()
