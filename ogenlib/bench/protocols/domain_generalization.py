"""domain-generalization: train in one domain, test the same names in others.

Two kinds, told by the data: datasets that are other takes of the source (ImageNet and its variants, as in CoOp,
Zhou et al. 2022, https://arxiv.org/abs/2109.01134, section 4.3), and domains within one dataset (an icon set each in
the bundled data; PACS, Office-Home, ...). Base is the domain of training, new a shifted one. The names are the same,
so the joint label space is the split one; where a target has some of the names only (ImageNet-A, -R), joint lets all
names of the source compete; where it has names of its own (ObjectNet), joint says nothing and is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.bench.protocols.parts.loading import load_named, load_source
from ogenlib.bench.protocols.parts.plan import Part, Plan
from ogenlib.bench.protocols.parts.sides import SidesJudge
from ogenlib.bench.protocols.registry import ONE_DATASET, ProtocolInfo, Shown, register
from ogenlib.data import Dataset, find_layout, list_datasets
from ogenlib.evaluate.label_space import label_spaces
from ogenlib.results.published import published_shifts

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

SHOWN = Shown(
    {"base": "the domain of training", "new": "the shifted domains"},
    base="accuracy on test images of the domain of training",
    new="accuracy on images of another domain, choosing among its names",
    joint="all names that were trained",
    listing="settings",
    published=published_shifts,
)
IMAGENET_SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")  # CoOp's four


def plan(config: BenchConfig) -> Plan:
    """Train on one domain of `config.dataset`; test it, and the domains or datasets that are targets."""
    source, home = one_domain(config)
    return sides_plan(config, source, home)


def one_domain(config: BenchConfig) -> tuple[Dataset, str]:
    """The dataset with training images of one domain, and that domain, which has test images too."""
    source = _source(config)
    home, inside = source.train.domains[0], list(dict.fromkeys(source.test.domains))
    if set(source.train.domains) != {home}:
        raise ValueError(
            f"{source.name} trains on the domains {', '.join(dict.fromkeys(source.train.domains))}; "
            "choose one of them with --train-domain"
        )
    if home not in inside:
        raise ValueError(
            f"{source.name} has no test images of {home}, the domain it is trained on, so base cannot "
            "be measured; take another --dataset or --train-domain"
        )
    return source, home


def sides_plan(config: BenchConfig, source: Dataset, home: str) -> Plan:
    """Base is tested in the domain `home`, new in the targets: in the others if none are given."""
    inside = list(dict.fromkeys(source.test.domains))
    targets = _targets(config, source, home, inside)
    parts = [Part(source.name, source.test.of_domain(home))]
    for name in targets:
        if name in inside:
            parts.append(Part(source.name, source.test.of_domain(name)))
        else:
            parts.append(Part(name, load_named(config, name).test))
    known = source.classnames
    names, spaces = label_spaces(known, [part.images.classnames for part in parts[1:]])
    joint = tuple(max(space.new) < len(known) for space in spaces)
    strangers = [name for name, space in zip(targets, spaces, strict=True) if not space.shared]
    if strangers:
        raise ValueError(
            f"{', '.join(strangers)} has none of the names of {source.name}, so it is no other domain of "
            "it; use --protocol cross-dataset"
        )
    judge = SidesJudge(tuple(parts), names, len(known), spaces, joint, home, pooled=all(joint))
    card = {
        "trained_on": f"all {len(known)} names of {source.name}" + f", domain {home}" * bool(home),
        "tested_on": "base: test images of the domain of training; new: of a shifted domain, among its names; "
        "joint: all names of the source compete",
        "targets": [
            {
                "target": name,
                "images": len(part.images),
                "names": len(space.new),
                "hash": part.images.hash(),
                "joint": known_only,
            }
            for name, part, space, known_only in zip(targets, parts[1:], spaces, joint, strict=True)
        ],
    }
    return Plan(
        config.protocol,
        source,
        known,
        names[len(known) :],
        home,
        tuple(parts),
        judge,
        (config.shots,),
        average="all",
        card=card,
    )


def _source(config: BenchConfig) -> Dataset:
    """Bundled: trained in one icon set, tested in all. Others as they are; of several domains one is trained."""
    if config.dataset in list_datasets():
        from ogenlib.data.emoji import icon_sets

        if config.dataset != "emoji-categories":
            raise ValueError(
                f"{config.dataset} has one drawing of a class in each icon set, so what is trained cannot "
                "be tested in the same set; take emoji-categories"
            )
        domain = config.train_domain or "noto"
        sets = config.test_domains or (*config.targets, *([] if config.targets else icon_sets()))
        tested = tuple(dict.fromkeys((domain, *sets)))
        return load_source(config, train_domains=(domain,), test_domains=tested)
    data = load_source(config)
    trained = list(dict.fromkeys(data.train.domains))
    if config.train_domain is None and len(trained) == 1:
        return data
    chosen = config.train_domain or trained[0]
    if chosen not in trained:
        raise ValueError(f"--train-domain {chosen}: {data.name} has training images of {', '.join(trained)}")
    return Dataset(data.name, data.train.of_domain(chosen), data.test, data.val, data.templates, data.info)


def _targets(config: BenchConfig, source: Dataset, home: str, inside: list[str]) -> list[str]:
    if config.targets:
        layouts = [None if name in inside else find_layout(name) for name in config.targets]
        names = [name if layout is None else layout.name for name, layout in zip(config.targets, layouts, strict=True)]
        if home in names or source.name in names:
            raise ValueError(
                f"--targets holds {home or source.name}, which is trained on and tested anyway; leave it out"
            )
        return list(dict.fromkeys(names))
    others = [domain for domain in inside if domain != home]
    if others:
        return others
    if source.name == "imagenet":
        return list(IMAGENET_SHIFTS)
    raise ValueError(f"{source.name} has a single domain; name datasets of the same classes with --targets")


register(
    ProtocolInfo(
        "domain-generalization",
        "train on all names in one domain, test them there and in others",
        plan,
        takes=("targets", "train_domain"),
        no_suite=ONE_DATASET,
        shown=SHOWN,
    )
)
