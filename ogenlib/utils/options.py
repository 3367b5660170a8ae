"""Fields of dataclasses that say what they mean, once for programs and for the command line."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field
from typing import Any

KEY = "option"


@dataclass(frozen=True)
class Option:
    """What the command line says of a field, besides its name, type and default.

    Attributes:
        help: what it means, in one sentence.
        metavar: what stands for a value in the help; None where there are `choices`.
        choices: the accepted values.
        parse: what kind of value it is, where the field's type does not say so: ``path``, ``seed`` or ``shots``.
        flags: how it is written, where that is not ``--`` and its name.
    """

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    parse: str | None = None
    flags: tuple[str, ...] = ()


def option(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] | None = None,
    parse: str | None = None,
    flags: tuple[str, ...] = (),
) -> Any:
    """A field with this default (made by it, if it is a class such as dict) that is an option too."""
    said = {KEY: Option(help, metavar, choices, parse, flags)}
    if isinstance(default, type):
        return field(default_factory=default, metadata=said)
    return field(default=default, metadata=said)


def option_of(of: Field[Any]) -> Option | None:
    """What was said by `option`; None for a field that programs alone can give."""
    return of.metadata.get(KEY)


def default_of(of: Field[Any]) -> Any:
    """The value of a field that is not given."""
    factory: Any = of.default_factory
    return of.default if factory is MISSING else factory()
