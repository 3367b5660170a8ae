"""From a method's name, a dataset and options to a host: the one place where these are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ogenlib.hosts import Host, build, method
from ogenlib.ogen.wrapper import OGEN
from ogenlib.towers import ClipLike


def assemble(
    name: str,
    clip: ClipLike,
    names: Sequence[str],
    templates: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    ogen: Mapping[str, Any] | None = None,
    unknown: Sequence[str] | None = None,
) -> Host:
    """A method for these names, as the dataset with these templates suggests it, and as `options` change that.

    Args:
        ogen: OGEN's preset and settings, to put OGEN around the host; None for the host alone.
        unknown: names without images that OGEN is given; None for names held out.
    """
    options = {**method(name).dataset_options(templates), **(options or {})}
    if ogen is None:
        return build(name, clip, names, **options)
    options |= method(name).unknown_options(unknown or ())
    return OGEN(build(name, clip, names, **options), names, unknown, **ogen)
