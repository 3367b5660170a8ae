"""Detectors on trained methods, embedded data: writes benchmarks/results/ood-emoji.json.

    python benchmarks/ood_emoji.py

The same as ``ogen bench --protocol ood`` with these methods; what only a report draws is left out of the file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.utils.documents import write_json

HOSTS = ("coop", "kgcoop", "text_adapter", "taskres")
RESULTS = Path(__file__).resolve().parent / "results" / "ood-emoji.json"
MEASURES = ("base", "auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive", "flagged")
PLACE = ("dataset", "domain", "task", "detector", "host", "ogen")


def slim(document: dict[str, Any]) -> dict[str, Any]:
    """What tables are made of: card, means over the seeds, and each seed's own measures."""
    return {
        "schema": document["schema"], "protocol": document["protocol"],
        "summary": [{k: row[k] for k in (*PLACE, "n_seeds", *MEASURES)} for row in document["summary"]],
        "rows": [{k: row[k] for k in (*PLACE, "seed", "epochs", *MEASURES)} for row in document["rows"]],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", nargs="+", default=list(HOSTS), metavar="NAME", help=f"({' '.join(HOSTS)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--smoke", action="store_true", help="in a minute, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file")
    args = parser.parse_args(argv)
    config = BenchConfig(protocol="ood", hosts=tuple(args.hosts), seeds=tuple(args.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        config = config.smoke() if args.smoke else config
        document = run_bench(config, Path(scratch), command="python benchmarks/ood_emoji.py", progress=True)
    write_json(args.out, slim(document))


if __name__ == "__main__":
    main()
