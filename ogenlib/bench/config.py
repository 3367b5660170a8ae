"""What one benchmark compares: hosts with and without OGEN, and the settings of both.

This module loads no torch, so that the command line can name protocols, suites and defaults at once. What needs
methods, data or OGEN is imported where a `BenchConfig` is made or asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ogenlib.bench.protocols.registry import PROTOCOLS
from ogenlib.runs.config import InputConfig
from ogenlib.utils.options import option
from ogenlib.utils.variant import KL, Variant

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOTS_LIST = (1, 2, 4, 8, 16)  # CoOp's
OGEN_MODES = ("both", "yes", "no")
REFERENCE = "zero_shot"  # in every table, asked for or not
SUITES = ("coop11", "emoji8")
NO_CONTROLS, ALL_CONTROLS = "none", "all"
CONTROL_MODES = (NO_CONTROLS, "zero-shot", ALL_CONTROLS)


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
        choices=tuple(PROTOCOLS),
    )
    targets: tuple[str, ...] = option(
        (),
        "what is tested besides --dataset: datasets, or its domains (default: the protocol's own; none with ood: new "
        "names only); with --suite, run these of its datasets only",
        metavar="NAME",
    )
    suite: str | None = option(
        None, "a table over many datasets in place of --dataset, its average and published rows", choices=SUITES
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
    controls: str | None = option(
        None,
        "rows to compare OGEN with besides the host alone: zero-shot has names without images scored by zero-shot, "
        "which costs no training; all trains every host with KL to zero-shot too (default: zero-shot where hosts run "
        "without OGEN and with it)",
        choices=CONTROL_MODES,
    )
    held_out: bool = option(
        False,
        "keep the new names from OGEN's training; without this it gets the names, never their images",
        flags=("--held-out-names",),
    )
    test_domains: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        from ogenlib.bench.checks import check

        object.__setattr__(self, "hosts", check(self))

    def suite_datasets(self) -> tuple[str, ...]:
        """The datasets of the suite, or those of them that are targets."""
        from ogenlib.bench.protocols.parts.loading import datasets_of

        datasets = datasets_of(self.suite) if self.suite else ()
        return tuple(name for name in datasets if name in self.targets) or datasets

    def all_shots(self) -> tuple[int, ...]:
        """Numbers of training images of a class that are run; none where images have no class."""
        return PROTOCOLS[self.protocol].shots(self)

    def measured(self, epoch: int, uses_cached_features: bool) -> bool:
        """Whether a host is tested after this epoch, for its curve."""
        every = self.measure_every or (1 if uses_cached_features else math.ceil(self.epochs / 10))
        return epoch == self.epochs or epoch % every == 0

    def variants(self) -> tuple[Variant, ...]:
        """What is trained for every seed: the reference first, a host with OGEN after the host and its KL control."""
        from ogenlib.hosts import method

        variants = [Variant(REFERENCE)]
        for host in dict.fromkeys(self.hosts):
            takes = method(host).info.ogen and PROTOCOLS[self.protocol].ogen
            if host != REFERENCE and not (takes and self.ogen == "yes"):
                variants.append(Variant(host))
                if takes and self.controls == ALL_CONTROLS:
                    variants.append(Variant(host, control=KL))
            if takes and self.ogen != "no":
                variants.append(Variant(host, True))
        return tuple(variants)

    def shows_controls(self) -> bool:
        """Whether there are rows with names without images scored by zero-shot."""
        if self.controls is None:
            return self.ogen == "both" and "controls" in PROTOCOLS[self.protocol].takes
        return self.controls != NO_CONTROLS

    def smoke(self) -> BenchConfig:
        """The same path in less than a minute: one seed, few epochs, and what the protocol has less of."""
        return replace(
            self,
            seeds=self.seeds[:1],
            epochs=min(self.epochs, 4),
            shots=min(self.shots or 4, 4),
            views=2,
            **PROTOCOLS[self.protocol].smoke(self),
        )
