"""What OGEN's evidence adds, beside the controls that have no generator and no other training.

    python -m benchmarks.ogen.evidence choose --features DIR   # benchmarks/results/ogen-evidence-choose.json
    python -m benchmarks.ogen.evidence real --features DIR     # benchmarks/results/ogen-evidence-real.json
    python -m benchmarks.ogen.evidence emoji                   # benchmarks/results/ogen-evidence-emoji.json
    python -m benchmarks.ogen.evidence hosts                   # benchmarks/results/ogen-evidence-hosts.json, every host

`choose` runs on the tasks that settings are chosen on, for several shares of the evidence and of zero-shot weights
beside it; the others run the reported tasks once, with the defaults. Rows besides OGEN's: the host alone; the host with
zero-shot weights for names without images (the control); KL to zero-shot over all names, without and with the control;
and zero-shot with the evidence and no training. A host is trained once for all shares, which come in at test time.
Finished cells are kept in `--work`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.clip_features import DATASETS, add_option, file_hashes
from benchmarks.common.groups import grouped
from benchmarks.common.kept_rows import kept_rows
from benchmarks.common.options import SEEDS as THREE
from benchmarks.common.options import add_work, parser_of
from benchmarks.common.places import RESULTS
from benchmarks.common.results_file import write_results
from benchmarks.hosts.study import COCOOP_EPOCHS, PIXEL_EPOCHS, compared_hosts
from benchmarks.ogen.tasks import StudyTask, emoji_tasks, real_tasks, selection_tasks, task_card
from benchmarks.ogen.variants import Variant, make_host, of_task
from ogenlib.bench.protocols.parts.controls import without_images_by_zero_shot
from ogenlib.evaluate import LabelSpace, predict_logits, space_scores
from ogenlib.generators import stacking_curve
from ogenlib.hosts import Host, build, method
from ogenlib.ogen.config import ogen_config
from ogenlib.ogen.evidence import fit_evidence
from ogenlib.ogen.wrapper import OGEN
from ogenlib.results import tables as results
from ogenlib.train.loop import fit

SCHEMA = "ogenlib.ogen-evidence/1"
SHARES = tuple((evidence, zero_shot) for zero_shot in (0.0, 0.25, 0.5) for evidence in (0.25, 0.5, 0.75, 1.0))
PROMPTS, ADAPTERS = ("coop",), ("text_adapter", "taskres")
SCORES = ("base", "new", "H", "joint_base", "joint_new", "joint_H", "ausuc", "gate_auroc", "best_joint_H")
KL_WEIGHTS = {"choose": (0.3,), "real": (0.3, 1.0), "emoji": (0.3, 1.0), "hosts": (0.3,)}
SEEDS = tuple(range(1, 11))
Shares = Sequence[tuple[float, float]] | None


def scores(logits: Tensor, labels: Tensor, n_base: int) -> dict[str, float]:
    """`SCORES` of logits over base and new names; `best_joint_H` is at the constant that suits the test images best."""
    base = labels < n_base
    space = LabelSpace(tuple(range(n_base)), tuple(range(n_base, logits.shape[1])))
    found = space_scores(space, (logits[base], labels[base]), (logits[~base], labels[~base] - n_base))
    found["best_joint_H"] = stacking_curve(logits, labels, n_base).best[1]
    return {name: found[name] for name in SCORES}


def epochs_of(name: str, task: StudyTask) -> int:
    """As in `hosts/study.py`: fewer for what cannot read cached features, and for CoCoOp."""
    if name == "cocoop":
        return COCOOP_EPOCHS
    return task.epochs if method(name).uses_cached_features else PIXEL_EPOCHS


def trained(name: str, task: StudyTask, seed: int, ogen: dict[str, Any] | None) -> Host:
    host = make_host(Variant(name, name, ogen), task)
    fit(host, task.banks(host)[0], epochs=epochs_of(name, task), seed=seed)
    return host


def variants(
    name: str, task: StudyTask, seed: int, shares: Shares, kl_weights: Sequence[float]
) -> Iterator[tuple[str, Tensor]]:
    """Every row of a table: its name, and logits of all test images over base and new names."""
    names, n_base = (*task.split.base, *task.split.new), len(task.split.base)
    zero = build("zero_shot", task.clip, task.split.base, templates=list(task.templates))
    zero_shot = predict_logits(zero, task.test.select(names), names)

    def of(host: Host) -> Tensor:
        return predict_logits(host, task.banks(host)[1].select(names), names)

    yield "zero-shot", zero_shot
    bank = task.bank.select(task.split.base)
    weights, scale = zero.class_weights(names), float(task.clip.logit_scale)
    known = tuple(task.split.base)
    evidence = fit_evidence(bank.features, bank.labels, known, weights[:n_base], scale, (1.0, 0.0), seed)
    added = torch.zeros_like(zero_shot)
    if evidence is not None:
        z = torch.nn.functional.normalize(task.test.select(names).features[:, 0].float(), dim=-1)
        added = scale * z @ evidence.vectors(names, weights).T
    yield "zero-shot + evidence", zero_shot + added
    alone = of(trained(name, task, seed, None))
    yield "host alone", alone
    yield "control", without_images_by_zero_shot(alone, zero_shot, n_base)
    for weight in kl_weights:
        kl = of(trained(name, task, seed, {"preset": "zero-shot-kl", "zero_shot_kl": weight}))
        yield f"KL {weight:g}", kl
        yield f"KL {weight:g}, control", without_images_by_zero_shot(kl, zero_shot, n_base)
    model = trained(name, task, seed, {} if shares is None else {"evidence": 1.0, "evidence_zero_shot": 0.0})
    assert isinstance(model, OGEN)
    whole = model.evidence
    object.__setattr__(model, "evidence", None)
    yield "OGEN without evidence", of(model)
    if shares is None:
        object.__setattr__(model, "evidence", whole)
        yield "OGEN", of(model)
    for share, zero_shot_share in () if shares is None else shares:
        part = whole and replace(whole, factor=share * whole.factor, zero_shot=zero_shot_share)
        object.__setattr__(model, "evidence", part)
        yield f"OGEN, evidence {share:g}, zero-shot {zero_shot_share:g}", of(model)


def cell(name: str, task: StudyTask, seed: int, shares: Shares, kl_weights: Sequence[float]) -> dict[str, Any]:
    """Rows of one host on one task with one seed."""
    began = time.perf_counter()
    test = task.test.select((*task.split.base, *task.split.new))
    labels, n_base = test.labels.cpu(), len(task.split.base)
    rows = []
    for variant, logits in variants(name, task, seed, shares, kl_weights):
        for domain in dict.fromkeys(test.domains):
            here = torch.tensor([one == domain for one in test.domains])
            row = {"host": name, "variant": variant, "task": task.name, "family": task.family, "domain": domain}
            rows.append({**row, "seed": seed, **scores(logits[here], labels[here], n_base)})
    return {"rows": rows, "seconds": time.perf_counter() - began}


def summarize(rows: Sequence[dict[str, Any]], by_domain: bool) -> list[dict[str, Any]]:
    """Mean and std over seeds, tasks of a family averaged first; with `by_domain` each domain by itself."""
    summary = []
    placed = rows if by_domain else [{**row, "domain": ""} for row in rows]
    for (host, variant, family, domain), group in grouped(placed, "host", "variant", "family", "domain").items():
        seeds = [
            {score: sum(row[score] for row in own) / len(own) for score in SCORES}
            for own in grouped(group, "seed").values()
        ]
        entry = {"host": host, "variant": variant, "family": family, "domain": domain, "n_seeds": len(seeds)}
        summary.append({**entry, **{score: results.mean_std([one[score] for one in seeds]) for score in SCORES}})
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("study", choices=list(KL_WEIGHTS))
    add_option(parser)
    add_work(parser, "build/ogen-evidence", parts=False)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=None, metavar="N", help="(choose: 1, hosts: 1 to 3, else 1 to 10)"
    )
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="what is written")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    torch.set_num_threads(1)
    seeds = tuple(args.seeds or {"choose": (1,), "hosts": THREE}.get(args.study, SEEDS))
    shares = SHARES if args.study == "choose" else None
    kl_weights = KL_WEIGHTS[args.study]
    if args.study in ("emoji", "hosts"):
        by_seed = emoji_tasks(seeds, keep=args.work / "banks")
        hosts = PROMPTS if args.study == "emoji" else [name for name in compared_hosts() if method(name).info.ogen]
        cells = [(host, by_seed[seed], seed, shares, kl_weights) for seed in seeds for host in hosts]
    else:
        tasks = selection_tasks(args.features) if args.study == "choose" else real_tasks(args.features)
        cells = [
            (host, task, seed, shares, kl_weights)
            for seed in seeds
            for task in tasks
            for host in (*(PROMPTS if task.pixels is not None else ()), *ADAPTERS)  # features have no text tower
        ]

    def decides(name: str, task: StudyTask, seed: int, shares: Shares, weights: Sequence[float]) -> tuple[Any, ...]:
        settings = ogen_config("ogenlib", method(name).ogen_kind()).as_dict()
        return (name, of_task(Variant(name, name), task), epochs_of(name, task), seed, shares, weights, settings)

    (args.work / "banks").mkdir(parents=True, exist_ok=True)
    rows = [row for one in kept_rows(cells, args.work, decides, cell, about=args.study) for row in one["rows"]]
    uses_features = args.features is not None and args.study in ("choose", "real")
    hashes = {name: file_hashes(name, args.features) for name in DATASETS} if uses_features else {}
    card = {
        "name": f"ogen-evidence-{args.study}",
        "seeds": list(seeds),
        "shares": None if shares is None else [list(pair) for pair in shares],
        "kl_weights": list(kl_weights),
        "ogen": {host: ogen_config("ogenlib", method(host).ogen_kind()).as_dict() for host, *_ in cells},
        "selection": "none: the last epoch is tested; the evidence is chosen by episodes within the base names",
        "tasks": {task.name: task_card(task) for _, task, *_ in cells},
        "feature_files": hashes,
    }
    out = args.out or RESULTS / f"ogen-evidence-{args.study}.json"
    summary = summarize(rows, by_domain=args.study in ("emoji", "hosts"))
    write_results(out, SCHEMA, "ogen.evidence", card, began=began, rows=rows, summary=summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
