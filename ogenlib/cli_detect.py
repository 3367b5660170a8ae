"""``ogen detect``: is an image of a class of a saved run, or of none.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ogenlib.batches import check_bank
from ogenlib.cli_use import given_names
from ogenlib.data import FeatureBank
from ogenlib.data.dataset import open_image
from ogenlib.detect import ImageEncoder, OGENDetector
from ogenlib.files import write_json
from ogenlib.hosts import Host
from ogenlib.runs import fixed_weights, load_run

KEPT = 0.95  # share of known images that the threshold lets pass
BATCH = 64


def run_detector(host: Host, unknown: Sequence[str] | None = None, fit: FeatureBank | None = None) -> OGENDetector:
    """The detector of a run's names, with other names and images of the known classes where there are some.

    Raises:
        ValueError: class weights that depend on the image, an unknown name that is known, or a bank that does not
            belong to the run.
    """
    weights = fixed_weights(host)
    if weights is None:
        raise ValueError(f"class weights of {host.info.name} depend on the image, so there are none to detect with; "
                         "use a run of another method")  # fmt: skip
    both = sorted(set(unknown or ()) & set(host.names))
    if both:
        raise ValueError(f"--unknown holds {both[:3]}, which the run knows; leave them out")
    others = fixed_weights(host, unknown) if unknown else None
    detector = OGENDetector(ImageEncoder(host), None, weights, others)
    return detector if fit is None else detector.fit_features(*known_images(host, fit))


def known_images(host: Host, bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """First views `(N, D)` and labels `(N,)` of a bank's images that the run has names for.

    Raises:
        ValueError: a bank of another backbone, a host that changes the image side, or no image of a known class.
    """
    check_bank(host, bank)
    made_with = bank.fingerprint.get("backbone", {}).get("weights_hash")
    if made_with is not None and made_with != host.clip.weights_hash:
        raise ValueError(f"the bank was made with weights {made_with}, the run has {host.clip.weights_hash}; make it "
                         "again with ogen extract and the run's --model and --pretrained")  # fmt: skip
    shared = [name for name in bank.classnames if name in host.names]
    if not shared:
        raise ValueError(f"the bank has images of {', '.join(bank.classnames[:3])}, ... and of none of the run's "
                         f"names {', '.join(host.names[:3])}, ...")  # fmt: skip
    numbers = torch.tensor([host.names.index(n) if n in host.names else -1 for n in bank.classnames])
    labels = numbers[bank.labels.cpu()]
    return bank.features[:, 0].float()[labels >= 0], labels[labels >= 0]


def threshold_at(scores: Tensor, kept: float = KEPT) -> float:
    """The smallest score of `(N,)` known images that a share `kept` of them does not exceed."""
    return float(scores.sort().values[max(0, math.ceil(kept * len(scores) - 1e-9) - 1)])


def detect(args: argparse.Namespace) -> None:
    if args.threshold is not None and args.known is not None:
        raise ValueError("--threshold and --known both set the threshold; leave one out")
    unknown = given_names(args.unknown)
    host = load_run(args.folder, device=args.device)
    detector = run_detector(host, unknown, None if args.fit is None else FeatureBank.load(args.fit))
    threshold = args.threshold
    if args.known is not None:
        threshold = threshold_at(detector.predict_features(known_images(host, FeatureBank.load(args.known))[0]))
    rows = []
    for start in range(0, len(args.images), BATCH):
        paths = args.images[start : start + BATCH]
        pixels = torch.stack([host.clip.preprocess(open_image(path)) for path in paths]).to(host.device)
        z = detector.encoder(pixels) if detector.encoder is not None else pixels
        nearest = (z @ detector.class_embeddings.T).argmax(dim=1)
        for path, score, c in zip(paths, detector.predict_features(z).tolist(), nearest.tolist(), strict=True):
            known = None if threshold is None else score <= threshold
            rows.append({"image": str(path), "nearest": host.names[c], "score": score, "known": known})
    found: dict[str, Any] = {"schema": "ogenlib.detect/1", "run": str(args.folder), "threshold": threshold,
                             "known_kept": KEPT if args.known is not None else None, "images": rows}  # fmt: skip
    write_json(args.out / "detect.json", found)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for row in rows:
        decision = "" if row["known"] is None else ", known" if row["known"] else ", unknown"
        print(f"{row['image']}: nearest {row['nearest']}, score {row['score']:.4f}{decision}")
    if threshold is None and not args.quiet:
        print("no decision: give images of known classes with --known BANK (ogen extract), or --threshold SCORE")


def add_commands(
    command: Callable[..., argparse.ArgumentParser], common: Callable[[argparse.ArgumentParser, str], Any]
) -> None:
    """Declare the command of this file; arguments as in `ogenlib.cli_use.add_commands`."""
    p = command("detect", detect, "tell images of a run's classes from images of none")
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a saved run")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    p.add_argument("--known", type=Path, default=None, metavar="BANK",
                   help="features of images of known classes (ogen extract): the threshold lets 95%% of them pass; "
                        "take others than for --fit")  # fmt: skip
    p.add_argument("--threshold", type=float, default=None, metavar="SCORE",
                   help="scores above are unknown; in place of --known")  # fmt: skip
    p.add_argument("--fit", type=Path, default=None, metavar="BANK",
                   help="features of a few images of each known class that the detector learns from "
                        "(default: names only)")  # fmt: skip
    p.add_argument("--unknown", nargs="+", default=None, metavar="NAME",
                   help="names of classes that are not known, or a file with one a line (default: none)")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print JSON")
    common(p, "runs/detect")
