"""Values of the command line: whole numbers, and ``KEY=VALUE`` as a setting of OGEN or of a method."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from ogenlib.hosts import method, option_names
from ogenlib.ogen_config import OGENConfig

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "null"}


def positive(text: str) -> int:
    """A whole number of 1 or more; ArgumentTypeError otherwise."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def shots(text: str) -> int:
    """A whole number of 1 or more, or 0 for ``all``; ArgumentTypeError otherwise."""
    if text == "all":
        return 0
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'all'") from None


def pair(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; the value is JSON, and a bare word is itself. ArgumentTypeError without `=`."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, as k=5")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def host_options(name: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Arguments of a method's constructor; their values are its own to check.

    Raises:
        ValueError: a key that is none of its arguments.
    """
    own = option_names(method(name))
    for key, _ in pairs:
        if key not in own:
            close = difflib.get_close_matches(key, own, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(own) or 'none'}"
            raise ValueError(f"{name} has no setting {key!r}; {hint}")
    return dict(pairs)


def setting(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; the value is JSON, and a bare word is itself.

    Raises:
        ArgumentTypeError: no `=`, an unknown key, or a value of another type than the setting's; their range is
            checked by `ogen_config`.
    """
    key, parsed = pair(text)
    hints = get_type_hints(OGENConfig)
    if key not in hints:
        close = difflib.get_close_matches(key, hints, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(hints)}"
        raise argparse.ArgumentTypeError(f"OGEN has no setting {key!r}; {hint}")
    accepted = get_args(hints[key]) or (hints[key],)
    if float in accepted and isinstance(parsed, int) and not isinstance(parsed, bool):
        parsed = float(parsed)
    if type(parsed) not in accepted or (isinstance(parsed, float) and not math.isfinite(parsed)):
        wanted = " or ".join(WORDS[kind] for kind in accepted)
        raise argparse.ArgumentTypeError(f"{text!r}: {key} takes {wanted}")
    return key, parsed
