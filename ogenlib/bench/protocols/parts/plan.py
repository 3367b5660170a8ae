"""What a protocol trains and tests, as data: `ogenlib.bench.runner` runs any plan, and none has a loop of its own.

Notation: a *part* is the test images of one dataset, or of one domain of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # plans are read without loading torch
    from ogenlib.bench.protocols.parts.controls import Competing
    from ogenlib.data import Dataset, FeatureBank, ImageSet, PixelBank
    from ogenlib.hosts import Host
    from ogenlib.towers import ClipLike
    from ogenlib.train.batches import Bank


@dataclass(frozen=True)
class Part:
    """Images that are tested, and the dataset they are of."""

    dataset: str
    images: ImageSet


@dataclass(frozen=True)
class Tested:
    """The banks of a plan's parts: all images, and those of the domain `home` (`near`; all where it has none).

    pixels, near_pixels: the same as pixels, None where no host needs them.
    trained, trained_pixels: the training images of the cell in their plain view, where the plan's judge sees them.
    competing: how names with and without images compete, where the protocol has such (it takes `controls`).
    """

    features: tuple[FeatureBank, ...]
    near: tuple[FeatureBank, ...]
    pixels: tuple[PixelBank, ...] | None = None
    near_pixels: tuple[PixelBank, ...] | None = None
    trained: FeatureBank | None = None
    trained_pixels: PixelBank | None = None
    competing: Competing | None = None

    def first(self, count: int) -> Tested:
        """Of the first `count` parts only."""
        pixels = (
            None if self.pixels is None else self.pixels[:count],
            None if self.near_pixels is None else self.near_pixels[:count],
        )
        return Tested(self.features[:count], self.near[:count], *pixels)

    def of(self, host: Host, near: bool = False) -> list[Bank]:
        """The parts as the host reads them, all images or the near ones."""
        features, pixels = (self.near, self.near_pixels) if near else (self.features, self.pixels)
        return list(features if pixels is None or host.uses_cached_features else pixels)

    def trained_of(self, host: Host) -> Bank | None:
        """The training images as the host reads them."""
        return self.trained if self.trained_pixels is None or host.uses_cached_features else self.trained_pixels


@dataclass(frozen=True)
class Outcome:
    """What one trained host scored.

    rows: one for each dataset and domain: `dataset`, `domain` and `results.METRICS`, None for what is not measured;
        `control` where it is of the host's control.
    confusions: as `evaluate.confusions`, with `dataset` and `domain`.
    per_class: class, side, n, accuracy, joint_accuracy; `dataset` where several have such a side.
    robustness: what `ogenlib.results.robustness` makes tables of; None for protocols without it.
    detection: histograms and curves of detectors of unknown classes; None for protocols without them.
    stacking: curves of calibrated stacking, as `ogenlib.results.types.StackedCurve`.
    """

    rows: list[dict[str, Any]]
    confusions: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    robustness: dict[str, Any] | None = None
    detection: dict[str, Any] | None = None
    stacking: list[dict[str, Any]] = field(default_factory=list)


class Judge(Protocol):
    """How a plan's parts are scored."""

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        """Points of the curves, after every epoch."""

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        """All scores, after training."""


@dataclass(frozen=True)
class Plan:
    """One protocol on one dataset.

    source: its training images of the names `known` are trained on.
    new: names that tests have and training has no images of; OGEN may be given them.
    home: the domain that curves and headlines show.
    parts: what is tested, the source's own first.
    shots: training images of a class; a cell for each number.
    shots_in_rows: rows say of how many shots they are.
    average: what the mean row is over: "datasets" (in each domain), "all", "tasks" (all, each task by itself), or ""
        for none.
    tests: where hosts are compared by paired tests: "home" or "all" settings.
    pictured: the part and its names whose features are drawn beside synthesized ones.
    judge_sees_training: the judge is given the training images too, in their plain view.
    fit: what is left to do once the model is there.
    texts: of the training names, for methods that learn from pairs of image and text; None where names are all.
    card: the protocol card's lines that say what is trained on what and tested on what.
    """

    protocol: str
    source: Dataset
    known: tuple[str, ...]
    new: tuple[str, ...]
    home: str
    parts: tuple[Part, ...]
    judge: Judge
    shots: tuple[int, ...]
    shots_in_rows: bool = False
    average: str = ""
    tests: str = "all"
    pictured: tuple[int, tuple[str, ...]] | None = None
    texts: Mapping[str, Sequence[str]] | None = None
    judge_sees_training: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    fit: Callable[[Plan, ClipLike], Plan] | None = None

    def fitted(self, clip: ClipLike) -> Plan:
        """The plan for this model."""
        return self if self.fit is None else self.fit(self, clip)


def home_of(data: Dataset) -> str:
    """The domain that is trained on and tested on, or else the first that is tested on."""
    tested = list(dict.fromkeys(data.test.domains))
    trained = list(dict.fromkeys(data.train.domains))
    common = [d for d in trained if d in tested]
    return (common or tested)[0]


def domains_of(parts: Sequence[Part]) -> list[str]:
    """Every domain that is tested, in order of appearance."""
    return list(dict.fromkeys(domain for part in parts for domain in part.images.domains))
