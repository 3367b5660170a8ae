"""``ogen export``: a saved run for programs that do not have ogenlib."""

from __future__ import annotations

import argparse

from ogenlib.cli.command import Command, beside_out
from ogenlib.cli.inputs import given_names, run_at
from ogenlib.cli.options import add_names, add_run
from ogenlib.cli.printing import note
from ogenlib.cli.terminal import say
from ogenlib.cli.values import Given

FORMATS = ("open-clip", "head", "onnx")


def options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, alpha=True)
    parser.add_argument(
        "--format",
        action=Given,
        choices=FORMATS,
        default="open-clip",
        help="open-clip: a folder that open_clip opens, with the class weights beside the model; head: class weights "
        "and image tower; onnx: pixels to logits (needs ogenlib[onnx])",
    )
    add_names(parser, "names", "weights of these names, or those in a file, one a line; default: the run's own")
    parser.add_argument("--no-tower", action="store_true", help="with head: leave the image tower out")


def run(args: argparse.Namespace) -> None:
    if args.no_tower and args.format != "head":
        raise ValueError(f"--no-tower is an option of --format head, not of {args.format}; leave it out")
    from ogenlib.utils.files import refuse_existing

    refuse_existing(args.out)
    names = given_names(args.names)
    from ogenlib.export import export_head, export_onnx, export_open_clip

    host = run_at(args.folder, args.alpha, device=args.device, download=args.download)
    if args.format == "open-clip":
        folder = export_open_clip(host, args.out, names)
    elif args.format == "onnx":
        folder = export_onnx(host, args.out, names)
    else:
        folder = export_head(host, args.out, names, tower=not args.no_tower)
    for path in sorted(folder.iterdir()):
        note(args, f"{path.stat().st_size / 1e6:>8.1f} MB  {path}")
    if args.format == "open-clip" and not args.quiet:
        say(f"open it with open_clip.create_model_and_transforms('local-dir:{folder}')")


COMMAND = Command("export", "write a saved run for use without ogenlib", options, run, beside_out)
