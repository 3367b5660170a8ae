"""``ogen convert``: checkpoints of others as open_clip's folders."""

from __future__ import annotations

import argparse

from ogenlib.cli.command import Command, beside_out
from ogenlib.cli.printing import note
from ogenlib.cli.values import file_name


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", choices=["openai"], help="what FILE is: openai, an archive of OpenAI's CLIP")
    parser.add_argument("file", type=file_name, metavar="FILE", help="the archive")


def run(args: argparse.Namespace) -> None:
    from ogenlib.towers import convert_openai
    from ogenlib.utils.files import refuse_existing

    refuse_existing(args.out)
    folder = convert_openai(args.file, args.out)
    note(args, f"model    local-dir:{folder}")


COMMAND = Command("convert", "turn a foreign checkpoint into open_clip's folder format", options, run, beside_out)
