"""``ogen bench``: train hosts on base names, test them on base and new names in every domain, write a report.

Notation: `N` images, `V` views, `C` new names, `D` embedding.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ogenlib import evaluate
from ogenlib.batches import Bank
from ogenlib.bench_config import PROTOCOLS, BenchConfig, Variant, settings_for
from ogenlib.bench_document import add_thumbnails, cell_name, document
from ogenlib.data import Augment, BaseNewSplit, Dataset, FeatureBank, PixelBank, base_new_split, few_shot, load_dataset
from ogenlib.data.dataset import short_hash
from ogenlib.files import write_json
from ogenlib.hosts import Host, build, method, zero_shot_weights
from ogenlib.ogen import OGEN
from ogenlib.ogen_config import ogen_config
from ogenlib.projection import project
from ogenlib.report import write_report
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train import TrainConfig, fit

__all__ = ["PROTOCOLS", "BenchConfig", "run_bench"]

SYNTHESIZED = 60  # rows of a class in the picture of features
CURVES = ("epoch", "base", "new", "H", "joint_H", "ce")


@dataclass(frozen=True)
class _Shared:
    """What all cells of a benchmark have in common.

    Attributes:
        test, near: features of all test images, and of those of the domain `home`.
        test_pixels, near_pixels: the same as pixels, None where no host needs them.
        card: the part of the protocol card that decides the numbers of every cell.
        ogen_settings: what differs from the preset.
    """

    config: BenchConfig
    clip: Backbone
    data: Dataset
    split: BaseNewSplit
    test: FeatureBank
    near: FeatureBank
    test_pixels: PixelBank | None
    near_pixels: PixelBank | None
    home: str
    out: Path
    card: dict[str, Any]
    ogen_settings: dict[str, Any]

    def tested(self, host: Host, near: bool = False) -> Bank:
        """The test images as the host reads them, all or the near ones."""
        features, pixels = (self.near, self.near_pixels) if near else (self.test, self.test_pixels)
        return features if pixels is None or host.uses_cached_features else pixels


@dataclass(frozen=True)
class _Training:
    """The training images of one seed; pixels are None where no host needs them."""

    features: FeatureBank
    pixels: PixelBank | None

    def of(self, uses_cached_features: bool) -> Bank:
        return self.features if self.pixels is None or uses_cached_features else self.pixels


def run_bench(config: BenchConfig, out: Path, *, command: str = "", progress: bool = False) -> dict[str, Any]:
    """Run every cell (host, OGEN and seed), write ``results.json`` and ``report.html`` to `out`, return the results.

    Finished cells are kept in ``cells/`` and trained hosts in ``runs/``: a second call with the same settings
    goes on where the first stopped.
    """
    began = time.perf_counter()
    clip = load_backbone(config.model, config.pretrained, device=config.device)
    data = _load(config)
    split = base_new_split(data.classnames)
    out.mkdir(parents=True, exist_ok=True)
    content = short_hash([data.test.hash(), clip.weights_hash, config.skip_bad])
    test = FeatureBank.extract(clip, data.test, path=out / "banks" / f"test-{content}.safetensors",
                               progress=progress, skip_bad=config.skip_bad)  # fmt: skip
    home = _home(data)
    variants = config.variants()
    pixels = None
    if _need_pixels(config):
        pixels = PixelBank.load(clip, data.test, progress=progress, skip_bad=config.skip_bad)
    names = (*split.base, *split.new)
    near = test.of_domain(home).select(names)  # once, not after every epoch
    near_pixels = None if pixels is None else pixels.of_domain(home).select(names)
    with_ogen = any(ogen for _, ogen in variants)
    ogen_settings = settings_for(config.preset, config.ogen_settings, len(split.base)) if with_ogen else {}
    card = _card(config, data, split, clip)
    shared = _Shared(config, clip, data, split, test, near, pixels, near_pixels, home, out, card, ogen_settings)
    cells = []
    with tqdm(total=len(variants) * len(config.seeds), desc="bench", unit="run", disable=not progress) as bar:
        for seed in config.seeds:
            images = _training_images(shared, seed)
            for variant in variants:
                bar.set_postfix_str(f"{cell_name(*variant)}, seed {seed}")
                cells.append(_cell(shared, images, variant, seed))
                bar.update()
    skipped = [*data.info.get("skipped", []), *test.skipped]
    result = document(cells, shared.card, config.seeds, home, skipped, command, time.perf_counter() - began)
    add_thumbnails(result["confusions"], data.test)
    write_json(out / "results.json", result)
    write_report(result, out / "report.html")
    return result


def _load(config: BenchConfig) -> Dataset:
    options: dict[str, Any] = {"test_domains": config.test_domains} if config.test_domains else {}
    return load_dataset(config.dataset, skip_bad=config.skip_bad, **options)


def _home(data: Dataset) -> str:
    """The domain that is trained on and tested on: the one that curves and headlines show."""
    tested = list(dict.fromkeys(data.test.domains))
    trained = list(dict.fromkeys(data.train.domains))
    common = [d for d in trained if d in tested]
    return (common or tested)[0]


def _need_pixels(config: BenchConfig) -> bool:
    return not all(method(host).uses_cached_features for host, _ in config.variants())


def _training_images(shared: _Shared, seed: int) -> _Training:
    config = shared.config
    picked = few_shot(shared.data.train, config.shots, seed).of_classes(shared.split.base)  # drawn as CoOp draws
    options: dict[str, Any] = {"views": config.views, "seed": seed, "skip_bad": config.skip_bad}
    if not _need_pixels(config):
        return _Training(FeatureBank.extract(shared.clip, picked, **options), None)
    pixels = PixelBank.load(shared.clip, picked, **options)
    return _Training(pixels.frozen(shared.clip), pixels)  # decoded once for both


def _cell(shared: _Shared, images: _Training, variant: Variant, seed: int) -> dict[str, Any]:
    """Train and test one host with one seed, or read the finished cell."""
    config, split = shared.config, shared.split
    (host, ogen), name = variant, f"{cell_name(*variant)}-seed{seed}"
    settings = {"epochs": config.epochs, "precision": config.precision, **config.settings, "seed": seed}
    bank = images.of(method(host).uses_cached_features)
    signature = _signature(shared, bank, variant, settings)
    path = shared.out / "cells" / f"{name}.json"
    if path.exists():
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell.get("signature") == signature:
            return cell
    model = _model(shared, variant)
    curve: dict[str, list[Any]] = {}
    seconds, epochs = 0.0, 0
    train: dict[str, Any] = {}
    if model.trainable() or model.training_free:
        # Named by the settings: a killed cell goes on, one of other settings starts afresh.
        partial = shared.out / "cells" / f"{name}-{signature}.partial"
        history, seconds = _train(shared, model, bank, partial, settings)
        shutil.rmtree(partial, ignore_errors=True)
        epochs, curve = len(history), _curve(history)
        train = asdict(replace(TrainConfig(), **{**model.train_settings(), **settings}))
    outcome = evaluate.base_to_new(model, shared.tested(model), split)
    names_known = isinstance(model, OGEN) and model.names_known
    protocol = {**shared.card, "new_names_known_in_training": names_known}
    model.save(shared.out / "runs" / name, {"protocol": protocol, "train": train})
    who = {"host": host, "ogen": ogen, "seed": seed}
    cell = {
        "signature": signature, **who, "config": model.config(), "train": train,
        "new_names_known_in_training": names_known,
        "rows": [{"dataset": shared.data.name, "domain": d, **who, **scores, "epochs": epochs, "seconds": seconds}
                 for d, scores in outcome.domains.items()],
        "curve": curve,
        "confusions": evaluate.confusions(outcome, shared.home),
        "per_class": evaluate.base_to_new(model, shared.tested(model, near=True), split).per_class,
        "projection": _projection(shared, model, seed) if isinstance(model, OGEN) else None,
    }  # fmt: skip
    write_json(path, cell)
    return cell


def _signature(shared: _Shared, bank: Bank, variant: Variant, settings: dict[str, Any]) -> str:
    """Of all that decides a cell. OGEN's settings are in OGEN's cells only: the others outlive a change of them."""
    config = shared.config
    parts: list[Any] = [shared.card, cell_name(*variant), settings, bank.fingerprint, shared.test.fingerprint]
    if variant[1]:
        recipe = ogen_config(config.preset, method(variant[0]).info.kind, **shared.ogen_settings)
        parts += [config.preset, recipe.as_dict(), config.held_out]
    return short_hash(parts)


def _model(shared: _Shared, variant: Variant) -> Host:
    config, split = shared.config, shared.split
    name, ogen = variant
    options = method(name).dataset_options(shared.data.templates)
    if not ogen:
        return build(name, shared.clip, split.base, **options)
    # Names alone: no image of a new class is in the training bank.
    unknown = None if config.held_out else split.new
    recipe = {"preset": config.preset, **shared.ogen_settings}
    return OGEN.build(name, shared.clip, split.base, unknown, options, **recipe)


def _train(
    shared: _Shared, model: Host, bank: Bank, partial: Path, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], float]:
    """The history, and the seconds of training with what precedes the first epoch, without the measurements."""
    began = time.perf_counter()
    near = shared.tested(model, near=True)
    before: list[tuple[int, float]] = []  # the first epoch of this call, and when it was done

    def measure(host: Host, epoch: int) -> dict[str, float]:
        if not before:
            before.append((epoch, time.perf_counter() - began))
        scores = evaluate.base_to_new(host, near, shared.split).scores
        return {k: scores[k] for k in ("base", "new", "H", "joint_H")}

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
    real = shared.near.select(shared.split.new)
    if model.rows is None or len(real.labels.unique()) < 2:
        return None
    generator = model.rows.generator
    w = zero_shot_weights(shared.clip, shared.split.new, shared.data.templates)
    made = generator.synthesize(w, SYNTHESIZED, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(len(w)).repeat_interleave(SYNTHESIZED)
    points = project(real.features[:, 0], real.labels, made, labels, shared.split.new, w)
    return {"variant": generator.variant, **points}


def _card(config: BenchConfig, data: Dataset, split: BaseNewSplit, clip: Backbone) -> dict[str, Any]:
    """The part of the protocol card that decides the numbers of every cell."""
    return {
        "name": config.protocol, "dataset": data.name, "data_hash": data.hash(),
        "split_hash": short_hash([list(split.base), list(split.new)]), "n_base": len(split.base),
        "n_new": len(split.new), "backbone": clip.fingerprint(), "templates": list(data.templates),
        "shots": config.shots, "epochs": config.epochs, "views": config.views, "augment": Augment().as_dict(),
        "selection": "none: the last epoch is tested",
        "train_domains": list(dict.fromkeys(data.train.domains)),
        "test_domains": list(dict.fromkeys(data.test.domains)),
    }  # fmt: skip
