"""What each ``ogen`` command does, given its parsed options."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from ogenlib.bench.config import PRESET, PROTOCOLS, settings_for
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.bench.suite import run_suite
from ogenlib.bench.texts import check_hosts, pool_folder, source_for, text_options
from ogenlib.cli.combinations import check_bench, check_data, check_train
from ogenlib.cli.inputs import read_names
from ogenlib.cli.settings import host_options
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.use import printed_or_written, run_at
from ogenlib.data import (
    Dataset,
    FeatureBank,
    ImageSet,
    base_new_split,
    check_dataset,
    check_suite,
    extract_shards,
    few_shot,
    list_datasets,
    list_suite,
    load_dataset,
)  # fmt: skip
from ogenlib.data.sheet import contact_sheet
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import METHODS, Host, build, method, method_name, takes_anchors
from ogenlib.ogen.config import ogen_config
from ogenlib.ogen.wrapper import OGEN
from ogenlib.report.page import write_report
from ogenlib.report.text import summary_text
from ogenlib.results import tables as results
from ogenlib.results.file import read_results
from ogenlib.runs.saved import CARD, read_run
from ogenlib.towers import Backbone, convert_openai, load_backbone
from ogenlib.train.batches import load_bank
from ogenlib.train.loop import TrainConfig, fit
from ogenlib.utils import distributed
from ogenlib.utils.documents import write_document
from ogenlib.utils.files import atomic_write, refuse_existing
from ogenlib.utils.locks import hold

SHEET_IMAGES = 96  # pictures on a contact sheet
SHARDS_TIMEOUT = timedelta(days=7)  # one process of an extraction may have much more left to do than another
SETTINGS = ("lr", "batch_size", "optimizer")


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        say(text)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Training options that were given on the command line."""
    return {k: getattr(args, k) for k in SETTINGS if hasattr(args, k)}


def _part(data: Dataset, split: str) -> ImageSet:
    part = getattr(data, split)
    if part is None or len(part) == 0:
        raise ValueError(f"dataset {data.name} has no {split} images; choose another --split")
    return part


def bench(args: argparse.Namespace) -> None:
    check_bench(args)
    preset, changes = _recipe(args)
    config = BenchConfig(
        protocol=args.protocol,
        dataset=args.dataset,
        model=args.model,
        pretrained=args.pretrained,
        hosts=tuple(args.hosts),
        shots=args.shots,
        epochs=args.epochs,
        seeds=tuple(args.seeds),
        views=args.views,
        measure_every=args.measure_every,
        precision=args.precision,
        device=args.device,
        skip_bad=args.skip_bad,
        settings=_settings(args),
        ogen=args.ogen,
        held_out=args.held_out_names,
        preset=preset,
        ogen_settings=changes,
        root=args.root,
        targets=tuple(args.targets),
        suite=args.suite,
        shots_list=tuple(args.shots_list),
        train_domain=args.train_domain,
        retention=tuple(args.retention),
        alphas=tuple(args.alphas),
        captions=args.captions,
        pool=args.pool,
    )
    if args.smoke:
        config = config.smoke()
    run = run_suite if config.suite else run_bench
    document = run(config, args.out, command=_command(), progress=not args.quiet)
    home = document["protocol"]["home_domain"]
    where = f" tested on {home}" if home else ""
    numbers = ", ".join(str(n or "all") for n in config.all_shots())
    trained = PROTOCOLS[config.protocol].shown.trained[1]
    shots = f"{numbers} shots" if numbers else f"{document['protocol']['n_base']} training {trained}"
    _say(args, f"\n{document['protocol']['dataset']}{where}, {shots}, {len(config.seeds)} seed(s)")
    _say(args, summary_text(document))
    _say(args, f"\nreport   {args.out / 'report.html'}\nresults  {args.out / 'results.json'}")


def _command() -> str:
    return shlex.join(["ogen", *sys.argv[1:]])


def train(args: argparse.Namespace) -> None:
    with distributed.group(args.device):
        _train(args)


def _train(args: argparse.Namespace) -> None:
    settings = {"epochs": args.epochs, "seed": args.seed, "precision": args.precision, **_settings(args)}
    TrainConfig(**settings)  # refuses bad settings before anything is loaded
    args.host = method_name(args.host)
    check_train(args, getattr(args, "set", ()))
    check_hosts([args.host], args.captions, args.pool)
    given = host_options(args.host, getattr(args, "set", ()))
    unknown, chosen = _ogen_asked(args), None if args.names is None else read_names(args.names)
    clip = load_backbone(args.model, args.pretrained, device=args.device)
    data = load_dataset(args.dataset, root=args.root, skip_bad=args.skip_bad)
    names = list(data.classnames) if chosen is None else chosen
    options = method(args.host).dataset_options(data.templates)
    if args.context is not None:
        options["context"] = args.context
    source = source_for([args.host], data, args.captions, args.pool, without=_untrained(data, names, unknown))
    options |= text_options(args.host, source)
    picked = (few_shot(data.train, args.shots, args.seed) if args.shots else data.train).of_classes(names)
    if source is not None and takes_anchors(method(args.host)):
        rank, count = distributed.world()
        folder = pool_folder(source, clip, args.out)
        options |= source.options(
            clip,
            picked,
            folder,
            views=args.views,
            seed=args.seed,
            skip_bad=args.skip_bad,
            rank=rank,
            count=count,
            barrier=distributed.barrier,
        )
    options |= given
    if args.ogen:
        preset, changes = _recipe(args)
        recipe = {"preset": preset, **settings_for(preset, changes, len(names))}
        host: Host = OGEN.build(args.host, clip, names, unknown, options, **recipe)
    else:
        host = build(args.host, clip, names, **options)
    bank = load_bank(host, clip, picked, views=args.views, seed=args.seed, skip_bad=args.skip_bad)
    with hold(args.out / CARD) if distributed.is_main() else nullcontext():
        history: list[dict[str, Any]] = []
        if host.trainable() or host.training_free:
            history = fit(host, bank, out=args.out, progress=not args.quiet, **settings).epochs
        if not distributed.is_main():
            return
        extra = {
            "dataset": data.name,
            "data_hash": data.hash(),
            "shots": args.shots,
            "seed": args.seed,
            "command": _command(),
            "versions": results.versions(),
            "history": history,
            "skipped": [*data.info.get("skipped", []), *bank.skipped],
            **({} if source is None else {"anchors": dict(source.card)}),
        }
        host.save(args.out, extra)
    skipped = len(extra["skipped"])
    trained = args.host + " + OGEN" * args.ogen
    _say(
        args,
        f"trained {trained} on {len(picked) - len(bank.skipped)} images of {len(names)} classes"
        + (f" ({skipped} unreadable images left out)" if skipped else ""),
    )
    _say(args, f"run      {args.out}\ntry      ogen predict {args.out} IMAGE")


def _untrained(data: Dataset, names: Sequence[str], unknown: Sequence[str] | None) -> list[str]:
    """Names that nothing may be learned of but themselves."""
    return [name for name in data.classnames if name not in names or name in (unknown or ())]


def _recipe(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """OGEN's preset, and the settings given besides."""
    return getattr(args, "preset", PRESET), dict(getattr(args, "ogen_set", ()))


def _ogen_asked(args: argparse.Namespace) -> list[str] | None:
    """The unknown names, None where they are held out; refuses options of OGEN that do not fit."""
    given = [k for k in ("preset", "ogen_set", "unknown", "unknown_file") if hasattr(args, k)]
    if given and not args.ogen:
        raise ValueError(f"--{given[0].replace('_', '-')} is an option of OGEN; add --ogen, or leave it out")
    preset, settings = _recipe(args)
    ogen_config(preset, **settings)  # refused before anything is loaded
    if args.ogen and not method(args.host).info.ogen:
        takers = ", ".join(name for name, cls in METHODS.items() if cls.info.ogen)
        raise ValueError(f"{args.host} has nothing to train, so OGEN cannot be added; --host takes {takers}")
    if hasattr(args, "unknown_file"):
        return read_names(args.unknown_file)
    return list(dict.fromkeys(args.unknown)) if hasattr(args, "unknown") else None


def evaluate_run(args: argparse.Namespace) -> None:
    record = read_run(args.folder)
    host = run_at(args)
    data = load_dataset(args.dataset, root=args.root, skip_bad=args.skip_bad)
    images = _part(data, args.split)
    bank = load_bank(host, host.clip, images, skip_bad=args.skip_bad)
    trained = [n for n in data.classnames if n in host.names]
    unseen = [n for n in data.classnames if n not in host.names]
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
        "versions": results.versions(),
        "date": results.now(),
    }
    if trained and unseen:
        split = type(base_new_split(data.classnames))(tuple(trained), tuple(unseen))
        outcome = evaluate.base_to_new(host, bank, split)
        document |= {"scores": outcome.scores, "domains": outcome.domains, "per_class": outcome.per_class}
    else:
        logits = evaluate.predict_logits(host, bank, data.classnames)
        scores = {"accuracy": evaluate.accuracy(logits, bank.labels), "ece": evaluate.ece(logits, bank.labels)}
        document["scores"] = scores
    write_document(args.out / "eval.json", document)
    _say(args, "\n".join(f"{k:<12} {v:6.2f}" for k, v in document["scores"].items()))
    if bank.skipped:
        _say(args, f"skipped      {len(bank.skipped)} unreadable images")
    _say(args, f"results  {args.out / 'eval.json'}")


def extract(args: argparse.Namespace) -> None:
    # gloo, whatever the features are made on: the processes only wait for each other, and perhaps for long
    with distributed.group("cpu", timeout=SHARDS_TIMEOUT):
        _extract(args)


def _extract(args: argparse.Namespace) -> None:
    rank, count = distributed.world()
    clip = load_backbone(args.model, args.pretrained, device=distributed.local_device(args.device))
    images = _part(load_dataset(args.dataset, root=args.root, skip_bad=args.skip_bad), args.split)
    settings: dict[str, Any] = {
        "views": args.views,
        "seed": args.seed,
        "skip_bad": args.skip_bad,
        "progress": not args.quiet and distributed.is_main(),
    }
    if count > 1:
        path = args.out / args.split
        bank = extract_shards(clip, images, path, rank=rank, count=count, barrier=distributed.barrier, **settings)
    else:
        path = args.out / f"{args.split}.safetensors"
        bank = FeatureBank.extract(clip, images, path=path, **settings)
    if not distributed.is_main():
        return
    shape = " x ".join(str(n) for n in bank.features.shape)
    _say(args, f"{shape} features (images x views x dimensions), {len(bank.skipped)} images skipped\nbank     {path}")


def data(args: argparse.Namespace) -> None:
    check_data(args)
    if args.action == "list":
        every = {name: load_dataset(name) for name in list_datasets()}
        counted = [
            {"name": name, "classes": len(one.classnames), "train": len(one.train), "test": len(one.test)}
            for name, one in every.items()
        ]
        printed_or_written(args, counted, "datasets.json")
        for row in counted:
            say(f"{row['name']:<34} {row['classes']:>4} classes {row['train']:>6} train {row['test']:>6} test")
        say(f"with --root DIR: {', '.join(list_suite())}")
        return
    if args.action == "check" and args.root is not None:
        found = check_suite(args.name, args.root, read=args.read, progress=not args.quiet)
        printed_or_written(args, [{"name": args.name, "ok": found.ok, "lines": found.lines()}], "check.json")
        say("\n".join(map(printable, found.lines())))
        if not found.ok:
            raise ValueError(found.summary())
        return
    dataset = load_dataset(args.name, root=args.root, skip_bad=args.skip_bad)
    if args.action == "check":
        report = check_dataset(dataset)
        said = {"name": args.name, "ok": not report.problems, "lines": report.lines()}
        printed_or_written(args, [said], "check.json")
        say("\n".join(map(printable, report.lines())))
        if report.problems:
            first = report.problems[0]
            raise ValueError(
                f"{len(report.problems)} images cannot be read, the first: {first.file} ({first.reason}); "
                "replace them, or pass skip_bad=True to leave them out"
            )
        return
    images = _part(dataset, args.split)
    step = max(1, len(images) // SHEET_IMAGES)
    chosen = range(0, len(images), step)[:SHEET_IMAGES]
    sheet = contact_sheet([images.open(i) for i in chosen], [images.classnames[images[i].label] for i in chosen])
    path = args.out / f"{dataset.name.replace('/', '-')}-{args.split}.png"
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")
    _say(args, f"sheet    {path} ({len(chosen)} of {len(images)} images)")


def _row(clip: Backbone, name: str) -> dict[str, Any]:
    info = method(name).info
    host = build(name, clip, ["cat", "dog"])
    return {
        "name": info.name,
        "kind": info.kind,
        "paper": info.paper,
        "url": info.url,
        "year": info.year,
        "parameters": sum(p.numel() for p in host.trainable().values()),
        "ogen": info.ogen,
    }


def methods(args: argparse.Namespace) -> None:
    clip = load_backbone("ogen-tiny")
    rows = [_row(clip, name) for name in METHODS]
    if printed_or_written(args, rows, "methods.json"):
        return
    for row in rows:
        say(f"{row['name']:<14} {row['kind']:<12} {row['parameters']:>8} parameters  {row['paper']} ({row['year']})")


def report(args: argparse.Namespace) -> None:
    document = read_results(args.results / "results.json" if args.results.is_dir() else args.results)
    write_report(document, args.out / "report.html")
    _say(args, f"report   {args.out / 'report.html'}")


def convert(args: argparse.Namespace) -> None:
    refuse_existing(args.out)
    folder = convert_openai(args.file, args.out)
    _say(args, f"model    local-dir:{folder}")
