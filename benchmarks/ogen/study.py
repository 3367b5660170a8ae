"""Every table of docs/ogen.md: which settings were chosen, and what OGEN does with them.

    python -m benchmarks.ogen.study search --features DIR   # benchmarks/results/ogen-search.json, about an hour
    python -m benchmarks.ogen.study pixels                  # benchmarks/results/ogen-pixels.json, half an hour
    python -m benchmarks.ogen.study hosts --features DIR    # benchmarks/results/ogen-hosts.json, an hour
    python -m benchmarks.ogen.study emoji                   # benchmarks/results/ogen-emoji.json
    python -m benchmarks.ogen.study real --features DIR     # benchmarks/results/ogen-real.json
    python -m benchmarks.ogen.study long                    # benchmarks/results/ogen-long.json, 200 epochs
    python -m benchmarks.ogen.study presets                 # benchmarks/results/ogen-presets.json, twenty minutes

`search`, `pixels` (hosts that change the image side) and `hosts` (hosts that lose little by themselves) run on tasks
that no table reports (`ogen/tasks.selection_tasks`); the others run the reported ones once with what those chose.
Finished rows of an interrupted run are kept in `--work` and read again. All rows are without OGEN's evidence, which
`ogen/evidence.py` measures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.clip_features import DATASETS, add_option, file_hashes
from benchmarks.common.kept_rows import kept_rows
from benchmarks.common.options import SEEDS, add_work, parser_of
from benchmarks.common.places import RESULTS
from benchmarks.common.results_file import write_results
from benchmarks.ogen.tasks import StudyTask, emoji_tasks, real_tasks, selection_tasks, task_card
from benchmarks.ogen.variants import Variant, apart, of_task, run_all, run_one, summarize
from ogenlib.ogen.config import PRESETS

SCHEMA = "ogenlib.study/1"
PIXEL_HOSTS, PIXEL_EPOCHS = ("vpt", "ivlp"), 10
ADAPTERS = ("taskres", "cross_modal", "clap", "clip_adapter")
GENERATORS = {f"generator {g}": {"generator": g} for g in ("joint", "per-class", "released", "shift", "joint-shift")}
ANCHORED, ANCHORED_PIXELS, PIXELS_BESIDE = ("prograd",), ("promptsrc", "ivlp"), ("vpt", "maple")


def changed(host: str, changes: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
    """The host with OGEN once for each change of its arguments."""
    return [Variant(name, host, change) for name, change in changes.items()]


def tuned_baseline(host: str, *weights: float) -> list[Variant]:
    """The host with KL to zero-shot over all names and nothing else, for each weight of it."""
    return changed(host, {f"KL {w}": {"preset": "zero-shot-kl", "zero_shot_kl": w} for w in weights})


def search_variants(host: str) -> list[Variant]:
    """Recipes on the selection tasks. What was tried only in scratch trials is named in docs/ogen.md."""
    variants = [Variant("host alone", host)]
    variants += tuned_baseline(host, 0.1, 0.3, 1.0, 3.0)
    only = {"zero_shot_share": 0.0, "zero_shot_kl": 0.0, "teacher": None, "synthesized_ce": 1.0}
    variants.append(Variant("CE on synthesized features, nothing else", host, only))
    for share in (0.0, 0.5, 1.0):
        for ce in (0.0, 0.3, 1.0):
            for kl in (0.1, 0.3):
                grid = {"zero_shot_share": share, "zero_shot_kl": kl, "synthesized_ce": ce}
                name = f"share {share:g}, KL {kl}, " + (f"CE {ce:g}" if ce else "no generator")
                variants.append(Variant(name, host, grid if ce else {**grid, "generator": None}))
    changes: dict[str, dict[str, Any]] = {
        "KL 1": {"zero_shot_kl": 1.0},
        "no teacher": {"teacher": None},
        "mean teacher": {"teacher": "mean"},
        "teacher three times": {"teacher_weight": 3.0},
        "teacher kept": {"keep_teacher": True},
        "one group of names": {"name_groups": 1},
        "groups of names": {"name_groups": None},
        "spread none": {"spread": "none"},
        "shift": {"generator": "shift"},
        "KL on synthesized": {"synthesized_kl": 1.0},
    }
    variants.append(Variant("ogenlib", host, {}))
    return variants + changed(host, {f"ogenlib, {name}": change for name, change in changes.items()})


def search(folder: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    tasks = selection_tasks(folder)
    emoji = [t for t in tasks if t.family.startswith("tags")]
    real = [t for t in tasks if not t.family.startswith("tags")]
    cells = []
    for variant in [
        Variant("zero-shot", "zero_shot"),
        *search_variants("coop"),
        Variant("KgCoOp", "kgcoop"),
        Variant("KgCoOp, all names", "kgcoop", names="all"),
    ]:
        cells += [(variant, task, s, task.epochs) for task in emoji for s in SEEDS]
    for host in ("text_adapter", "taskres"):
        for variant in [Variant("zero-shot", "zero_shot"), *search_variants(host)]:
            cells += [(variant, task, s, task.epochs) for task in real for s in SEEDS]
    return run_all(cells, work), tasks


def pixels(_: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    """Where hosts that change the image side score names without images, and how much they keep to zero-shot."""
    tasks = [t for t in selection_tasks(None) if t.pixels is not None]
    cells = []
    for host in PIXEL_HOSTS:
        rows = [Variant("zero-shot", "zero_shot"), Variant("host alone", host)]
        for frozen in (True, False):
            where = "frozen images" if frozen else "the host's images"
            rows += [
                Variant(f"{where}, KL {kl:g}", host, {"frozen_images": frozen, "zero_shot_kl": kl})
                for kl in (0.3, 1.0, 3.0)
            ]
        cells += [(v, task, 1, PIXEL_EPOCHS) for task in tasks for v in rows]
    return run_all(cells, work), tasks


def anchored_variants(host: str) -> list[Variant]:
    """Less of what OGEN adds, for prompt learners that stay near zero-shot by their own loss or short training."""
    changes: dict[str, dict[str, Any]] = {
        "KL 0.3": {"zero_shot_kl": 0.3},
        "KL 0.1": {"zero_shot_kl": 0.1},
        "no KL": {"zero_shot_kl": 0.0},
        "KL 0.3, no generator": {"zero_shot_kl": 0.3, "generator": None},
        "no generator, no KL": {"generator": None, "zero_shot_kl": 0.0},
        "zero-shot for new names, nothing else": {"generator": None, "zero_shot_kl": 0.0, "teacher": None},
    }
    return [Variant("host alone", host), *changed(host, changes)]


def adapter_variants(host: str) -> list[Variant]:
    """How much of names without images an adapter leaves to zero-shot, and which parts earn their place."""
    changes: dict[str, dict[str, Any]] = {"ogenlib": {}}
    changes |= {f"share {share:g}": {"zero_shot_share": share} for share in (0.0, 0.6, 1.0)}
    changes |= {"no generator": {"generator": None}, "no KL": {"zero_shot_kl": 0.0}}
    return [Variant("host alone", host), *changed(host, changes)]


def hosts(folder: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    """Hosts that lose little of new names by themselves: adapters on all tasks, prompts on the harder emoji ones."""
    tasks = selection_tasks(folder)
    cells = [(v, t, s, t.epochs) for host in ADAPTERS for v in adapter_variants(host) for t in tasks for s in (1, 2)]
    apart = [t for t in tasks if t.family == "tags apart"]
    cells += [(v, t, s, t.epochs) for host in ANCHORED for v in anchored_variants(host) for t in apart for s in (1, 2)]
    for host in (*ANCHORED_PIXELS, *PIXELS_BESIDE):
        tried = anchored_variants(host)[: None if host in ANCHORED_PIXELS else 3]
        cells += [(v, t, 1, PIXEL_EPOCHS) for v in tried for t in apart]
    return run_all(cells, work), tasks


def emoji_variants() -> list[Variant]:
    """Rows of the reported emoji tables."""
    rows = [Variant("zero-shot", "zero_shot"), Variant("host alone", "coop")]
    rows += tuned_baseline("coop", 0.3, 1.0, 3.0)
    rows += [Variant("KgCoOp", "kgcoop"), Variant("KgCoOp, all names", "kgcoop", names="all")]
    rows += [Variant("ogenlib", "coop", {}), Variant("ogenlib, names held out", "coop", {}, names="held out")]
    for host in ("coop", "text_adapter"):
        rows += [Variant("host alone", host), Variant("ogenlib", host, {})] if host != "coop" else []
        rows += changed(host, ablation())
    rows += changed("coop", GENERATORS)
    rows += [Variant(f"joint-shift, K {k}", "coop", {"generator": "joint-shift", "k": k}) for k in (1, 2, 4, 5)]
    rows += [Variant("teacher ema", "coop", {"teacher": "ema", "decay": 0.99})]  # of steps, not epochs
    rows.append(Variant("teacher mean", "coop", {"teacher": "mean"}))
    rows.append(Variant("ALMT, kept", "coop", {"keep_teacher": True}))
    rows += [Variant(f"ALMT, m_max {m}", "coop", {"m_max": m}) for m in (3, 6, 15)]
    return rows


def ablation() -> dict[str, dict[str, Any]]:
    """Less than both generator and teacher; distillation from zero-shot and the share are in all."""
    off = {"generator": None, "teacher": None}
    return {"none": off, "generator": {"teacher": None}, "teacher": {"generator": None}}


def emoji(_: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    tasks = emoji_tasks(SEEDS)
    cells = [(v, tasks[s], s, tasks[s].epochs) for v in emoji_variants() for s in SEEDS]
    return run_all(cells, work), [tasks[SEEDS[0]]]


def real(folder: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    tasks = real_tasks(folder)
    cells = [(Variant("zero-shot", "zero_shot"), task, s, task.epochs) for task in tasks for s in SEEDS]
    for host in ("text_adapter", "taskres"):
        rows = [Variant("host alone", host)]
        rows += tuned_baseline(host, 0.1, 0.3, 1.0, 3.0)
        rows += [Variant("ogenlib", host, {}), Variant("ogenlib, names held out", host, {}, names="held out")]
        rows += changed(host, ablation())
        rows += changed(host, GENERATORS)
        cells += [(v, task, s, task.epochs) for v in rows for task in tasks for s in SEEDS]
    return run_all(cells, work), tasks


def long(_: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    tasks = emoji_tasks(SEEDS)
    rows = [Variant("zero-shot", "zero_shot"), Variant("host alone", "coop"), Variant("ogenlib", "coop", {})]
    cells = [(v, tasks[s], s, 200) for v in rows for s in SEEDS]
    return run_all(cells, work, curve=True), [tasks[SEEDS[0]]]


# Trainings of the comparison of presets. SGD is the released code's optimizer, and 0.002 its rate. A step of SGD is as
# large beside the embeddings as theirs where the rate grows with the square of their size: 0.03 here.
TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    ", SGD 0.002": {"optimizer": "sgd", "lr": 0.002},
    ", SGD 0.03": {"optimizer": "sgd", "lr": 0.03},
    ", generator's rate a tenth": {"rates": [[r"^generator\.", 0.1]]},
}


def preset_variants() -> list[tuple[Variant, str]]:
    """The presets that follow the paper and its code, as they were, and without a part; with the training of each."""
    own, near, new = PRESETS["released-code"]["branches"]
    code: dict[str, dict[str, Any]] = {
        "as it was": {"branches": None, "name_groups": None, "synthesized_ce_within": 0.5},
        "without the own class's branch": {"branches": [0.0, near, new]},
        "without the neighbours' branch": {"branches": [own, 0.0, new]},
        "without the new names' branch": {"branches": [own, near, 0.0]},
        "without the three": {"branches": [0.0, 0.0, 0.0]},
        "without warm-up": {"warmup": 0.0},
    }
    paper: dict[str, dict[str, Any]] = {
        "as it was": {"synthesize": "unknown"},
        "without synthesized features": {"synthesized_ce": 0.0, "generator": None, "joint": False, "warmup": 0.0},
        "without cross-entropy on them": {"synthesized_ce": 0.0},
        "without teacher": {"teacher": None},
    }
    rows = [(Variant(f"host alone{t}", "coop"), t) for t in TRAININGS if "generator" not in t]
    for preset, changes, trainings in (("released-code", code, [*TRAININGS]), ("paper", paper, ["", ", SGD 0.03"])):
        rows += [(Variant(f"{preset}{t}", "coop", {"preset": preset}), t) for t in trainings]
        rows += [(Variant(f"{preset}, {n}", "coop", {"preset": preset, **c}), "") for n, c in changes.items()]
    return rows


def presets(_: Path | None, work: Path) -> tuple[list[dict[str, Any]], list[StudyTask]]:
    tasks = emoji_tasks(SEEDS)
    cells = [(v, tasks[s], s, tasks[s].epochs, TRAININGS[t]) for v, t in preset_variants() for s in SEEDS]

    def decides(variant: Variant, task: StudyTask, seed: int, epochs: int, train: Mapping[str, Any]) -> tuple[Any, ...]:
        return (*of_task(variant, task), seed, epochs, dict(train))

    rows = kept_rows(cells, work, decides, run_one)
    return [one for row in rows for one in apart(row)], [tasks[SEEDS[0]]]


STUDIES = {
    "search": search,
    "pixels": pixels,
    "hosts": hosts,
    "emoji": emoji,
    "real": real,
    "long": long,
    "presets": presets,
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("study", choices=sorted(STUDIES), help="which table")
    parser.add_argument("--out", type=Path, default=None, help="results file (benchmarks/results/ogen-STUDY.json)")
    add_work(parser, "runs/study", parts=False)
    add_option(parser)
    args = parser.parse_args()
    began = time.perf_counter()
    rows, tasks = STUDIES[args.study](args.features, args.work)
    uses_features = args.features is not None and args.study in ("real", "search", "hosts")
    hashes = {name: file_hashes(name, args.features) for name in DATASETS} if uses_features else {}
    card = {
        "study": args.study,
        "tasks": {task.name: task_card(task) for task in tasks},
        "feature_files": hashes,
        "seeds": sorted({row["seed"] for row in rows}),
        "selection": "none: the last epoch is tested",
    }
    path = args.out or RESULTS / f"ogen-{args.study}.json"
    write_results(path, SCHEMA, "ogen.study", card, began=began, rows=rows, summary=summarize(rows))


if __name__ == "__main__":
    main()
