"""Two sides of a test: the source's own images among its names (base), and a target's among the target's (new).

What cross-dataset, domain generalization and few-shot tables share. With all names competing, names that are the
same in source and target are one class (`ogenlib.evaluate.label_space`).

Notation: `N` images, `C` names of all parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ogenlib.bench.protocols.parts.controls import joined, said, without_images_by_zero_shot
from ogenlib.bench.protocols.parts.plan import Outcome, Part, Tested
from ogenlib.evaluate import scores as evaluate
from ogenlib.evaluate.label_space import LabelSpace
from ogenlib.hosts import Host
from ogenlib.results.tables import METRICS
from ogenlib.train.batches import Bank
from ogenlib.utils.variant import ZERO_SHOT

CONFUSIONS = 6  # of a host
Side = tuple[Tensor, Tensor]  # logits (N, C) and labels (N,) of the side's own names


@dataclass(frozen=True)
class SidesJudge:
    """Scores the source's part against every other.

    parts: the source's first.
    names: all names, the source's first.
    spaces: of the parts after the first.
    joint: for each of them, whether the joint label space means something.
    pooled: classes are the same in all parts, and counted together.
    """

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    n_known: int
    spaces: tuple[LabelSpace, ...]
    joint: tuple[bool, ...]
    home: str
    pooled: bool = False

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        """Base, and new (the mean of the targets) where it costs no other names."""
        banks, known = tested.of(host, near=True), self.names[: self.n_known]
        if not self.spaces or len(self.names) > self.n_known:
            logits = evaluate.predict_logits(host, banks[0], known)
            return {"base": evaluate.accuracy(logits, banks[0].labels.cpu())}
        first, *rest = zip(evaluate.predict_each(host, banks, known), banks, strict=True)
        base = evaluate.accuracy(first[0], first[1].labels.cpu())
        new = [
            evaluate.accuracy(logits[:, list(space.new)], bank.labels.cpu())
            for space, (logits, bank) in zip(self.spaces, rest, strict=True)
        ]
        mean = sum(new) / len(new)
        return {"base": base, "new": mean, "H": evaluate.harmonic_mean(base, mean)}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        banks = tested.of(host)
        predicted = evaluate.predict_each(host, banks, self.names)
        if tested.competing is None:
            return self._scored(banks, predicted)
        alone = list(predicted)
        zero_shot = evaluate.predict_each(tested.competing.zero_shot, tested.features, self.names)
        control = [
            without_images_by_zero_shot(own, other, self.n_known) for own, other in zip(alone, zero_shot, strict=True)
        ]
        ways = {"": alone, ZERO_SHOT: control}
        return joined([self._scored(banks, iter(ways[way[0]]), *way) for way in tested.competing.ways()])

    def _scored(
        self, banks: Sequence[Bank], predicted: Iterator[Tensor], control: str = "", constant: float | None = None
    ) -> Outcome:
        """What logits over all names score in every part, of the host or of its control."""
        of = said(control, constant)
        source, sides = banks[0], (next(predicted), banks[0].labels.cpu())
        rows = [
            {
                "dataset": self.parts[0].dataset,
                "domain": domain,
                **of,
                **_base_only(_of_domain(sides, source, domain), self.n_known),
            }
            for domain in dict.fromkeys(source.domains)
        ]
        confused = _confusions(self.parts[0], source, sides, tuple(range(self.n_known)), self.names, self.n_known, None)
        per_class = _per_class(source, sides, self.names[: self.n_known], tuple(range(self.n_known)), None, "base")
        if self.spaces:
            confused = []  # those of the targets are what the protocol is about
        of_targets: list[dict[str, Any]] = []
        for part, bank, space, joint, logits in zip(
            self.parts[1:], banks[1:], self.spaces, self.joint, predicted, strict=True
        ):
            new = (logits, bank.labels.cpu())
            for domain in dict.fromkeys(bank.domains):
                near = domain if domain in source.domains else self.home
                pair = _of_domain(sides, source, near), _of_domain(new, bank, domain)
                scores = evaluate.space_scores(space, *pair, constant)
                kept = {k: v if joint or k not in evaluate.JOINT else None for k, v in scores.items()}
                rows.append({"dataset": part.dataset, "domain": domain, **of, **_plain(kept)})
            names = part.images.classnames
            columns = space.joint if joint else space.new
            confused += _confusions(part, bank, new, columns, self.names, self.n_known, space)
            more = _per_class(bank, new, names, space.new, columns if joint else None, "new")
            of_targets += more if self.pooled else [{**row, "dataset": part.dataset} for row in more]
        confused.sort(key=lambda pair: (-pair["count"] / pair["of"], -pair["count"]))
        return Outcome(rows, confused[:CONFUSIONS], per_class + (_pool(of_targets) if self.pooled else of_targets))


def _of_domain(side: Side, bank: Bank, domain: str) -> Side:
    inside = torch.tensor([d == domain for d in bank.domains])
    inside = inside if inside.any() else torch.ones_like(inside)
    return side[0][inside], side[1][inside]


def _base_only(side: Side, n_known: int) -> dict[str, float | None]:
    logits = side[0][:, :n_known]
    scores = {"base": evaluate.accuracy(logits, side[1]), "ece_base": evaluate.ece(logits, side[1])}
    return {**dict.fromkeys(METRICS), **_plain(scores)}


def _plain(scores: dict[str, Any]) -> dict[str, float | None]:
    return {k: None if v is None or math.isnan(v) else v for k, v in scores.items()}


def _confusions(
    part: Part,
    bank: Bank,
    side: Side,
    columns: Sequence[int],
    names: Sequence[str],
    n_known: int,
    space: LabelSpace | None,
) -> list[dict[str, Any]]:
    """Wrong choices among `columns`, counted by domain; `space` is None for the source's own images."""
    own = list(range(n_known)) if space is None else list(space.new)
    chosen = torch.tensor(list(columns))[side[0][:, list(columns)].argmax(1)] if len(side[1]) else side[1]
    truth = [own[label] for label in side[1].tolist()]
    mine, is_own = "base" if space is None else "new", set(own)
    return [
        {
            "dataset": part.dataset,
            "domain": domain,
            "true": names[true],
            "predicted": names[guess],
            "count": len(keys),
            "of": of,
            "true_is": mine,
            "predicted_is": mine if guess in is_own else "base",
            "keys": keys,
        }
        for domain, true, guess, keys, of in evaluate.wrong_choices(truth, chosen.tolist(), bank.domains, bank.keys)
    ]


def _per_class(
    bank: Bank, side: Side, names: Sequence[str], split: Sequence[int], joint: Sequence[int] | None, which: str
) -> list[dict[str, Any]]:
    """Of the classes that have images."""
    labels, logits = side[1], side[0]
    right = logits[:, list(split)].argmax(1) == labels
    right_of_all = None
    if joint is not None:
        right_of_all = torch.tensor(list(joint))[logits[:, list(joint)].argmax(1)] == torch.tensor(list(split))[labels]
    entries = []
    for label, name in enumerate(names):
        own = labels == label
        if own.any():
            of_all = None if right_of_all is None else 100 * right_of_all[own].float().mean().item()
            entries.append(
                {
                    "class": name,
                    "side": which,
                    "n": int(own.sum()),
                    "accuracy": 100 * right[own].float().mean().item(),
                    "joint_accuracy": of_all,
                }
            )
    return entries


def _pool(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of one class as one: means weighted by the images."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(entry["class"], []).append(entry)

    def mean(group: list[dict[str, Any]], key: str) -> float | None:
        if any(entry[key] is None for entry in group):
            return None
        return float(sum(entry["n"] * entry[key] for entry in group) / sum(entry["n"] for entry in group))

    return [
        {
            **group[0],
            "n": sum(entry["n"] for entry in group),
            "accuracy": mean(group, "accuracy"),
            "joint_accuracy": mean(group, "joint_accuracy"),
        }
        for group in groups.values()
    ]
