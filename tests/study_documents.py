"""Small documents as `ogen/study.py`, `ogen/cost.py` and `hosts/study.py` write them; every number is made up."""

from __future__ import annotations

from typing import Any

from benchmarks.hosts.study import HOME, costs, gains, host_variants, with_other_sets
from benchmarks.ogen.evidence import SCORES as EVIDENCE_SCORES
from benchmarks.ogen.evidence import summarize as evidence_summary
from benchmarks.ogen.evidence_tables import CONTROLS
from benchmarks.ogen.study import ablation, emoji_variants, preset_variants, search_variants
from benchmarks.ogen.variants import CONTROL, SCORES, Variant, summarize
from benchmarks.robust.base_to_new import search_variants as robust_search_variants
from benchmarks.robust.rates import chosen
from benchmarks.robust.study import costs as robust_costs
from benchmarks.robust.study import tables as robust_tables_of
from ogenlib.results.types import ROBUST_METRICS


def entry(variant: Variant, family: str, domain: str = "", **scores: float) -> dict[str, Any]:
    """One summary row; all scores are 1 unless given."""
    row = {"host": variant.host, "variant": variant.name, "family": family, "domain": domain}
    return row | {key: [scores.get(key, 1.0), 0.25] for key in SCORES}


def document(
    summary: list[dict[str, Any]], seeds: list[int], rows: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    return {"protocol": {"seeds": seeds}, "summary": summary, "rows": rows or []}


def emoji_document() -> dict[str, Any]:
    summary = []
    plain = [v for v in emoji_variants() if v.name == "host alone" or v.name.startswith("KL ")]
    for variant in (*emoji_variants(), *(Variant(v.name + CONTROL, v.host) for v in plain)):
        best = variant.name == "ogenlib"
        summary.append(entry(variant, "emoji", "noto", H=58.04 if best else 50.0))
        summary.append(entry(variant, "emoji", "twemoji", H=40.0))
    return document(summary, [1, 2, 3])


def presets_document() -> dict[str, Any]:
    summary = []
    for variant, _ in preset_variants():
        summary += [entry(variant, "emoji", "noto", H=46.25), entry(variant, "emoji", "a", H=40.0)]
        summary.append(entry(variant, "emoji", "b", H=50.0))
    return document(summary, [1, 2, 3])


def real_document() -> dict[str, Any]:
    summary = []
    for family in ("dtd", "stanford_cars"):
        summary.append(entry(Variant("zero-shot", "zero_shot"), family))
        for host in ("text_adapter", "taskres"):
            names = ["host alone", *(f"KL {w}" for w in (0.1, 0.3, 1.0, 3.0))]
            names += [name + CONTROL for name in names] + ["ogenlib", "ogenlib, names held out"]
            names += ablation()
            names += [f"generator {g}" for g in ("joint", "per-class", "released", "shift", "joint-shift")]
            summary += [entry(Variant(name, host), family, joint_H=51.26) for name in names]
    return document(summary, [1, 2, 3])


def search_document() -> dict[str, Any]:
    variants = search_variants("coop")
    summary = [entry(v, family, H=60.0, joint_H=50.0) for v in variants for family in ("tags", "tags apart")]
    summary += [entry(v, "imagenet", H=70.06) for v in search_variants("taskres")]
    return document(summary, [1])


def long_document() -> dict[str, Any]:
    rows = []
    for variant, new in (("host alone", [50.0, 54.0, 44.0]), ("ogenlib", [50.0, 54.0, 53.5])):
        curve = {key: [1.0, 2.0, 3.0] for key in ("base", "H", "joint_H")}
        rows += [{"variant": variant, "curve": {**curve, "new": [x + shift for x in new]}} for shift in (-1.0, 1.0)]
    return document([], [1, 2], rows)


def cost_document() -> dict[str, Any]:
    row = {
        "host": "coop",
        "case": "ogenlib",
        "host_seconds": 0.005,
        "ogen_seconds": 0.006,
        "ratio": 1.2,
        "seconds_before_training": 0.5,
        "kept_mib": 2.5,
    }
    return {"protocol": {}, "rows": [row]}


def hosts_rows() -> list[dict[str, Any]]:
    """Three methods on two families: OGEN adds 2 on noto and nothing on other sets, with noise over seeds and tasks."""
    families = (("emoji", ["emoji-categories"]), ("emoji-concepts", ["emoji-concepts/a", "emoji-concepts/b"]))
    rows = []
    for variant in host_variants(["zero_shot", "coop", "vpt"]):
        for family, tasks in families:
            for at, task in enumerate(tasks):
                for seed in (1, 2, 3):
                    value = 40.0 + at + (2.0 + 0.1 * seed + at if variant.name == "ogenlib" else 0.0)
                    domains = {
                        HOME: dict.fromkeys(SCORES, value),
                        "x": dict.fromkeys(SCORES, 10.0),
                        "y": dict.fromkeys(SCORES, 30.0),
                    }
                    rows.append(
                        with_other_sets(
                            {
                                "variant": variant.name,
                                "host": variant.host,
                                "task": task,
                                "family": family,
                                "seed": seed,
                                "epochs": 20,
                                "seconds": 1.0,
                                "seconds_fit": 1.5 + seed / 2,
                                "domains": domains,
                                "parameters": 0 if variant.host == "zero_shot" else 512,
                            }
                        )
                    )
    return rows


def hosts_document() -> dict[str, Any]:
    rows = hosts_rows()
    found = document(summarize(rows), [1, 2, 3], rows)
    return {**found, "gains": gains(rows), "costs": costs(rows, {"coop host alone": 900.4, "coop ogenlib": 910.0})}


def pixels_document() -> dict[str, Any]:
    entries = []
    for family, value in (("tags", 40.0), ("tags apart", 50.0)):
        for host, name, more in (
            ("zero_shot", "zero-shot", 0.0),
            ("vpt", "frozen images, KL 1", 1.0),
            ("ivlp", "frozen images, KL 1", 2.0),
        ):
            scores = {k: [value + more, 0.0] for k in SCORES}
            entries.append({"host": host, "variant": name, "family": family, "domain": "", **scores})
    return {"summary": entries, "protocol": {"seeds": [1], "tasks": {"a": {}, "b": {}}}}


def hosts_tried_document() -> dict[str, Any]:
    rows = (
        ("taskres", "share 1", "tags", 60.0),
        ("taskres", "share 1", "imagenet", 70.0),
        ("promptsrc", "no KL", "tags", 50.0),
    )
    entries = [
        {"host": host, "variant": name, "family": family, "domain": "", **{k: [value, 0.0] for k in SCORES}}
        for host, name, family, value in rows
    ]
    return {"summary": entries, "protocol": {"seeds": [1]}}


def robust_document() -> dict[str, Any]:
    """Zero-shot at 40 / 30 / 70, full fine-tuning and VPT from there to two ends; VRF for one of them."""
    rows = []
    for host, ends in (("zero_shot", None), ("full_ft", (60.0, 20.0, 50.0)), ("vpt", (58.0, 34.0, 68.0))):
        for seed in (1, 2):
            start = {"val": 41.0, "id": 40.0, "ood": 30.0, "zero_shot": 70.0}
            curve = None
            if ends is not None:
                half = {"val": 90.0, **{k: (start[k] + e) / 2 + 1 for k, e in zip(ROBUST_METRICS, ends, strict=True)}}
                end = {"val": 60.0, **dict(zip(ROBUST_METRICS, ends, strict=True))}
                curve = [{"alpha": 0.0, **start}, {"alpha": 0.5, **half}, {"alpha": 1.0, **end}]
            others = {"VRF, paper": {**start, "ood": 33.0}} if host == "vpt" else {}
            rows.append(
                {
                    "task": "emoji-categories",
                    "variant": "host alone",
                    "host": host,
                    "ogen": False,
                    "seed": seed,
                    "epochs": 20 if ends else 0,
                    "seconds_fit": 10.0 * seed if ends else 0.0,
                    "parameters": {"zero_shot": 0, "full_ft": 4000, "vpt": 1000}[host],
                    **(curve[-1] if curve else start),
                    "curve": curve,
                    "others": others,
                }
            )
    card = {"datasets": {"emoji-categories": {}}, "seeds": [1, 2], "alphas": [0.0, 0.5, 1.0]}
    return {"protocol": card, **robust_tables_of(rows), "costs": robust_costs(rows)}


def robust_cost_document() -> dict[str, Any]:
    step = {"seconds": 0.2, "ratio": 1.0, "peak_mib": 500.0, "parameters": 1000}
    rows = [
        {"case": "full_ft", "host": "full_ft", **step},
        {
            "case": "r_adapter, rank 16",
            "host": "r_adapter",
            "seconds": 0.1512,
            "ratio": 0.75,
            "peak_mib": 400.0,
            "parameters": 25,
        },
        {"case": "zero_shot", "host": "zero_shot", "peak_mib": 300.0},
    ]
    own = {"batch": 32, "classes": 32, "rounds": 5, "threads": 1}
    card = {"models": {"ogen-tiny": own}, "reference": "full_ft"}
    return {"protocol": card, "rows": [{"model": "ogen-tiny", **row} for row in rows]}


def pool_document() -> dict[str, Any]:
    rows = [
        {"case": "write", "seconds": 60.0, "largest_process_mib": 1800.0, "disk_mib": 2027.4},
        {"case": "exact", "seconds": 11.0, "extra_mib": 277.7, "ms_a_query": 22.0, "recall": 100.0},
        {"case": "build ivf", "seconds": 189.0, "extra_mib": 1533.0, "lists": 4096, "index_mib": 992.0},
        {"case": "search ivf", "probe": 8, "seconds": 0.5, "extra_mib": 1.0, "ms_a_query": 1.0, "recall": 78.0},
    ]
    card = {"rows": 1_000_000, "dim": 512, "queries": 500, "k": 16, "processes": 4, "threads": 2}
    return {"protocol": card, "rows": rows}


def rates_document() -> dict[str, Any]:
    """Full fine-tuning at three factors, two of them equally good, and one that failed; a second method of its kind."""
    values = {1: 40.0, 3: 44.0, 10: 44.0, 30: None}
    rows = [{"host": "full_ft", "factor": f, "lr": 1e-4 * f, "val": v} for f, v in values.items()]
    card = {"validation": {"images": 75}, "seed": 0, "epochs": 10}
    return {"protocol": card, "rows": rows, "chosen": chosen(rows)}


def r_adapter_tries_document() -> dict[str, Any]:
    """Two settings, the second of which is chosen; the reference was never tried."""
    tried = [{"setting": s, "val": v} for s, v in (("the paper's", 40.0), ("the paper's", 42.0), ("other", 44.0))]
    tested = [{"setting": s, "id": 50.0, "ood": 30.0, "zero_shot": 70.0} for s in ("full fine-tuning", "other")]
    card = {"validation": {"images": 75}, "seeds": [1], "seeds_of_choice": [0, 10]}
    return {"protocol": card, "tried": tried, "tested": tested, "chosen": "other"}


def robust_search_document() -> dict[str, Any]:
    summary = [entry(v, family, H=60.0) for v in robust_search_variants(["flyp"]) for family in ("tags", "tags apart")]
    return {"protocol": {"datasets": {"a": {}, "b": {}}, "seeds": [1], "epochs": 10}, "summary": summary}


def ood_document() -> dict[str, Any]:
    """`ood.json` with two detectors on all tasks and one that needs names of the unknown."""
    far, near = (
        ("imagenet-dtd", "imagenet-ucf101", "imagenet-flowers"),
        ("dtd-base-new", "cars-base-new", "imagenet-first-last"),
    )
    numbers = {"auroc": 80.0, "aupr_in": 70.0, "aupr_out": 60.0, "fpr95_ood_positive": 50.0, "fpr95_id_positive": 40.0}
    who = [("MCM", "names", far + near), ("KNN", "images", far + near), ("ours, given names", "unknown names", near)]
    rows = [{"detector": d, "setting": s, "task": t, "seed": 1, **numbers} for d, s, tasks in who for t in tasks]
    summary = [
        {"detector": d, "setting": s, "tasks": g, **numbers}
        for d, s, tasks in who
        for g, wanted in (("far", far), ("near", near))
        if set(wanted) <= set(tasks)
    ]
    tried = [{"settings": {"k": k}, "tasks": 13, **numbers} for k in (1, 10)]
    return {
        "schema": "ogenlib.ood/1",
        "protocol": {"seeds": [1, 2], "excluded": {"imagenet-ucf101": ["Balance Beam"]}},
        "rows": rows,
        "summary": summary,
        "validation": {"KNN": {"chosen": {"k": 10}, "tried": tried}},
        "without_exclusions": [{"detector": "MCM", "task": t, **numbers} for t in far],
    }


def ood_tries_document() -> dict[str, Any]:
    def row(name: str, setting: str, auroc: float) -> dict[str, Any]:
        means = {group: {"auroc": auroc, "fpr95_ood_positive": 30.0} for group in ("all", "far")}
        return {"try": name, "setting": setting, "means": means, "tasks": {}}

    return {"protocol": {}, "rows": [row("MCM", "temperature 1", 81.0), row("ranks", "", 89.0)]}


def ood_emoji_document() -> dict[str, Any]:
    """One method with two detectors; of the far task there are a dataset and the mean."""
    places = (
        ("x", "near", 70.0),
        ("x", "far", 10.0),
        ("average", "far", 60.0),
        ("x", "full-spectrum", 50.0),
        ("average", "shift", 5.0),
    )
    rows = [
        {
            "dataset": dataset,
            "task": task,
            "detector": detector,
            "host": "coop",
            "ogen": ogen,
            "auroc": [value, 1.0],
            "fpr95_ood_positive": [value + 1, 1.0],
            "flagged": [value, 0.5],
        }
        for dataset, task, value in places
        for detector in ("mcm", "ogen")
        for ogen in (False, True)
    ]
    return {"protocol": {"seeds": [1, 2]}, "summary": rows}


def ood_speed_document() -> dict[str, Any]:
    rates = [
        {"detector": d, "threads": t, "rows": 1000000, "rows_a_call": 16777, "rows_a_second": 5000 * t}
        for t in (1, 2)
        for d in ("MCM", "OGENDetector")
    ]
    memory = [
        {"detector": "MCM", "rows": 100000, "peak_over_features_mib": 1200},
        {"detector": "OGENDetector", "rows": 100000, "peak_over_features_mib": 150},
        {"detector": "OGENDetector", "rows": 1000000, "peak_over_features_mib": 160},
    ]
    card = {"dimensions": 512, "classes": 1000, "device": "cpu"}
    return {"protocol": card, "throughput": rates, "memory": memory}


def startup_document() -> dict[str, Any]:
    rows = [{"case": "ogen --help", "seconds": 0.125, "most": 0.25}]
    return {"protocol": {"turns": 3}, "rows": rows}


def evidence_document(family: str, ours: tuple[str, ...], seeds: tuple[int, ...]) -> dict[str, Any]:
    """Each row a point above the one before it; the second seed a point above the first."""
    names = ["zero-shot", *CONTROLS, "OGEN without evidence", *ours]
    domains = ("noto", "openmoji") if family == "emoji" else ("",)
    rows = [
        {"host": "coop", "variant": name, "task": family, "family": family, "domain": domain, "seed": seed,
         **{score: 40.0 + place + seed + (place == len(names) - 1) * seed for score in EVIDENCE_SCORES}}
        for place, name in enumerate(names) for domain in domains for seed in seeds
    ]  # fmt: skip
    summary = evidence_summary(rows, by_domain=family == "emoji")
    return {"protocol": {"seeds": list(seeds)}, "rows": rows, "summary": summary}


DOCUMENTS = {
    "startup.json": startup_document(),
    "ogen-evidence-choose.json": evidence_document("tags", ("OGEN, evidence 0.5, zero-shot 0",), (1,)),
    "ogen-evidence-real.json": evidence_document("dtd", ("OGEN",), (1, 2)),
    "ogen-evidence-emoji.json": evidence_document("emoji", ("OGEN",), (1, 2)),
    "ogen-evidence-hosts.json": evidence_document("emoji", ("OGEN",), (1, 2)),
    "ogen-pixels.json": pixels_document(), "ogen-hosts.json": hosts_tried_document(),
    "ogen-emoji.json": emoji_document(), "ogen-real.json": real_document(), "ogen-search.json": search_document(),
    "ogen-presets.json": presets_document(), "ogen-long.json": long_document(), "ogen-cost.json": cost_document(),
    "hosts.json": hosts_document(), "robust.json": robust_document(), "ood.json": ood_document(),
    "robust-cost.json": robust_cost_document(), "anchor-pool.json": pool_document(),
    "ood-tries.json": ood_tries_document(), "ood-emoji.json": ood_emoji_document(),
    "ood-speed.json": ood_speed_document(),
    "robust-concepts.json": robust_document(), "robust-seeds.json": robust_document(),
    "robust-rates.json": rates_document(), "robust-base-to-new.json": hosts_document(),
    "robust-ogen-search.json": robust_search_document(), "r-adapter-tries.json": r_adapter_tries_document(),
}  # fmt: skip
SHOWN = {
    "startup": ["| `ogen --help` | 0.12 | 0.25 |", "Median of 3 turns"],
    "ogen-evidence-choose": ["| CoOp: zero-shot | 41.0 |", "| CoOp: OGEN, evidence 0.5, zero-shot 0 | 50.0 |",
                             "tags. Seeds 1."],
    "ogen-evidence-real": ["| DTD, CoOp: KL to zero-shot, weight 0.3 | 44.5 ± 0.7 |", "Seeds 1, 2.",
                           "joint H +3.5", "over KL 1, with that control"],
    "ogen-evidence-emoji": ["| emoji-categories, CoOp: OGEN without evidence | 48.5 ± 0.7 |",
                            "the mean of the other icon sets: H +3.5"],
    "hosts-controls": ["| CoOp | 42.5 / 47.5 / 51.0 | +3.5 (0.09) |", "Of 1 hosts above it: 1 in H, 1 in joint H"],
    "ogen-pixels": ["|  | VPT: base | new | H | joint H | IVLP: base | new | H | joint H |",
                    "| zero-shot | 45.0 | 45.0 | 45.0 | 45.0 | 45.0 |",
                    "| frozen images, KL 1 | 46.0 | 46.0 | 46.0 | 46.0 | 47.0 |", "2 tasks"],
    "ogen-hosts": ["| H / joint H | tags | imagenet |", "| TaskRes, share 1 | 60.0 / 60.0 | 70.0 / 70.0 |",
                   "| PromptSRC, no KL | 50.0 / 50.0 | – |"],
    "ood-emoji": ["| OGENDetector: CoOp + OGEN | 70.0 ± 1.0 | 71.0 ± 1.0 | 60.0 ± 1.0 | 50.0 ± 1.0 | 5.0 ± 0.5 |",
                  "| MCM: CoOp |", "seeds 1, 2"],
    "ood-tasks": ["**Names only**", "| MCM | 80.0 / 50.0 |", "| ours, given names | – | – | – | 80.0 / 50.0 |",
                  "seeds 1, 2"],
    "ood-measures": ["| MCM | far | 80.0 | 70.0 | 60.0 | 50.0 | 40.0 |", "| ours, given names | near |"],
    "ood-tries": ["| MCM, temperature 1 | 81.0 / 30.0 | 81.0 / 30.0 |", "| **ranks** | 89.0 / 30.0 |"],
    "ood-speed": ["| MCM | 5,000 | 10,000 | 1,200 | – |", "| OGENDetector | 5,000 | 10,000 | 150 | 160 |",
                  "1,000,000 rows in pieces of 16,777"],
    "ood-excluded": ["- UCF101: Balance Beam"],
    "ood-unexcluded": ["| MCM | 80.0 / 50.0 | 80.0 / 50.0 | 80.0 / 50.0 | 80.0 / 50.0 |"],
    "ood-validation": ["| KNN | k 1 | 13 | 80.0 / 50.0 |", "| KNN | **k 10** | 13 | 80.0 / 50.0 |"],
    "hosts-categories": ["| zero-shot | 40.0 ± 0.0 | 40.0 ± 0.0 | 40.0 ± 0.0 | 40.0 ± 0.0 | 20.0 ± 0.0 |  |  |  |",
                         "| CoOp + OGEN | 42.2 ± 0.1 | 42.2 ± 0.1 | 42.2 ± 0.1 | 42.2 ± 0.1 | 20.0 ± 0.0 "
                         "| +2.2 (<0.001) | +2.2 (<0.001) | +0.0 |", "over the 3 seeds"],
    "hosts-concepts": ["| VPT | 40.5 ± 0.0 |", "| +2.7 (0.12) |", "over the 2 datasets"],
    "hosts-cost": ["| zero-shot | 0 | – | 2.5 | – | – | – |", "| CoOp | 512 | 20 | 2.5 | 2.5 | 900 | 910 |"],
    "robust-trained": ["| full fine-tuning | 60.0 ± 0.0 | 20.0 ± 0.0 | 50.0 ± 0.0 | 0.0 ± 0.0 | – |",
                       "| VPT | 58.0 ± 0.0 | 34.0 ± 0.0 | 68.0 ± 0.0 | 13.0 ± 0.0 | +14.0 |", "seeds 1, 2"],
    "robust-over": ["| VPT | -2.0 / +14.0 / +18.0 | +7.0 / +8.0 / +7.0 |"],
    "robust-seeds": ["| VPT | -2.0 ± 0.0 | +14.0 ± 0.0 | +18.0 ± 0.0 |", "over 2 seeds"],
    "robust-concepts": ["| full fine-tuning | 60.0 | 20.0 | 50.0 | – |",
                        "| VPT | 58.0 | 34.0 | 68.0 | -2.0 / +14.0 / +18.0 |",
                        "| full fine-tuning · WiSE-FT | 51.0 | 26.0 | 61.0 | -9.0 / +6.0 / +11.0 |",
                        "over 1 datasets (emoji-categories)"],
    "robust-wise": ["| VPT | 0.5 ± 0.0 | 50.0 ± 0.0 | 33.0 ± 0.0 | 70.0 ± 0.0 | 8.0 ± 0.0 |"],
    "robust-vrf": ["| VPT · paper | 40.0 ± 0.0 | 33.0 ± 0.0 | 70.0 ± 0.0 | 3.0 ± 0.0 |"],
    "robust-curves": ["| VPT | 40.0 / 30.0 / 70.0 | 50.0 / 33.0 / 70.0 | 58.0 / 34.0 / 68.0 |"],
    "robust-cost": ["**ogen-tiny**, 32 images of 32 classes, 5 rounds, 1 thread; a step of full fine-tuning took 0.2 s",
                    "| zero-shot | – | – | 300 | – |",
                    "| full fine-tuning | 100.0 % | 1.00× | 500 | 1.00× |",
                    "| R-Adapter, rank 16 | 2.5 % | 0.75× | 400 | 0.80× |"],
    "anchor-pool": ["| writing the pool, 4 processes | 60.00 | – | 1,800 | 2,027 | – |",
                    "| exact search | 11.00 | 22.00 | 278 | – | 100.0 |",
                    "| search `ivf`, 8 of 4,096 lists | 0.50 | 1.00 | 1 | – | 78.0 |", "1,000,000 pairs", "2 threads"],
    "robust-rates": ["|  | own rate | × 1 | × 3 | × 10 | × 30 | used |",
                     "| full fine-tuning | 0.0001 | 40.0 | 44.0 | 44.0 | failed | 0.0003 |",
                     "| EMA of weights | 0.0001 | as full fine-tuning |  |  |  | 0.0003 |",
                     "75 validation images, seed 0"],
    "r-adapter-tries": ["| the paper's | 41.0 ± 1.4 |  |  |  |", "| **other** | 44.0 | 50.0 | 30.0 | 70.0 |",
                        "| full fine-tuning | – | 50.0 | 30.0 | 70.0 |", "75 validation images over seeds 0, 10"],
    "robust-base-to-new": ["| CoOp + OGEN | 42.2 ± 0.1 |", "over the 3 seeds"],
    "robust-ogen-search": ["| zero-shot | 1.0 / 1.0 / 60.0 / 1.0 |", "| FLYP, EMA 0.99 |", "2 tasks in all, seed 1"],
    "ogen-emoji": ["| on noto | base | new | H | joint H | AUSUC | gate AUROC | H, twemoji |",
                   "| CoOp; zero-shot for new names | 1.0 ± 0.2 |",
                   "| **CoOp + OGEN without evidence** | 1.0 ± 0.2 | 1.0 ± 0.2 | 58.0 ± 0.2 |",
                   "| KgCoOp, all names |", "seeds 1, 2, 3"],
    "ogen-presets": ["| host alone, SGD 0.03 | 1.0 ± 0.2 | 1.0 ± 0.2 | 46.2 ± 0.2 | 1.0 ± 0.2 | 45.0 |",
                     "| released-code, generator's rate a tenth |", "| paper, as it was |", "seeds 1, 2, 3"],
    "ogen-ablation": ["| emoji-categories: CoOp alone |", "| distillation from zero-shot |", "| + both (OGEN) |"],
    "ogen-parts": ["| default: `text-only`, K 3, ALMT with m_max 9 | 1.0 ± 0.2 | 1.0 ± 0.2 | 58.0 ± 0.2 |",
                   "| joint-shift, K 5 |", "| ALMT, m_max 15 |"],
    "ogen-real": ["| **DTD**: zero-shot |",
                  "| TaskRes + OGEN, new names held out | 1.0 ± 0.2 | 1.0 ± 0.2 | 1.0 ± 0.2 | 51.3 ± 0.2 |"],
    "ogen-search": ["| ogenlib, teacher kept | 60.0 / 50.0 | – | 70.1 / 1.0 |", "Means over the tasks and seeds 1."],
    "ogen-cost": ["| CoOp, ogenlib | 5.00 | 6.00 | 1.20× | 0.5 | 2.5 |"],
    "ogen-long": ["| CoOp | 54.0 (epoch 2) | 44.0 | -10.0 | 3.0 |", "| CoOp + OGEN | 54.0 (epoch 2) | 53.5 | -0.5 |"],
}  # fmt: skip
