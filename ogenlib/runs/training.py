"""One training from settings to a saved run: what ``ogen train`` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogenlib.data import Dataset, few_shot, load_dataset
from ogenlib.hosts import METHODS, Host, method, method_name, takes_anchors
from ogenlib.hosts.run_folder import CARD
from ogenlib.ogen.config import ogen_config, settings_for
from ogenlib.runs.assembly import assemble
from ogenlib.runs.config import RunConfig
from ogenlib.runs.texts import check_hosts, pool_folder, source_for, text_options
from ogenlib.towers import load_backbone
from ogenlib.train.batches import load_bank
from ogenlib.train.loop import fit
from ogenlib.utils import distributed
from ogenlib.utils.locks import hold
from ogenlib.utils.provenance import versions


@dataclass(frozen=True)
class Trained:
    """A run that was trained and saved.

    Attributes:
        images: how many it was trained on.
        skipped: files that could not be read, and why.
    """

    host: Host
    folder: Path
    images: int
    skipped: list[dict[str, str]]


def check(config: RunConfig) -> None:
    """ValueError for what is wrong whatever the data are."""
    name = method_name(config.host)
    check_hosts([name], config.captions, config.pool)
    ogen_config(config.preset, **config.ogen_settings)
    if config.ogen and not method(name).info.ogen:
        takers = ", ".join(one for one, cls in METHODS.items() if cls.info.ogen)
        raise ValueError(f"{name} has nothing to train, so OGEN cannot be added; --host takes {takers}")


def train_run(config: RunConfig, out: Path, *, command: str = "", progress: bool = False) -> Trained | None:
    """Train one method, with OGEN around it if `config` says so, and save the run to `out`.

    A killed training goes on where it stopped. In a group of processes all of them train, and the first one saves:
    the others return None.

    Raises:
        ValueError, FileNotFoundError: settings, data or files that do not fit, before anything is trained.
    """
    check(config)
    name = method_name(config.host)
    clip = load_backbone(config.model, config.pretrained, device=config.device)
    data = load_dataset(config.dataset, root=config.root, skip_bad=config.skip_bad)
    names = list(data.classnames) if config.names is None else list(config.names)
    source = source_for([name], data, config.captions, config.pool, without=_untrained(data, names, config.unknown))
    options = {} if config.context is None else {"context": config.context}
    options |= text_options(name, source)
    picked = (few_shot(data.train, config.shots, config.seed) if config.shots else data.train).of_classes(names)
    reading: dict[str, Any] = {"views": config.views, "seed": config.seed, "skip_bad": config.skip_bad}
    if source is not None and takes_anchors(method(name)):
        rank, count = distributed.world()
        folder = pool_folder(source, clip, out)
        options |= source.options(clip, picked, folder, rank=rank, count=count, barrier=distributed.barrier, **reading)
    recipe = None
    if config.ogen:
        recipe = {"preset": config.preset, **settings_for(config.preset, config.ogen_settings, len(names))}
    host = assemble(
        name, clip, names, data.templates, {**options, **config.options}, ogen=recipe, unknown=config.unknown
    )
    bank = load_bank(host, clip, picked, **reading)
    with hold(out / CARD) if distributed.is_main() else nullcontext():
        history: list[dict[str, Any]] = []
        if host.trainable() or host.training_free:
            history = fit(host, bank, out=out, progress=progress, **config.training()).epochs
        if not distributed.is_main():
            return None
        skipped = [*data.info.get("skipped", []), *bank.skipped]
        extra = {
            "dataset": data.name,
            "data_hash": data.hash(),
            "shots": config.shots,
            "seed": config.seed,
            "command": command,
            "versions": versions(),
            "history": history,
            "skipped": skipped,
            **({} if source is None else {"anchors": dict(source.card)}),
        }
        host.save(out, extra)
    return Trained(host, out, len(picked) - len(bank.skipped), skipped)


def _untrained(data: Dataset, names: Sequence[str], unknown: Sequence[str] | None) -> list[str]:
    """Names that nothing may be learned of but themselves."""
    return [name for name in data.classnames if name not in names or name in (unknown or ())]
