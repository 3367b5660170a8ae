"""``ogen detect``: is an image of a class of a saved run, or of none.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ogenlib.cli.inputs import check_images, given_names
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.use import add_download
from ogenlib.cli.values import file_name, number, word
from ogenlib.data import FeatureBank, ImageSet, load_dataset
from ogenlib.data.dataset import open_image
from ogenlib.detect import OGENDetector
from ogenlib.detect.measures import KEPT, threshold_at
from ogenlib.detect.of_host import detector_of, encoder_of, seen, trained_half
from ogenlib.hosts import Host
from ogenlib.runs.saved import load_run
from ogenlib.train.batches import Bank, load_bank
from ogenlib.utils.documents import write_document

BATCH = 64


def run_detector(
    host: Host, unknown: Sequence[str] | None = None, fit: FeatureBank | ImageSet | None = None
) -> OGENDetector:
    """The detector of a run's names, with other names and images of the known classes where there are some.

    Raises:
        ValueError: class weights that depend on the image, an unknown name that is known, or a bank that does not
            belong to the run.
    """
    return detector_of(host, unknown, None if fit is None else known_images(host, fit), encoder_of(host, unknown))


def known_images(host: Host, images: FeatureBank | ImageSet) -> tuple[Tensor, Tensor]:
    """Features `(N, D)` (`(N, 2 D)` of two towers) and labels `(N,)` of images that the run has names for.

    Of a bank the first views.

    Raises:
        ValueError: a bank of another backbone, a host that changes the image side and features of the frozen one, or
            no image of a known class.
    """
    shared = [name for name in images.classnames if name in host.names]
    if isinstance(images, FeatureBank):
        if not host.uses_cached_features:
            raise ValueError(
                f"{host.info.name} changes the image side, so a bank of features of the frozen one is "
                "of no use; give the images themselves, a folder root/class/image or a CSV"
            )
        made_with = images.fingerprint.get("backbone", {}).get("weights_hash")
        if made_with is not None and made_with != host.clip.weights_hash:
            raise ValueError(
                f"the bank was made with weights {made_with}, the run has {host.clip.weights_hash}; make "
                "it again with ogen extract and the run's --model and --pretrained"
            )
    if not shared:
        raise ValueError(
            f"there are images of {', '.join(images.classnames[:3])}, ... and of none of the run's "
            f"names {', '.join(host.names[:3])}, ..."
        )
    if isinstance(images, ImageSet):
        picked: Bank = load_bank(host, host.clip, images.of_classes(shared))
    else:
        picked = images.select(shared)
    numbers = torch.tensor([host.names.index(name) for name in picked.classnames])
    return seen(host, picked).z, numbers[picked.labels.cpu()]


def _shards(folder: Path) -> list[Path]:
    """The banks in a folder, without the hidden files that stand beside them while they are written."""
    return [path for path in folder.glob("*.safetensors") if not path.name.startswith(".")]


def read_images(path: Path) -> FeatureBank | ImageSet:
    """A bank that `ogen extract` wrote, or all images of a folder or CSV."""
    if path.suffix == ".safetensors" or (path.is_dir() and any(_shards(path))):
        return FeatureBank.load(path)
    data = load_dataset(path)
    parts = [part for part in (data.train, data.val, data.test) if part is not None]
    return ImageSet([item for part in parts for item in part], data.classnames)


def detect(args: argparse.Namespace) -> None:
    if args.threshold is not None and args.known is not None:
        raise ValueError("--threshold and --known both set the threshold; leave one out")
    unknown = given_names(args.unknown)
    check_images(args.images)
    host = load_run(args.folder, device=args.device, download=args.download)
    detector = run_detector(host, unknown, None if args.fit is None else read_images(args.fit))
    threshold = args.threshold
    if args.known is not None:
        features = known_images(host, read_images(args.known))[0]
        threshold = threshold_at(detector.predict_features(features if unknown else trained_half(features, host)))
    rows = []
    for start in range(0, len(args.images), BATCH):
        paths = args.images[start : start + BATCH]
        pixels = torch.stack([host.clip.preprocess(open_image(path)) for path in paths]).to(host.device)
        z = detector.encoder(pixels) if detector.encoder is not None else pixels
        nearest = (z @ detector.class_embeddings.T).argmax(dim=1)
        for path, score, c in zip(paths, detector.predict_features(z).tolist(), nearest.tolist(), strict=True):
            known = None if threshold is None else score <= threshold
            rows.append({"image": str(path), "nearest": host.names[c], "score": score, "known": known})
    found: dict[str, Any] = {
        "schema": "ogenlib.detect/1",
        "run": str(args.folder),
        "threshold": threshold,
        "known_kept": KEPT if args.known is not None else None,
        "images": rows,
    }
    write_document(args.out / "detect.json", found)
    if args.json:
        print((args.out / "detect.json").read_text(encoding="utf-8"), end="")
        return
    for row in rows:
        decision = "" if row["known"] is None else ", known" if row["known"] else ", unknown"
        say(f"{printable(row['image'])}: nearest {printable(row['nearest'])}, score {row['score']:.4f}{decision}")
    if threshold is None and not args.quiet:
        say("no decision: give images of known classes with --known BANK_OR_FOLDER, or --threshold SCORE")


def add_commands(
    command: Callable[..., argparse.ArgumentParser], common: Callable[[argparse.ArgumentParser, str], Any]
) -> None:
    """Declare the command of this file; arguments as in `ogenlib.cli.use.add_commands`."""
    p = command("detect", detect)
    p.add_argument("folder", type=file_name, metavar="RUN", help="folder of a saved run")
    p.add_argument("images", type=file_name, nargs="+", metavar="IMAGE", help="image files")
    p.add_argument(
        "--known",
        type=file_name,
        default=None,
        metavar="BANK_OR_FOLDER",
        help="images of known classes, as features (ogen extract) or as a folder root/class/image or CSV: "
        "the threshold lets 95%% of them pass; take others than for --fit",
    )
    p.add_argument(
        "--threshold", type=number, default=None, metavar="SCORE", help="scores above are unknown; in place of --known"
    )
    p.add_argument(
        "--fit",
        type=file_name,
        default=None,
        metavar="BANK_OR_FOLDER",
        help="a few images of each known class that the detector learns from, given as for --known "
        "(default: names only)",
    )
    p.add_argument(
        "--unknown",
        type=word,
        nargs="+",
        default=None,
        metavar="NAME",
        help="names of classes that are not known, or a file with one a line (default: none)",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    add_download(p)
    common(p, "runs/detect")
