"""What one benchmark compares: hosts with and without OGEN, and the settings of both.

This module loads no torch, so that the command line can name protocols, suites and defaults at once. What needs
methods, data or OGEN is imported where a `BenchConfig` is made or asked.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ogenlib.bench.protocols.registry import NO_TARGETS as NO_TARGETS
from ogenlib.bench.protocols.registry import PROTOCOLS

_log = logging.getLogger(__name__)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALL_SHOTS = 0  # all training images
SHOTS_LIST = (1, 2, 4, 8, 16)  # CoOp's
OGEN_MODES = ("both", "yes", "no")
PRESET = "ogenlib"
REFERENCE = "zero_shot"  # in every table, asked for or not
SUITES = ("coop11", "emoji8")
Variant = tuple[str, bool]  # host, with OGEN or without


@dataclass(frozen=True)
class BenchConfig:
    """One benchmark.

    Attributes:
        protocol: one of `PROTOCOLS`.
        dataset: embedded name, published name (with `root`), folder or CSV; what is trained on.
        root: folder that holds the folders of published datasets.
        targets: datasets, or domains of `dataset`, to test on; those of a `suite` to run. Empty for the protocol's
            own; `NO_TARGETS` alone for none. This and the next three, and `shots_list`, are for protocols that take
            them (`ProtocolInfo.takes`).
        train_domain: of several; None for the dataset's first.
        retention: datasets of other things whose zero-shot accuracy is to be kept; empty for every other bundled one
            beside a bundled dataset, and none beside others.
        alphas: points between a host's start (0) and end (1) that WiSE-FT is tested at.
        suite: a whole table over the datasets of one of `SUITES`, in place of `dataset`.
        shots_list: numbers of training images of a class, in place of `shots`.
        shots: training images of a class; `ALL_SHOTS` for all.
        hosts: methods to compare, in any spelling; zero_shot is always among them, as the reference.
        captions, pool: a file of captions or texts, and images to retrieve from, for methods that take such; see
            `ogenlib.anchors.anchor_source`. None for what the data bring.
        views: augmented views of a training image in the feature bank.
        measure_every: epochs between two points of a curve, the last epoch always being one; None for every epoch, and
            ten in all for hosts that read pixels, whose test takes as long as their training.
        settings: training settings that override every host's own.
        test_domains: icon sets to test on (embedded data only), None for the dataset's own.
        ogen: ``both`` (every host that takes OGEN without and with it), ``yes`` (only with it) or ``no``.
        held_out: keep the new names from OGEN's training; else it is given the names, and never their images.
        preset, ogen_settings: of OGEN; the settings are fields of `OGENConfig`.

    Raises:
        ValueError: a value out of range, an unknown host, preset or setting, or ``yes`` where no host takes OGEN.
    """

    protocol: str = "base-to-new"
    dataset: str = "emoji-categories"
    model: str = "ogen-tiny"
    pretrained: str | None = None
    root: str | os.PathLike[str] | None = None
    targets: tuple[str, ...] = ()
    train_domain: str | None = None
    retention: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ALPHAS
    suite: str | None = None
    hosts: tuple[str, ...] = ("coop",)
    shots: int = 16
    shots_list: tuple[int, ...] = SHOTS_LIST
    epochs: int = 50
    seeds: tuple[int, ...] = (1, 2, 3)
    views: int = 8
    precision: str = "fp32"
    device: str = "cpu"
    skip_bad: bool = False
    test_domains: tuple[str, ...] | None = None
    measure_every: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ogen: str = "both"
    held_out: bool = False
    preset: str = PRESET
    ogen_settings: Mapping[str, Any] = field(default_factory=dict)
    captions: str | os.PathLike[str] | None = None
    pool: str | os.PathLike[str] | None = None

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
        """What is run for every seed: the reference first, a host with OGEN right after the host."""
        from ogenlib.hosts import method

        variants: list[Variant] = [(REFERENCE, False)]
        for host in dict.fromkeys(self.hosts):
            takes = method(host).info.ogen and PROTOCOLS[self.protocol].ogen
            if host != REFERENCE and not (takes and self.ogen == "yes"):
                variants.append((host, False))
            if takes and self.ogen != "no":
                variants.append((host, True))
        return tuple(variants)

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


def settings_for(preset: str, settings: Mapping[str, Any], n_known: int) -> dict[str, Any]:
    """OGEN's settings for so many known names: as given, with no more neighbours than there are other names.

    A `k` among `settings` is left alone, so that OGEN can refuse it. One name alone has no neighbours, and so no
    generator. Both are logged.
    """
    from ogenlib.ogen.config import ogen_config

    chosen = ogen_config(preset, **settings)
    if chosen.generator is None or "k" in settings or chosen.k < n_known:
        return dict(settings)
    if n_known < 2:
        _log.warning("OGEN works without synthesized features: a single known name has no neighbours")
        return {**settings, "generator": None, "joint": False, "warmup": 0.0}
    _log.warning(
        "OGEN synthesizes from %d neighbours, not %d: there are only %d known names", n_known - 1, chosen.k, n_known
    )
    return {**settings, "k": n_known - 1}
