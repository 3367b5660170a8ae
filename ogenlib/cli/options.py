"""Options that are read off the fields of dataclasses, and those that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ogenlib.cli.settings import setting
from ogenlib.cli.values import Given, alpha_of, file_name, flag, number, positive, seed, shots, was_given, word
from ogenlib.runs.config import InputConfig, RunConfig
from ogenlib.train.config import TrainConfig
from ogenlib.utils.options import Option, default_of, option_of

Parser = argparse.ArgumentParser | argparse._ArgumentGroup
PARSE: Mapping[str, Callable[[str], Any]] = {"path": file_name, "seed": seed, "shots": shots}
TYPES: Mapping[Any, Callable[[str], Any]] = {int: positive, float: number, str: word}
TRAINING = ("lr", "batch_size", "optimizer")  # fields of `TrainConfig` that are `settings` of a training


class Help(argparse.HelpFormatter):
    """Says the default of every option that has one, unless its help does."""

    def _get_help_string(self, action: argparse.Action) -> str:
        said, default = action.help or "", action.default
        silent = default in (None, False, [], argparse.SUPPRESS) or not action.option_strings
        if silent or action.const is not None or "default:" in said:
            return said
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{said} (default: {shown})"


def add_fields(parser: Parser, config: type, names: Iterable[str]) -> None:
    """Options for fields of a dataclass, each with its default, type and help."""
    hints, by_name = get_type_hints(config), {field.name: field for field in fields(config)}
    for name in names:
        said = option_of(by_name[name])
        if said is None:
            raise TypeError(f"{config.__name__}.{name} is no option")
        if hints[name] is bool:
            parser.add_argument(*(said.flags or [flag(name)]), dest=name, action="store_true", help=said.help)
        else:
            _add(parser, name, hints[name], said, said.help, default_of(by_name[name]))


def add_pairs(parser: Parser, config: type, name: str, flag: str, parse: Callable[[str], Any]) -> None:
    """An option of KEY=VALUE pairs, given many times, for a field of a dataclass that is a mapping."""
    said = option_of(next(field for field in fields(config) if field.name == name))
    assert said is not None
    parser.add_argument(flag, type=parse, action="append", metavar=said.metavar, default=None, help=said.help)


def _add(parser: Parser, name: str, hint: Any, said: Option, text: str, default: Any) -> None:
    several = get_origin(_plain(hint)) is tuple
    how: dict[str, Any] = {"nargs": "+"} if several else {}
    if said.choices is not None:
        how["choices"] = list(said.choices)
    else:
        kind = get_args(_plain(hint))[0] if several else _plain(hint)
        how |= {"type": PARSE[said.parse] if said.parse else TYPES[kind], "metavar": said.metavar}
    default = list(default) if isinstance(default, tuple) else default
    flags = said.flags or [flag(name)]
    parser.add_argument(*flags, dest=name, action=Given, default=default, help=text, **how)


def _plain(hint: Any) -> Any:
    """`str` of ``str | None``."""
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not NoneType)
    return hint


def add_training_settings(parser: Parser) -> None:
    """``--lr``, ``--batch-size`` and ``--optimizer``, without a default here: a method's own settings hold."""
    hints, by_name = get_type_hints(TrainConfig), {field.name: field for field in fields(TrainConfig)}
    for name in TRAINING:
        said = option_of(by_name[name])
        assert said is not None  # fields that are options
        standard = "the method's own" if name == "lr" else default_of(by_name[name])
        _add(parser, name, hints[name], said, f"{said.help} (default: {standard})".strip(), None)


def training_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The training settings that were given in place of the methods' own."""
    return {name: getattr(args, name) for name in TRAINING if getattr(args, name) is not None}


def values_of(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of a dataclass that are options of their own name, and those that are put together of several."""
    names = [field.name for field in fields(config) if hasattr(args, field.name)]
    given = {name: getattr(args, name) for name in names}
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return {**frozen, "settings": training_settings(args), "ogen_settings": dict(args.ogen_set or ())}


def add_inputs(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Model and data, and with `training` how they are trained on."""
    add_fields(parser, InputConfig, ["dataset", "skip_bad", "root", "model", "pretrained"])
    if training:
        add_fields(parser, InputConfig, ["shots", "epochs", "views", "precision"])
        add_training_settings(parser)
        group = parser.add_argument_group(
            "captions and anchors", "for methods that learn from texts of images; the embedded data bring their own"
        )
        add_fields(group, InputConfig, ["captions", "pool"])


def add_ogen(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """OGEN's own options."""
    group = parser.add_argument_group("OGEN")
    add_fields(group, InputConfig, ["preset"])
    add_pairs(group, InputConfig, "ogen_settings", "--ogen-set", setting)
    return group


def add_split(parser: argparse.ArgumentParser, default: str, help: str = "which images") -> None:
    """Declare --split."""
    parser.add_argument("--split", action=Given, choices=["train", "val", "test"], default=default, help=help)


def add_run(parser: argparse.ArgumentParser, *, alpha: bool = False, of: str = "a saved run") -> None:
    """The saved run that a command opens, with --download, and with --alpha where WiSE-FT may move it."""
    parser.add_argument("folder", type=file_name, metavar="RUN", help=f"folder of {of}")
    parser.add_argument(
        "--download", action="store_true", help="let the run's model be fetched from a hub, if that is where it is from"
    )
    if alpha:
        parser.add_argument(
            "--alpha",
            action=Given,
            type=alpha_of,
            default=None,
            metavar="A",
            help="tensors between where training began (0) and where it ended (1), as WiSE-FT does; default: where it "
            "ended",
        )


def add_names(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """Names as words or files."""
    parser.add_argument(flag(name), action=Given, type=word, nargs="+", default=None, metavar="NAME", help=help)


def add_common(parser: argparse.ArgumentParser, out: Path, *, seeds: bool) -> None:
    """The options of every command; with `seeds` the command has several of its own."""
    group = parser.add_argument_group(
        "common options", "of every command; --seed and --device say nothing to one that draws or computes nothing"
    )
    group.add_argument(
        "--out", action=Given, type=file_name, default=out, metavar="DIR", help="folder for what is written"
    )
    if not seeds:
        add_fields(group, RunConfig, ["seed"])
    add_fields(group, InputConfig, ["device"])
    group.add_argument(
        "--config",
        type=file_name,
        default=None,
        metavar="FILE",
        help="options from a YAML file, as --print-config writes it; those on the command line count before it",
    )
    group.add_argument("--print-config", action="store_true", help="print the options as YAML, and do nothing else")
    group.add_argument("--quiet", action="store_true", help="no progress and no messages but errors")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def refuse_given(args: argparse.Namespace, options: Sequence[str], why: str) -> None:
    """ValueError for the options among these that were given, because they would have no effect."""
    given = ["NAME" if o == "name" else flag(o) for o in options if was_given(args, o)]
    if given:
        has, it = ("has", "it") if len(given) == 1 else ("have", "them")
        raise ValueError(f"{', '.join(given)} {has} no effect: {why}; leave {it} out")
