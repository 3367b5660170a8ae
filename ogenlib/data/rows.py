"""Selecting from labelled images, whatever is kept of each: what every kind of bank shares.

Notation: `N` images, `C` classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ogenlib.data.dataset import name_indices, short_hash

R = TypeVar("R", bound="LabelledRows")


class LabelledRows(ABC):
    """N labelled images of C classes; a subclass says how some of them are taken.

    labels: (N,) int64 into `classnames`.
    fingerprint: what they were made from, JSON-able.
    """

    labels: Tensor
    classnames: tuple[str, ...]
    domains: list[str]
    keys: list[str]
    fingerprint: dict[str, Any]

    @abstractmethod
    def _take(self: R, indices: Tensor, step: str, labels: Tensor, classnames: tuple[str, ...]) -> R:
        """The images at `indices` (int64, on the CPU) with these labels and names; `step` goes into the fingerprint."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self: R, indices: Tensor | Sequence[int]) -> R:
        """The images at `indices` (int64 or bool mask)."""
        positions = torch.as_tensor(indices)
        positions = positions.nonzero().flatten().cpu() if positions.dtype == torch.bool else positions.long().cpu()
        return self._same(positions, f"rows:{short_hash(positions.tolist())}")

    def select(self: R, names: Iterable[str]) -> R:
        """The images of `names`, relabelled 0.. in the order of `names`; ValueError for an unknown name."""
        chosen = name_indices(names, self.classnames, "this bank")
        new = torch.full((len(self.classnames),), -1)
        new[chosen] = torch.arange(len(chosen))
        labels = new[self.labels.cpu()]
        names = tuple(self.classnames[i] for i in chosen)
        positions = (labels >= 0).nonzero().flatten()
        return self._take(positions, f"classes:{short_hash(names)}", labels[positions].to(self.labels.device), names)

    def of_domain(self: R, domain: str) -> R:
        """The images of one domain; ValueError for a domain that no image has."""
        positions = [i for i, name in enumerate(self.domains) if name == domain]
        if not positions:
            known = ", ".join(map(repr, sorted(set(self.domains))))
            raise ValueError(f"no image of this bank is of domain {domain!r}; the domains are {known}")
        return self._same(torch.tensor(positions), f"domain:{domain}")

    def _same(self: R, indices: Tensor, step: str) -> R:
        return self._take(indices, step, self.labels[indices.to(self.labels.device)], self.classnames)


def selected(fingerprint: Mapping[str, Any], step: str) -> dict[str, Any]:
    """The fingerprint of a part, which must not pass for the whole."""
    data = fingerprint.get("data", {})
    return {**fingerprint, "data": {**data, "selected": [*data.get("selected", []), step]}}
