"""domain-shift: what fine-tuning in one domain gives there, takes under shift, and takes from zero-shot elsewhere.

The tests of domain generalization, and three things besides, as the papers on robust fine-tuning report them (WiSE-FT,
Wortsman et al., CVPR 2022, https://arxiv.org/abs/2109.01903):

- Zero-shot retention: accuracy on datasets of other things among their own names, whose weights the trained model's
  text side makes anew.
- WiSE-FT: every method whose tensors can be interpolated with those it started with is tested between the two too.
  The alpha that counts is the one of the highest accuracy on validation images of the training domain. These are kept
  out of every training, and nothing is chosen on a test image or a shifted one.
- One summary: accuracy in the domain of training (ID), means over shifts (OOD) and over other datasets (zero-shot),
  and effective robustness (`ogenlib.results.robustness`).

In ``emoji-concepts/*`` a class has one drawing in each icon set, so no drawing of a training set is left to test;
noto, a coloured set like those, stands in as the reference, and the card says so.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ogenlib.bench.protocols.cross_dataset import target_dataset
from ogenlib.bench.protocols.domain_generalization import SHOWN, one_domain, sides_plan
from ogenlib.bench.protocols.parts.loading import load_source, other_things, without_training_images
from ogenlib.bench.protocols.parts.plan import Outcome, Part, Plan, Tested, home_of
from ogenlib.bench.protocols.parts.sides import SidesJudge
from ogenlib.bench.protocols.registry import ONE_DATASET, ProtocolInfo, fewer_domains, register
from ogenlib.data import Dataset, ImageSet, list_datasets
from ogenlib.data.dataset import short_hash
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import Host
from ogenlib.merge.states import check_alpha
from ogenlib.merge.wise import interpolated, obstacle, start_state
from ogenlib.results.robustness import FORMULA, REFERENCE
from ogenlib.train.batches import Bank

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

VAL_SHARE, VAL_SEED = 0.2, 0
END = 1.0  # the alpha of the trained host itself


@dataclass(frozen=True)
class ShiftJudge:
    """Scores the sides, then validation, shifts and retention at every alpha.

    The parts of the plan are those of `sides`, then `retention`, then the validation images.

    retention: images of other datasets; empty where none are tested.
    """

    sides: SidesJudge
    retention: tuple[Part, ...]
    alphas: tuple[float, ...]

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        """As the sides; a host that reads pixels is measured on base alone, for every shift is an encoding of it."""
        first = tested.first(len(self.sides.parts))
        if host.uses_cached_features:
            return self.sides.measure(host, first)
        bank = first.of(host, near=True)[0]
        logits = evaluate.predict_logits(host, bank, self.sides.names[: self.sides.n_known])
        return {"base": evaluate.accuracy(logits, bank.labels.cpu())}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        outcome = self.sides.outcome(host, tested.first(len(self.sides.parts)))
        end, curve, reason = self.scores(host, tested), None, obstacle(host)
        if reason is None:
            start = start_state(host)
            curve = []
            for alpha in self.alphas:
                if alpha == END:
                    scores = end
                else:
                    with interpolated(host, alpha, start):
                        scores = self.scores(host, tested)
                curve.append({"alpha": alpha, **scores})
        return replace(outcome, robustness={**end, "curve": curve, "why_no_curve": reason})

    def scores(self, host: Host, tested: Tested) -> dict[str, Any]:
        """`val`, `id`, `ood`, `zero_shot`, and the accuracies that the two means are of; in percent."""
        banks = tested.of(host)
        count = len(self.sides.parts)
        known = tuple(range(self.sides.n_known))
        columns = [known, *(space.new for space in self.sides.spaces), known]
        near = [*banks[:count], banks[-1]]
        accuracies = [
            _accuracy(logits[:, list(own)], bank)
            for own, bank, logits in zip(
                columns, near, evaluate.predict_each(host, near, self.sides.names), strict=True
            )
        ]
        kept = [
            _accuracy(evaluate.predict_logits(host, bank, part.images.classnames), bank)
            for part, bank in zip(self.retention, banks[count:-1], strict=True)
        ]
        shifts = dict(zip(self._shift_names(), accuracies[1:-1], strict=True))
        return {
            "val": accuracies[-1],
            "id": accuracies[0],
            "ood": _mean(list(shifts.values())),
            "zero_shot": _mean(kept),
            "shifts": shifts,
            "retention": dict(zip((p.dataset for p in self.retention), kept, strict=True)),
        }

    def _shift_names(self) -> list[str]:
        source = self.sides.parts[0].dataset
        return [part.images.domains[0] if part.dataset == source else part.dataset for part in self.sides.parts[1:]]


def plan(config: BenchConfig) -> Plan:
    """Train in one domain, all images of a class or `config.shots`; test there, in others, and on other things."""
    as_they_are = config.dataset in list_datasets() and config.dataset.startswith("emoji-concepts/")
    if as_they_are:
        source = load_source(config)
        home = home_of(source)
    else:
        source, home = one_domain(config)
    source, validation, said = with_validation(source, None if as_they_are else home)
    base = sides_plan(config, source, home)
    if not isinstance(base.judge, SidesJudge):
        raise TypeError(f"the judge of domain generalization is a {type(base.judge).__name__}")
    retention, cards = retention_parts(config, source, validation, home)
    reference = "the test images of the domain of training"
    if as_they_are:
        reference = f"{home}: the sets that are trained on hold no other drawing of a class"
    tuned = f"{REFERENCE} without OGEN" if REFERENCE in config.hosts else "the method itself"
    card = {
        **base.card,
        "id_is": reference,
        "ood_is": "the mean over the shifted domains and datasets",
        "zero_shot_is": "the mean over `retention`, each among its own names by the trained model's text side",
        "retention": cards,
        "validation": said,
        "alphas": list(config.alphas),
        "selection": f"the last epoch is tested; WiSE-FT's alpha is that of the highest accuracy on "
        f"{len(validation)} validation images of the domain of training (of equals the smallest)",
        "effective_robustness": FORMULA.format(ft=tuned),
    }
    if as_they_are:
        card["trained_on"] = f"all {len(base.known)} names of {source.name}, {', '.join(_sets(source.train))}"
    judge = ShiftJudge(base.judge, retention, config.alphas)
    parts = (*base.parts, *retention, Part(source.name, validation))
    return replace(base, parts=parts, judge=judge, card=card)


def with_validation(source: Dataset, domain: str | None) -> tuple[Dataset, ImageSet, dict[str, Any]]:
    """The dataset with its own validation images, or with a fifth of each class's training images in their place.

    Args:
        domain: of the validation images, if the dataset has some and several domains.

    Raises:
        ValueError: no class has two images, so that none can be kept out.
    """
    own = source.val
    if own is not None and len(own):
        if domain is not None and domain in own.domains:
            own = own.of_domain(domain)
        return source, own, _said(own, "the dataset's own")
    kept_out = held_out_rows(source.train.labels.tolist(), source.train.keys)
    if not kept_out:
        raise ValueError(
            f"{source.name} has a single training image of each class and no validation images, on which "
            "WiSE-FT's alpha is chosen; add images, or take --protocol domain-generalization"
        )
    val = source.train.subset(sorted(kept_out))
    rest = source.train.subset(row for row in range(len(source.train)) if row not in kept_out)
    said = _said(val, f"{VAL_SHARE:.0%} of the training images of each class, at least one, by seed {VAL_SEED}")
    return replace(source, train=rest, val=val), val, said


def held_out_rows(labels: Sequence[int], keys: Sequence[str]) -> set[int]:
    """Positions of the validation images: a fifth of each class, rounded, at least one, none of a class of one.

    The draw of a class depends on its keys alone.
    """
    counts, positions = Counter(labels), set()
    for label in counts:
        members = sorted((index for index, one in enumerate(labels) if one == label), key=lambda index: keys[index])
        if len(members) > 1:
            count = max(1, round(VAL_SHARE * len(members)))
            positions.update(
                random.Random(f"{VAL_SEED}/{short_hash([keys[index] for index in members])}").sample(members, count)
            )
    return positions


def retention_parts(
    config: BenchConfig, source: Dataset, validation: ImageSet, home: str
) -> tuple[tuple[Part, ...], list[dict[str, Any]]]:
    """Test images of other datasets, without pictures that training or the choice of alpha has seen, and their card.

    Raises:
        ValueError: the dataset of training is among them.
    """
    bundled = list_datasets()
    names = list(dict.fromkeys(config.retention))
    if not names and source.name in bundled:
        names = [name for name in bundled if name != source.name]
    if source.name in names or config.dataset in names:
        raise ValueError(f"--retention holds {config.dataset}, which is trained on; leave it out")
    seen = replace(source, train=ImageSet((*source.train, *validation), source.classnames))
    there = replace(config, test_domains=None)  # other things, not other domains
    parts, cards = [], []
    for name in names:
        part, left_out = without_training_images(Part(name, target_dataset(there, name, home).test), seen)
        parts.append(part)
        cards.append(
            {
                "dataset": name,
                "images": len(part.images),
                "names": len(part.images.classnames),
                "hash": part.images.hash(),
                "images_left_out_because_trained_on": left_out,
            }
        )
    return tuple(parts), cards


def _said(images: ImageSet, how: str) -> dict[str, Any]:
    return {"images": len(images), "domains": _sets(images), "hash": images.hash(), "drawn": how}


def _sets(images: ImageSet) -> list[str]:
    return list(dict.fromkeys(images.domains))


def _accuracy(logits: Any, bank: Bank) -> float:
    return evaluate.accuracy(logits, bank.labels.cpu())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def check(config: BenchConfig) -> None:
    """ValueError for points that do not lead from the start to the end."""
    alphas = list(config.alphas)
    if sorted(set(alphas)) != alphas or not {0.0, 1.0} <= set(alphas):
        raise ValueError(f"alphas={alphas}: must rise from 0 to 1, both among them, as 0 0.5 1")
    for alpha in alphas:
        check_alpha(alpha)


def smoke(config: BenchConfig) -> dict[str, Any]:
    """Three points and one dataset for retention."""
    retention = config.retention or other_things(config)
    return {**fewer_domains(config), "alphas": (0.0, 0.5, 1.0), "retention": retention}


register(
    ProtocolInfo(
        "domain-shift",
        "domain-generalization with zero-shot retention and WiSE-FT",
        plan,
        takes=("targets", "train_domain", "retention", "alphas"),
        no_suite=ONE_DATASET,
        smoke=smoke,
        check=check,
        shown=replace(
            SHOWN,
            sides={**SHOWN.sides, "base": "the reference domain"},
            base="accuracy on test images of the reference domain",
        ),
    )
)
