"""Check CoOp's learning-rate rule on tasks that no table reports: three of the emoji-concepts datasets.

    python benchmarks/coop_rate.py    # writes benchmarks/results/coop-rate.json

Base and new accuracy on noto for CoOp's own rate times 1/4, 1 and 4; one seed, 3 shots (all there are), 50 epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ogenlib.data import FeatureBank, base_new_split, load_dataset
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import CoOp, ZeroShot
from ogenlib.results import tables as results
from ogenlib.towers import load_backbone
from ogenlib.train.loop import fit
from ogenlib.utils.documents import write_json

DATASETS = ("emoji-concepts/food-drink", "emoji-concepts/activities", "emoji-concepts/animals-nature")
FACTORS = (0.25, 1.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coop-rate.json"), help="results file")
    args = parser.parse_args()
    clip = load_backbone("ogen-tiny")
    rows: list[dict[str, Any]] = []
    for name in DATASETS:
        data = load_dataset(name, test_domains=["noto"])
        split = base_new_split(data.classnames)
        bank = FeatureBank.extract(clip, data.train.of_classes(split.base), views=8, seed=1)
        test = FeatureBank.extract(clip, data.test)
        zero = evaluate.base_to_new(ZeroShot(clip, split.base, data.templates), test, split).scores
        rows.append({"dataset": name, "host": "zero_shot", "base": zero["base"], "new": zero["new"]})
        for factor in FACTORS:
            host = CoOp(clip, split.base, "an icon of a")
            rate = factor * host.train_settings()["lr"]
            fit(host, bank, epochs=50, seed=1, lr=rate)
            scores = evaluate.base_to_new(host, test, split).scores
            rows.append({"dataset": name, "host": "coop", "factor": factor, "lr": rate, "base": scores["base"],
                         "new": scores["new"]})  # fmt: skip
            print(rows[-1], flush=True)
    document = {
        "schema": "ogenlib.rate/1",
        "protocol": {"backbone": clip.fingerprint(), "epochs": 50, "seed": 1, "views": 8,
                     "versions": results.versions(), "git": results.git_revision(), "date": results.now()},
        "rows": rows,
    }  # fmt: skip
    write_json(args.out, document)


if __name__ == "__main__":
    main()
