"""Methods by name: `@register` stands over a class in its own file, and any spelling in its `info` finds it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any, TypeVar

from ogenlib.hosts.base import KINDS, Host, MethodInfo
from ogenlib.towers import ClipLike

H = TypeVar("H", bound=Host)

# How tables list the methods of a kind: by what they train, then by age. One that is not here comes after these.
ORDER = (
    "zero_shot", "coop", "cocoop", "kgcoop", "prograd", "ship", "vpt", "ivlp", "maple", "promptsrc", "promptkd",
    "text_adapter", "clip_adapter", "tip_adapter", "tip_adapter_f", "taskres", "clap", "cross_modal", "linear_probe",
    "full_ft", "lp_ft", "ema", "l2_sp", "kd", "car_ft", "flyp", "starft", "lipsum_ft", "r_adapter", "arf", "carot",
    "tracer",
)  # fmt: skip
_WISE = (
    "WiSE-FT lies between the start and the end of any method: --protocol domain-shift sweeps it, ogen eval RUN "
    "--alpha 0.5 tests it, ogenlib.merge.wise.wise_ft makes it"
)
_SOUP = "model soups are made of several trained runs: ogenlib.merge.states.soup and greedy_soup"
ELSEWHERE: Mapping[str, str] = MappingProxyType({  # what is no method of its own, and where it is
    "wiseft": _WISE, "wise": _WISE, "soup": _SOUP, "modelsoup": _SOUP, "modelsoups": _SOUP,
    "vrf": "VRF mixes a trained method and zero-shot image by image: ogenlib.merge.vrf.VRF(host, bank)",
    "ogen": "OGEN goes around a method: --ogen, or ogenlib.OGEN(host, known, unknown)",
})  # fmt: skip


class Registry(MutableMapping[str, type[Host]]):
    """Name -> class of the registered methods, in the order of tables: by kind, by `ORDER`, by year and name.

    No two classes share a spelling. ``del METHODS["coop"]`` takes a method out.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[Host]] = {}

    def __getitem__(self, name: str) -> type[Host]:
        return self._classes[name]

    def __setitem__(self, name: str, cls: type[Host]) -> None:
        if name != cls.info.name:
            raise ValueError(f"{cls.__name__} is called {cls.info.name!r}, not {name!r}; use register({cls.__name__})")
        # A class that is written anew, by a notebook's cell that runs twice, takes the place of its earlier self.
        others = {n: c for n, c in self._classes.items() if n != name or _written_at(c) != _written_at(cls)}
        taken = _by_spelling(others)
        for spelling in (cls.info.name, cls.info.title, *cls.info.aliases):
            if plain(spelling) in taken:
                other = taken[plain(spelling)]
                raise ValueError(
                    f"{cls.__name__} is spelled {spelling!r}, and so is {_written_at(others[other])}; give one of them "
                    f"another name, title or alias, or take the other out: del METHODS[{other!r}]"
                )
        self._classes = dict(sorted({**others, name: cls}.items(), key=lambda item: _place(item[1].info)))

    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


METHODS = Registry()
"""The hosts by the names of their methods; a program adds its own by an entry."""


def register(cls: type[H]) -> type[H]:
    """Decorator of a host's class, which then is listed, built and opened by every spelling in its `info`.

    Raises:
        ValueError: it has no `info` of its own, or another class has one of its spellings.
    """
    if "info" not in vars(cls):
        raise ValueError(f"{cls.__name__} has no `info` of its own: info = MethodInfo(name, kind, paper, url, year)")
    METHODS[cls.info.name] = cls
    return cls


def import_all(package: str, path: Iterable[str]) -> None:
    """Import the modules that lie directly in a package (its `__path__`), so that their classes register themselves."""
    for module in iter_modules(path):
        if not module.ispkg:
            import_module(f"{package}.{module.name}")


def list_methods() -> list[MethodInfo]:
    """What every method is called and where it comes from."""
    return [cls.info for cls in METHODS.values()]


def plain(name: str) -> str:
    """What spellings of one name share: its letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def title(name: str) -> str:
    """A method as its paper spells it; a name that is not registered with spaces for underscores."""
    return METHODS[name].info.title if name in METHODS else name.replace("_", " ")


def method_name(name: str) -> str:
    """The name of a method by any of its spellings: ``r_adapter`` for "R-Adapter", "r-adapter" or "radapter".

    Raises:
        ValueError: no such method, with close matches.
    """
    if name in METHODS:
        return name
    known, asked = _by_spelling(METHODS), plain(name)
    if asked in known:
        return known[asked]
    close = difflib.get_close_matches(asked, known, n=1)
    hint = f"; did you mean {known[close[0]]!r}?" if close else ""
    hint = f"; {ELSEWHERE[asked]}" if asked in ELSEWHERE else hint
    raise ValueError(f"method {name!r} is unknown; known are {', '.join(METHODS)}{hint}")


def method(name: str) -> type[Host]:
    """The class of a method, by any spelling of its name; ValueError with close matches for an unknown one."""
    return METHODS[method_name(name)]


def build(name: str, clip: ClipLike, names: Sequence[str], **config: Any) -> Host:
    """A host by name, with the keyword arguments its `config()` gives."""
    return method(name)(clip, names, **config)


def _by_spelling(classes: Mapping[str, type[Host]]) -> dict[str, str]:
    """`plain` spelling -> name."""
    return {plain(s): n for n, cls in classes.items() for s in (n, cls.info.title, *cls.info.aliases)}


def _written_at(cls: type[Host]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _place(info: MethodInfo) -> tuple[int, int, int, str]:
    known = ORDER.index(info.name) if info.name in ORDER else len(ORDER)
    return KINDS.index(info.kind), known, info.year, info.name
