"""How OGEN scores names: those its host has images of, and those it has none of.

A name without images is weighted by zero-shot, wholly or in part (`zero_shot_share`). Two towers (`frozen_images`):
such names meet the features of the frozen image tower, the others those of a host that changed it. Both kinds of
features lie side by side, `(B, 2 D)`; a class weight `(2 D,)` is zero where it meets the features that its name is not
scored on, so that a product of the two is a cosine as ever.

Notation: `B` images, `S` synthesized features, `C` names, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts import Batch, Host, ZeroShotAnchor
from ogenlib.ogen.config import OGENConfig
from ogenlib.ogen.names import name_groups


@dataclass(frozen=True)
class Names:
    """Names with what their weights are made of besides the host: zero-shot weights `(C, D)`, and `unseen`, `(C,)`:
    which have no images."""

    names: tuple[str, ...]
    zero_shot: Tensor
    unseen: Tensor


@dataclass(frozen=True)
class Group(Names):
    """The names of a step: the known ones, then a group of the others; `indices` `(C,)` into all names."""

    indices: Tensor


class Scoring:
    """Image features of a host, and class weights of any names that meet them.

    Args:
        host: it knows the names with images.
        others: names without images that it is trained with.
        anchor: zero-shot weights of any names.

    Attributes:
        every: all names, those of the host first.
        groups: the others as they take turns.
        two_towers: whether unseen names are scored on the frozen tower's features.
    """

    def __init__(self, host: Host, others: tuple[str, ...], anchor: ZeroShotAnchor, config: OGENConfig) -> None:
        self.host, self.anchor = host, anchor
        self.every = (*host.names, *others)
        self.share, self.pseudo_unknown = config.zero_shot_share, config.pseudo_unknown
        self.two_towers = config.frozen_images and self.share == 1 and not host.uses_cached_features
        self.groups = name_groups(others, len(host.names), config.name_groups)
        self._known = frozenset(host.names)

    def image_features(self, batch: Batch) -> Tensor:
        """The host's `(B, D)`; with two towers `(B, 2 D)`, behind them those of the frozen one."""
        own = self.host.image_features(batch)
        return torch.cat([own, Host.image_features(self.host, batch)], dim=-1) if self.two_towers else own

    def class_weights(self, names: tuple[str, ...], z: Tensor | None) -> Tensor:
        """What `image_features` meet, `(C, D)` or `(B, C, D)`; with two towers `(C, 2 D)`."""
        if self.share and not self._known.issuperset(names):
            weights = self.mixed_weights(self.described(names), z)
        else:
            weights = self.host.class_weights(names, z=z)
        return two_sided(weights, self._unseen(names)) if self.two_towers else weights

    def mixed_weights(self, described: Names, z: Tensor | None) -> Tensor:
        """The host's weights `(C, D)` or `(B, C, D)`, mixed with zero-shot ones for unseen names."""
        names, zero_shot, unseen = described.names, described.zero_shot, described.unseen
        if self.share != 1:
            of_host = self.host.class_weights(names, z=z)
            return mixed(of_host, zero_shot, unseen, self.share) if self.share else of_host
        known = [n for n in names if n in self._known]  # what the host makes of the others is not needed
        of_host = self.host.class_weights(known or self.host.names, z=z)
        weights = zero_shot if of_host.ndim == 2 else zero_shot.expand(len(of_host), -1, -1).clone()
        if not known:
            return weights
        return weights.index_copy(-2, (~unseen).nonzero()[:, 0], of_host.to(weights.dtype))

    def described(self, names: tuple[str, ...]) -> Names:
        """Any names, with their zero-shot weights."""
        return Names(names, self.anchor(names), self._unseen(names))

    def _unseen(self, names: Sequence[str]) -> Tensor:
        return torch.tensor([n not in self._known for n in names], device=self.host.device)

    # --- of a training step ----------------------------------------------------------------------------

    @cached_property
    def _steps(self) -> list[Group]:
        known = self.host.names
        groups = []
        for first, others in enumerate(self.groups):
            places = [*range(len(known)), *range(len(known) + first, len(self.every), len(self.groups))]
            indices = torch.tensor(places, device=self.host.device)
            names = (*known, *others)
            groups.append(Group(names, self.anchor(self.every)[indices], self._unseen(names), indices))
        return groups

    def draw_group(self, draws: torch.Generator | None) -> Group:
        """The names of a step, each group as likely."""
        return self._steps[0 if len(self.groups) == 1 else int(torch.randint(len(self.groups), (), generator=draws))]

    def draw_stand_ins(self, draws: torch.Generator | None) -> Tensor | None:
        """Where unknown names are held out: the known names `(C,)` that this step weights as unknown ones will be."""
        known = len(self.host.names)
        count = round(self.pseudo_unknown * known)
        if len(self.every) > known or not self.share or not count:
            return None
        chosen = torch.randperm(known, generator=draws)[:count].to(self.host.device)
        return torch.zeros(known, dtype=torch.bool, device=self.host.device).index_fill(0, chosen, True)

    def with_stand_ins(self, weights: Tensor, group: Group, stand_ins: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights `(C, D)` of a step with its stand-ins' zero-shot ones in, and the same as `image_features` meet
        them."""
        unseen = group.unseen
        if stand_ins is not None:
            weights, unseen = mixed(weights, group.zero_shot, stand_ins, self.share), stand_ins
        return weights, two_sided(weights, unseen) if self.two_towers else weights

    @torch.no_grad()
    def zero_shot_logits(self, batch: Batch, z: Tensor, synthesized: Tensor | None, group: Group) -> Tensor:
        """`(B + S, C)`: the same model with the host switched off, on the same views, of which `z` are the
        `image_features`."""
        if self.two_towers:
            z = z[:, group.zero_shot.shape[1] :]
        elif not self.host.uses_cached_features:
            z = Host.image_features(self.host, batch)
        return Host.logits(self.host, with_synthesized(z, synthesized), group.zero_shot)


def mixed(of_host: Tensor, zero_shot: Tensor, unseen: Tensor, share: float) -> Tensor:
    """The host's weights `(..., C, D)`, of `unseen` names `(C,)` unit vectors with `share` of the zero-shot ones."""
    return torch.where(unseen[:, None], F.normalize(share * zero_shot + (1 - share) * of_host, dim=-1), of_host)


def two_sided(weights: Tensor, unseen: Tensor) -> Tensor:
    """Class weights `(C, 2 D)` of `(C, D)`: those of `unseen` names `(C,)` in the second half, for the frozen tower."""
    return torch.cat([weights.masked_fill(unseen[:, None], 0), weights.masked_fill(~unseen[:, None], 0)], dim=-1)


def with_synthesized(z: Tensor, synthesized: Tensor | None) -> Tensor:
    """Image features `(B, D)` or `(B, 2 D)` with synthesized ones `(S, D)` below, which stand for either tower's."""
    if synthesized is None:
        return z
    return torch.cat([z, synthesized.to(z.dtype).repeat(1, z.shape[1] // synthesized.shape[1])])
