"""What one benchmark compares: hosts with and without OGEN, and the settings of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ogenlib.data import COOP11, list_datasets
from ogenlib.hosts import METHODS, learns_pairs, method, method_name
from ogenlib.merge.states import check_alpha
from ogenlib.ogen.config import ogen_config
from ogenlib.runs.config import ALL_SHOTS, PRESET, InputConfig
from ogenlib.runs.texts import check_hosts
from ogenlib.train.config import TrainConfig
from ogenlib.utils.options import option

PROTOCOLS = (
    "base-to-new", "cross-dataset", "domain-generalization", "domain-shift", "few-shot", "ood", "retrieval",
)  # fmt: skip
"""What can be measured: the names of the protocols."""
WITH_TARGETS = ("cross-dataset", "domain-generalization", "domain-shift")
TARGETS_TOO = (*WITH_TARGETS, "ood")  # with targets, and as a suite besides
WITHOUT_NEW = ("few-shot", "ood", "retrieval")  # no names that OGEN could be given
WITHOUT_CURVES = ("ood", "retrieval")
NO_TARGETS = "none"  # as a target of `ood`: no far task
WITH_DOMAINS = ("domain-generalization", "domain-shift")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SMOKE_RETENTION = ("emoji-concepts/activities",)
SHOTS_LIST = (1, 2, 4, 8, 16)  # CoOp's
OGEN_MODES = ("both", "yes", "no")
REFERENCE = "zero_shot"  # in every table, asked for or not
SUITES = {"coop11": COOP11, "emoji8": tuple(n for n in list_datasets() if n.startswith("emoji-concepts/"))}
Variant = tuple[str, bool]  # host, with OGEN or without


@dataclass(frozen=True, kw_only=True)
class BenchConfig(InputConfig):
    """One benchmark. Each field says what it means.

    Attributes:
        targets: those of a `suite` to run, with one. Empty for the protocol's own; `NO_TARGETS` alone for none (ood).
        retention: empty for every other bundled dataset beside a bundled one, and none beside others.
        hosts: in any spelling; zero_shot is always among them, as the reference.
        test_domains: icon sets to test on (embedded data only), None for the dataset's own.

    Raises:
        ValueError: a value out of range, an unknown host, preset or setting, or ``yes`` where no host takes OGEN.
    """

    protocol: str = option(
        "base-to-new",
        "what is measured; domain-shift is domain-generalization with zero-shot retention and WiSE-FT; ood asks which "
        "images are of no known class; retrieval takes data with captions: the bundled drawings, or a Karpathy-split "
        "JSON file",
        choices=PROTOCOLS,
    )
    targets: tuple[str, ...] = option(
        (),
        "what is tested besides --dataset: datasets, or its domains (default: the protocol's own; none with ood: new "
        "names only); with --suite, run these of its datasets only",
        metavar="NAME",
    )
    suite: str | None = option(
        None, "a table over many datasets in place of --dataset, its average and published rows", choices=tuple(SUITES)
    )
    shots_list: tuple[int, ...] = option(
        SHOTS_LIST, "numbers of training images of a class, for few-shot (in place of --shots)", metavar="N"
    )
    train_domain: str | None = option(
        None, "the domain that domain-generalization and domain-shift train on (default: the first)", metavar="NAME"
    )
    retention: tuple[str, ...] = option(
        (),
        "datasets of other things on which domain-shift tests what is left of zero-shot (default: the other bundled "
        "ones)",
        metavar="NAME",
    )
    alphas: tuple[float, ...] = option(
        ALPHAS, "where domain-shift tests between the start (0) and the end (1) of a training", metavar="A"
    )
    hosts: tuple[str, ...] = option(("coop",), "methods (ogen methods)", metavar="NAME")
    measure_every: int | None = option(
        None,
        "epochs between two points of the curves, the last epoch always being one (default: 1; a tenth of the epochs "
        "for methods that read pixels)",
        metavar="N",
    )
    seeds: tuple[int, ...] = option(
        (1, 2, 3), "one run for each", metavar="N", parse="seed", flags=("--seeds", "--seed")
    )
    ogen: str = option("both", "hosts without OGEN and with it, only with it, or only without", choices=OGEN_MODES)
    held_out: bool = option(
        False,
        "keep the new names from OGEN's training; without this it gets the names, never their images",
        flags=("--held-out-names",),
    )
    test_domains: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is not available; available: {', '.join(PROTOCOLS)}")
        self._check_data()
        for name, low in (("shots", ALL_SHOTS), ("epochs", 1), ("views", 1), ("measure_every", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name}={value}: must be {low} or more")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: name at least one, each once")
        object.__setattr__(self, "hosts", tuple(map(method_name, self.hosts)))
        check_hosts(self.hosts, self.captions, self.pool)
        self._check_retrieval()
        TrainConfig(epochs=self.epochs, precision=self.precision, **self.settings)  # refuses bad settings now
        ogen_config(self.preset, **self.ogen_settings)
        if self.ogen not in OGEN_MODES:
            raise ValueError(f"ogen={self.ogen!r}: must be one of {', '.join(OGEN_MODES)}")
        takers = [name for name, cls in METHODS.items() if cls.info.ogen]
        if self.ogen == "yes" and not set(self.hosts) & set(takers):
            raise ValueError(f"none of the hosts {list(self.hosts)} takes OGEN; those that do: {', '.join(takers)}")
        asked = self.held_out or self.ogen_settings or self.preset != PRESET
        if asked and not any(ogen for _, ogen in self.variants()):
            why = "--no-ogen, ogen='no'" if self.ogen == "no" else f"none of {', '.join(self.hosts)} takes it"
            raise ValueError(
                f"held-out names, a preset or settings of OGEN were given, but no run has OGEN ({why}); "
                "leave out the one or the other"
            )
        if self.held_out and self.protocol in WITHOUT_NEW:
            raise ValueError(
                f"held-out names: OGEN is given no new names with --protocol {self.protocol}; leave it out"
            )
        if self.measure_every is not None and self.protocol in WITHOUT_CURVES:
            raise ValueError(
                f"measure_every={self.measure_every}: --protocol {self.protocol} measures after training "
                "only; leave it out"
            )

    def _check_retrieval(self) -> None:
        """Pairs of image and text train methods that contrast the two, and no class generator."""
        if self.protocol != "retrieval":
            return
        takers = [REFERENCE, *(name for name, cls in METHODS.items() if learns_pairs(cls))]
        if self.suite is not None:
            raise ValueError(
                "--protocol retrieval trains on pairs of image and text, and a suite has none; name them "
                "with --dataset in place of --suite"
            )
        other = [host for host in self.hosts if host not in takers]
        if other and method(other[0]).reads_names:
            raise ValueError(
                f"{other[0]} puts phrases behind class names, and images with captions have none; "
                f"--protocol retrieval compares {', '.join(takers)}"
            )
        if other:
            raise ValueError(
                f"{other[0]} learns names, not pairs of image and text; --protocol retrieval compares "
                f"{', '.join(takers)}"
            )
        if self.ogen == "yes":
            raise ValueError("OGEN synthesizes features of classes, and retrieval has none; leave --ogen out")

    def _check_data(self) -> None:
        """What is trained and tested must fit the protocol."""
        shots = self.shots_list
        if not shots or min(shots) < 1 or len(set(shots)) != len(shots):
            raise ValueError(f"shots_list={list(shots)}: name numbers of 1 or more, each once")
        if shots != SHOTS_LIST and self.protocol != "few-shot":
            raise ValueError(f"shots_list={list(shots)} is for --protocol few-shot; {self.protocol} takes --shots N")
        if self.train_domain is not None and self.protocol not in WITH_DOMAINS:
            raise ValueError(
                f"train_domain={self.train_domain!r} is for --protocol {' and '.join(WITH_DOMAINS)}, not "
                f"{self.protocol}; leave it out"
            )
        if (self.retention or self.alphas != ALPHAS) and self.protocol != "domain-shift":
            raise ValueError(
                f"retention={list(self.retention)} and alphas={list(self.alphas)} are for --protocol "
                f"domain-shift, not {self.protocol}; leave them out"
            )
        if sorted(set(self.alphas)) != list(self.alphas) or not {0.0, 1.0} <= set(self.alphas):
            raise ValueError(f"alphas={list(self.alphas)}: must rise from 0 to 1, both among them, as 0 0.5 1")
        for alpha in self.alphas:
            check_alpha(alpha)
        if self.suite is None:
            if self.targets and self.protocol not in TARGETS_TOO:
                raise ValueError(
                    f"targets={list(self.targets)} are for --protocol {' and '.join(TARGETS_TOO)}, and "
                    f"for --suite; {self.protocol} tests the dataset it trains on"
                )
            if NO_TARGETS in self.targets and (self.protocol != "ood" or len(self.targets) > 1):
                raise ValueError(
                    f"targets={list(self.targets)}: {NO_TARGETS!r} stands alone, and is for --protocol "
                    "ood; name datasets, or leave it out"
                )
            return
        if self.suite not in SUITES:
            raise ValueError(f"suite {self.suite!r} is unknown; known are {', '.join(SUITES)}")
        if self.protocol in WITH_TARGETS:
            raise ValueError(
                f"a suite trains on each of its datasets; --protocol {self.protocol} trains on one: name "
                "it with --dataset in place of --suite"
            )
        bundled = all(name in list_datasets() for name in SUITES[self.suite])
        if bundled and self.root is not None:
            raise ValueError(f"the suite {self.suite} is bundled and has no root; leave --root out")
        if not bundled and self.root is None:
            raise ValueError(
                f"the suite {self.suite} is read from your disk: pass --root DIR, the folder that holds "
                "the datasets' folders"
            )
        other = [name for name in self.targets if name not in SUITES[self.suite]]
        if other:
            raise ValueError(f"{other[0]} is not in the suite {self.suite}, which has {', '.join(SUITES[self.suite])}")

    def suite_datasets(self) -> tuple[str, ...]:
        """The datasets of the suite, or those of them that are targets."""
        datasets = SUITES[self.suite] if self.suite else ()
        return tuple(name for name in datasets if name in self.targets) or datasets

    def all_shots(self) -> tuple[int, ...]:
        """Numbers of training images of a class that are run."""
        if self.protocol == "retrieval":  # every image is a class of its own
            return (1,)
        return self.shots_list if self.protocol == "few-shot" else (self.shots,)

    def measured(self, epoch: int, uses_cached_features: bool) -> bool:
        """Whether a host is tested after this epoch, for its curve."""
        every = self.measure_every or (1 if uses_cached_features else math.ceil(self.epochs / 10))
        return epoch == self.epochs or epoch % every == 0

    def variants(self) -> tuple[Variant, ...]:
        """What is run for every seed: the reference first, a host with OGEN right after the host."""
        found: list[Variant] = [(REFERENCE, False)]
        for host in dict.fromkeys(self.hosts):
            takes = method(host).info.ogen and self.protocol != "retrieval"
            if host != REFERENCE and not (takes and self.ogen == "yes"):
                found.append((host, False))
            if takes and self.ogen != "no":
                found.append((host, True))
        return tuple(found)

    def smoke(self) -> BenchConfig:
        """The same path in less than a minute: one seed, few epochs, two domains."""
        domains = self.test_domains
        own_targets = bool(self.targets) and self.protocol != "ood"  # those of ood are other things, not domains
        if self.dataset == "emoji-categories" and self.suite is None and not own_targets:
            domains = ("noto",) if self.protocol == "cross-dataset" else ("noto", "openmoji")
        others = SMOKE_RETENTION if self.dataset in list_datasets() and self.dataset not in SMOKE_RETENTION else ()
        own: dict[str, dict[str, Any]] = {
            "domain-shift": {"alphas": (0.0, 0.5, 1.0), "retention": self.retention or others},
            "ood": {"targets": SMOKE_RETENTION if others and self.suite is None and not self.targets else self.targets},
        }
        few = tuple(shots for shots in self.shots_list if shots <= 4)[:2] if self.protocol == "few-shot" else ()
        return replace(
            self,
            seeds=self.seeds[:1],
            epochs=min(self.epochs, 4),
            shots=min(self.shots or 4, 4),
            views=2,
            test_domains=domains,
            shots_list=few or self.shots_list,
            **own.get(self.protocol, {}),
        )
