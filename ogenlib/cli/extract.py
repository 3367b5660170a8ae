"""``ogen extract``: image features of a dataset, as a feature bank."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from ogenlib.cli.command import Command
from ogenlib.cli.inputs import images_of
from ogenlib.cli.options import add_inputs, add_split
from ogenlib.cli.printing import note
from ogenlib.cli.values import Given, positive

SHARDS_TIMEOUT = timedelta(days=7)  # one process of an extraction may have much more left to do than another


def options(parser: argparse.ArgumentParser) -> None:
    add_split(parser, "train")
    parser.add_argument(
        "--views", action=Given, type=positive, default=1, metavar="N", help="1: plain image; more: augmented views"
    )
    add_inputs(parser, training=False)


def run(args: argparse.Namespace) -> None:
    from ogenlib.utils import distributed

    # gloo, whatever the features are made on: the processes only wait for each other, and perhaps for long
    with distributed.group("cpu", timeout=SHARDS_TIMEOUT):
        _extract(args)


def _extract(args: argparse.Namespace) -> None:
    from ogenlib.data import FeatureBank, extract_shards, load_dataset
    from ogenlib.towers import load_backbone
    from ogenlib.utils import distributed

    rank, count = distributed.world()
    clip = load_backbone(args.model, args.pretrained, device=distributed.local_device(args.device))
    images = images_of(load_dataset(args.dataset, root=args.root, skip_bad=args.skip_bad), args.split)
    settings: dict[str, Any] = {
        "views": args.views,
        "seed": args.seed,
        "skip_bad": args.skip_bad,
        "progress": not args.quiet and distributed.is_main(),
    }
    if count > 1:
        path = args.out / args.split
        bank = extract_shards(clip, images, path, rank=rank, count=count, barrier=distributed.barrier, **settings)
    else:
        path = args.out / f"{args.split}.safetensors"
        bank = FeatureBank.extract(clip, images, path=path, **settings)
    if not distributed.is_main():
        return
    shape = " x ".join(str(n) for n in bank.features.shape)
    note(args, f"{shape} features (images x views x dimensions), {len(bank.skipped)} images skipped\nbank     {path}")


COMMAND = Command("extract", "store image features of a dataset as a feature bank", options, run)
