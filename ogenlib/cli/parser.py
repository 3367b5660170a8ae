"""The options of every command; what commands do is in `ogenlib.cli.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ogenlib.bench.config import ALPHAS, PROTOCOLS, SHOTS_LIST, SUITES
from ogenlib.cli import commands
from ogenlib.cli import detect as cli_detect
from ogenlib.cli import use as cli_use
from ogenlib.cli.overview import overview
from ogenlib.cli.settings import pair, setting
from ogenlib.cli.values import Given, file_name, number, out_if_asked, positive, seed, shots, was_given, word
from ogenlib.ogen.config import PRESETS
from ogenlib.train.loop import OPTIMIZERS, PRECISIONS

Writes = Callable[[argparse.Namespace], Path | None]


def _common(parser: argparse.ArgumentParser, out: str, *, seeds: bool = False) -> None:
    group = parser.add_argument_group(
        "common options", "of every command; --seed and --device say nothing to one that draws or computes nothing"
    )
    group.add_argument(
        "--out", action=Given, type=file_name, default=Path(out), metavar="DIR", help="folder for what is written"
    )
    if seeds:
        group.add_argument(
            "--seeds", "--seed", type=seed, nargs="+", default=[1, 2, 3], metavar="N", help="one run for each"
        )
    else:
        group.add_argument("--seed", type=seed, default=1, metavar="N", help="of every random draw")
    group.add_argument("--device", type=word, default="cpu", help="cpu, cuda, cuda:1, ...")
    group.add_argument("--quiet", action="store_true", help="no progress and no messages but errors")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=word,
        default="ogen-tiny",
        metavar="NAME",
        help="ogen-tiny, an open_clip model name, local-dir:FOLDER or hf-hub:ORG/NAME",
    )
    parser.add_argument(
        "--pretrained",
        type=word,
        default=None,
        metavar="TAG_OR_PATH",
        help="open_clip tag or checkpoint file (not for ogen-tiny)",
    )


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        action=Given,
        type=word,
        default="emoji-categories",
        metavar="NAME_OR_PATH",
        help="an embedded dataset (ogen data list), a folder root/class/image, or a CSV",
    )
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable images instead of stopping")


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        action=Given,
        type=file_name,
        default=None,
        metavar="DIR",
        help="folder that holds the folders of published datasets (oxford_pets, imagenet, ...); nothing is downloaded",
    )


def _texts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "captions and anchors", "for methods that learn from texts of images; the embedded data bring their own"
    )
    group.add_argument(
        "--captions",
        type=file_name,
        default=None,
        metavar="FILE",
        help="JSON or CSV (key,caption): captions of training images (arf), or texts of class names "
        "(flyp, r_adapter, ...)",
    )
    group.add_argument(
        "--pool",
        type=file_name,
        default=None,
        metavar="DIR|FILE",
        help="images with captions that arf retrieves from: a folder with captions.json or captions.csv "
        "in it, such a file, or a Karpathy split",
    )


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shots", action=Given, type=shots, default=16, metavar="N", help="training images of a class, or all"
    )
    parser.add_argument("--epochs", action=Given, type=positive, default=50, metavar="N", help="passes over them")
    parser.add_argument(
        "--views",
        action=Given,
        type=positive,
        default=8,
        metavar="N",
        help="augmented views of a training image; 1 means the plain image",
    )
    parser.add_argument(
        "--precision", action=Given, choices=list(PRECISIONS), default="fp32", help="of the forward pass"
    )
    # No default here: a method's own settings hold unless the option is given.
    parser.add_argument(
        "--lr",
        action=Given,
        type=number,
        default=argparse.SUPPRESS,
        help="peak learning rate (default: the method's own)",
    )
    parser.add_argument(
        "--batch-size",
        action=Given,
        type=positive,
        default=argparse.SUPPRESS,
        metavar="N",
        help="images a step (default: 32)",
    )
    parser.add_argument(
        "--optimizer", action=Given, choices=OPTIMIZERS, default=argparse.SUPPRESS, help="(default: adamw)"
    )


def _ogen(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """OGEN's own options; none has a default here, so that one given without OGEN is noticed."""
    group = parser.add_argument_group("OGEN")
    group.add_argument(
        "--preset", choices=list(PRESETS), default=argparse.SUPPRESS, help="recipe that is followed (default: ogenlib)"
    )
    group.add_argument(
        "--ogen-set",
        type=setting,
        action="append",
        metavar="KEY=VALUE",
        default=argparse.SUPPRESS,
        help="another value for a setting of the preset, as JSON, for example k=5 or teacher=almt; "
        "may be given many times (default: the preset's own)",
    )
    return group


def _out(args: argparse.Namespace) -> Path | None:
    return args.out


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``ogen``.

    Each command's function is in ``args.run``, and in ``args.writes`` one that gives the folder it writes to, None for
    none, once the options are known.
    """
    parser, parsers = overview()

    def command(name: str, run: Callable[[argparse.Namespace], None], writes: Writes = _out) -> argparse.ArgumentParser:
        parsers[name].set_defaults(run=run, writes=writes)
        return parsers[name]

    p = command("bench", commands.bench)
    p.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="base-to-new",
        help="what is measured; domain-shift is domain-generalization with zero-shot retention and WiSE-FT; "
        "ood asks which images are of no known class; retrieval takes data with captions: the "
        "bundled drawings, or a Karpathy-split JSON file",
    )
    p.add_argument(
        "--targets",
        type=word,
        nargs="+",
        default=[],
        metavar="NAME",
        help="what is tested besides --dataset: datasets, or its domains (default: the protocol's own; "
        "none with ood: new names only); with --suite, run these of its datasets only",
    )
    p.add_argument(
        "--suite",
        choices=SUITES,
        default=None,
        help="a table over many datasets in place of --dataset, its average and published rows",
    )
    p.add_argument(
        "--shots-list",
        type=positive,
        nargs="+",
        default=list(SHOTS_LIST),
        metavar="N",
        help="numbers of training images of a class, for few-shot (in place of --shots)",
    )
    p.add_argument(
        "--train-domain",
        type=word,
        default=None,
        metavar="NAME",
        help="the domain that domain-generalization and domain-shift train on (default: the first)",
    )
    p.add_argument(
        "--retention",
        type=word,
        nargs="+",
        default=[],
        metavar="NAME",
        help="datasets of other things on which domain-shift tests what is left of zero-shot (default: the "
        "other bundled ones)",
    )
    p.add_argument(
        "--alphas",
        type=number,
        nargs="+",
        default=list(ALPHAS),
        metavar="A",
        help="where domain-shift tests between the start (0) and the end (1) of a training",
    )
    p.add_argument("--hosts", type=word, nargs="+", default=["coop"], metavar="NAME", help="methods (ogen methods)")
    p.add_argument(
        "--measure-every",
        type=positive,
        default=None,
        metavar="N",
        help="epochs between two points of the curves (default: 1; a tenth of the epochs for methods that read pixels)",
    )
    p.add_argument(
        "--smoke",
        action="store_true",
        help="the same path in less than a minute: 1 seed, 2 views, 4 epochs and 4 images of a class at "
        "most, fewer domains, alphas and numbers of images",
    )
    _data(p)
    _root(p)
    _model(p)
    _training(p)
    _texts(p)
    group = _ogen(p)
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--both",
        dest="ogen",
        action="store_const",
        const="both",
        default="both",
        help="every host without OGEN and with it",
    )
    which.add_argument(
        "--ogen",
        dest="ogen",
        action="store_const",
        const="yes",
        default="both",
        help="hosts with OGEN only, beside zero-shot",
    )
    which.add_argument(
        "--no-ogen", dest="ogen", action="store_const", const="no", default="both", help="hosts without OGEN only"
    )
    group.add_argument(
        "--held-out-names",
        action="store_true",
        help="keep the new names from OGEN's training; without this it gets the names, never their images",
    )
    _common(p, "runs/bench", seeds=True)

    p = command("train", commands.train)
    p.add_argument("--host", type=word, default="coop", metavar="NAME", help="method (ogen methods)")
    p.add_argument(
        "--names",
        type=file_name,
        default=None,
        metavar="FILE",
        help="train on these class names only, one a line; default: all of the dataset",
    )
    p.add_argument(
        "--context",
        type=word,
        default=None,
        metavar="WORDS",
        help="words that start a learned context; default: those of the dataset's template",
    )
    p.add_argument(
        "--set",
        type=pair,
        action="append",
        metavar="KEY=VALUE",
        default=argparse.SUPPRESS,
        help="another value for an argument of the method, as JSON or a word, for example n_visual=8 or "
        "teacher=runs/large; may be given many times (default: the method's own)",
    )
    _data(p)
    _root(p)
    _model(p)
    _training(p)
    _texts(p)
    group = _ogen(p)
    group.add_argument("--ogen", action="store_true", help="train the method with OGEN")
    names = group.add_mutually_exclusive_group()
    names.add_argument(
        "--unknown",
        type=word,
        nargs="+",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="names without images that OGEN is to prepare for (default: none, held out)",
    )
    names.add_argument(
        "--unknown-file",
        type=file_name,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the same from a file, one a line (default: none)",
    )
    _common(p, "runs/train")

    p = command("eval", commands.evaluate_run)
    p.add_argument("folder", type=file_name, metavar="RUN", help="folder of a saved run")
    p.add_argument("--split", choices=["test", "val", "train"], default="test", help="which images")
    cli_use.add_alpha(p)
    cli_use.add_download(p)
    _data(p)
    _root(p)
    _common(p, "runs/eval")

    cli_use.add_commands(command, _common)
    cli_detect.add_commands(command, _common)

    p = command("extract", commands.extract)
    p.add_argument("--split", choices=["train", "val", "test"], default="train", help="which images")
    p.add_argument("--views", type=positive, default=1, metavar="N", help="1: plain image; more: augmented views")
    _data(p)
    _root(p)
    _model(p)
    _common(p, "runs/extract")

    p = command("data", commands.data, lambda args: args.out if args.action == "show" else out_if_asked(args))
    p.add_argument(
        "action",
        choices=["list", "check", "show"],
        help="list the names; check every image, or a published dataset's files; show a sheet",
    )
    p.add_argument(
        "name",
        action=Given,
        type=word,
        nargs="?",
        default="emoji-categories",
        metavar="NAME_OR_PATH",
        help="which dataset",
    )
    _root(p)
    p.add_argument("--read", action="store_true", help="with check and --root: decode every image too")
    p.add_argument(
        "--split", action=Given, choices=["train", "val", "test"], default="test", help="what `show` draws from"
    )
    p.add_argument("--skip-bad", action="store_true", help="count unreadable images instead of stopping")
    _common(p, "runs/data")

    p = command("methods", commands.methods, lambda args: args.out if was_given(args, "out") else None)
    p.add_argument("--json", action="store_true", help="print JSON")
    _common(p, "runs/methods")

    p = command("report", commands.report)
    p.add_argument("results", type=file_name, metavar="RESULTS", help="a results.json or the folder that holds it")
    _common(p, "runs/report")

    p = command("convert", commands.convert, cli_use.beside_out)
    p.add_argument("format", choices=["openai"], help="what FILE is: openai, an archive of OpenAI's CLIP")
    p.add_argument("file", type=file_name, metavar="FILE", help="the archive")
    _common(p, "runs/convert")
    return parser
