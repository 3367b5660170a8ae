"""What a step of every fine-tuning method costs beside a step of full fine-tuning: seconds, and peak memory.

    python -m benchmarks.robust.cost                                 # writes benchmarks/results/robust-cost.json
    python -m benchmarks.robust.cost --models ogen-tiny --rounds 3   # one model anew, fewer rounds
    python -m benchmarks.robust.cost --cases tracer                  # one method anew, the others' rows stay
    python -m benchmarks.robust.cost --peak flyp --model ViT-B-16    # prints the peak memory of a process of its own

A step is a batch of images of as many classes: forward, backward, clipping where the method has it, AdamW, and what the
method does after a step. Frozen features that training computes once are not part of it. Methods take turns, one step
each, full fine-tuning among them, in one process: what counts is the median over rounds of a method's seconds over
full fine-tuning's of the same round, so that other programs slow both down. The first round warms up and does not
count. ViT-B-16 has random weights, which take as long as trained ones.

Peak memory is that of a process that loads the model and trains one method for two steps; `zero-shot` only loads it.
Linux only.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.common.child import said_by
from benchmarks.common.options import parser_of
from benchmarks.common.origin import command
from benchmarks.common.resident import status
from benchmarks.common.results_file import read_results
from benchmarks.ogen.variants import trained_parameters
from ogenlib.anchors import AnchorPairs, EmojiCaptions, caption_table, emoji_pool
from ogenlib.data import Dataset, PixelBank, few_shot, load_dataset
from ogenlib.hosts import METHODS, Host, build, takes_anchors
from ogenlib.hosts.r_adapter import FEW_SHOT_RANK
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train.batches import training_data
from ogenlib.train.config import TrainConfig
from ogenlib.utils.documents import write_json
from ogenlib.utils.provenance import git_revision, now, versions

SCHEMA = "ogenlib.robust-cost/1"
BATCHES = {"ogen-tiny": 32, "ViT-B-16": 8}
ROUNDS = {"ogen-tiny": 9, "ViT-B-16": 3}  # that count; a step of the large model takes longer than a breath of load
REFERENCE, LOADED = "full_ft", "zero_shot"
EPOCHS, STEPS = 10, 1000  # what methods with a schedule are told
TOGETHER = 3  # methods beside full fine-tuning whose tensors are in memory at a time


@dataclass(frozen=True)
class Case:
    """A method with options, under a name of its own."""

    name: str
    host: str
    options: dict[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    """Every fine-tuning method, the cheapest and the two that are promised something first."""
    low = Case(f"r_adapter, rank {FEW_SHOT_RANK}", "r_adapter", {"rank": FEW_SHOT_RANK})
    first = ["lipsum_ft", "r_adapter"]
    others = [n for n, cls in METHODS.items() if cls.info.kind == "fine-tuning" and n not in (REFERENCE, *first)]
    return [*(Case(name, name) for name in first), low, *(Case(name, name) for name in others)]


@dataclass(frozen=True)
class Setting:
    """A model and its training images: one of each class."""

    clip: Backbone
    data: Dataset
    bank: PixelBank

    @classmethod
    def load(cls, model: str) -> Setting:
        clip, data = load_backbone(model), load_dataset("emoji-categories")
        images = few_shot(data.train.of_classes(data.classnames[: BATCHES[model]]), 1, 1)
        return cls(clip, data, PixelBank.load(clip, images))

    def host(self, case: Case) -> Host:
        """The method on these classes; captions and as many retrieved pairs as images where it takes some."""
        names, options = self.bank.classnames, dict(case.options)
        if takes_anchors(METHODS[case.host]):
            images = self.data.train.of_classes(names)
            pool, told = emoji_pool(self.data, ["twemoji"])
            pairs = PixelBank.load(self.clip, pool.subset(range(len(names))))
            options["captions"] = caption_table(images, EmojiCaptions(self.data))
            options["anchors"] = AnchorPairs(pairs, told)
        return build(case.host, self.clip, names, templates=self.data.templates, **options)


def steps(host: Host, bank: PixelBank) -> Iterator[float]:
    """Seconds of one training step after another."""
    data = training_data(host, bank)
    if data.features is not None:
        host.prepare(data.features, EPOCHS, 1)
    host.on_start(EPOCHS, STEPS)
    settings = {**asdict(TrainConfig()), **host.train_settings()}
    parameters = list(host.trainable().values())
    optimizer = torch.optim.AdamW(parameters, settings["lr"], weight_decay=settings["weight_decay"])
    draws, indices = torch.Generator().manual_seed(1), torch.arange(len(data))
    host.train()
    while True:
        began = time.perf_counter()
        batch = data.batch(indices, indices, draws)
        assert batch is not None
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(host.losses(batch).values())).sum().backward()
        if settings["clip_grad"] is not None:
            torch.nn.utils.clip_grad_norm_(parameters, settings["clip_grad"])
        optimizer.step()
        host.on_step_end()
        yield time.perf_counter() - began


def timed(setting: Setting, chosen: Sequence[Case], rounds: int) -> list[dict[str, Any]]:
    """Of each method: median seconds, and the median of the ratios to full fine-tuning's."""
    every = [Case(REFERENCE, REFERENCE), *chosen]
    hosts = [setting.host(case) for case in every]
    running = [steps(host, setting.bank) for host in hosts]
    turns = [[next(run) for run in running] for _ in range(rounds + 1)][1:]
    timings = []
    for i, (case, host) in enumerate(zip(every, hosts, strict=True)):
        seconds = [turn[i] for turn in turns]
        ratios = [turn[i] / turn[0] for turn in turns]
        timings.append(
            {
                "case": case.name,
                "host": case.host,
                "options": case.options,
                "parameters": trained_parameters(host),
                "seconds": statistics.median(seconds),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
        )
    return timings


def peak(model: str, case: Case) -> float:
    """MiB of this process after two steps."""
    setting = Setting.load(model)
    host = setting.host(case)
    if case.host != LOADED:
        run = steps(host, setting.bank)
        for _ in range(2):
            next(run)
    return status("VmHWM")


def peak_elsewhere(model: str, case: Case) -> float:
    """The same, measured by a process of its own."""
    return float(said_by("robust.cost", "--model", model, "--peak", case.name)["peak_mib"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "robust-cost.json")
    parser.add_argument("--models", nargs="+", choices=list(BATCHES), default=list(BATCHES), help="(all)")
    parser.add_argument("--cases", nargs="+", default=None, metavar="NAME", help="methods (all of fine-tuning)")
    parser.add_argument("--rounds", type=int, default=None, help=f"that count ({ROUNDS})")
    parser.add_argument("--peak", default=None, metavar="NAME", help="only print the peak memory of this method")
    parser.add_argument("--model", choices=list(BATCHES), default="ogen-tiny", help="of --peak (ogen-tiny)")
    args = parser.parse_args(argv)
    known = {case.name: case for case in [Case(LOADED, LOADED), Case(REFERENCE, REFERENCE), *cases()]}
    if args.peak is not None:
        print(json.dumps({"peak_mib": peak(args.model, known[args.peak])}))
        return
    chosen = cases() if args.cases is None else [known[name] for name in args.cases]
    git, began = git_revision(), time.perf_counter()
    others = read_results(args.out) if args.out.is_file() else {"protocol": {"models": {}}}
    again = [*known] if args.cases is None else args.cases
    old = ((row["model"], row["case"], row) for row in others.get("rows", []))
    rows = {(model, case): row for model, case, row in old if model not in args.models or case not in again}
    before = others["protocol"]["models"]  # of the rows that stay
    cards = {m: card for m, card in before.items() if m not in args.models}

    def keep(model: str) -> None:
        cards[model] = {
            "batch": BATCHES[model],
            "classes": BATCHES[model],
            "rounds": args.rounds or ROUNDS[model],
            "threads": torch.get_num_threads(),
            "git": git,
            "date": now(),
            "seconds": time.perf_counter() - began,
            **({"earlier": before[model]} if args.cases is not None and model in before else {}),
        }
        write_json(
            args.out,
            {
                "schema": SCHEMA,
                "protocol": {
                    "models": {m: cards[m] for m in BATCHES if m in cards},
                    "reference": REFERENCE,
                    "ratio_is": "median over rounds of seconds over full fine-tuning's of the same round",
                    "peak_is": "of a process of its own that loads the model and trains two steps",
                    "arf_has": "captions, and as many retrieved pairs a step as images",
                    "versions": versions(),
                    "command": command("robust.cost"),
                },
                "rows": [rows[m, case] for m in BATCHES for case in known if (m, case) in rows],
            },
        )

    for model in args.models:
        for start in range(0, len(chosen), TOGETHER):
            timings = timed(Setting.load(model), chosen[start : start + TOGETHER], args.rounds or ROUNDS[model])
            # of the reference, the first group's rounds are shown; ratios are each group's own
            fresh = [row for row in ({"case": LOADED, "host": LOADED}, *timings) if (model, row["case"]) not in rows]
            for row in fresh:
                row |= {"model": model, "peak_mib": None}
                print({k: row[k] for k in ("case", "seconds", "ratio") if k in row}, flush=True)
            rows |= {(model, row["case"]): row for row in fresh}
            for row in fresh:
                keep(model)  # a run that is stopped keeps what it has
                row["peak_mib"] = peak_elsewhere(model, known[row["case"]])
                print({k: row[k] for k in ("model", "case", "peak_mib")}, flush=True)
            keep(model)


if __name__ == "__main__":
    main()
