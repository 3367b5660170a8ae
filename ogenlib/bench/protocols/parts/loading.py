"""The datasets a protocol names, with what the benchmark's settings say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ogenlib.bench.protocols.parts.plan import Part
from ogenlib.data import COOP11, Dataset, ImageSet, list_datasets, load_dataset

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

OTHER_THINGS = ("emoji-concepts/activities",)  # what a smoke run tests besides


def load_named(config: BenchConfig, name: str, **options: Any) -> Dataset:
    """A dataset from the bundle, from `config.root` or from a path."""
    root = None if name in list_datasets() else config.root
    return load_dataset(name, root=root, skip_bad=config.skip_bad, **options)


def load_source(config: BenchConfig, **options: Any) -> Dataset:
    """The dataset that is trained on.

    Raises:
        ValueError: it has no training images.
    """
    domains = {"test_domains": config.test_domains} if config.test_domains else {}
    data = load_named(config, config.dataset, **{**domains, **options})
    if not len(data.train):
        raise ValueError(
            f"{data.name} has no training images, it is for tests; name it in --targets, and train on another dataset"
        )
    return data


def without_training_images(part: Part, source: Dataset) -> tuple[Part, int]:
    """The part without images that the source trains on, and how many were left out.

    Bundled datasets draw on one set of pictures under other names: what one trains on, another may test.
    """
    if source.name not in list_datasets() or part.dataset not in list_datasets():
        return part, 0
    seen = set(source.train.keys)
    kept = [item for item in part.images if item.key not in seen]
    left_out = len(part.images) - len(kept)
    return Part(part.dataset, ImageSet(kept, part.images.classnames)), left_out


def datasets_of(suite: str) -> tuple[str, ...]:
    """The datasets of one of `ogenlib.bench.config.SUITES`."""
    return {"coop11": COOP11, "emoji8": tuple(name for name in list_datasets() if name.startswith("emoji-concepts/"))}[
        suite
    ]


def other_things(config: BenchConfig) -> tuple[str, ...]:
    """The small dataset that a smoke run tests beside a bundled one, if it is another; none beside others."""
    return OTHER_THINGS if config.dataset in list_datasets() and config.dataset not in OTHER_THINGS else ()
