"""Options of a method: the keyword arguments of its constructor, and of those that it hands arguments on to."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from ogenlib.hosts.base import Host

NO_OPTIONS = ("self", "clip", "names", "generator")


def option_names(cls: type[Host]) -> list[str]:
    """Keyword arguments that a method is made with: its own, then those that it hands on to what it is built on."""
    return list(dict.fromkeys(name for _, names in _constructors(cls) for name in names))


def option_types(cls: type[Host]) -> dict[str, Any]:
    """The same with their types; of an argument that several constructors have, the method's own."""
    types: dict[str, Any] = {}
    for kind, names in _constructors(cls):
        hints = get_type_hints(vars(kind)["__init__"])
        types = {**{name: hints.get(name, Any) for name in names}, **types}
    return {name: types[name] for name in option_names(cls)}


def takes_option(cls: type[Host], option: str) -> bool:
    """Whether a method is made with this keyword argument."""
    return option in option_names(cls)


def takes_texts(cls: type[Host]) -> bool:
    """Whether a method has the option `texts`, name -> its texts: it learns from pairs of image and text."""
    return takes_option(cls, "texts")


def takes_anchors(cls: type[Host]) -> bool:
    """Whether a method trains with captions of images and with retrieved pairs."""
    return takes_option(cls, "anchors")


def learns_pairs(cls: type[Host]) -> bool:
    """Whether a method can be trained on images with captions that have no class names."""
    return takes_texts(cls) and not cls.reads_names


def saved_options(cls: type[Host]) -> list[str]:
    """Options of the method that a host of this class is saved as, those of what it is built on first.

    A class without an `info` of its own is saved as the method it inherits it from.
    """
    method = next((kind for kind in cls.__mro__ if "info" in vars(kind)), cls)
    names = dict.fromkeys(name for _, names in reversed(_constructors(method)) for name in names)
    return [name for name in names if name not in cls.unsaved]


def _constructors(cls: type) -> list[tuple[type, list[str]]]:
    """(a class with a constructor, its options), from `cls` on as far as each hands on what it does not know."""
    chain: list[tuple[type, list[str]]] = []
    for kind in cls.__mro__:
        if "__init__" in vars(kind):
            own = list(inspect.signature(vars(kind)["__init__"]).parameters.values())
            named = [p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            chain.append((kind, [name for name in named if name not in NO_OPTIONS]))
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    return chain
