"""``ogen eval``: a saved run on a dataset."""

from __future__ import annotations

import argparse
from typing import Any

from ogenlib.cli.command import Command
from ogenlib.cli.inputs import images_of, run_at
from ogenlib.cli.options import add_fields, add_run, add_split
from ogenlib.cli.printing import note
from ogenlib.runs.config import InputConfig


def options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, alpha=True)
    add_split(parser, "test")
    add_fields(parser, InputConfig, ["dataset", "skip_bad", "root"])


def run(args: argparse.Namespace) -> None:
    from ogenlib.data import BaseNewSplit, load_dataset
    from ogenlib.evaluate import accuracy, base_to_new, ece, predict_logits
    from ogenlib.runs.saved import read_run
    from ogenlib.train.batches import load_bank
    from ogenlib.utils.documents import write_document
    from ogenlib.utils.provenance import now, versions

    record = read_run(args.folder)
    host = run_at(args.folder, args.alpha, device=args.device, download=args.download)
    data = load_dataset(args.dataset, root=args.root, skip_bad=args.skip_bad)
    bank = load_bank(host, host.clip, images_of(data, args.split), skip_bad=args.skip_bad)
    trained = tuple(n for n in data.classnames if n in host.names)
    unseen = tuple(n for n in data.classnames if n not in host.names)
    document: dict[str, Any] = {
        "schema": "ogenlib.eval/1",
        "run": str(args.folder),
        "method": record["method"],
        "ogen": record.get("ogen"),
        "alpha": args.alpha,
        "dataset": data.name,
        "data_hash": data.hash(),
        "split": args.split,
        "backbone": host.clip.fingerprint(),
        "skipped": bank.skipped,
        "versions": versions(),
        "date": now(),
    }
    if trained and unseen:
        outcome = base_to_new(host, bank, BaseNewSplit(trained, unseen))
        document |= {"scores": outcome.scores, "domains": outcome.domains, "per_class": outcome.per_class}
    else:
        logits = predict_logits(host, bank, data.classnames)
        document["scores"] = {"accuracy": accuracy(logits, bank.labels), "ece": ece(logits, bank.labels)}
    write_document(args.out / "eval.json", document)
    note(args, "\n".join(f"{k:<12} {v:6.2f}" for k, v in document["scores"].items()))
    if bank.skipped:
        note(args, f"skipped      {len(bank.skipped)} unreadable images")
    note(args, f"results  {args.out / 'eval.json'}")


COMMAND = Command("eval", "test a saved run on a dataset", options, run)
