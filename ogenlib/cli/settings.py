"""``KEY=VALUE`` on the command line, as a setting of OGEN or of a method: checked against the type it has there."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

from ogenlib.cli.values import LARGEST
from ogenlib.ogen.config import OGENConfig

RECORDED = frozenset({"size"})  # arguments by which a saved run says what training made
LIST = Sequence[str]
WORDS: Mapping[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a word",
    LIST: 'a list of words, as ["a", "b"]', NoneType: "null",
}  # fmt: skip


def pair(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; the value is JSON, and a bare word is itself. ArgumentTypeError without `=`."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, as k=5")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
    except (RecursionError, ValueError) as error:  # nested a thousand times, a number of a thousand digits
        raise argparse.ArgumentTypeError(f"{text[:40]}... cannot be read ({error})") from error


def setting(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE` for OGEN; the value is JSON, and a bare word is itself.

    Raises:
        ArgumentTypeError: no `=`, an unknown key, or a value of another type than the setting's; their range is
            checked by `ogen_config`.
    """
    key, parsed = pair(text)
    hints = get_type_hints(OGENConfig)
    try:
        return key, _value("OGEN", hints, key, parsed)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def host_options(name: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Arguments of a method's constructor; their range is its own to check.

    Raises:
        ValueError: a key that is none of its settings, or a value of another type than the setting's.
    """
    from ogenlib.hosts import method, option_types

    types = option_types(method(name))
    return {key: _value(name, types, key, parsed) for key, parsed in pairs}


def _value(owner: str, types: Mapping[str, Any], key: str, parsed: Any) -> Any:
    """A value of a setting, numbers as the type the setting has.

    Raises:
        ValueError: no such setting, one that only a program can give, or a value of another type.
    """
    own = [name for name, kind in types.items() if _accepted(kind) and name not in RECORDED]
    if key not in own:
        close = [] if key in types else difflib.get_close_matches(key, own, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(own)}"
        why = " that can be given by hand" if key in types else ""
        raise ValueError(f"{owner} has no setting {key!r}{why}; {hint}")
    accepted = _accepted(types[key])
    if float in accepted and type(parsed) is int and abs(parsed) <= LARGEST:
        parsed = float(parsed)
    if _kind(parsed) not in accepted:
        expected = " or ".join(WORDS[kind] for kind in accepted)
        raise ValueError(f"'{key}={_written(parsed)}': {key} takes {expected}")
    return parsed


def _accepted(annotation: Any) -> tuple[Any, ...]:
    """What of a type can be written on a command line; nothing for a type of objects, even if None is among them."""
    kinds = tuple(kind for kind in get_args(annotation) or (annotation,) if kind in WORDS)
    if annotation == LIST:
        kinds = (LIST,)
    return () if kinds == (NoneType,) else kinds


def _kind(value: Any) -> Any:
    """The type in `WORDS` of a JSON value; None for what no setting takes: empty words, mappings, huge numbers, ..."""
    if isinstance(value, list):
        return LIST if all(isinstance(item, str) and item.strip() for item in value) else None
    if isinstance(value, str) and not value.strip():
        return None
    if (type(value) is int and abs(value) > LARGEST) or (type(value) is float and not math.isfinite(value)):
        return None
    return type(value)


def _written(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
