"""What the packages offer by name: it is there, in order, documented and typed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import ogenlib

ROOT = Path(__file__).resolve().parents[1]
# Their modules are used by name, inside the library: they offer nothing as packages.
INSIDE = (
    "ogenlib.utils", "ogenlib.hosts.parts", "ogenlib.bench.protocols.parts", "ogenlib.report.plots",
    "ogenlib.report.sections",
)  # fmt: skip


def packages() -> list[str]:
    """The hall, its rooms, and the two packages that lie beside it in the repository."""
    rooms = [module.name for module in pkgutil.walk_packages(ogenlib.__path__, "ogenlib.") if module.ispkg]
    return ["ogenlib", "ogenlib.generators", "ogenlib.distill", *(name for name in rooms if name not in INSIDE)]


def in_order(names: list[str]) -> list[str]:
    """Constants, classes, functions, each by the alphabet: the order that ruff puts imports and `__all__` in."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@dataclass(frozen=True)
class Member:
    """A public function, class, method or property, and what a call of it takes. drop: how many of its first
    arguments Python passes."""

    name: str
    thing: Any
    call: Callable[..., Any] | None
    drop: int = 0


def members(name: str, thing: Any) -> Iterator[Member]:
    """A thing of `__all__` and, of a class, the public methods and properties that this project wrote.

    What a package took from elsewhere, or makes when it is imported, is not looked into.
    """
    if inspect.isfunction(thing):
        yield Member(name, thing, thing)
    if not inspect.isclass(thing) or not ours(thing):
        return
    start = vars(thing).get("__init__")
    yield Member(name, thing, start if start and ours(start) else None, 1)
    for kind in filter(ours, thing.__mro__):
        for attribute, value in vars(kind).items():
            if attribute.startswith("_"):
                continue
            label = f"{kind.__module__}.{kind.__qualname__}.{attribute}"
            if isinstance(value, classmethod | staticmethod):
                yield Member(label, getattr(thing, attribute), value.__func__, int(isinstance(value, classmethod)))
            elif isinstance(value, types.FunctionType):
                yield Member(label, getattr(thing, attribute), value, 1)
            elif isinstance(value, property | cached_property):
                yield Member(label, inspect.getattr_static(thing, attribute), None)


def ours(thing: type | Callable[..., Any]) -> bool:
    """Whether this project wrote it: `typing` puts a constructor into protocols, torch brings whole modules."""
    return thing.__module__.split(".")[0] in ("ogenlib", __name__)


def faults(member: Member) -> Iterator[str]:
    """What is missing of one member."""
    # A class's own: `inspect.getdoc` would give an heir its base's words, and a dataclass its signature.
    doc = vars(member.thing).get("__doc__") if inspect.isclass(member.thing) else inspect.getdoc(member.thing)
    if not doc or doc.startswith(f"{member.name.rpartition('.')[2]}("):
        yield f"{member.name}: no docstring"
    if member.call is not None:
        signature = inspect.signature(member.call)
        for parameter in list(signature.parameters.values())[member.drop :]:
            if parameter.annotation is parameter.empty:
                yield f"{member.name}: no type for {parameter.name}"
        if signature.return_annotation is signature.empty and member.call.__name__ != "__init__":
            yield f"{member.name}: no type for what it returns"


def said_below(package: str, name: str) -> str | None:
    """The string on the line after a constant's assignment, in the module that a package takes it from."""
    body = ast.parse(inspect.getsource(importlib.import_module(package))).body
    body = [one for node in body for one in (node.body if isinstance(node, ast.If) else [node])]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and any(name == (a.asname or a.name) for a in node.names):
            return said_below(str(node.module), name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            text = after.value if isinstance(after, ast.Expr) else None
            return text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else None
    return None


def is_constant(thing: Any) -> bool:
    """Whether it has no place for a docstring: a table, a tuple of names, an alias of a type."""
    return isinstance(thing, types.GenericAlias) or not (callable(thing) or inspect.ismodule(thing))


@pytest.mark.parametrize("package", packages())
def test_a_package_offers_what_it_names(package: str) -> None:
    module = importlib.import_module(package)
    names = module.__all__
    assert module.__doc__ and names == in_order(names) and len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", packages())
def test_what_a_package_offers_is_documented_and_typed(package: str) -> None:
    module = importlib.import_module(package)
    things = {name: getattr(module, name) for name in module.__all__}
    found = {fault for name, thing in things.items() for member in members(name, thing) for fault in faults(member)}
    constants = [name for name, thing in things.items() if is_constant(thing) and not name.startswith("__")]
    assert sorted(found) == []
    assert [name for name in constants if not said_below(package, name)] == []


def test_packages_for_the_inside_offer_nothing() -> None:
    assert [name for name in INSIDE if hasattr(importlib.import_module(name), "__all__")] == []


class Base:
    """A base with words for its heirs."""

    def said(self) -> int:
        """Words."""
        return 1


class Faulty(Base):
    def __init__(self, a) -> None:  # type: ignore[no-untyped-def]
        self.a = a

    def said(self) -> int:
        return 2

    def bare(self, b: int, *c: int, d=1):  # type: ignore[no-untyped-def]
        """Words."""

    @classmethod
    def made(cls) -> Faulty:
        return cls(1)

    @property
    def seen(self) -> int:
        return 3

    def _hidden(self, e):  # type: ignore[no-untyped-def]
        return e


def test_what_is_missing_is_reported() -> None:
    found = [fault.removeprefix(f"{__name__}.") for m in members("Faulty", Faulty) for fault in faults(m)]
    assert found == [
        "Faulty: no docstring",
        "Faulty: no type for a",
        "Faulty.bare: no type for d",
        "Faulty.bare: no type for what it returns",
        "Faulty.made: no docstring",
        "Faulty.seen: no docstring",
    ]
    assert [fault for member in members("Base", Base) for fault in faults(member)] == []
    assert in_order(["fit", "Zoo", "ARF", "Ant", "COOP11"]) == ["ARF", "COOP11", "Ant", "Zoo", "fit"]
