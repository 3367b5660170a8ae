"""Speed and memory of detectors on a million features: OGENDetector beside pytorch-ood's MCM.

    python -m benchmarks.ood.speed                     # writes results/ood-speed.json
    python -m benchmarks.ood.speed --only fitting      # measures fitting anew, keeps the rest of the file

Throughput: in one process the detectors take turns on the same pieces of rows, so that whatever else the machine does
meets all of them. Memory: each case in a process of its own, one call on all rows; the peak is what the process had
beyond the features at most. Fitting: the same of one call of `fit_features`, on rows in fp16. Rows are random, for no
detector's work depends on what they are. Linux only.

Notation: `B` rows, `C` names, `D` embedding.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_ood.detector import MCM
from torch import Tensor

from benchmarks.common.child import said_by
from benchmarks.common.options import parser_of
from benchmarks.common.origin import origin
from benchmarks.common.resident import clear_mark, status
from benchmarks.common.results_file import read_results
from ogenlib.detect import OGENDetector
from ogenlib.detect.base import PIECE
from ogenlib.utils.documents import write_json

SCHEMA = "ogenlib.ood-speed/1"
ROWS, CLASSES, DIM, SHOTS = 1_000_000, 1000, 512, 4
SHARE = 0.2  # of the rows, for speed: turns are taken often enough, and rows are alike
FEWER = 0.1  # of the rows, where MCM's memory is measured: it keeps matrices of rows and names, 8 GB for a million
FITTED = "OGENDetector, fitting"
DETECTORS = ("MCM", "OGENDetector", "OGENDetector, images")
Predict = Callable[[Tensor], Tensor]


def unit(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def make(name: str, classes: int, dim: int) -> Predict:
    """The detector, fitted, with its `predict_features`."""
    names = unit(classes, dim, 0)
    if name == "MCM":
        return MCM(None, names).predict_features
    detector = OGENDetector(None, class_embeddings=names)
    if name.endswith("images"):
        detector.fit_features(unit(classes * SHOTS, dim, 1), torch.arange(classes).repeat_interleave(SHOTS))
    detector.ready()
    return detector.predict_features


def throughput(rows: int, classes: int, dim: int, threads: int) -> list[dict[str, Any]]:
    """Rows a second of each detector, which take turns on the same pieces."""
    torch.set_num_threads(threads)
    detectors = {name: make(name, classes, dim) for name in DETECTORS}
    piece = PIECE // classes
    features = unit(rows, dim, 2)
    for predict in detectors.values():
        predict(features[:piece])  # what a first call allocates is not what the next ones take
    seconds = dict.fromkeys(detectors, 0.0)
    with torch.no_grad():
        for part in features.split(piece):
            for name, predict in detectors.items():
                began = time.perf_counter()
                predict(part)
                seconds[name] += time.perf_counter() - began
    return [
        {
            "detector": name,
            "threads": threads,
            "rows": rows,
            "rows_a_call": piece,
            "seconds": round(s, 3),
            "rows_a_second": round(rows / s),
        }
        for name, s in seconds.items()
    ]


def memory(name: str, rows: int, classes: int, dim: int) -> dict[str, Any]:
    """Peak of this process over what it holds with the features, in one call on all of them."""
    predict = make(name, classes, dim)
    features = unit(rows, dim, 2)
    clear_mark()
    before = status("VmRSS")
    with torch.no_grad():
        scores = predict(features)
    if scores.shape != (rows,) or not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{name} gave scores of shape {tuple(scores.shape)}, or some that are not finite")
    return {
        "detector": name,
        "rows": rows,
        "features_mib": round(features.nbytes / 2**20),
        "peak_over_features_mib": round(status("VmHWM") - before),
    }


def fitting(rows: int, classes: int, dim: int) -> dict[str, Any]:
    """Peak of this process over what it holds with fp16 features, in one call that fits all of them."""
    detector = OGENDetector(None, class_embeddings=unit(classes, dim, 0))
    features = torch.empty(rows, dim, dtype=torch.float16)
    for seed, part in enumerate(features.split(4096)):  # fp32 of all rows would leave memory to fit in unseen
        part.copy_(unit(len(part), dim, seed))
    labels = torch.arange(rows) % classes
    clear_mark()
    before = status("VmRSS")
    detector.fit_features(features, labels)
    return {
        "detector": FITTED,
        "rows": rows,
        "dtype": "float16",
        "features_mib": round(features.nbytes / 2**20),
        "peak_over_features_mib": round(status("VmHWM") - before),
    }


def run_fitting(document: dict[str, Any], rows: int, path: Path) -> dict[str, Any]:
    """`document` with `fitting` measured anew, each case in a process of its own."""
    card = document["protocol"]
    size = ["--classes", str(card["classes"]), "--dim", str(card["dimensions"])]
    counts = (str(max(1, round(FEWER * rows))), str(rows))
    fitted = [said_by("ood.speed", "--child", FITTED, "--rows", count, *size) for count in counts]
    document["fitting"] = {"protocol": origin("ood.speed"), "rows": fitted}
    write_json(path, document)
    return document


def run(rows: int, classes: int, dim: int, threads: Sequence[int], path: Path) -> dict[str, Any]:
    """Everything; each measurement in a process of its own."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": {
            "name": "ood-speed",
            "classes": classes,
            "dimensions": dim,
            "dtype": "float32",
            "device": "cpu",
            **origin("ood.speed"),
        },
        "throughput": [],
        "memory": [],
    }
    size = ["--classes", str(classes), "--dim", str(dim)]
    timed, fewer = (str(max(1, round(share * rows))) for share in (SHARE, FEWER))
    for count in threads:
        turns = ("--child", "throughput", "--rows", timed, "--threads", str(count))
        document["throughput"] += said_by("ood.speed", *turns, *size)
        write_json(path, document)
    for name in DETECTORS:
        for n in (fewer,) if name == "MCM" else (fewer, str(rows)):
            document["memory"].append(said_by("ood.speed", "--child", name, "--rows", n, *size))
            write_json(path, document)
    return run_fitting(document, rows, path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, "ood-speed.json")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"features (default: {ROWS:,})")
    parser.add_argument("--classes", type=int, default=CLASSES, metavar="N", help=f"names (default: {CLASSES})")
    parser.add_argument("--dim", type=int, default=DIM, metavar="N", help=f"dimensions (default: {DIM})")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="of torch (default: 1 2)")
    parser.add_argument("--only", default=None, choices=["fitting"], help="measure this anew, keep the file's rest")
    parser.add_argument(
        "--child", default=None, choices=["throughput", FITTED, *DETECTORS], help="measure one thing, print it"
    )
    args = parser.parse_args(argv)
    if args.child == "throughput":
        print(json.dumps(throughput(args.rows, args.classes, args.dim, args.threads[0])))
    elif args.child == FITTED:
        print(json.dumps(fitting(args.rows, args.classes, args.dim)))
    elif args.child:
        print(json.dumps(memory(args.child, args.rows, args.classes, args.dim)))
    elif args.only:
        document = read_results(args.out)
        print(json.dumps(run_fitting(document, args.rows, args.out)["fitting"]["rows"], indent=1))
    else:
        document = run(args.rows, args.classes, args.dim, args.threads, args.out)
        print(json.dumps([*document["throughput"], *document["memory"], *document["fitting"]["rows"]], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
