"""``--config FILE`` and ``--print-config``: the options of a command as YAML, by their names with underscores.

What is in the file is read as if it stood on the command line: by the same types, with the same messages.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ogenlib.utils.files import check_file

MAX_BYTES = 2**20  # of a file of options
NOT_IN_FILES = ("help", "config", "print_config")


def apply_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Put the options of ``args.config`` into `args`, but for those that are on the command line.

    Raises:
        FileNotFoundError, ValueError: no file, no YAML of options, an unknown option (with the closest known one), or a
            value that the option does not take.
    """
    if args.config is None:
        return
    path, options = args.config, _options(parser)
    before = set(getattr(args, "given", ()))
    for key, value in read_yaml(path).items():
        name = key.replace("-", "_")
        if name not in options:
            close = difflib.get_close_matches(name, options, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(options)}"
            raise ValueError(f"{path}: {parser.prog} has no option {key!r}; {hint}")
        if name in before or getattr(args, name) != options[name][0].default:
            continue
        try:
            parsed = _parsed(options[name], value)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"{path}: {key}: {error}") from error
        if parsed != options[name][0].default:
            setattr(args, name, parsed)
            args.given = {*getattr(args, "given", ()), name}


def dump_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """The options of a command as YAML that `apply_config` reads; those without a value are left out."""
    values = {name: getattr(args, name) for name in _options(parser)}
    return yaml.safe_dump({k: _plain(v) for k, v in values.items() if v is not None}, sort_keys=False)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds a mapping of words.

    Raises:
        FileNotFoundError, ValueError: no file, too large, no YAML, or no such mapping.
    """
    what = "options as YAML, as in epochs: 50"
    check_file(path, what, "--print-config writes one", MAX_BYTES)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is no YAML ({error})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} should hold {what}")
    return content


def _options(parser: argparse.ArgumentParser) -> dict[str, list[argparse.Action]]:
    """The options by what they are called in files: several actions where flags share one value."""
    options: dict[str, list[argparse.Action]] = {}
    for action in parser._actions:
        if action.option_strings and action.dest not in NOT_IN_FILES:
            options.setdefault(action.dest, []).append(action)
    return options


def _parsed(actions: list[argparse.Action], value: Any) -> Any:
    """The value of an option as argparse would store it."""
    action = actions[0]
    if len(actions) > 1:
        return _one_of(value, [one.const for one in actions])
    if action.nargs == 0:
        return _one_of(value, [True, False])
    if value is None or value == action.default == []:
        return action.default
    if isinstance(action, argparse._AppendAction):
        if not isinstance(value, dict):
            raise ValueError(f"{_short(value)} is no mapping of settings, as in {{k: 5}}")
        return [_typed(action, f"{k}={v if isinstance(v, str) else json.dumps(v)}") for k, v in value.items()]
    if action.nargs == "+":
        if not isinstance(value, list) or not value:
            raise ValueError(f"{_short(value)} is no list, as in [1, 2]")
        return [_typed(action, one) for one in value]
    return _typed(action, value)


def _typed(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool | dict | list) or value is None:
        raise ValueError(f"{_short(value)} is neither a word nor a number")
    parse: Any = action.type
    parsed = str(value) if parse is None else parse(str(value))
    return parsed if action.choices is None else _one_of(parsed, action.choices)


def _one_of(value: Any, accepted: Iterable[Any]) -> Any:
    choices = list(accepted)
    if not any(value is choice or (value == choice and type(value) is type(choice)) for choice in choices):
        raise ValueError(f"{_short(value)} is not one of {', '.join(json.dumps(choice) for choice in choices)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _plain(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], tuple):  # pairs of KEY=VALUE
        return dict(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
