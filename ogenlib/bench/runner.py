"""``ogen bench``: train hosts, test them as a protocol says (`ogenlib.bench.protocols`), write a report.

Notation: `N` images, `V` views, `C` new names, `D` embedding.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from ogenlib.anchors.source import AnchorSource
from ogenlib.bench.competing import competing
from ogenlib.bench.config import PROTOCOLS, BenchConfig
from ogenlib.bench.document import Cell, add_thumbnails, document, read_cell, without_controls
from ogenlib.bench.feature_plane import project
from ogenlib.bench.protocols import Plan, Tested, domains_of, plan
from ogenlib.data import Augment, FeatureBank, ImageSet, PixelBank, few_shot
from ogenlib.data.dataset import short_hash
from ogenlib.hosts import Host, method, takes_anchors, takes_texts, zero_shot_weights
from ogenlib.ogen.config import ogen_config, settings_for
from ogenlib.ogen.wrapper import OGEN
from ogenlib.report.page import write_report
from ogenlib.results.types import Results
from ogenlib.runs.assembly import assemble
from ogenlib.runs.config import ALL_SHOTS
from ogenlib.runs.texts import pool_folder, source_for, text_options
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train.batches import Bank
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit
from ogenlib.utils.documents import write_document
from ogenlib.utils.locks import claim, hold
from ogenlib.utils.variant import KL, Variant

__all__ = ["PROTOCOLS", "BenchConfig", "run_bench"]

FORMAT = "cell/4"  # of the files in cells/
KL_RECIPE = {"preset": "zero-shot-kl", "zero_shot_kl": 0.3}  # OGEN's settings for the control `KL`
SYNTHESIZED = 60  # synthesized features of a class in the picture
CURVES = ("epoch", "base", "new", "H", "joint_H", "ausuc", "ce")


@dataclass(frozen=True)
class _Shared:
    """What all cells of a benchmark have in common.

    Attributes:
        tested: the banks of the plan's parts.
        card: the part of the protocol card that decides the numbers of every cell.
        ogen_settings: what differs from the preset.
        anchors: where captions, texts and retrieved pairs come from, for the methods that take such.
    """

    config: BenchConfig
    clip: Backbone
    plan: Plan
    tested: Tested
    out: Path
    card: dict[str, Any]
    ogen_settings: dict[str, Any]
    anchors: AnchorSource | None

    @property
    def competes(self) -> bool:
        """Whether names without images compete with those that are trained."""
        return "controls" in PROTOCOLS[self.config.protocol].takes and bool(self.plan.new)


@dataclass(frozen=True)
class _Run:
    """One cell that is to be: a host, with OGEN or without or as a control, some shots and a seed."""

    variant: Variant
    shots: int
    seed: int

    def name(self, shared: _Shared) -> str:
        several = f"-{self.shots}shots" if shared.plan.shots_in_rows else ""
        return f"{self.variant.name}{several}-seed{self.seed}"

    def cell(self, shared: _Shared) -> Path:
        return shared.out / "cells" / f"{self.name(shared)}.json"


@dataclass(frozen=True)
class _Training:
    """The training images of one seed; pixels are None where no host needs them.

    anchored: makes the options of a method that trains with captions and retrieved pairs, once.
    plain: the same images in their plain view, features and pixels, where the plan's judge sees them.
    """

    features: FeatureBank
    pixels: PixelBank | None
    anchored: Callable[[], dict[str, Any]]
    plain: tuple[FeatureBank, PixelBank | None] | None = None

    def of(self, uses_cached_features: bool) -> Bank:
        return self.features if self.pixels is None or uses_cached_features else self.pixels


def run_bench(config: BenchConfig, out: Path, *, command: str = "", progress: bool = False) -> Results:
    """Run every cell (host, OGEN, seed and number of shots), write ``results.json`` and ``report.html`` to `out`,
    return the results.

    Finished cells are kept in ``cells/`` and trained hosts in ``runs/``: a second call with the same settings
    goes on where the first stopped.
    """
    began = time.perf_counter()
    clip = load_backbone(config.model, config.pretrained, device=config.device)
    planned = plan(config).fitted(clip)
    anchors = source_for(
        config.hosts,
        planned.source,
        config.captions,
        config.pool,
        tested=[part.images for part in planned.parts],
        without=planned.new,
        has_captions=planned.texts is not None,
    )
    out.mkdir(parents=True, exist_ok=True)
    tested = _tested(config, clip, planned, out, progress)
    variants = config.variants()
    with_ogen = any(variant.ogen for variant in variants)
    ogen_settings = settings_for(config.preset, config.ogen_settings, len(planned.known)) if with_ogen else {}
    card = _card(config, planned, clip) | ({} if anchors is None else {"anchors": dict(anchors.card)})
    shared = _Shared(config, clip, planned, tested, out, card, ogen_settings, anchors)
    runs = [_Run(variant, shots, seed) for shots in planned.shots for seed in config.seeds for variant in variants]
    with tqdm(total=len(runs), desc="bench", unit="run", disable=not progress) as bar:
        cells = _cells(shared, runs, bar)
    if not config.shows_controls():
        cells = [without_controls(cell) for cell in cells]
    left_out = [entry for bank in tested.features for entry in bank.skipped]
    skipped = [*planned.source.info.get("skipped", []), *left_out]
    result = document(cells, shared.card, planned, config.seeds, skipped, command, time.perf_counter() - began)
    add_thumbnails(result["confusions"], planned.parts)
    write_document(out / "results.json", result)
    write_report(result, out / "report.html")
    return result


def _cells(shared: _Shared, runs: Sequence[_Run], bar: tqdm[Any]) -> list[Cell]:
    """The cell of every run, in their order.

    Several processes that are started with the same folder share the work: each takes the runs that no other is at,
    and reads what the others have finished.
    """
    images = lru_cache(maxsize=1)(partial(_training_images, shared))
    cells: dict[_Run, Cell] = {}
    while len(cells) < len(runs):
        open_runs = [run for run in runs if run not in cells]
        for run in open_runs:
            with claim(shared.out / run.name(shared)) as mine:
                if mine:
                    bar.set_postfix_str(run.name(shared))
                    cells[run] = _cell(shared, images(run.shots, run.seed), run)
                    bar.update()
        if not any(run in cells for run in open_runs):
            with hold(shared.out / open_runs[0].name(shared)):
                pass  # another process has just finished it
    return [cells[run] for run in runs]


def _tested(config: BenchConfig, clip: Backbone, planned: Plan, out: Path, progress: bool) -> Tested:
    options: dict[str, Any] = {"progress": progress, "skip_bad": config.skip_bad}
    features, pixels = [], []
    for part in planned.parts:
        content = short_hash([part.images.hash(), clip.weights_hash, config.skip_bad])
        path = out / "banks" / f"test-{content}.safetensors"
        features.append(FeatureBank.extract(clip, part.images, path=path, **options))
        if _need_pixels(config):
            pixels.append(PixelBank.load(clip, part.images, **options))
    # Once, not after every epoch.
    near = tuple(b.of_domain(planned.home) if planned.home in b.domains else b for b in features)
    if not pixels:
        return Tested(tuple(features), near)
    near_pixels = tuple(b.of_domain(planned.home) if planned.home in b.domains else b for b in pixels)
    return Tested(tuple(features), near, tuple(pixels), near_pixels)


def _need_pixels(config: BenchConfig) -> bool:
    return not all(method(variant.host).uses_cached_features for variant in config.variants())


def _training_images(shared: _Shared, shots: int, seed: int) -> _Training:
    config, planned = shared.config, shared.plan
    train = planned.source.train if shots == ALL_SHOTS else few_shot(planned.source.train, shots, seed)  # as CoOp draws
    picked = train.of_classes(planned.known)
    options: dict[str, Any] = {"views": config.views, "seed": seed, "skip_bad": config.skip_bad}
    features, pixels = _both(shared, picked, options)

    @cache
    def anchored() -> dict[str, Any]:
        if shared.anchors is None:
            return {}
        folder = pool_folder(shared.anchors, shared.clip, shared.out / "banks")
        return shared.anchors.options(shared.clip, picked, folder, bank=features, views=config.views, seed=seed)

    seen = planned.judge_sees_training
    return _Training(features, pixels, anchored, _both(shared, picked, {**options, "views": 1}) if seen else None)


def _both(shared: _Shared, picked: ImageSet, options: dict[str, Any]) -> tuple[FeatureBank, PixelBank | None]:
    """Features of these images, and pixels where a host needs them."""
    if not _need_pixels(shared.config):
        return FeatureBank.extract(shared.clip, picked, **options), None
    pixels = PixelBank.load(shared.clip, picked, **options)
    return pixels.frozen(shared.clip), pixels  # decoded once for both


def _cell(shared: _Shared, images: _Training, run: _Run) -> Cell:
    """Train and test one host with one seed, or read the finished cell."""
    config, planned = shared.config, shared.plan
    host, name = run.variant.host, run.name(shared)
    card = {**shared.card, "shots": run.shots}
    settings = {"epochs": config.epochs, "precision": config.precision, **config.settings, "seed": run.seed}
    bank = images.of(method(host).uses_cached_features)
    signature = _signature(shared, card, bank, run.variant, settings)
    path = run.cell(shared)
    finished = read_cell(path, signature)
    if finished is not None:
        return finished
    model = _model(shared, images, run.variant)
    curve: dict[str, list[Any]] = {}
    seconds, epochs = 0.0, 0
    train: dict[str, Any] = {}
    if model.trainable() or model.training_free:
        # Named by the settings: a killed cell goes on, one of other settings starts afresh.
        unfinished = path.with_name(f"{name}-{signature}.partial")
        history, seconds = _train(shared, model, bank, unfinished, settings)
        shutil.rmtree(unfinished, ignore_errors=True)
        epochs, curve = len(history), _curve(history)
        train = asdict(replace(TrainConfig(), **{**model.train_settings(), **settings}))
    trained = images.plain or (None, None)
    how = None
    if shared.competes:
        how = competing(model, run.variant, planned.source.templates, bank, images.features, run.seed)
    tested = replace(shared.tested, trained=trained[0], trained_pixels=trained[1], competing=how)
    outcome = planned.judge.outcome(model, tested)
    names_known = isinstance(model, OGEN) and model.names_known
    protocol = {**card, "new_names_known_in_training": names_known}
    model.save(shared.out / "runs" / name, {"protocol": protocol, "train": train})
    who = {**run.variant.fields, "seed": run.seed, **({"shots": run.shots} if planned.shots_in_rows else {})}
    cell = {
        "signature": signature,
        **who,
        "config": model.config(),
        "train": train,
        "new_names_known_in_training": names_known,
        "rows": [
            {"dataset": row["dataset"], "domain": row["domain"], **who, **row, "epochs": epochs, "seconds": seconds}
            for row in _under(run.variant, outcome.rows)
        ],
        "curve": curve,
        "confusions": outcome.confusions,
        "per_class": outcome.per_class,
        "projection": _projection(shared, model, run.seed) if isinstance(model, OGEN) else None,
        **({} if outcome.robustness is None else {"robustness": outcome.robustness}),
        **({} if outcome.detection is None else {"detection": outcome.detection}),
        **({"stacking": _under(run.variant, outcome.stacking)} if outcome.stacking else {}),
    }
    write_document(path, cell)
    return cast(Cell, cell)


def _under(variant: Variant, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a judge found, a control of a control named by both."""
    named = [", ".join(filter(None, (variant.control, item.get("control", "")))) for item in items]
    return [{**item, **({"control": name} if name else {})} for item, name in zip(items, named, strict=True)]


def _signature(shared: _Shared, card: dict[str, Any], bank: Bank, variant: Variant, settings: dict[str, Any]) -> str:
    """Of all that decides a cell. OGEN's settings are in OGEN's cells only: the others outlive a change of them."""
    config = shared.config
    decides = {k: v for k, v in card.items() if k not in ("trained_on", "shots_list", "anchors")}
    tested = [test.fingerprint for test in shared.tested.features]
    parts: list[Any] = [FORMAT, decides, variant.name, settings, bank.fingerprint, tested]
    if "anchors" in card and takes_texts(method(variant.host)):
        parts.append(card["anchors"])
    recipe = _recipe(shared, variant)
    if recipe is not None:
        chosen = ogen_config(kind=method(variant.host).ogen_kind(), **recipe)
        parts += [recipe["preset"], chosen.as_dict(), config.held_out]
    return short_hash(parts)


def _recipe(shared: _Shared, variant: Variant) -> dict[str, Any] | None:
    """OGEN's preset and settings, of a control those that make it; None for the host alone."""
    if variant.control == KL:
        return dict(KL_RECIPE)
    return {"preset": shared.config.preset, **shared.ogen_settings} if variant.ogen else None


def _model(shared: _Shared, images: _Training, variant: Variant) -> Host:
    config, planned = shared.config, shared.plan
    name = variant.host
    options = text_options(name, shared.anchors)
    if planned.texts is not None and takes_texts(method(name)):
        options["texts"] = planned.texts
    if takes_anchors(method(name)):
        options |= images.anchored()
    # Names alone: no image of a new class is in the training bank.
    unknown = None if config.held_out else planned.new or None
    recipe = _recipe(shared, variant)
    return assemble(name, shared.clip, planned.known, planned.source.templates, options, ogen=recipe, unknown=unknown)


def _train(
    shared: _Shared, model: Host, bank: Bank, partial: Path, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], float]:
    """The history, and the seconds of training with what precedes the first epoch, without the measurements."""
    began = time.perf_counter()
    before: list[tuple[int, float]] = []  # the first epoch of this call, and when it was done

    def measure(host: Host, epoch: int) -> dict[str, float]:
        if not before:
            before.append((epoch, time.perf_counter() - began))
        due = shared.config.measured(epoch, host.uses_cached_features)
        return shared.plan.judge.measure(host, shared.tested) if due else {}

    history = fit(model, bank, out=partial, measure=measure, **settings).epochs
    if model.training_free:
        return history, time.perf_counter() - began
    seconds = {e["epoch"]: e["seconds"] for e in history}
    preparation = sum(max(0.0, until - seconds[epoch]) for epoch, until in before)
    return history, preparation + sum(seconds.values())


def _curve(history: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns as long as the training; None where an epoch lacks a value, as a warm-up lacks the host's loss."""
    columns = {k: [epoch.get(k) for epoch in history] for k in CURVES}
    return {k: values for k, values in columns.items() if any(v is not None for v in values)}


def _projection(shared: _Shared, model: OGEN, seed: int) -> dict[str, Any] | None:
    """Real test features of new names beside those synthesized from the names; None if there is nothing to compare."""
    if model.rows is None or shared.plan.pictured is None:
        return None
    part, names = shared.plan.pictured
    real = shared.tested.near[part].select(names)
    if len(real.labels.unique()) < 2:
        return None
    generator = model.rows.generator
    w = zero_shot_weights(shared.clip, names, shared.plan.source.templates)
    synthesized = generator.synthesize(w, SYNTHESIZED, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(len(w)).repeat_interleave(SYNTHESIZED)
    points = project(real.features[:, 0], real.labels, synthesized, labels, names, w)
    return {"variant": generator.variant, **points}


def _card(config: BenchConfig, planned: Plan, clip: Backbone) -> dict[str, Any]:
    """The part of the protocol card that decides the numbers of every cell."""
    data = planned.source
    several = {"shots_list": list(planned.shots)} if planned.shots_in_rows else {}
    return {
        "name": config.protocol,
        "dataset": data.name,
        "data_hash": data.hash(),
        "split_hash": short_hash([list(planned.known), list(planned.new)]),
        "n_base": len(planned.known),
        "n_new": len(planned.new),
        "backbone": clip.fingerprint(),
        "templates": list(data.templates),
        "shots": max(planned.shots),
        **several,
        "epochs": config.epochs,
        "views": config.views,
        "augment": Augment().as_dict(),
        "selection": "none: the last epoch is tested",
        "train_domains": list(dict.fromkeys(data.train.domains)),
        "test_domains": domains_of(planned.parts),
        **planned.card,
    }
