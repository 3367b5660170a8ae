"""What the settings of a benchmark must be, and which of them its protocol takes; else a ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from ogenlib.bench.config import CONTROL_MODES, NO_CONTROLS, OGEN_MODES, REFERENCE, SUITES, BenchConfig
from ogenlib.bench.protocols import PROTOCOLS, ProtocolInfo
from ogenlib.bench.protocols.parts.loading import datasets_of
from ogenlib.bench.protocols.registry import NO_TARGETS
from ogenlib.data import list_datasets
from ogenlib.hosts import METHODS, method, method_name
from ogenlib.ogen.config import ogen_config
from ogenlib.runs.config import ALL_SHOTS, PRESET
from ogenlib.runs.texts import check_hosts
from ogenlib.train.config import TrainConfig

# Settings that only some protocols take, and what holds with one that does not.
OPTIONS: Mapping[str, str] = MappingProxyType({
    "shots_list": "is for {takers}; {protocol} takes --shots N",
    "train_domain": "is for {takers}, not {protocol}; leave it out",
    "retention": "are for {takers}, not {protocol}; leave them out",
    "alphas": "are for {takers}, not {protocol}; leave them out",
    "controls": "is for {takers}, where names with and without images compete, not {protocol}; leave it out",
    "targets": "are for {takers}, and for --suite; {protocol} tests the dataset it trains on",
})  # fmt: skip


def check(config: BenchConfig) -> tuple[str, ...]:
    """The names of the config's hosts, once all its settings are found to fit."""
    if config.protocol not in PROTOCOLS:
        raise ValueError(f"protocol {config.protocol!r} is not available; available: {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[config.protocol]
    _check_options(config, protocol)
    if config.suite is not None:
        _check_suite(config, protocol)
    _check_numbers(config)
    hosts = tuple(map(method_name, config.hosts))
    check_hosts(hosts, config.captions, config.pool)
    _check_hosts(hosts, protocol)
    TrainConfig(epochs=config.epochs, precision=config.precision, **config.settings)
    _check_ogen(config, hosts, protocol)
    if config.measure_every is not None and not protocol.curves:
        raise ValueError(
            f"measure_every={config.measure_every}: --protocol {protocol.name} measures after training only; leave it "
            "out"
        )
    return hosts


def _check_options(config: BenchConfig, protocol: ProtocolInfo) -> None:
    """Settings that the protocol does not take are as they were, and those that it takes are in order."""
    defaults = {field.name: field.default for field in fields(BenchConfig)}
    for option, words in OPTIONS.items():
        value = getattr(config, option)
        # What those of a suite are, and what `none` is, is said below.
        elsewhere = option == "targets" and (config.suite is not None or NO_TARGETS in value)
        if value != defaults[option] and option not in protocol.takes and not elsewhere:
            given = list(value) if isinstance(value, tuple) else repr(value)
            said = words.format(takers=_takers(option), protocol=protocol.name)
            raise ValueError(f"{option}={given} {said}")
    alone = config.targets == (NO_TARGETS,) and NO_TARGETS in protocol.takes
    if config.suite is None and NO_TARGETS in config.targets and not alone:
        raise ValueError(
            f"targets={list(config.targets)}: {NO_TARGETS!r} stands alone, and is for {_takers(NO_TARGETS)}; name "
            "datasets, or leave it out"
        )
    protocol.check(config)


def _takers(option: str) -> str:
    """`--protocol` and the names of those that take a setting."""
    return f"--protocol {' and '.join(name for name, info in PROTOCOLS.items() if option in info.takes)}"


def _check_suite(config: BenchConfig, protocol: ProtocolInfo) -> None:
    if config.suite not in SUITES:
        raise ValueError(f"suite {config.suite!r} is unknown; known are {', '.join(SUITES)}")
    if protocol.no_suite:
        raise ValueError(
            f"--protocol {protocol.name} {protocol.no_suite}; name what it trains on with --dataset in place of --suite"
        )
    datasets = datasets_of(config.suite)
    bundled = all(name in list_datasets() for name in datasets)
    if bundled and config.root is not None:
        raise ValueError(f"the suite {config.suite} is bundled and has no root; leave --root out")
    if not bundled and config.root is None:
        raise ValueError(
            f"the suite {config.suite} is read from your disk: pass --root DIR, the folder that holds the datasets' "
            "folders"
        )
    other = [name for name in config.targets if name not in datasets]
    if other:
        raise ValueError(f"{other[0]} is not in the suite {config.suite}, which has {', '.join(datasets)}")


def _check_numbers(config: BenchConfig) -> None:
    for name, low in (("shots", ALL_SHOTS), ("epochs", 1), ("views", 1), ("measure_every", 1)):
        value = getattr(config, name)
        if value is not None and value < low:
            raise ValueError(f"{name}={value}: must be {low} or more")
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise ValueError(f"seeds={list(config.seeds)}: name at least one, each once")


def _check_hosts(hosts: tuple[str, ...], protocol: ProtocolInfo) -> None:
    """Every host is one that the protocol can compare; the reference always is."""
    reasons = (protocol.refuses(method(host)) for host in hosts if host != REFERENCE)
    reason = next(filter(None, reasons), "")
    if reason:
        takers = [name for name, cls in METHODS.items() if name == REFERENCE or not protocol.refuses(cls)]
        raise ValueError(f"{reason}; --protocol {protocol.name} compares {', '.join(takers)}")


def _check_ogen(config: BenchConfig, hosts: tuple[str, ...], protocol: ProtocolInfo) -> None:
    """OGEN's settings are good, and there is something that it goes around."""
    ogen_config(config.preset, **config.ogen_settings)
    if config.ogen not in OGEN_MODES:
        raise ValueError(f"ogen={config.ogen!r}: must be one of {', '.join(OGEN_MODES)}")
    if config.ogen == "yes" and not protocol.ogen:
        raise ValueError(f"OGEN synthesizes features of classes, and {protocol.name} has none; leave --ogen out")
    takers = [name for name, cls in METHODS.items() if cls.info.ogen]
    if config.ogen == "yes" and not set(hosts) & set(takers):
        raise ValueError(f"none of the hosts {list(hosts)} takes OGEN; those that do: {', '.join(takers)}")
    asked = config.held_out or config.ogen_settings or config.preset != PRESET
    if asked and not any(variant.ogen for variant in config.variants()):
        why = "--no-ogen, ogen='no'" if config.ogen == "no" else f"none of {', '.join(hosts)} takes it"
        raise ValueError(
            f"held-out names, a preset or settings of OGEN were given, but no run has OGEN ({why}); leave out the one "
            "or the other"
        )
    if config.controls not in (None, *CONTROL_MODES):
        raise ValueError(f"controls={config.controls!r}: must be one of {', '.join(CONTROL_MODES)}")
    if config.controls not in (None, NO_CONTROLS) and (config.ogen == "yes" or not set(hosts) & set(takers)):
        why = "--ogen, ogen='yes'" if config.ogen == "yes" else f"none of {', '.join(hosts)} takes OGEN"
        raise ValueError(f"controls={config.controls!r} are of hosts without OGEN, and none is run ({why})")
    if config.held_out and not protocol.new_names:
        raise ValueError(f"held-out names: OGEN is given no new names with --protocol {protocol.name}; leave it out")
