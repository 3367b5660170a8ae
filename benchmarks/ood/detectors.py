"""Every detector of the OOD study, as a function from a task to scores.

The head of those that want logits is the zero-shot classifier, 100 times the cosine to the names.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_ood.detector as theirs
import torch
from torch import Tensor, nn

from benchmarks.ood.tasks import Task
from ogenlib.detect import NegLabel, OGENDetector, mine_negatives

SCALE = 100.0
Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Entry:
    """A detector: what it is told (names, images or unknown names), how it is made, and settings to choose from."""

    setting: str
    make: Callable[[Task, Mapping[str, Any]], Scores]
    choices: tuple[Mapping[str, Any], ...] = ({},)


def head(task: Task) -> nn.Linear:
    layer = nn.Linear(task.names.shape[1], len(task.names))
    with torch.no_grad():
        layer.weight.copy_(SCALE * task.names)
        layer.bias.zero_()
    return layer.requires_grad_(False)


def on_logits(kind: Any) -> Callable[[Task, Mapping[str, Any]], Scores]:
    def make(task: Task, settings: Mapping[str, Any]) -> Scores:
        detector, layer = kind(None, **settings), head(task)
        if detector.requires_fit:
            detector.fit_logits(layer(task.fit_x), task.fit_y)
        return lambda z: detector.predict_logits(layer(z))

    return make


def on_features(kind: Any, needs: str = "", piece: int | None = None) -> Callable[[Task, Mapping[str, Any]], Scores]:
    """A detector on features, which may want the head; those are scored `piece` at a time where it needs much memory.

    fDBD divides by the distance between class weights and so gives NaN where two names are written alike, as three
    pairs of ImageNet's are (crane, cardigan, maillot): such a row counts as a middling one.
    """

    def score(detector: Any, features: Tensor) -> Tensor:
        scores = detector.predict_features(features)
        return scores.nan_to_num(nan=float(scores.nanmedian())) if kind is theirs.fDBD else scores

    def make(task: Task, settings: Mapping[str, Any]) -> Scores:
        layer = head(task)
        tables: dict[str, dict[str, Any]] = {"head": {"head": layer}, "wb": {"w": layer.weight, "b": layer.bias}}
        more = tables.get(needs, {})
        settings = {k: min(v, len(task.fit_x) - 1) if k == "k" else v for k, v in settings.items()}
        detector = kind(None, **more, **settings)
        if detector.requires_fit:
            detector.fit_features(task.fit_x, task.fit_y)
        return lambda z: torch.cat([score(detector, features) for features in z.split(piece or len(z))])

    return make


def mcm(task: Task, settings: Mapping[str, Any]) -> Scores:
    return theirs.MCM(None, task.names, **settings).predict_features


def mix(task: Task, settings: Mapping[str, Any]) -> Scores:
    """The simple mix that the library set out to beat: cosine to the name plus some of that to the class mean."""
    total = torch.zeros_like(task.names).index_add_(0, task.fit_y, task.fit_x)
    prototypes = task.names + settings["share"] * nn.functional.normalize(total, dim=-1)
    return lambda z: -(z @ prototypes.T).amax(dim=1)


def text_minus_mean(task: Task, settings: Mapping[str, Any]) -> Scores:
    """Energy at 0.01 minus a share of the mean similarity to the names: the names-only score without a boundary."""
    middle = settings["share"] * task.names.mean(dim=0)
    return lambda z: -(0.01 * (z @ task.names.T / 0.01).logsumexp(dim=1) - z @ middle)


def gaussian_names(names: Tensor, count: int = 4096, wider: float = 1.0) -> Tensor:
    """Unit rows `(count, D)` from a Gaussian of the names' mean and `wider` times their deviations."""
    middle = names.mean(dim=0)
    noise = torch.randn(count, len(names), generator=torch.Generator().manual_seed(0)) / len(names) ** 0.5
    return nn.functional.normalize(middle + wider * noise @ (names - middle), dim=-1)


def text_minus_drawn(task: Task, settings: Mapping[str, Any]) -> Scores:
    """Energy at 0.01 minus a share of that to names drawn like the known ones."""
    drawn, share = gaussian_names(task.names), settings["share"]
    return lambda z: 0.01 * (share * (z @ drawn.T / 0.01).logsumexp(dim=1) - (z @ task.names.T / 0.01).logsumexp(dim=1))


def ours(images: bool, told: bool) -> Callable[[Task, Mapping[str, Any]], Scores]:
    def make(task: Task, settings: Mapping[str, Any]) -> Scores:
        others = task.others if told else None
        detector = OGENDetector(None, None, task.names, others, **settings)
        if images:
            detector.fit_features(task.fit_x, task.fit_y)
        return detector.predict_features

    return make


def neg_label(vocabulary: Tensor) -> Callable[[Task, Mapping[str, Any]], Scores]:
    def make(task: Task, settings: Mapping[str, Any]) -> Scores:
        rest = {k: v for k, v in settings.items() if k != "keep"}
        chosen = mine_negatives(task.names, vocabulary, settings.get("keep", 1.0))
        return NegLabel(None, task.names, vocabulary[chosen], **rest).predict_features

    return make


def each(**values: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """One dictionary for each value of the one keyword."""
    ((name, options),) = values.items()
    return tuple({name: option} for option in options)


def entries(vocabulary: Tensor) -> dict[str, Entry]:
    """All detectors by name; MCM first, at pytorch-ood's temperature."""
    detectors = {
        "MCM": Entry("names", mcm),
        "MCM, temperature chosen": Entry("names", mcm, each(temperature=(1.0, 0.1, 0.03, 0.01))),
        "MaxSoftmax": Entry("names", on_logits(theirs.MaxSoftmax), each(t=(1.0, 10.0, 100.0))),
        "MaxLogit": Entry("names", on_logits(theirs.MaxLogit)),
        "Energy": Entry("names", on_logits(theirs.EnergyBased), each(t=(0.5, 1.0, 2.0))),
        "Entropy": Entry("names", on_logits(theirs.Entropy)),
        "GEN": Entry("names", on_logits(theirs.GEN), ({}, {"gamma": 0.5})),
        "NegLabel, small vocabulary": Entry("names", neg_label(vocabulary), ({"keep": 0.15}, {"keep": 1.0})),
        "Energy - share of mean": Entry("names", text_minus_mean, each(share=(0.3, 0.5, 0.7))),
        "Energy - share of drawn names": Entry("names", text_minus_drawn, each(share=(0.3, 0.4, 0.5))),
        "OGENDetector": Entry("names", ours(False, False)),
        "KNN": Entry("images", on_features(theirs.KNN), each(k=(1, 2, 4, 10, 50))),
        "ViM": Entry("images", on_features(theirs.ViM, "wb"), each(d=(16, 64, 128, 256))),
        "SHE": Entry("images", on_features(theirs.SHE, "head")),
        "fDBD": Entry("images", on_features(theirs.fDBD, "head")),
        "NNGuide": Entry("images", on_features(theirs.NNGuide, "head"), each(k=(1, 10, 50))),
        "NCI": Entry("images", on_features(theirs.NCI, "head"), each(alpha=(0.0, 0.01, 0.1))),
        "DICE": Entry("images", on_features(theirs.DICE, "wb"), each(p=(0.1, 0.5, 0.9))),
        "PNML": Entry("images", on_features(theirs.PNML, "head")),
        "KLMatching": Entry("images", on_logits(theirs.KLMatching)),
        "name + share of class mean": Entry("images", mix, each(share=(0.1, 0.3, 1.0))),
        "OGENDetector, images": Entry("images", ours(True, False)),
        "OGENDetector, unknown names": Entry("unknown names", ours(False, True)),
        "OGENDetector, images, unknown names": Entry("unknown names", ours(True, True)),
        # Minutes each: one matrix product over all rows for every class.
        "Mahalanobis": Entry("images", on_features(theirs.Mahalanobis)),
        "RMD": Entry("images", on_features(theirs.RMD)),
        "GMM": Entry("images", on_features(theirs.GMM, piece=64)),  # it keeps rows x classes x dimensions
    }
    return detectors
