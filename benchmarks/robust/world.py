"""What the studies of robust fine-tuning share: the protocol on an embedded dataset, its hosts, and tests that pass.

An image goes through a trained tower once for each alpha: scores over all datasets and both forms of VRF are made of
those features. What the frozen tower says of an image is computed once and kept on disk.

Notation: `N` images, `V` views, `B` images of a batch, `C` names, `D` embedding, `E` the host's own.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.ogen.tasks import extracted
from benchmarks.ogen.variants import Variant
from ogenlib.anchors import emoji_anchors
from ogenlib.bench.config import BenchConfig
from ogenlib.bench.protocols import Part, Plan, Tested, plan
from ogenlib.bench.protocols.domain_shift import ShiftJudge
from ogenlib.data import FeatureBank, ImageSet, PixelBank, few_shot
from ogenlib.data.dataset import short_hash
from ogenlib.hosts import Batch, Host
from ogenlib.merge.vrf import FORMS, VRF
from ogenlib.results.robustness import ZERO_SHOT
from ogenlib.runs.assembly import assemble
from ogenlib.runs.config import ALL_SHOTS
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train.batches import Bank
from ogenlib.train.loop import DTYPES, fit

VIEWS, MOST = 8, 100
CLOSE = 0.02  # of logits: rounding of another order of sums
BATCH = 256


@dataclass(frozen=True, eq=False)
class KnownPixels(PixelBank):
    """Pixels whose features by the frozen tower are at hand.

    known: of all images and views of the source, in its order.
    """

    known: FeatureBank | None = None

    @classmethod
    def of(cls, pixels: PixelBank, known: FeatureBank) -> KnownPixels:
        """ValueError for features of other images."""
        if known.keys != pixels.keys:
            raise ValueError("the features are of other images than the pixels; extract them of the same ImageSet")
        return cls(**{name: getattr(pixels, name) for name in PixelBank.__dataclass_fields__}, known=known)

    def frozen(self, clip: Any, batch_size: int = BATCH) -> FeatureBank:
        assert self.known is not None
        return replace(
            self.known,
            features=self.known.features[self.rows],
            labels=self.labels.cpu(),
            classnames=self.classnames,
            domains=self.domains,
            keys=self.keys,
        )


class Seen(Host):
    """A trained host on features that it made earlier."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.clip, host.names)
        object.__setattr__(self, "host", host)
        self.info = host.info  # type: ignore[misc]

    host: Host

    def image_features(self, batch: Batch) -> Tensor:
        assert batch.features is not None
        return batch.features

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        return self.host.class_weights(names, z=z)

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        return self.host.logits(z, w)

    def reference_templates(self) -> tuple[str, ...]:
        return self.host.reference_templates()


class SeenVRF(VRF):
    """VRF on features of both models, side by side, made earlier."""

    def image_features(self, batch: Batch) -> Tensor:
        assert batch.features is not None
        return batch.features


@torch.no_grad()
def encoded(host: Host, features: FeatureBank, pixels: PixelBank | None, precision: str = "fp32") -> FeatureBank:
    """`(N, 1, E)`: what the host makes of the first views, at their own length.

    Args:
        features: of the frozen tower, which spare a host that asks for them a pass.
        pixels: of the same images, where the host reads pixels.
    """
    host.eval()
    parts = []
    dtype = DTYPES[precision]
    for indices in torch.arange(len(features)).split(BATCH):
        first = torch.zeros(len(indices), dtype=torch.long)
        shown = None if host.uses_cached_features or pixels is None else pixels.pixels(indices, first)
        batch = Batch(first, features=features.pick(indices, first), pixels=shown)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            parts.append(host.image_features(batch).float())
    return replace(features, features=torch.cat(parts)[:, None])


@dataclass(frozen=True, eq=False)
class World:
    """One dataset's protocol, with what is tested as features and as pixels.

    shots: training images of a class; `ALL_SHOTS` for all.
    keep: folder where the features of what was extracted once are found again.
    most: test images of a shift or of another dataset, drawn once; those of the domain of training are all tested.
    precision: of training and of the passes through trained towers.
    """

    clip: Backbone
    plan: Plan
    shots: int
    keep: Path
    most: int = MOST
    precision: str = "fp32"

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Those of the plan: the domain of training, shifts, other datasets, validation."""
        first, *others, validation = self.plan.parts
        return (first, *(Part(p.dataset, some_of(p.images, self.most)) for p in others), validation)

    @cached_property
    def features(self) -> tuple[FeatureBank, ...]:
        return tuple(extracted(self.clip, part.images, self.keep) for part in self.parts)

    @cached_property
    def pixels(self) -> tuple[PixelBank, ...]:
        return tuple(PixelBank.load(self.clip, part.images) for part in self.parts)

    @property
    def judge(self) -> ShiftJudge:
        if not isinstance(self.plan.judge, ShiftJudge):
            raise TypeError(f"{self.plan.protocol} is not domain-shift")
        return self.plan.judge

    def images(self, seed: int) -> ImageSet:
        train = self.plan.source.train
        picked = train if self.shots == ALL_SHOTS else few_shot(train, self.shots, seed)
        return picked.of_classes(self.plan.known)

    def bank(self, host: Host, seed: int) -> Bank:
        """What this host trains on."""
        return self._banks(seed)[0 if host.uses_cached_features else 1]

    @cache  # noqa: B019  # a world lives as long as its study
    def _banks(self, seed: int) -> tuple[FeatureBank, KnownPixels]:
        images = self.images(seed)
        known = extracted(self.clip, images, self.keep, views=VIEWS, seed=seed)
        return known, KnownPixels.of(PixelBank.load(self.clip, images, views=VIEWS, seed=seed), known)

    @cache  # noqa: B019
    def anchors(self, seed: int) -> dict[str, Any]:
        """ARF's captions and retrieved pairs; neither says or shows what is tested or validated, here or elsewhere."""
        source, tested = self.plan.source, [part.images for part in self.plan.parts]
        folder = self.keep / f"pool-{short_hash([source.hash(), *(t.hash() for t in tested), self.clip.weights_hash])}"
        return emoji_anchors(self.clip, source, self.images(seed), folder, tested=tested)

    def encode(self, host: Host, only: slice = slice(None)) -> tuple[FeatureBank, ...]:
        """Every part, or some, as the host sees it."""
        pairs = zip(self.features[only], self.pixels[only], strict=True)
        return tuple(encoded(host, known, pixels, self.precision) for known, pixels in pairs)

    def scores(self, host: Host, seen: Sequence[FeatureBank] | None = None) -> dict[str, Any]:
        """Accuracies of `ShiftJudge.scores`."""
        banks = tuple(self.encode(host) if seen is None else seen)
        return self.judge.scores(Seen(host), Tested(banks, banks))

    @cached_property
    def zero_shot(self) -> Host:
        return assemble(ZERO_SHOT, self.clip, self.plan.known, self.plan.source.templates)

    @cached_property
    def zero_shot_scores(self) -> dict[str, Any]:
        return self.scores(self.zero_shot)

    @torch.no_grad()
    def is_zero_shot(self, host: Host) -> bool:
        """Whether a host says what zero-shot says: of validation images, on its names and on another dataset's."""
        known, pixels = self.features[-1].subset(range(16)), self.pixels[-1].subset(range(16))
        other = next((part.images.classnames for part in self.judge.retention), ())
        names = tuple(dict.fromkeys((*self.judge.sides.names, *other)))
        said = []
        for one in (host, self.zero_shot):
            z = encoded(one, known, pixels).features[:, 0]
            said.append(one.logits(z, one.class_weights(names, z=z)))
        return bool((said[0] - said[1]).abs().max() < CLOSE)

    def vrf_points(self, host: Host, bank: Bank, seen: Sequence[FeatureBank]) -> dict[str, dict[str, Any]]:
        """Scores of VRF by form; a host that gets nothing right that zero-shot gets wrong has none."""
        own = bank if isinstance(bank, FeatureBank) else bank.frozen(self.clip)
        pixels = bank if isinstance(bank, PixelBank) else None
        learned = beside(encoded(host, own, pixels, self.precision), own)
        tested = tuple(beside(mine, frozen) for mine, frozen in zip(seen, self.features, strict=True))
        points = {}
        for form in FORMS:
            calibration = tested[-1] if form == "released-code" else None  # the validation images
            try:
                scores = self.judge.scores(
                    SeenVRF(Seen(host), learned, form, calibration=calibration), Tested(tested, tested)
                )
            except ValueError as error:
                if "fails on none" not in str(error):
                    raise
                continue
            points[f"VRF, {form}"] = {key: scores[key] for key in ("val", "id", "ood", "zero_shot")}
        return points


def beside(own: FeatureBank, frozen: FeatureBank) -> FeatureBank:
    """`(N, 1, E + D)`: a host's features of first views, and the frozen tower's behind them, as unit vectors."""
    directions = torch.nn.functional.normalize(frozen.features[:, 0].float(), dim=-1)
    return replace(own, features=torch.cat([own.features[:, 0], directions], dim=-1)[:, None])


def some_of(images: ImageSet, most: int) -> ImageSet:
    """At most so many of the images, drawn by their keys alone, in their order."""
    if len(images) <= most:
        return images
    return images.subset(sorted(random.Random(f"0/{short_hash(images.keys)}").sample(range(len(images)), most)))


def trained(host: Host, bank: Bank, precision: str, **settings: Any) -> Host:
    """`host`, fitted.

    Attention is computed step by step: torch's fused one has a backward pass that on a CPU, for some tens of tokens in
    bf16, takes as long as the rest of the step.
    """
    with sdpa_kernel(SDPBackend.MATH):
        fit(host, bank, precision=precision, **settings)
    return host


def world(name: str, hosts: Sequence[str], args: argparse.Namespace) -> World:
    """The protocol on an embedded dataset."""
    config = BenchConfig(
        protocol="domain-shift",
        dataset=name,
        hosts=tuple(hosts),
        shots=args.shots,
        alphas=tuple(args.alphas),
        retention=tuple(args.retention),
        test_domains=tuple(args.domains) if args.domains else None,
    )
    return World(load_backbone("ogen-tiny"), plan(config), args.shots, args.work / "banks", args.most, args.precision)


def make_host(variant: Variant, here: World, seed: int) -> Host:
    """As `ogen bench` makes it: every name is trained, so OGEN has no unknown ones; ARF has captions and anchors."""
    anchors = here.anchors(seed if here.shots else 0) if variant.host == "arf" else {}
    templates = here.plan.source.templates
    return assemble(
        variant.host, here.clip, here.plan.known, templates, {**anchors, **variant.options}, ogen=variant.ogen
    )
