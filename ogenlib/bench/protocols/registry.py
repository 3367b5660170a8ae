"""Protocols by name: `register` stands at the end of a protocol's own file and declares all that others know of it.

Nothing here loads torch: the command line knows the names, and a file is imported when its protocol is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig
    from ogenlib.bench.protocols.parts.plan import Plan
    from ogenlib.hosts import Host
    from ogenlib.results.types import Metric, PublishedRow

ONE_DATASET = "trains on one dataset, and a suite on each of its own"  # why there are no suites
NO_TARGETS = "none"  # as a target: none at all, not the protocol's own either
# Of a report, in their order; each is left out where a document has nothing for it.
SECTIONS = (
    "detectors", "detector tests", "retrieval", "summary", "stacking", "curves", "features", "shots", "domains",
    "robustness", "published", "confusions", "classes", "tests", "skipped", "card",
)  # fmt: skip
# On the terminal: a table of all methods (of a suite one for each dataset), one for each dataset, one for each dataset
# and domain, one of recalls for each, one for each detector.
LISTINGS = ("halves", "datasets", "settings", "recalls", "detectors")


@dataclass(frozen=True)
class Shown:
    """How results are shown; as it stands, those of base and new names.

    Attributes:
        sides: what a headline tells: metrics of the summary, and how a sentence names what they are measured on.
        base, new, joint: what the columns Base and New are, and what competes in Joint H; an empty `new` leaves Base.
        trained: one and many of what is trained on, where nothing is new.
        both: how many `base` are trained on, and how many `new` there are besides.
        sections: of the report, some of `SECTIONS` in any order.
        listing: of the tables on the terminal, one of `LISTINGS`.
        published: (the dataset or suite that is trained on, the tested datasets) -> published rows to print beside; of
            a protocol that has suites they stand beside these only.

    Raises:
        ValueError: there is no such section or listing.
    """

    sides: Mapping[Metric, str] = field(default_factory=lambda: {"base": "base names", "new": "new names"})
    base: str = "accuracy on the names that were trained, choosing among base names only"
    new: str = "accuracy on names no image was trained for, choosing among new names only"
    joint: str = "base and new names"
    trained: tuple[str, str] = ("name", "names")
    both: str = "{base} names and {new} others"
    sections: tuple[str, ...] = SECTIONS
    listing: str = "datasets"
    published: Callable[[str, Sequence[str]], list[PublishedRow]] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.sections if name not in SECTIONS]
        if unknown:
            raise ValueError(f"a report has no section {unknown[0]!r}; it has {', '.join(SECTIONS)}")
        if self.listing not in LISTINGS:
            raise ValueError(f"listing={self.listing!r}: must be one of {', '.join(LISTINGS)}")


def every_host(cls: type[Host]) -> str:
    """No method is refused."""
    return ""


def one_number(config: BenchConfig) -> tuple[int, ...]:
    """The number of images of a class that ``--shots`` gives."""
    return (config.shots,)


def nothing_more(config: BenchConfig) -> None:
    """Nothing is checked besides what holds for every protocol."""


def fewer_domains(config: BenchConfig, domains: tuple[str, ...] = ("noto", "openmoji")) -> dict[str, Any]:
    """What a smoke run of the bundled icons changes: the domains that are tested, unless targets are given."""
    whole = config.dataset == "emoji-categories" and config.suite is None and not config.targets
    return {"test_domains": domains} if whole else {}


@dataclass(frozen=True)
class ProtocolInfo:
    """What a protocol is, for the command line, `BenchConfig`, the runner and the report.

    Attributes:
        name: as ``--protocol`` takes it.
        about: what it measures, in a line.
        plan: what is trained and tested.
        takes: settings of `BenchConfig` that it reads and other protocols refuse, some of
            `ogenlib.bench.checks.OPTIONS`; `NO_TARGETS` among them where that is a target.
        suite: the settings of one dataset of a suite, where they are others than the suite's.
        no_suite: why it is no table over the datasets of a suite, "" where it is.
        ogen: there are classes whose features OGEN can synthesize.
        new_names: there are names without training images that OGEN may be given.
        curves: something is measured while a host trains.
        refuses: why a method cannot be compared, "" where it can.
        shots: numbers of training images of a class that are run, none where images have no class.
        no_shots: why ``--shots`` has no effect, "" where it has one.
        smoke: settings that make a run short, besides the number of seeds, epochs, images and views.
        check: raises ValueError for values of its own settings that cannot be.
        shown: how its results are shown.
    """

    name: str
    about: str
    plan: Callable[[BenchConfig], Plan]
    takes: tuple[str, ...] = ()
    suite: Mapping[str, Any] = field(default_factory=dict)
    no_suite: str = ""
    ogen: bool = True
    new_names: bool = True
    curves: bool = True
    refuses: Callable[[type[Host]], str] = every_host
    shots: Callable[[BenchConfig], tuple[int, ...]] = one_number
    no_shots: str = ""
    smoke: Callable[[BenchConfig], Mapping[str, Any]] = fewer_domains
    check: Callable[[BenchConfig], None] = nothing_more
    shown: Shown = field(default_factory=Shown)


class Registry(MutableMapping[str, ProtocolInfo]):
    """Name -> declaration, by name. ``del PROTOCOLS["few-shot"]`` takes a protocol out."""

    def __init__(self) -> None:
        modules = iter_modules([str(Path(__file__).parent)])
        files = [module.name for module in modules if not module.ispkg and module.name != Path(__file__).stem]
        # None until the file has been imported.
        self._declared: dict[str, ProtocolInfo | None] = {file.replace("_", "-"): None for file in files}

    def __getitem__(self, name: str) -> ProtocolInfo:
        if self._declared[name] is None:
            import_module(_module_of(name))  # registers it
        info = self._declared[name]
        if info is None:
            raise ValueError(
                f"{_module_of(name)} declares no protocol {name!r}; end it with register(ProtocolInfo(...))"
            )
        return info

    def __setitem__(self, name: str, info: ProtocolInfo) -> None:
        if name != info.name:
            raise ValueError(f"the protocol is called {info.name!r}, not {name!r}; use register(info)")
        if name in self._declared:
            earlier = self._declared[name]
            taken = _module_of(name) if earlier is None else earlier.plan.__module__
            # The same module again is a notebook's cell that runs twice.
            if info.plan.__module__ != taken:
                raise ValueError(
                    f"protocol {name!r} is declared in {taken} already; give this one another name, or take the other "
                    f"out: del PROTOCOLS[{name!r}]"
                )
        self._declared = dict(sorted({**self._declared, name: info}.items(), key=lambda item: item[0]))

    def __delitem__(self, name: str) -> None:
        del self._declared[name]

    def __contains__(self, name: object) -> bool:
        return name in self._declared  # the inherited one imports the file

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)


def _module_of(name: str) -> str:
    return f"{__package__}.{name.replace('-', '_')}"


PROTOCOLS = Registry()
"""What can be measured: protocols by name; a program adds its own by `register`."""


def register(info: ProtocolInfo) -> None:
    """Declare a protocol, which then runs by its name.

    Raises:
        ValueError: another module has declared one of this name.
    """
    PROTOCOLS[info.name] = info


def list_protocols() -> list[ProtocolInfo]:
    """What every protocol is called and what it takes."""
    return list(PROTOCOLS.values())


def shown_as(name: str) -> Shown:
    """How results of this protocol are shown; those of a foreign name as base and new names are."""
    return PROTOCOLS[name].shown if name in PROTOCOLS else Shown()
