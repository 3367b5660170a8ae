"""Measure ogen-tiny zero-shot on every icon set and write ``benchmarks/results/ogen-tiny.json``.

    python -m benchmarks.bundle.zero_shot_tiny

For each set: top-1 among all concepts, and the mean over the eight emoji groups of top-1 among the group's
concepts (all of them, drawn in the set or not). For ``emoji-categories``: base and new accuracy in every
unseen set. One template, images through the model's own preprocessing, fp32.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.common.options import parser_of
from benchmarks.common.results_file import write_results
from ogenlib.data import FeatureBank, ImageSet, Item, base_new_split, load_dataset
from ogenlib.data.emoji import PRETRAINING_SETS, TEMPLATES, UNSEEN_SETS, concepts, open_drawing
from ogenlib.evaluate.scores import base_to_new
from ogenlib.hosts import ZeroShot
from ogenlib.towers import load_backbone


def drawings(icon_set: str) -> ImageSet:
    """Every drawing of a set, labelled by concept."""
    items = []
    for label, concept in enumerate(concepts()):
        drawing = open_drawing(icon_set, concept.id)
        if drawing is not None:
            items.append(Item(drawing, label, icon_set, f"{icon_set}/{concept.id}"))
    names = [f"{c.name} [{c.id}]" for c in concepts()]  # a few CLDR names differ by case only
    return ImageSet(items, names)


def main() -> None:
    parser = parser_of(__doc__, "ogen-tiny.json")
    parser.add_argument("--model", default="ogen-tiny", help="backbone (default ogen-tiny)")
    args = parser.parse_args()
    clip = load_backbone(args.model)
    w = clip.encode_text([TEMPLATES[0].format(c.name) for c in concepts()])
    groups = list(dict.fromkeys(c.group for c in concepts()))
    group = torch.tensor([groups.index(c.group) for c in concepts()])
    sets: dict[str, Any] = {}
    for name in (*UNSEEN_SETS, *PRETRAINING_SETS):
        bank = FeatureBank.extract(clip, drawings(name), batch_size=256)
        similarity = bank.features[:, 0] @ w.T
        inside = similarity.masked_fill(group[None] != group[bank.labels][:, None], -torch.inf)
        hit = (inside.argmax(1) == bank.labels).float()
        by_group = {g: 100 * hit[group[bank.labels] == i].mean().item() for i, g in enumerate(groups)}
        sets[name] = {
            "images": len(bank),
            "all": 100 * (similarity.argmax(1) == bank.labels).float().mean().item(),
            "groups": sum(by_group.values()) / len(by_group),
            "groups_by_name": by_group,
            "seen_in_pretraining": name in PRETRAINING_SETS,
        }
        print(f"{name:<28} all {sets[name]['all']:5.1f}  groups {sets[name]['groups']:5.1f}", flush=True)
    data = load_dataset("emoji-categories")
    split = base_new_split(data.classnames)
    scores = base_to_new(ZeroShot(clip, split.base, data.templates), data.test, split).domains
    card = {
        "name": "zero-shot",
        "backbone": clip.fingerprint(),
        "template": TEMPLATES[0],
        "concepts": len(concepts()),
        "categories_hash": data.hash(),
    }
    categories = {d: {k: s[k] for k in ("base", "new", "H", "joint_H")} for d, s in scores.items()}
    write_results(args.out, "ogenlib.zero-shot/1", "bundle.zero_shot_tiny", card, sets=sets, categories=categories)
    for domain, row in categories.items():
        print(f"categories, {domain:<28} base {row['base']:5.1f}  new {row['new']:5.1f}")


if __name__ == "__main__":
    main()
