"""The tables of docs/robust.md: every fine-tuning method with WiSE-FT, VRF and OGEN, under shift and on other things.

    python benchmarks/robust_study.py                # writes benchmarks/results/robust.json
    python benchmarks/robust_study.py --part 1/2     # half of the runs and no results file; the other half is 2/2

The protocol is that of ``ogen bench --protocol domain-shift``: train on noto (`emoji-categories`) or on three icon sets
(`emoji-concepts/*`), all images of a class but the validation ones; test there, in every other icon set, and on every
other embedded dataset. Finished runs are kept in `--work` and read again: an interrupted study goes on, and after the
parts one run without `--part` writes the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hosts_study import host_variants, part_of
from ogen_study import SEEDS, Variant
from ogen_tasks import extracted
from tqdm import tqdm

from ogenlib import merge, results
from ogenlib.batches import Bank
from ogenlib.bench_config import ALL_SHOTS, BenchConfig
from ogenlib.data import FeatureBank, ImageSet, PixelBank, few_shot
from ogenlib.data.dataset import short_hash
from ogenlib.data.emoji import emoji_datasets
from ogenlib.files import write_json
from ogenlib.hosts import METHODS, Host, build, method
from ogenlib.ogen import OGEN
from ogenlib.protocols import Plan, Tested, plan
from ogenlib.protocols.domain_shift import ShiftJudge
from ogenlib.robustness import robustness_tables
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train import fit
from ogenlib.vrf import FORMS, VRF

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "ogenlib.robust/1"
EPOCHS, VIEWS = 20, 8


@dataclass(frozen=True)
class World:
    """One dataset's protocol, with what is tested as features and, when asked for, as pixels.

    keep: folder where the features of what was extracted once are found again.
    shots: training images of a class; `ALL_SHOTS` for all.
    """

    clip: Backbone
    plan: Plan
    shots: int
    keep: Path

    @cached_property
    def features(self) -> tuple[FeatureBank, ...]:
        return tuple(extracted(self.clip, part.images, self.keep) for part in self.plan.parts)

    @cached_property
    def tested(self) -> Tested:
        """Both kinds; curves over epochs are not drawn here, so all of a part is its near part."""
        pixels = tuple(PixelBank.load(self.clip, part.images) for part in self.plan.parts)
        return Tested(self.features, self.features, pixels, pixels)

    def images(self, seed: int) -> ImageSet:
        train = self.plan.source.train
        picked = train if self.shots == ALL_SHOTS else few_shot(train, self.shots, seed)
        return picked.of_classes(self.plan.known)

    def bank(self, host: Host, seed: int) -> Bank:
        """What this host trains on."""
        if host.uses_cached_features:
            return extracted(self.clip, self.images(seed), self.keep, views=VIEWS, seed=seed)
        return PixelBank.load(self.clip, self.images(seed), views=VIEWS, seed=seed)

    @property
    def judge(self) -> ShiftJudge:
        if not isinstance(self.plan.judge, ShiftJudge):
            raise TypeError(f"{self.plan.protocol} is not domain-shift")
        return self.plan.judge


def world(name: str, hosts: Sequence[str], args: argparse.Namespace) -> World:
    """The protocol on an embedded dataset."""
    config = BenchConfig(protocol="domain-shift", dataset=name, hosts=tuple(hosts), shots=args.shots,
                         alphas=tuple(args.alphas), retention=tuple(args.retention),
                         test_domains=tuple(args.domains) if args.domains else None)  # fmt: skip
    return World(load_backbone("ogen-tiny"), plan(config), args.shots, args.work / "banks")


def fine_tuning_hosts() -> list[str]:
    """Zero-shot, then every method that trains the towers."""
    return ["zero_shot", *(name for name, cls in METHODS.items() if cls.info.kind == "fine-tuning")]


def make_host(variant: Variant, here: World) -> Host:
    """As `ogen bench` makes it: every name is trained, so OGEN has no unknown ones."""
    options = {**method(variant.host).dataset_options(here.plan.source.templates), **variant.options}
    if variant.ogen is None:
        return build(variant.host, here.clip, here.plan.known, **options)
    return OGEN.build(variant.host, here.clip, here.plan.known, None, options, **variant.ogen)


def run_one(variant: Variant, here: World, seed: int, epochs: int) -> dict[str, Any]:
    """Train once; test the end, every alpha, and VRF in both forms."""
    host = make_host(variant, here)
    seconds, others, trains = 0.0, {}, bool(host.trainable())
    if trains:
        bank, began = here.bank(host, seed), time.perf_counter()
        fit(host, bank, epochs=epochs, seed=seed)
        seconds = time.perf_counter() - began
        others = vrf_points(host, bank, here)
    found = here.judge.outcome(host, here.tested).robustness
    return {
        "task": here.plan.source.name, "variant": variant.name, "host": variant.host, "ogen": variant.ogen is not None,
        "seed": seed, "epochs": epochs if trains else 0, "seconds_fit": seconds,
        "parameters": sum(p.numel() for p in host.trainable().values()), **(found or {}), "others": others,
    }  # fmt: skip


def vrf_points(host: Host, bank: Bank, here: World) -> dict[str, dict[str, Any]]:
    """Scores of VRF by form; a host that gets nothing right that zero-shot gets wrong has none."""
    points = {}
    for form in FORMS:
        calibration = here.tested.of(host)[-1] if form == "released-code" else None  # the validation images
        try:
            scores = here.judge.scores(VRF(host, bank, form, calibration=calibration), here.tested)
        except ValueError as error:
            if "fails on none" not in str(error):
                raise
            continue
        points[f"VRF, {form}"] = {key: scores[key] for key in ("val", "id", "ood", "zero_shot")}
    return points


def run_all(cells: Sequence[tuple[Variant, World, int, int]], work: Path) -> list[dict[str, Any]]:
    """All rows, each kept in `work` under a name made of everything that decides it."""
    rows = []
    for variant, here, seed, epochs in tqdm(list(cells), desc="study", unit="run"):
        card = {k: v for k, v in here.plan.card.items() if k != "effective_robustness"}  # of the table, not of a run
        key = short_hash([asdict(variant), card, here.plan.source.hash(), here.plan.source.train.hash(),
                          here.clip.weights_hash, here.shots, seed, epochs, VIEWS, SCHEMA])  # fmt: skip
        path = work / f"{key}.json"
        if not path.exists():
            work.mkdir(parents=True, exist_ok=True)
            write_json(path, run_one(variant, here, seed, epochs))
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    return rows


def tables(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows with their points, and the means over seeds, by dataset."""
    done: dict[str, Any] = {"rows": [], "summary": []}
    for task in dict.fromkeys(row["task"] for row in rows):
        found = robustness_tables([row for row in rows if row["task"] == task])
        done["rows"] += found["robustness"]
        done["summary"] += [{"task": task, **entry} for entry in found["robustness_summary"]]
    return done


def costs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method alone and with OGEN: trained parameters and seconds of training, means over the first dataset."""
    found = []
    for host, ogen in dict.fromkeys((r["host"], r["ogen"]) for r in rows):
        own = [r for r in rows if (r["host"], r["ogen"], r["task"]) == (host, ogen, rows[0]["task"])]
        if own:
            seconds = sum(r["seconds_fit"] for r in own) / len(own)
            found.append({"host": host, "ogen": ogen, "epochs": own[0]["epochs"], "seconds": seconds,
                          "parameters": max(r["parameters"] for r in own)})  # fmt: skip
    return found


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", nargs="+", choices=list(METHODS), default=fine_tuning_hosts(), metavar="NAME",
                        help="methods (zero-shot and all of fine-tuning)")  # fmt: skip
    parser.add_argument("--datasets", nargs="+", choices=emoji_datasets(), default=["emoji-categories"],
                        metavar="NAME", help="trained on, each by itself (emoji-categories)")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="seeds (1 2 3)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the training images ({EPOCHS})")
    parser.add_argument("--shots", type=int, default=ALL_SHOTS, help="training images of a class, 0 for all (0)")
    parser.add_argument(
        "--alphas", type=float, nargs="+", default=list(merge.ALPHAS), help="of WiSE-FT (0 to 1 by 0.1)"
    )
    parser.add_argument("--domains", nargs="+", default=None, help="icon sets to test on (all)")
    parser.add_argument("--retention", nargs="+", default=[], help="datasets of other things (all embedded ones)")
    parser.add_argument("--part", type=part_of, default=None, metavar="I/N", help="only every N-th run from the I-th")
    parser.add_argument("--work", type=Path, default=Path("runs/robust"), help="finished runs (runs/robust)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "robust.json", help="results file"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    began = time.perf_counter()
    variants = host_variants(list(dict.fromkeys(["zero_shot", *args.hosts])))
    rows: list[dict[str, Any]] = []
    cards: dict[str, Any] = {}
    backbone: dict[str, Any] = {}
    for name in args.datasets:
        here = world(name, args.hosts, args)
        cells = [(v, here, s, args.epochs) for v in variants for s in args.seeds]
        if args.part is not None:
            cells = cells[args.part[0] - 1 :: args.part[1]]
        rows += run_all(cells, args.work)
        data = here.plan.source
        cards[name] = {"data_hash": data.hash(), "train_images": len(data.train), "names": len(here.plan.known),
                       **here.plan.card}  # fmt: skip
        backbone = here.clip.fingerprint()
    if args.part is not None:
        return
    document = {
        "schema": SCHEMA,
        "protocol": {
            "study": "robust", "backbone": backbone, "datasets": cards, "shots": args.shots or "all", "views": VIEWS,
            "seeds": args.seeds, "epochs": args.epochs, "alphas": args.alphas,
            "settings": "each method's own in this library; OGEN's default preset; none chosen on these tests",
            "selection": "the last epoch is tested; WiSE-FT's alpha and VRF's temperatures are those of validation "
                         "images of the domain of training",
            "seconds_of": "one training with what precedes its first epoch; other programs ran on the same machine",
            "versions": results.versions(), "threads": torch.get_num_threads(), "git": results.git_revision(),
            "command": "python benchmarks/robust_study.py", "arguments": sys.argv[1:] if argv is None else list(argv),
            "date": results.now(), "seconds": time.perf_counter() - began,
        },
        **tables(rows), "costs": costs(rows),
    }  # fmt: skip
    write_json(args.out, document)


if __name__ == "__main__":
    main()
