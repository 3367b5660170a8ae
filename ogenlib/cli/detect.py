"""``ogen detect``: is an image of a class of a saved run, or of none."""

from __future__ import annotations

import argparse
from typing import Any

from ogenlib.cli.command import Command
from ogenlib.cli.inputs import check_images, given_names, run_at
from ogenlib.cli.options import add_names, add_run
from ogenlib.cli.printing import note
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.values import Given, file_name, number


def options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("images", type=file_name, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--known",
        action=Given,
        type=file_name,
        default=None,
        metavar="BANK_OR_FOLDER",
        help="images of known classes, as features (ogen extract) or as a folder root/class/image or CSV: the "
        "threshold lets 95%% of them pass; take others than for --fit",
    )
    parser.add_argument(
        "--threshold",
        action=Given,
        type=number,
        default=None,
        metavar="SCORE",
        help="scores above are unknown; in place of --known",
    )
    parser.add_argument(
        "--fit",
        action=Given,
        type=file_name,
        default=None,
        metavar="BANK_OR_FOLDER",
        help="a few images of each known class that the detector learns from, given as for --known (default: names "
        "only)",
    )
    add_names(parser, "unknown", "names of classes that are not known, or a file with one a line (default: none)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    if args.threshold is not None and args.known is not None:
        raise ValueError("--threshold and --known both set the threshold; leave one out")
    unknown = given_names(args.unknown)
    check_images(args.images)
    from ogenlib.detect.measures import KEPT, threshold_at
    from ogenlib.detect.of_host import trained_half
    from ogenlib.detect.of_run import known_images, read_images, run_detector, score_files
    from ogenlib.utils.documents import write_document

    host = run_at(args.folder, None, device=args.device, download=args.download)
    detector = run_detector(host, unknown, None if args.fit is None else read_images(args.fit))
    threshold = args.threshold
    if args.known is not None:
        features = known_images(host, read_images(args.known))[0]
        threshold = threshold_at(detector.predict_features(features if unknown else trained_half(features, host)))
    images: list[dict[str, Any]] = [
        {
            "image": str(path),
            "nearest": nearest,
            "score": score,
            "known": None if threshold is None else score <= threshold,
        }
        for path, nearest, score in score_files(detector, host, args.images)
    ]
    document: dict[str, Any] = {
        "schema": "ogenlib.detect/1",
        "run": str(args.folder),
        "threshold": threshold,
        "known_kept": KEPT if args.known is not None else None,
        "images": images,
    }
    write_document(args.out / "detect.json", document)
    if args.json:
        print((args.out / "detect.json").read_text(encoding="utf-8"), end="")
        return
    for image in images:
        decision = "" if image["known"] is None else ", known" if image["known"] else ", unknown"
        text = f"{printable(image['image'])}: nearest {printable(image['nearest'])}"
        say(f"{text}, score {image['score']:.4f}{decision}")
    if threshold is None:
        note(args, "no decision: give images of known classes with --known BANK_OR_FOLDER, or --threshold SCORE")


COMMAND = Command("detect", "tell images of a run's classes from images of none", options, run)
