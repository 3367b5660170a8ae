"""Packages whose names are imported when they are used: what is light among them does not wait for what is heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def attach(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: module of the package -> the names that the package offers of it. Its other modules are attributes too.
    """
    where = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        """A name or a module of the package, imported now; later uses find it without this function."""
        if name in where:
            value = getattr(import_module(f"{package}.{where[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *where})

    return get, names
