"""What methods learn from besides images and names, as a training or a benchmark is told: texts, captions, pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ogenlib.anchors.source import AnchorSource, anchor_source, source_hash
from ogenlib.data import Dataset, ImageSet
from ogenlib.hosts import METHODS, method, takes_anchors, takes_texts
from ogenlib.towers import Backbone

FileName = str | os.PathLike[str]


def check_hosts(hosts: Sequence[str], captions: FileName | None, pool: FileName | None) -> None:
    """ValueError for a file of captions or a pool that none of the methods can use."""
    for given, flag, takes in ((captions, "captions", takes_texts), (pool, "pool", takes_anchors)):
        if given is not None and not any(takes(method(host)) for host in hosts):
            raise ValueError(
                f"--{flag} {given}: {', '.join(hosts)} cannot use it; leave it out, or take some of "
                f"{', '.join(name for name, cls in METHODS.items() if takes(cls))}"
            )


def source_for(
    hosts: Sequence[str],
    data: Dataset,
    captions: FileName | None = None,
    pool: FileName | None = None,
    *,
    tested: Iterable[ImageSet] = (),
    without: Iterable[str] = (),
    has_captions: bool = False,
) -> AnchorSource | None:
    """Where these methods' captions and retrieved pairs come from; None where none of them is given any.

    Args:
        captions, pool, tested, without, has_captions: as for `anchor_source`; names that `data` does not have are left
            out of `without`.

    Raises:
        ValueError: a method that needs what is not there, or files that no method can use.
        FileNotFoundError: one of the files is not there.
    """
    check_hosts(hosts, captions, pool)
    anchored = [host for host in hosts if takes_anchors(method(host))]
    if not anchored and captions is None:
        return None
    absent = [name for name in without if name in data.classnames]
    source = anchor_source(data, captions, pool, tested=tested, without=absent, has_captions=has_captions)
    if anchored and source.captioner is None and source.candidates is None:
        pool_option = "--pool DIR or FILE (other images with captions)"
        if has_captions:
            raise ValueError(
                f"{anchored[0]} trains with retrieved pairs besides, and {data.name} has no candidates "
                f"for them: give {pool_option}; flyp trains without"
            )
        raise ValueError(
            f"{anchored[0]} trains with captions of images and with retrieved pairs, and {data.name} "
            f"brings neither: give --captions FILE (JSON or CSV of image and caption), {pool_option}, or both; "
            "flyp trains without"
        )
    if captions is not None and not anchored and not source.texts:
        takers = ", ".join(name for name, cls in METHODS.items() if takes_anchors(cls))
        raise ValueError(
            f"--captions {captions} has captions of images, with which {takers} trains; "
            f"{', '.join(hosts)} learns texts of class names: use those as keys"
        )
    return source


def text_options(host: str, source: AnchorSource | None) -> dict[str, Any]:
    """The option `texts` of a method, where a file has texts of class names."""
    if source is None or not source.texts or not takes_texts(method(host)):
        return {}
    return {"texts": source.texts}


def pool_folder(source: AnchorSource, clip: Backbone, folder: Path) -> Path:
    """Where in `folder` the features of a source's candidates are kept."""
    return folder / f"candidates-{source_hash(source)}-{clip.weights_hash}"
