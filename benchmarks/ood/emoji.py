"""Detectors on trained methods, embedded data: writes benchmarks/results/ood-emoji.json.

    python -m benchmarks.ood.emoji

The same as ``ogen bench --protocol ood`` with these methods; what only a report draws is left out of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.bench import bench
from benchmarks.common.options import add_seeds, parser_of
from ogenlib.bench.runner import BenchConfig
from ogenlib.utils.documents import write_json

HOSTS = ("coop", "kgcoop", "text_adapter", "taskres")
MEASURES = ("base", "auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive", "flagged")
PLACE = ("dataset", "domain", "task", "detector", "host", "ogen")


def slim(document: Mapping[str, Any]) -> dict[str, Any]:
    """What tables are made of: card, means over the seeds, and each seed's own measures."""
    return {
        "schema": document["schema"],
        "protocol": document["protocol"],
        "summary": [{k: row[k] for k in (*PLACE, "n_seeds", *MEASURES)} for row in document["summary"]],
        "rows": [{k: row[k] for k in (*PLACE, "seed", "epochs", *MEASURES)} for row in document["rows"]],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "ood-emoji.json")
    parser.add_argument("--hosts", nargs="+", default=list(HOSTS), metavar="NAME", help=f"({' '.join(HOSTS)})")
    add_seeds(parser)
    parser.add_argument("--smoke", action="store_true", help="in a minute, to see that it runs")
    args = parser.parse_args(argv)
    config = BenchConfig(protocol="ood", hosts=tuple(args.hosts), seeds=tuple(args.seeds))
    write_json(args.out, slim(bench(config.smoke() if args.smoke else config, "ood.emoji")))


if __name__ == "__main__":
    main()
