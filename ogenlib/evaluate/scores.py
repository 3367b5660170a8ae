"""Evaluation in the split and in the joint label space: base-to-new, and any other two sides of names.

Notation: `N` images, `C` classes, `D` embedding. Accuracies and calibration errors are in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_ood.metrics.functional import calibration_error
from torch import Tensor

from ogenlib.data import BaseNewSplit, ImageSet
from ogenlib.evaluate.label_space import LabelSpace
from ogenlib.generators import ausuc, gate_auroc
from ogenlib.hosts import Host
from ogenlib.train.batches import Bank, test_batches

ECE_BINS = 15  # as many as Guo et al. 2017 use
JOINT = ("joint_base", "joint_new", "joint_H", "joint_H_calibrated", "ece_joint", "ausuc", "gate_auroc")
"""The scores of `space_scores` for which all names compete."""


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


@torch.no_grad()
def predict_logits(host: Host, data: Bank | ImageSet, names: Sequence[str], *, batch_size: int = 256) -> Tensor:
    """Logits `(N, C)` over `names`, fp32, on the CPU.

    Args:
        data: a bank (its first view is used), of pixels where the host changes the image side; or images.

    Raises:
        ValueError: features for a host that needs pixels.
    """
    return next(predict_each(host, [data], names, batch_size=batch_size))


@torch.no_grad()
def predict_each(
    host: Host, parts: Iterable[Bank | ImageSet], names: Sequence[str], *, batch_size: int = 256
) -> Iterator[Tensor]:
    """`predict_logits` of several banks, one after the other; weights that no image changes are made once."""
    host.eval()
    fixed = None
    for data in parts:
        logits = []
        for batch in test_batches(host, data, batch_size):
            z = host.image_features(batch)
            if fixed is None:
                w = host.class_weights(names, z=z)
                fixed = w if w.ndim == 2 else None
            else:
                w = fixed
            logits.append(host.logits(z, w).float().cpu())
        yield torch.cat(logits) if logits else torch.zeros(0, len(names))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Top-1 in percent; NaN without images."""
    return float("nan") if not len(labels) else 100 * (logits.argmax(1) == labels).float().mean().item()


def ece(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error of the softmax in percent, 15 bins of equally many images; NaN without images."""
    if not len(labels):
        return float("nan")
    confidence, predicted = logits.softmax(1).max(1)
    size = math.ceil(len(labels) / ECE_BINS)
    return 100 * float(calibration_error(confidence, (predicted == labels).float(), p="1", beta=size))


@dataclass(frozen=True)
class BaseToNew:
    """Result of `base_to_new`.

    Attributes:
        scores: those of `space_scores`, over all images.
        domains: the same scores for each test domain.
        per_class: class name -> {"side", "n", "accuracy", "joint_accuracy"}, over all domains.
        predicted: `(N,)` joint predictions, `labels` `(N,)`: indices into `names` = base then new.
    """

    scores: dict[str, float]
    domains: dict[str, dict[str, float]]
    per_class: dict[str, dict[str, Any]]
    names: tuple[str, ...]
    predicted: Tensor
    labels: Tensor
    keys: list[str]
    image_domains: list[str]

    def __getitem__(self, name: str) -> float:
        return self.scores[name]


def base_to_new(host: Host, test: Bank | ImageSet, split: BaseNewSplit) -> BaseToNew:
    """Accuracy on base names, on new names, and with all names competing.

    "Split" scores let base images choose among base names and new images among new names, as the papers
    report; "joint" scores let every image choose among all names, as a deployed classifier must. H is the
    harmonic mean of the two accuracies.

    Raises:
        ValueError: the test data lacks a class of the split, or are features where the host needs pixels.
    """
    data = of_split(test, split)
    return split_scores(predict_logits(host, data, (*split.base, *split.new)), data, split)


def of_split(test: Bank | ImageSet, split: BaseNewSplit) -> Bank | ImageSet:
    """The bank or images of the split's classes, labels counting base names, then new ones."""
    names = (*split.base, *split.new)
    return test.of_classes(names) if isinstance(test, ImageSet) else test.select(names)


def split_scores(
    logits: Tensor, data: Bank | ImageSet, split: BaseNewSplit, constant: float | None = None
) -> BaseToNew:
    """`base_to_new` of logits `(N, C)` over base, then new names, of the images of `of_split`.

    Args:
        constant: of calibrated stacking, as `space_scores` takes it.
    """
    names = (*split.base, *split.new)
    labels, n_base = data.labels.cpu(), len(split.base)
    domains = list(data.domains)
    groups = {d: torch.tensor([x == d for x in domains]) for d in dict.fromkeys(domains)}
    return BaseToNew(
        scores=_scores(logits, labels, n_base, constant),
        domains={d: _scores(logits[chosen], labels[chosen], n_base, constant) for d, chosen in groups.items()},
        per_class=_per_class(logits, labels, names, n_base),
        names=names,
        predicted=logits.argmax(1),
        labels=labels,
        keys=list(data.keys),
        image_domains=domains,
    )


def _scores(logits: Tensor, labels: Tensor, n_base: int, constant: float | None) -> dict[str, float]:
    is_base = labels < n_base
    space = LabelSpace(tuple(range(n_base)), tuple(range(n_base, logits.shape[1])))
    base, new = (logits[is_base], labels[is_base]), (logits[~is_base], labels[~is_base] - n_base)
    return space_scores(space, base, new, constant)


def space_scores(
    space: LabelSpace, base: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], constant: float | None = None
) -> dict[str, float]:
    """base, new, H, the same where all names of the space compete, and calibration errors.

    ausuc and gate_auroc (`ogenlib.generators.stacking`) are NaN where all images, or all names, are of one side.

    Args:
        base, new: logits `(N, C)` over all columns that the space is of, and labels `(N,)` of the side's own names.
        constant: taken from the base names' logits for joint_H_calibrated; None to leave that out.
    """
    columns = {column: i for i, column in enumerate(space.joint)}  # base names first
    joint = torch.cat([base[0], new[0]])[:, list(columns)]
    joint_labels = torch.cat(
        [
            torch.tensor([columns[c] for c in side])[labels]
            for side, labels in ((space.base, base[1]), (space.new, new[1]))
        ]
    )
    n = len(base[1])
    base_split, new_split = base[0][:, list(space.base)], new[0][:, list(space.new)]
    scores = {
        "base": accuracy(base_split, base[1]),
        "new": accuracy(new_split, new[1]),
        "joint_base": accuracy(joint[:n], joint_labels[:n]),
        "joint_new": accuracy(joint[n:], joint_labels[n:]),
        "ece_base": ece(base_split, base[1]),
        "ece_new": ece(new_split, new[1]),
        "ece_joint": ece(joint, joint_labels),
    }
    scores["H"] = harmonic_mean(scores["base"], scores["new"])
    scores["joint_H"] = harmonic_mean(scores["joint_base"], scores["joint_new"])
    n_base = len(space.base)
    known = joint_labels < n_base  # an image of a name that both sides have is one of a known name
    both = n_base < joint.shape[1] and bool(known.any()) and not bool(known.all())
    for name, measure in (("ausuc", ausuc), ("gate_auroc", gate_auroc)):
        scores[name] = measure(joint, joint_labels, n_base) if both else float("nan")
    if constant is not None:
        moved = joint.clone()
        moved[:, :n_base] -= constant
        sides = accuracy(moved[:n], joint_labels[:n]), accuracy(moved[n:], joint_labels[n:])
        scores["joint_H_calibrated"] = harmonic_mean(*sides)
    return scores


def _per_class(logits: Tensor, labels: Tensor, names: Sequence[str], n_base: int) -> dict[str, dict[str, Any]]:
    joint = logits.argmax(1) == labels
    inside = logits.clone()
    is_base = (labels < n_base)[:, None]
    other = torch.arange(len(names))[None] >= n_base
    inside[is_base == other] = -torch.inf  # base images: hide new names; new images: hide base names
    split = inside.argmax(1) == labels
    result = {}
    for c, name in enumerate(names):
        own = labels == c
        result[name] = {
            "side": "base" if c < n_base else "new",
            "n": int(own.sum()),
            "accuracy": 100 * split[own].float().mean().item(),
            "joint_accuracy": 100 * joint[own].float().mean().item(),
        }
    return result


def confusions(result: BaseToNew, domain: str, most: int = 6) -> list[dict[str, Any]]:
    """The commonest wrong joint predictions in one domain, largest share of a class first.

    Returns dicts with true, predicted, count, of, true_is, predicted_is and the image keys.
    """
    n_base = sum(1 for row in result.per_class.values() if row["side"] == "base")
    wrong = wrong_choices(result.labels.tolist(), result.predicted.tolist(), result.image_domains, result.keys)
    here = [choice for choice in wrong if choice[0] == domain]
    here.sort(key=lambda choice: (-len(choice[3]) / choice[4], -len(choice[3]), choice[1:3]))
    side = ["base" if c < n_base else "new" for c in range(len(result.names))]
    return [
        {
            "true": result.names[t],
            "predicted": result.names[p],
            "count": len(keys),
            "of": of,
            "true_is": side[t],
            "predicted_is": side[p],
            "keys": keys,
        }
        for _, t, p, keys, of in here[:most]
    ]


def wrong_choices(
    truth: Sequence[int], chosen: Sequence[int], domains: Sequence[str], keys: Sequence[str]
) -> list[tuple[str, int, int, list[str], int]]:
    """(domain, true, chosen, keys of the images, images of the true class there) of every kind of wrong choice."""
    pairs: dict[tuple[str, int, int], list[str]] = {}
    totals: dict[tuple[str, int], int] = {}
    for true, guess, domain, key in zip(truth, chosen, domains, keys, strict=True):
        totals[domain, true] = totals.get((domain, true), 0) + 1
        if guess != true:
            pairs.setdefault((domain, true, guess), []).append(key)
    return [(*pair, images, totals[pair[:2]]) for pair, images in pairs.items()]
