"""``ogen bench``: train hosts on base names, test them on base and new names in every domain, write a report.

Notation: `N` images, `V` views.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ogenlib import evaluate, results
from ogenlib.data import Augment, BaseNewSplit, Dataset, FeatureBank, ImageSet, base_new_split, few_shot, load_dataset
from ogenlib.data.dataset import short_hash
from ogenlib.files import write_json
from ogenlib.hosts import Host, build, method
from ogenlib.report import write_report
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train import TrainConfig, fit

_log = logging.getLogger(__name__)
PROTOCOLS = ("base-to-new",)
THUMBNAILS = 4  # pictures beside a confusion


@dataclass(frozen=True)
class BenchConfig:
    """One benchmark.

    Attributes:
        dataset: embedded name, folder or CSV.
        hosts: methods to compare; zero_shot is always among them, as the reference.
        views: augmented views of a training image in the feature bank.
        settings: training settings that override every host's own.
        test_domains: icon sets to test on (embedded data only), None for the dataset's own.
    """

    protocol: str = "base-to-new"
    dataset: str = "emoji-categories"
    model: str = "ogen-tiny"
    pretrained: str | None = None
    hosts: tuple[str, ...] = ("coop",)
    shots: int = 16
    epochs: int = 50
    seeds: tuple[int, ...] = (1, 2, 3)
    views: int = 8
    precision: str = "fp32"
    device: str = "cpu"
    skip_bad: bool = False
    test_domains: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is not available; available: {', '.join(PROTOCOLS)}")
        for name, low in (("shots", 1), ("epochs", 1), ("views", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)}: must be {low} or more")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: name at least one, each once")
        for host in self.hosts:
            method(host)
        TrainConfig(epochs=self.epochs, precision=self.precision, **self.settings)  # refuses bad settings now

    def smoke(self) -> BenchConfig:
        """The same path in less than a minute: one seed, few epochs, two domains."""
        domains = ("noto", "openmoji") if self.dataset.startswith("emoji-categories") else self.test_domains
        return replace(self, seeds=self.seeds[:1], epochs=min(self.epochs, 4), shots=min(self.shots, 4), views=2,
                       test_domains=domains)  # fmt: skip


def run_bench(config: BenchConfig, out: Path, *, command: str = "", progress: bool = False) -> dict[str, Any]:
    """Run every cell (host and seed), write ``results.json`` and ``report.html`` to `out`, return the results.

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
    # zero_shot is the reference of every table, asked for or not.
    hosts = tuple(dict.fromkeys(("zero_shot", *config.hosts)))
    shared = _card(config, data, split, clip)
    cells = []
    with tqdm(total=len(hosts) * len(config.seeds), desc="bench", unit="run", disable=not progress) as bar:
        for seed in config.seeds:
            bank = _training_bank(config, clip, data, split, seed)
            for name in hosts:
                bar.set_postfix_str(f"{name}, seed {seed}")
                cells.append(_cell(config, clip, data, split, bank, test, name, seed, home, out, shared))
                bar.update()
    skipped = [*data.info.get("skipped", []), *test.skipped]
    document = _document(config, cells, shared, home, skipped, command, time.perf_counter() - began)
    _add_thumbnails(document["confusions"], data.test)
    write_json(out / "results.json", document)
    write_report(document, out / "report.html")
    return document


def _load(config: BenchConfig) -> Dataset:
    options: dict[str, Any] = {"test_domains": config.test_domains} if config.test_domains else {}
    return load_dataset(config.dataset, skip_bad=config.skip_bad, **options)


def _home(data: Dataset) -> str:
    """The domain that is trained on and tested on: the one that curves and headlines show."""
    tested = list(dict.fromkeys(data.test.domains))
    trained = list(dict.fromkeys(data.train.domains))
    common = [d for d in trained if d in tested]
    return (common or tested)[0]


def _training_bank(
    config: BenchConfig, clip: Backbone, data: Dataset, split: BaseNewSplit, seed: int
) -> FeatureBank:
    picked = few_shot(data.train, config.shots, seed).of_classes(split.base)  # drawn as CoOp draws
    return FeatureBank.extract(clip, picked, views=config.views, seed=seed, skip_bad=config.skip_bad)


def _cell(
    config: BenchConfig, clip: Backbone, data: Dataset, split: BaseNewSplit, bank: FeatureBank,
    test: FeatureBank, name: str, seed: int, home: str, out: Path, shared: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Train and test one host with one seed, or read the finished cell."""
    settings = {"epochs": config.epochs, "precision": config.precision, **config.settings, "seed": seed}
    signature = short_hash([shared, name, settings, bank.fingerprint, test.fingerprint])
    path = out / "cells" / f"{name}-seed{seed}.json"
    if path.exists():
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell.get("signature") == signature:
            return cell
    host = build(name, clip, split.base, **method(name).dataset_options(data.templates))
    near = test.of_domain(home).select((*split.base, *split.new))  # once, not after every epoch
    curve: dict[str, list[float]] = {}
    seconds, epochs = 0.0, 0
    train: dict[str, Any] = {}
    if host.trainable():
        # Named by the settings: a killed cell goes on, one of other settings starts afresh.
        partial = out / "cells" / f"{name}-seed{seed}-{signature}.partial"
        history = fit(host, bank, out=partial, measure=lambda h, _: _measure(h, near, split), **settings)
        shutil.rmtree(partial, ignore_errors=True)
        seconds, epochs = sum(history.column("seconds")), len(history.epochs)
        curve = {k: history.column(k) for k in ("epoch", "base", "new", "H", "joint_H", "ce")}
        train = asdict(replace(TrainConfig(), **{**host.train_settings(), **settings}))
    outcome = evaluate.base_to_new(host, test, split)
    host.save(out / "runs" / f"{name}-seed{seed}", {"protocol": shared, "train": train})
    cell = {
        "signature": signature, "host": name, "ogen": False, "seed": seed, "config": host.config(), "train": train,
        "rows": [{"dataset": data.name, "domain": d, "host": name, "ogen": False, "seed": seed,
                  **scores, "epochs": epochs, "seconds": seconds} for d, scores in outcome.domains.items()],
        "curve": curve,
        "confusions": evaluate.confusions(outcome, home),
        "per_class": evaluate.base_to_new(host, near, split).per_class,
    }  # fmt: skip
    write_json(path, cell)
    return cell


def _measure(host: Host, near: FeatureBank, split: BaseNewSplit) -> dict[str, float]:
    scores = evaluate.base_to_new(host, near, split).scores
    return {k: scores[k] for k in ("base", "new", "H", "joint_H")}


def _card(config: BenchConfig, data: Dataset, split: BaseNewSplit, clip: Backbone) -> dict[str, Any]:
    """The part of the protocol card that decides the numbers."""
    return {
        "name": config.protocol, "dataset": data.name, "data_hash": data.hash(),
        "split_hash": short_hash([list(split.base), list(split.new)]), "n_base": len(split.base),
        "n_new": len(split.new), "backbone": clip.fingerprint(), "templates": list(data.templates),
        "shots": config.shots, "epochs": config.epochs, "views": config.views, "augment": Augment().as_dict(),
        "selection": "none: the last epoch is tested", "new_names_known_in_training": False,
        "train_domains": list(dict.fromkeys(data.train.domains)),
        "test_domains": list(dict.fromkeys(data.test.domains)),
    }  # fmt: skip


def _document(
    config: BenchConfig, cells: Sequence[dict[str, Any]], shared: dict[str, Any], home: str,
    skipped: list[dict[str, str]], command: str, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    rows = [row for cell in cells for row in cell["rows"]]
    dataset = shared["dataset"]
    tag = {"dataset": dataset, "domain": home}
    first = config.seeds[0]
    return {
        "schema": results.SCHEMA,
        "protocol": {
            **shared, "home_domain": home, "seeds": list(config.seeds),
            "hosts": {c["host"]: {**c["config"], "train": c["train"]} for c in cells},
            "skipped": skipped, "versions": results.versions(), "threads": torch.get_num_threads(),
            "command": command, "git": results.git_revision(), "date": results.now(), "seconds": seconds,
        },
        "rows": rows,
        "summary": results.summarize(rows),
        "curves": [{**tag, "host": c["host"], "ogen": c["ogen"], "seed": c["seed"], **c["curve"]}
                   for c in cells if c["curve"]],
        "tests": results.paired_tests(rows, home),
        "confusions": [{"host": c["host"], "ogen": c["ogen"], "domain": home, "seed": first, **pair}
                       for c in cells if c["seed"] == first for pair in c["confusions"]],
        "per_class": _per_class(cells, home),
    }  # fmt: skip


def _per_class(cells: Sequence[dict[str, Any]], home: str) -> list[dict[str, Any]]:
    merged: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for cell in cells:
        for name, row in cell["per_class"].items():
            merged.setdefault((cell["host"], cell["ogen"], name), []).append(row)
    return [
        {"host": host, "ogen": ogen, "domain": home, "class": name, "side": group[0]["side"], "n": group[0]["n"],
         "accuracy": results.mean_std([g["accuracy"] for g in group]),
         "joint_accuracy": results.mean_std([g["joint_accuracy"] for g in group])}
        for (host, ogen, name), group in merged.items()
    ]  # fmt: skip


def _add_thumbnails(pairs: list[dict[str, Any]], images: ImageSet) -> None:
    index = {key: i for i, key in enumerate(images.keys)}
    for pair in pairs:
        keys = pair.pop("keys")
        pair["thumbnails"] = [_data_uri(images, index[key]) for key in keys[:THUMBNAILS]]


def _data_uri(images: ImageSet, i: int) -> str:
    picture = images.open(i)
    picture.thumbnail((64, 64))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
