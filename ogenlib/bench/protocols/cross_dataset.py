"""cross-dataset: train on all classes of one dataset, test it and every target with the target's own names.

Follows CoOp's cross-dataset transfer (CoCoOp, Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557, section 4.2).
Besides: the joint label space, in which the source's and the target's names all compete, a class that both have
only once. Prompts are the source's for every target, since one classifier has one prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.bench.protocols.parts.loading import datasets_of, load_named, load_source, without_training_images
from ogenlib.bench.protocols.parts.plan import Part, Plan, home_of
from ogenlib.bench.protocols.parts.sides import SidesJudge
from ogenlib.bench.protocols.registry import ONE_DATASET, ProtocolInfo, Shown, fewer_domains, register
from ogenlib.data import COOP11, Dataset, find_layout, list_datasets
from ogenlib.evaluate.label_space import label_spaces
from ogenlib.results.published import published_transfers

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig


def plan(config: BenchConfig) -> Plan:
    """Train on `config.dataset`, test on it and on `config.targets`."""
    source = load_source(config)
    home = home_of(source)
    known = source.classnames
    near = home in source.test.domains and not config.test_domains  # other names, not other domains
    parts, cards = [Part(source.name, source.test.of_domain(home) if near else source.test)], []
    for name in targets_of(config, source):
        target, left_out = without_training_images(Part(name, target_dataset(config, name, home).test), source)
        parts.append(Part(name, target.images))
        cards.append(
            {
                "dataset": name,
                "images": len(target.images),
                "hash": target.images.hash(),
                "images_left_out_because_trained_on": left_out,
            }
        )
    names, spaces = label_spaces(known, [part.images.classnames for part in parts[1:]])
    for card, space in zip(cards, spaces, strict=True):
        card |= {"names": len(space.new), "names_shared_with_the_source": space.shared}
    judge = SidesJudge(tuple(parts), names, len(known), spaces, (True,) * len(spaces), home)
    first = spaces[0]
    own = tuple(
        name for name, column in zip(parts[1].images.classnames, first.new, strict=True) if column >= len(known)
    )
    card = {
        "trained_on": f"all {len(known)} names of {source.name}",
        "tested_on": "base: test images of the source among its names; new: of a target among the target's names; "
        "joint: both among all names of the two, a class of both counted once",
        "targets": cards,
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
        average="datasets",
        pictured=(1, own) if own else None,
        card=card,
    )


def targets_of(config: BenchConfig, source: Dataset) -> list[str]:
    """The names of the targets: as given, else the rest of the suite that the source is of.

    Raises:
        ValueError: none were given for a dataset of no suite, or the source is among them.
    """
    if config.targets:
        layouts = [find_layout(name) for name in config.targets]
        names = [name if layout is None else layout.name for name, layout in zip(config.targets, layouts, strict=True)]
        if source.name in names or config.dataset in names:
            raise ValueError(f"--targets holds {config.dataset}, which is trained on and tested anyway; leave it out")
        return list(dict.fromkeys(names))
    bundled = source.name in list_datasets()
    if bundled or source.name in COOP11:
        return [name for name in datasets_of("emoji8" if bundled else "coop11") if name != source.name]
    raise ValueError(f"cross-dataset from {config.dataset} needs datasets to test on; add --targets NAME_OR_PATH ...")


def target_dataset(config: BenchConfig, name: str, home: str) -> Dataset:
    """What to test; of a bundled dataset the drawings of the source's own icon set: only the names are other."""
    if name not in list_datasets():
        return load_named(config, name)
    domains = tuple(config.test_domains or (home,))
    if not name.startswith("emoji-concepts/"):
        return load_named(config, name, test_domains=domains)
    # A concept has one drawing a set; what is called its training set here is not used.
    other = next(s for s in ("emojione", "noto", "openmoji", *icon_sets()) if s not in domains)
    return load_named(config, name, test_domains=domains, train_domains=(other,))


def icon_sets() -> list[str]:
    from ogenlib.data.emoji import icon_sets as sets

    return list(sets())


register(
    ProtocolInfo(
        "cross-dataset",
        "train on all names of one dataset, test it and others, each among its own names",
        plan,
        takes=("targets", "controls"),
        no_suite=ONE_DATASET,
        smoke=lambda config: fewer_domains(config, ("noto",)),
        shown=Shown(
            {"base": "the dataset of training", "new": "the targets"},
            base="accuracy on test images of the dataset of training, choosing among its names",
            new="accuracy on images of another dataset, choosing among that dataset's names",
            joint="the names of both datasets",
            published=published_transfers,
        ),
    )
)
