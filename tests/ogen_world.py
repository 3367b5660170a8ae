"""Small tables, banks and hosts for the tests of OGEN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import FeatureBank
from ogenlib.hosts import Batch, Host, MethodInfo, TextAdapter, ZeroShotAnchor
from ogenlib.ogen.wrapper import OGEN
from ogenlib.towers import EmbeddingTable
from ogenlib.train.loop import fit

KNOWN = ("ant", "bee", "cat", "dog", "elk", "fox")
UNKNOWN = ("gnu", "hen", "ibis", "jay", "koi")
SPARE = ("lark", "mole")
D = 8
# A generator that is trained in a moment.
SMALL: dict[str, Any] = {"k": 2, "heads": 2, "iterations": 5, "rows": 6, "per_class": 4}
# Nothing of OGEN.
OFF: dict[str, Any] = {
    "generator": None, "zero_shot_share": 0.0, "zero_shot_kl": 0.0, "synthesized_kl": 0.0, "synthesized_ce": 0.0,
    "synthesized_ce_within": 0.0, "teacher": None,
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(noise(*shape, seed=seed), dim=-1)


def make_table(device: str = "cpu") -> EmbeddingTable:
    names = (*KNOWN, *UNKNOWN, *SPARE)
    return EmbeddingTable(names, noise(len(names), D).to(device), logit_scale=10.0)


def make_bank(table: EmbeddingTable, names: Sequence[str] = (*KNOWN, *UNKNOWN), seed: int = 1) -> FeatureBank:
    """Four images a class around the text feature of the next class, so that there is something to learn."""
    labels = torch.arange(len(names)).repeat_interleave(4)
    centres = table.encode_text(list(names)).cpu().roll(-1, 0)
    features = centres[labels] + 0.2 * noise(len(labels), D, seed=seed)
    return FeatureBank.from_features(features, labels, names, table)


def shaken(host: Host, size: float = 0.3, seed: int = 5) -> Host:
    """The host with its parameters moved away from their start."""
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(size * noise(*p.shape, seed=seed).to(p.device))
    return host


def adapter(table: EmbeddingTable, names: Sequence[str] = KNOWN) -> TextAdapter:
    return TextAdapter(table, names, "{}", hidden=4)


def values(host: Host) -> dict[str, Tensor]:
    """Copies of the tensors of a host, of the one inside for OGEN."""
    inner = host.host if isinstance(host, OGEN) else host
    return {name: p.detach().clone() for name, p in inner.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """Mean over rows of KL(softmax(target) || softmax(logits)), written with plain softmax."""
    p, q = target.softmax(-1), logits.softmax(-1)
    return (p * (p / q).log()).sum(-1).mean()


def picked(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log of the softmax entry of each row's label."""
    return -logits.softmax(-1)[torch.arange(len(labels)), labels].log().mean()


class FixedRows:
    """Stands for the synthesized rows: one fixed row a class; remembers the classes asked for."""

    def __init__(self, n: int, width: int = D) -> None:
        self.table, self.generator = unit(n, width, seed=7), nn.Linear(1, 1)
        self.asked: Tensor = torch.empty(0, dtype=torch.long)

    def draw(self, classes: Tensor, draws: torch.Generator | None) -> Tensor:
        self.asked = classes.clone()
        return self.table[classes]

    def loss(self, batch_size: int, draws: torch.Generator | None) -> Tensor:
        return batch_size * self.generator.weight.sum()


def with_rows(model: OGEN, rows: Any) -> OGEN:
    object.__setattr__(model, "rows", rows)  # as `prepare` does
    return model


class PerImage(Host):
    """Class weights that depend on the image: ``unit(t + z * shift)``."""

    info = MethodInfo("per_image", "prompt", "none", "https://example.org", 2024)

    def __init__(self, clip: EmbeddingTable, names: Sequence[str]) -> None:
        super().__init__(clip, names)
        self.anchor = ZeroShotAnchor(clip, "{}")
        self.shift = nn.Parameter(0.5 * noise(D, seed=3))
        self.calls: list[tuple[tuple[str, ...], int, Tensor]] = []

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        wanted = self.names if names is None else tuple(names)
        assert z is not None
        self.calls.append((wanted, len(z), self.shift.detach().clone()))
        return F.normalize(self.anchor(wanted)[None] + (z * self.shift)[:, None], dim=-1)

    def config(self) -> dict[str, Any]:
        return {}

    def reference_templates(self) -> tuple[str, ...]:
        return ("{}",)


class Watched(TextAdapter):
    """Remembers the lists of names it made weights for, and its tensors at every step."""

    def __init__(self, clip: EmbeddingTable, names: Sequence[str] = KNOWN) -> None:
        super().__init__(clip, names, "{}", hidden=4)
        self.calls: list[tuple[tuple[str, ...], Tensor]] = []
        self.steps: list[dict[str, Tensor]] = []

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        self.calls.append((self.names if names is None else tuple(names), self.up.detach().clone()))
        return super().class_weights(names, z)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        self.steps.append(values(self))
        return super().losses(batch, z=z, w=w)


def wrapped(share: float = 0.0, **settings: Any) -> OGEN:
    host = shaken(adapter(make_table()))
    others = {} if "vocabulary" in settings else {"unknown": UNKNOWN}
    return OGEN(host, **{**OFF, **others, "zero_shot_share": share, **settings})


def batch(n: int = 7, seed: int = 11) -> Batch:
    return Batch(torch.arange(n) % len(KNOWN), features=unit(n, D, seed=seed), generator=seeded(seed))


def train(model: Host, bank: FeatureBank, measure: Callable[..., dict[str, float]] | None = None, **settings: Any):
    """`fit` with settings that move the parameters in a few epochs."""
    quick = {"epochs": 4, "batch_size": 8, "lr": 0.02, "warmup_epochs": 0, **settings}
    return fit(model, bank, measure=measure, **quick)
