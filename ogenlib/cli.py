"""The command line: options, exit codes and messages. What commands do is in `ogenlib.commands`.

Exit codes: 0 done, 1 failed, 2 wrong input (one line that says what was given and how to fix it), 130
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ogenlib import cli_detect, cli_use, commands
from ogenlib.bench_config import ALPHAS, PROTOCOLS, SHOTS_LIST, SUITES
from ogenlib.cli_settings import pair, setting
from ogenlib.cli_settings import positive as _positive
from ogenlib.cli_settings import shots as _shots
from ogenlib.ogen_config import PRESETS
from ogenlib.train import OPTIMIZERS, PRECISIONS


class _Parser(argparse.ArgumentParser):
    """Errors in one line that names the command and where its help is."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _common(parser: argparse.ArgumentParser, out: str, *, seeds: bool = False) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="folder for what is written")
    if seeds:
        group.add_argument("--seeds", "--seed", type=int, nargs="+", default=[1, 2, 3], metavar="N",
                           help="one run for each")  # fmt: skip
    else:
        group.add_argument("--seed", type=int, default=1, metavar="N", help="of every random draw")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    group.add_argument("--quiet", action="store_true", help="no progress and no messages but errors")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="ogen-tiny", metavar="NAME",
                        help="ogen-tiny, an open_clip model name, local-dir:FOLDER or hf-hub:ORG/NAME")  # fmt: skip
    parser.add_argument("--pretrained", default=None, metavar="TAG_OR_PATH",
                        help="open_clip tag or checkpoint file (not for ogen-tiny)")  # fmt: skip


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="emoji-categories", metavar="NAME_OR_PATH",
                        help="an embedded dataset (ogen data list), a folder root/class/image, or a CSV")  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable images instead of stopping")


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=None, metavar="DIR",
                        help="folder that holds the folders of published datasets (oxford_pets, imagenet, ...); "
                             "nothing is downloaded")  # fmt: skip


def _texts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("captions and anchors", "for methods that learn from texts of images; the "
                                      "embedded data bring their own")  # fmt: skip
    group.add_argument("--captions", type=Path, default=None, metavar="FILE",
                       help="JSON or CSV (key,caption): captions of training images (arf), or texts of class names "
                            "(flyp, r_adapter, ...)")  # fmt: skip
    group.add_argument("--pool", type=Path, default=None, metavar="DIR|FILE",
                       help="images with captions that arf retrieves from: a folder with captions.json or captions.csv "
                            "in it, such a file, or a Karpathy split")  # fmt: skip


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shots", type=_shots, default=16, metavar="N", help="training images of a class, or all")
    parser.add_argument("--epochs", type=_positive, default=50, metavar="N", help="passes over them")
    parser.add_argument("--views", type=_positive, default=8, metavar="N",
                        help="augmented views of a training image; 1 means the plain image")  # fmt: skip
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="of the forward pass")
    # No default here: a method's own settings hold unless the option is given.
    parser.add_argument("--lr", type=float, default=argparse.SUPPRESS,
                        help="peak learning rate (default: the method's own)")  # fmt: skip
    parser.add_argument("--batch-size", type=_positive, default=argparse.SUPPRESS, metavar="N",
                        help="images a step (default: 32)")  # fmt: skip
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default=argparse.SUPPRESS, help="(default: adamw)")


def _ogen(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """OGEN's own options; none has a default here, so that one given without OGEN is noticed."""
    group = parser.add_argument_group("OGEN")
    group.add_argument("--preset", choices=list(PRESETS), default=argparse.SUPPRESS,
                       help="recipe that is followed (default: ogenlib)")  # fmt: skip
    group.add_argument("--ogen-set", type=setting, action="append", metavar="KEY=VALUE", default=argparse.SUPPRESS,
                       help="another value for a setting of the preset, as JSON, for example k=5 or teacher=almt; "
                            "may be given many times (default: the preset's own)")  # fmt: skip
    return group


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``ogen``; each command's function is in ``args.run``."""
    parser = _Parser(prog="ogen", description="Fine-tune CLIP-like models without losing what they already know.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        p = subparsers.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".",
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
        p.set_defaults(run=run)
        return p

    p = command("bench", commands.bench, "train methods on some names, test them on others, write a report")
    p.add_argument("--protocol", choices=PROTOCOLS, default="base-to-new",
                   help="what is measured; domain-shift is domain-generalization with zero-shot retention and WiSE-FT; "
                        "ood asks which images are of no known class; retrieval takes data with captions: the "
                        "bundled drawings, or a Karpathy-split JSON file")  # fmt: skip
    p.add_argument("--targets", nargs="+", default=[], metavar="NAME",
                   help="what is tested besides --dataset: datasets, or its domains (default: the protocol's own; "
                        "none with ood: new names only); with --suite, run these of its datasets only")  # fmt: skip
    p.add_argument("--suite", choices=list(SUITES), default=None,
                   help="a table over many datasets in place of --dataset, its average and published rows")  # fmt: skip
    p.add_argument("--shots-list", type=_positive, nargs="+", default=list(SHOTS_LIST), metavar="N",
                   help="numbers of training images of a class, for few-shot (in place of --shots)")  # fmt: skip
    p.add_argument(
        "--train-domain",
        default=None,
        metavar="NAME",
        help="the domain that domain-generalization and domain-shift train on (default: the first)",
    )
    p.add_argument("--retention", nargs="+", default=[], metavar="NAME",
                   help="datasets of other things on which domain-shift tests what is left of zero-shot (default: the "
                        "other bundled ones)")  # fmt: skip
    p.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS), metavar="A",
                   help="where domain-shift tests between the start (0) and the end (1) of a training")  # fmt: skip
    p.add_argument("--hosts", nargs="+", default=["coop"], metavar="NAME", help="methods (ogen methods)")
    p.add_argument("--measure-every", type=_positive, default=None, metavar="N",
                   help="epochs between two points of the curves (default: 1; a tenth of the epochs for methods that "
                        "read pixels)")  # fmt: skip
    p.add_argument("--smoke", action="store_true", help="the same path in less than a minute: 1 seed, 4 epochs")
    _data(p)
    _root(p)
    _model(p)
    _training(p)
    _texts(p)
    group = _ogen(p)
    which = group.add_mutually_exclusive_group()
    which.add_argument("--both", dest="ogen", action="store_const", const="both", default="both",
                       help="every host without OGEN and with it")  # fmt: skip
    which.add_argument("--ogen", dest="ogen", action="store_const", const="yes", default="both",
                       help="hosts with OGEN only, beside zero-shot")  # fmt: skip
    which.add_argument("--no-ogen", dest="ogen", action="store_const", const="no", default="both",
                       help="hosts without OGEN only")  # fmt: skip
    group.add_argument("--held-out-names", action="store_true",
                       help="keep the new names from OGEN's training; without this it gets the names, never their "
                            "images")  # fmt: skip
    _common(p, "runs/bench", seeds=True)

    p = command("train", commands.train, "train one method on class names and save the run")
    p.add_argument("--host", default="coop", metavar="NAME", help="method (ogen methods)")
    p.add_argument("--names", type=Path, default=None, metavar="FILE",
                   help="train on these class names only, one a line; default: all of the dataset")  # fmt: skip
    p.add_argument("--context", default=None, metavar="WORDS",
                   help="words that start a learned context; default: those of the dataset's template")  # fmt: skip
    p.add_argument("--set", type=pair, action="append", metavar="KEY=VALUE", default=argparse.SUPPRESS,
                   help="another value for an argument of the method, as JSON or a word, for example n_visual=8 or "
                        "teacher=runs/large; may be given many times (default: the method's own)")  # fmt: skip
    _data(p)
    _root(p)
    _model(p)
    _training(p)
    _texts(p)
    group = _ogen(p)
    group.add_argument("--ogen", action="store_true", help="train the method with OGEN")
    names = group.add_mutually_exclusive_group()
    names.add_argument("--unknown", nargs="+", metavar="NAME", default=argparse.SUPPRESS,
                       help="names without images that OGEN is to prepare for (default: none, held out)")  # fmt: skip
    names.add_argument("--unknown-file", type=Path, metavar="FILE", default=argparse.SUPPRESS,
                       help="the same from a file, one a line (default: none)")  # fmt: skip
    _common(p, "runs/train")

    p = command("eval", commands.evaluate_run, "test a saved run on a dataset")
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a saved run")
    p.add_argument("--split", choices=["test", "val", "train"], default="test", help="which images")
    cli_use.add_alpha(p)
    _data(p)
    _root(p)
    _common(p, "runs/eval")

    cli_use.add_commands(command, _common)
    cli_detect.add_commands(command, _common)

    p = command("extract", commands.extract, "store image features of a dataset as a feature bank")
    p.add_argument("--split", choices=["train", "val", "test"], default="train", help="which images")
    p.add_argument("--views", type=_positive, default=1, metavar="N", help="1: plain image; more: augmented views")
    _data(p)
    _root(p)
    _model(p)
    _common(p, "runs/extract")

    p = command("data", commands.data, "list, check or show datasets")
    p.add_argument("action", choices=["list", "check", "show"],
                   help="list the names; check every image, or a published dataset's files; show a sheet")  # fmt: skip
    p.add_argument("name", nargs="?", default="emoji-categories", metavar="NAME_OR_PATH", help="which dataset")
    _root(p)
    p.add_argument("--read", action="store_true", help="with check and --root: decode every image too")
    p.add_argument("--split", choices=["train", "val", "test"], default="test", help="what `show` draws from")
    p.add_argument("--skip-bad", action="store_true", help="count unreadable images instead of stopping")
    _common(p, "runs/data")

    p = command("methods", commands.methods, "list the methods")
    p.add_argument("--json", action="store_true", help="print JSON")
    _common(p, "runs/methods")

    p = command("report", commands.report, "write report.html again from a results.json")
    p.add_argument("results", type=Path, metavar="RESULTS", help="a results.json or the folder that holds it")
    _common(p, "runs/report")

    p = command("convert", commands.convert, "turn a foreign checkpoint into open_clip's folder format")
    p.add_argument("format", choices=["openai"], help="what FILE is: openai, an archive of OpenAI's CLIP")
    p.add_argument("file", type=Path, metavar="FILE", help="the archive")
    _common(p, "runs/convert")
    return parser


@contextmanager
def _messages(quiet: bool) -> Iterator[None]:
    """Show the library's own log on stderr while a command runs; the caller's logging is left as it was."""
    logger, handler = logging.getLogger("ogenlib"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with _messages(args.quiet):
            args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"ogen {args.command}: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError) as error:
        if args.debug:
            raise
        text = " ".join(str(error).split()).replace("skip_bad=True", "--skip-bad")
        print(f"ogen {args.command}: {text}", file=sys.stderr)
        return 2
    except Exception as error:
        if args.debug:
            raise
        text = " ".join(str(error).split())
        print(f"ogen {args.command}: failed with {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return 1
    return 0
