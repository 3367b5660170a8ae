"""Base-to-new evaluation in the split and in the joint label space.

Notation: `N` images, `C` classes, `D` embedding. Accuracies and calibration errors are in percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_ood.metrics.functional import calibration_error
from torch import Tensor

from ogenlib.data import BaseNewSplit, FeatureBank, ImageSet
from ogenlib.hosts import Batch, Host

ECE_BINS = 15  # as many as Guo et al. 2017 use


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


@torch.no_grad()
def predict_logits(host: Host, data: FeatureBank | ImageSet, names: Sequence[str], *, batch_size: int = 256) -> Tensor:
    """Logits `(N, C)` over `names`, fp32, on the CPU.

    Args:
        data: a bank (its first view is used) where the host's image side is frozen, or images.
    """
    host.eval()
    if isinstance(data, ImageSet) and host.uses_cached_features:
        data = FeatureBank.extract(host.clip, data, batch_size=batch_size)
    fixed = None
    parts = []
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        labels = torch.zeros(len(rows), dtype=torch.long, device=host.device)
        if isinstance(data, FeatureBank):
            features = data.features[rows.start : rows.stop, 0].float().to(host.device)
            batch = Batch(labels, features=features)
        else:
            pixels = torch.stack([host.clip.preprocess(data.open(i)) for i in rows]).to(host.device)
            batch = Batch(labels, pixels=pixels)
        z = host.image_features(batch)
        if fixed is None:
            w = host.class_weights(names, z=z)
            fixed = w if w.ndim == 2 else None
        else:
            w = fixed
        parts.append(host.logits(z, w).float().cpu())
    return torch.cat(parts) if parts else torch.zeros(0, len(names))


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
        scores: base, new, H, joint_base, joint_new, joint_H, ece_base, ece_new, ece_joint over all images.
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


def base_to_new(host: Host, test: FeatureBank | ImageSet, split: BaseNewSplit) -> BaseToNew:
    """Accuracy on base names, on new names, and with all names competing.

    "Split" scores let base images choose among base names and new images among new names, as the papers
    report; "joint" scores let every image choose among all names, as a deployed classifier must. H is the
    harmonic mean of the two accuracies.

    Raises:
        ValueError: the test data lacks a class of the split.
    """
    names = (*split.base, *split.new)
    data = test.select(names) if isinstance(test, FeatureBank) else test.of_classes(names)
    logits = predict_logits(host, data, names)
    labels, n_base = data.labels.cpu(), len(split.base)
    domains = list(data.domains)
    groups = {d: torch.tensor([x == d for x in domains]) for d in dict.fromkeys(domains)}
    return BaseToNew(
        scores=_scores(logits, labels, n_base),
        domains={d: _scores(logits[rows], labels[rows], n_base) for d, rows in groups.items()},
        per_class=_per_class(logits, labels, names, n_base),
        names=names,
        predicted=logits.argmax(1),
        labels=labels,
        keys=list(data.keys),
        image_domains=domains,
    )


def _scores(logits: Tensor, labels: Tensor, n_base: int) -> dict[str, float]:
    is_base = labels < n_base
    base, new = logits[is_base], logits[~is_base]
    base_labels, new_labels = labels[is_base], labels[~is_base]
    scores = {
        "base": accuracy(base[:, :n_base], base_labels),
        "new": accuracy(new[:, n_base:], new_labels - n_base),
        "joint_base": accuracy(base, base_labels),
        "joint_new": accuracy(new, new_labels),
        "ece_base": ece(base[:, :n_base], base_labels),
        "ece_new": ece(new[:, n_base:], new_labels - n_base),
        "ece_joint": ece(logits, labels),
    }
    scores["H"] = harmonic_mean(scores["base"], scores["new"])
    scores["joint_H"] = harmonic_mean(scores["joint_base"], scores["joint_new"])
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
        rows = labels == c
        result[name] = {
            "side": "base" if c < n_base else "new", "n": int(rows.sum()),
            "accuracy": 100 * split[rows].float().mean().item(),
            "joint_accuracy": 100 * joint[rows].float().mean().item(),
        }  # fmt: skip
    return result


def confusions(result: BaseToNew, domain: str, most: int = 6) -> list[dict[str, Any]]:
    """The commonest wrong joint predictions in one domain, largest share of a class first.

    Returns dicts with true, predicted, count, of, true_is, predicted_is and the image keys.
    """
    n_base = sum(1 for row in result.per_class.values() if row["side"] == "base")
    pairs: dict[tuple[int, int], list[str]] = {}
    totals: dict[int, int] = {}
    for truth, guess, where, key in zip(
        result.labels.tolist(), result.predicted.tolist(), result.image_domains, result.keys, strict=True
    ):
        if where != domain:
            continue
        totals[truth] = totals.get(truth, 0) + 1
        if truth != guess:
            pairs.setdefault((truth, guess), []).append(key)
    ranked = sorted(pairs.items(), key=lambda kv: (-len(kv[1]) / totals[kv[0][0]], -len(kv[1]), kv[0]))
    side = ["base" if c < n_base else "new" for c in range(len(result.names))]
    return [
        {"true": result.names[t], "predicted": result.names[p], "count": len(keys), "of": totals[t],
         "true_is": side[t], "predicted_is": side[p], "keys": keys}
        for (t, p), keys in ranked[:most]
    ]  # fmt: skip
