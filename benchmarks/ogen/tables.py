"""Tables of docs/ogen.md, docs/generators.md and README.md from the results of the scripts beside this file."""

from __future__ import annotations

from typing import Any

from benchmarks.common.groups import grouped
from benchmarks.common.markdown import (
    COLUMNS,
    MEASURES,
    METHOD_NAMES,
    difference,
    named,
    number,
    over_seeds,
    plus_minus,
    scores_of,
    seeds_of,
    table,
)
from benchmarks.ogen import evidence_tables
from benchmarks.ogen.variants import CONTROL

KL_WEIGHTS = ("KL 0.1", "KL 0.3", "KL 1.0", "KL 3.0")
ABLATION = ("host alone", "none", "generator", "teacher", "ogenlib")
ABLATION_NAMES = {
    "none": "distillation from zero-shot", "generator": "+ generator", "teacher": "+ ALMT",
    "ogenlib": "+ both (OGEN)",
}  # fmt: skip


def find(document: dict[str, Any], host: str, variant: str, family: str, domain: str = "") -> dict[str, Any]:
    """The one summary entry; KeyError if it is not there."""
    for entry in document["summary"]:
        if (entry["host"], entry["variant"], entry["family"], entry["domain"]) == (host, variant, family, domain):
            return entry
    raise KeyError(f"{host}, {variant}, {family}, {domain}")


def base_to_new(document: dict[str, Any]) -> str:
    """Summary rows tested on the icon set or folder that was trained on."""
    card = document["protocol"]
    home = card.get("home_domain") or next(iter(card.get("train_domains") or []), "")
    rows = [row for row in document["summary"] if row["domain"] == home]
    if not rows:
        raise ValueError(f"the results have no summary rows for domain {home!r}")
    lines = [
        [named(row["host"], row["ogen"], row.get("control", "")), *scores_of(row), plus_minus(row["ausuc"])]
        for row in rows
    ]
    body = table(["method", *COLUMNS.values(), "AUSUC"], lines)
    backbone = card["backbone"]
    tested = f", trained and tested on {home}" if home else ""
    known = ""
    if any(row["ogen"] for row in rows):
        told = "knew" if card["new_names_known_in_training"] else "did not know"
        known = f" OGEN {told} the new names in training, never their images."
    return body + (
        f"\nAccuracy in percent, mean ± standard deviation over seeds {seeds_of(document)}. {card['dataset']}{tested}; "
        f"{card['n_base']} base and {card['n_new']} new names; {card['shots']} shots, {card['epochs']} epochs; "
        f"{backbone['name']}, weights {backbone['weights_hash']}; selection: {card['selection']}.{known}\n"
    )


def emoji_main(document: dict[str, Any]) -> str:
    """The competitors on noto, and H on every other icon set."""
    rows = [
        ("zero_shot", "zero-shot"),
        ("coop", "host alone"),
        ("coop", "host alone" + CONTROL),
        ("kgcoop", "KgCoOp"),
        ("kgcoop", "KgCoOp, all names"),
        *[("coop", f"KL {w}{control}") for w in (0.3, 1.0, 3.0) for control in ("", CONTROL)],
        ("coop", "ogenlib"),
        ("coop", "ogenlib, names held out"),
    ]
    shown = {
        "host alone": "CoOp",
        "ogenlib": "**CoOp + OGEN without evidence**",
        "ogenlib, names held out": "CoOp + OGEN, new names held out",
    }
    shown |= {f"KL {w}": f"CoOp + KL to zero-shot over all names, weight {w}" for w in (0.3, 1.0, 3.0)}
    shown |= {variant + CONTROL: f"{name}; zero-shot for new names" for variant, name in shown.items()}
    others = sorted({e["domain"] for e in document["summary"]} - {"noto", ""})
    lines = []
    for host, variant in rows:
        entry = find(document, host, variant, "emoji", "noto")
        lines.append(
            [
                shown.get(variant, variant),
                *scores_of(entry, MEASURES),
                *[number(find(document, host, variant, "emoji", d)["H"][0]) for d in others],
            ]
        )
    header = ["on noto", *MEASURES.values(), *[f"H, {d}" for d in others]]
    return table(header, lines) + over_seeds(document)


def presets(document: dict[str, Any]) -> str:
    """The presets that follow the paper and its code, by training and by what was left out of them."""
    entries = document["summary"]
    lines = []
    for entry in (e for e in entries if e["domain"] == "noto"):
        others = [e["H"][0] for e in entries if e["variant"] == entry["variant"] and e["domain"] != "noto"]
        lines.append([entry["variant"], *scores_of(entry), number(sum(others) / len(others))])
    return table(["CoOp on noto", *COLUMNS.values(), "H, mean of the other sets"], lines) + over_seeds(document)


def emoji_ablation(document: dict[str, Any]) -> str:
    """{none, generator, teacher, both} for a prompt learner and an adapter."""
    lines = []
    for host in ("coop", "text_adapter"):
        for variant in ABLATION:
            alone = f"{_title('emoji')}: {METHOD_NAMES[host]} alone"
            scores = find(document, host, variant, "emoji", "noto")
            lines.append([ABLATION_NAMES.get(variant, alone), *scores_of(scores, MEASURES)])
    return table(["", *MEASURES.values()], lines) + over_seeds(document)


def emoji_parts(document: dict[str, Any]) -> str:
    """Generator variants, neighbours, teachers and windows, one at a time around the default."""
    wanted = ("ogenlib", "generator ", "joint-shift, K", "teacher ", "ALMT, ")
    names = list(dict.fromkeys(e["variant"] for e in document["summary"] if e["host"] == "coop"))
    lines = [
        [
            name if name != "ogenlib" else "default: `text-only`, K 3, ALMT with m_max 9",
            *scores_of(find(document, "coop", name, "emoji", "noto"), MEASURES),
        ]
        for name in names
        if name == "ogenlib" or name.startswith(wanted[1:])
    ]
    return table(["CoOp + OGEN on noto", *MEASURES.values()], lines) + over_seeds(document)


def real(document: dict[str, Any]) -> str:
    """Adapters on real CLIP features: the tuned baseline, OGEN and what its parts add."""
    lines = []
    for family in ("dtd", "stanford_cars"):
        entry = find(document, "zero_shot", "zero-shot", family)
        lines.append([f"**{_title(family)}**: zero-shot", *scores_of(entry, MEASURES)])
        for host in ("text_adapter", "taskres"):
            for variant in (
                *[plain + more for plain in ("host alone", *KL_WEIGHTS) for more in ("", CONTROL)],
                "none",
                "teacher",
                "generator",
                "ogenlib",
                "ogenlib, names held out",
                "generator joint",
                "generator per-class",
                "generator released",
                "generator shift",
                "generator joint-shift",
            ):
                entry = find(document, host, variant, family)
                lines.append([f"{METHOD_NAMES[host]}{_real_name(variant)}", *scores_of(entry, MEASURES)])
    return table(["", *MEASURES.values()], lines) + over_seeds(document)


def _real_name(variant: str) -> str:
    if variant.endswith(CONTROL):
        return _real_name(variant.removesuffix(CONTROL)) + "; zero-shot for new names"
    if variant.startswith("KL"):
        return f" + KL to zero-shot over all names, weight {variant.removeprefix('KL ')}"
    if variant.startswith("generator "):
        return f" + OGEN with generator `{variant.removeprefix('generator ')}`"
    return {
        "host alone": " alone",
        "none": " + OGEN without generator and teacher",
        "ogenlib": " + OGEN without evidence",
        "teacher": " + OGEN without generator",
        "generator": " + OGEN without teacher",
        "ogenlib, names held out": " + OGEN, new names held out",
    }[variant]


def search(document: dict[str, Any]) -> str:
    """Every recipe on the tasks settings were chosen on: H / joint H, averaged over hosts where there are two."""
    groups = (
        ("emoji tags", ("coop", "kgcoop"), ("tags", "tags apart")),
        ("real, text adapter", ("text_adapter",), ("dtd base", "stanford_cars base", "imagenet")),
        ("real, TaskRes", ("taskres",), ("dtd base", "stanford_cars base", "imagenet")),
    )
    names = list(dict.fromkeys(e["variant"] for e in document["summary"]))
    lines = []
    for name in names:
        cells = []
        for _, hosts, families in groups:
            entries = [
                e
                for e in document["summary"]
                if e["variant"] == name and e["family"] in families and e["host"] in (*hosts, "zero_shot")
            ]
            if not entries:
                cells.append("–")
                continue
            means = [sum(e[c][0] for e in entries) / len(entries) for c in ("H", "joint_H")]
            cells.append(" / ".join(f"{m:.1f}" for m in means))
        lines.append([name, *cells])
    said = f"\nMeans over the tasks and seeds {seeds_of(document)}.\n"
    return table(["H / joint H", *[g[0] for g in groups]], lines) + said


def pixels(document: dict[str, Any]) -> str:
    """Hosts that change the image side on the emoji tasks settings were chosen on, averaged over those tasks."""
    entries = document["summary"]
    hosts = [h for h in dict.fromkeys(e["host"] for e in entries) if h != "zero_shot"]
    lines = []
    for name in dict.fromkeys(e["variant"] for e in entries):
        cells = []
        for host in hosts:
            own = [e for e in entries if e["variant"] == name and e["host"] in (host, "zero_shot")]
            cells += [number(sum(e[c][0] for e in own) / len(own)) for c in COLUMNS]
        lines.append([name, *cells])
    header = [f"{METHOD_NAMES[h]}: {c}" if c == "base" else c.replace("_", " ") for h in hosts for c in COLUMNS]
    return table(["", *header], lines) + f"\nMeans over {len(document['protocol']['tasks'])} tasks, one seed.\n"


def hosts_tried(document: dict[str, Any]) -> str:
    """H / joint H of every recipe, by host and family of the tasks settings were chosen on."""
    entries = document["summary"]
    families = list(dict.fromkeys(e["family"] for e in entries))
    lines = []
    for (host, name), own in grouped(entries, "host", "variant").items():
        by_family = {e["family"]: e for e in own}
        cells = [
            f"{number(by_family[f]['H'][0])} / {number(by_family[f]['joint_H'][0])}" if f in by_family else "–"
            for f in families
        ]
        lines.append([f"{METHOD_NAMES[host]}, {name}", *cells])
    return table(["H / joint H", *families], lines) + "\nMeans over the tasks and seeds of a family.\n"


def cost(document: dict[str, Any]) -> str:
    lines = []
    for r in document["rows"]:
        step = [f"{1e3 * r[key]:.2f}" for key in ("host_seconds", "ogen_seconds")]
        rest = [f"{r['ratio']:.2f}×", number(r["seconds_before_training"]), number(r["kept_mib"])]
        lines.append([f"{METHOD_NAMES[r['host']]}, {r['case']}", *step, *rest])
    header = ["", "host, ms a step", "with OGEN", "ratio", "s before training", "MiB kept"]
    return table(header, lines)


def long_run(document: dict[str, Any]) -> str:
    """Best and last epoch of 200: the mean curve over the seeds."""
    lines = []
    for variant, name in (("host alone", "CoOp"), ("ogenlib", "CoOp + OGEN")):
        rows = [r for r in document["rows"] if r["variant"] == variant]
        new = [sum(r["curve"]["new"][e] for r in rows) / len(rows) for e in range(len(rows[0]["curve"]["new"]))]
        best = max(range(len(new)), key=new.__getitem__)
        last = {c: sum(r["curve"][c][-1] for r in rows) / len(rows) for c in COLUMNS}
        lines.append(
            [
                name,
                f"{new[best]:.1f} (epoch {best + 1})",
                f"{new[-1]:.1f}",
                difference(new[-1] - new[best]),
                *[f"{last[c]:.1f}" for c in ("base", "H", "joint_H")],
            ]
        )
    header = ["200 epochs on noto", "best new", "new at the end", "change", "base at the end", "H", "joint H"]
    return table(header, lines) + over_seeds(document)


def generators(document: dict[str, Any]) -> str:
    """One table for each dataset: every generator on unknown classes, beside real rows and the names themselves."""
    distances, shares = ("cosine_centred", "frechet", "mmd", "density", "coverage"), ("nearest_mean", "ridge")
    header = ["features", "spread", "centred cosine", "Fréchet", "MMD²", "density", "coverage", "pass, %"]
    header += ["nearest mean, %", "ridge, %"]
    parts = []
    for name, card in document["protocol"]["datasets"].items():
        lines = []
        for row in document["summary"]:
            if row["dataset"] == name:
                means = [number(row.get(key, [None])[0], 2 if key == "density" else 3) for key in distances]
                single = row["spread"] is None  # real rows and names: what varies with the seed is not a generator
                shown = [number(row[k][0]) if single else plus_minus(row[k]) for k in shares if k in row]
                shown += ["–"] * (len(shares) - len(shown))
                passes = number(row.get("pass_rate", [None])[0])
                lines.append([row["variant"], row["spread"] or "–", *means, passes, *shown])
        zero = next(row for row in document["summary"] if row["dataset"] == name)["zero_shot"]
        counts = f"{card['n_known']} known and {card['n_unknown']} unknown classes, {card['n_real_rows']} real rows"
        parts.append(f"**{name}**: {counts}; zero-shot {number(zero[0])} %\n\n" + table(header, lines))
    return "\n".join(parts) + over_seeds(document)


def _title(family: str) -> str:
    return {"emoji": "emoji-categories", "dtd": "DTD", "stanford_cars": "Stanford Cars"}.get(family, family)


BLOCKS = {
    "base-to-new": ("emoji-categories.json", base_to_new),
    "generators": ("generators.json", generators),
    "ogen-emoji": ("ogen-emoji.json", emoji_main),
    "ogen-ablation": ("ogen-emoji.json", emoji_ablation),
    "ogen-parts": ("ogen-emoji.json", emoji_parts),
    "ogen-presets": ("ogen-presets.json", presets),
    "ogen-real": ("ogen-real.json", real),
    "ogen-search": ("ogen-search.json", search),
    "ogen-pixels": ("ogen-pixels.json", pixels),
    "ogen-hosts": ("ogen-hosts.json", hosts_tried),
    "ogen-cost": ("ogen-cost.json", cost),
    "ogen-long": ("ogen-long.json", long_run),
    **evidence_tables.BLOCKS,
}  # fmt: skip
