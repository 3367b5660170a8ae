"""Images with labels: bundled and your own, splits, few-shot samples, checks and feature banks."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ogenlib.data.augment import Augment
from ogenlib.data.bank import FeatureBank, bank_fingerprint
from ogenlib.data.bank_shards import extract_shards, merge_shards
from ogenlib.data.check import DatasetReport, Duplicate, Problem, check_dataset, check_images
from ogenlib.data.dataset import Dataset, ImageSet, Item, open_image
from ogenlib.data.folder import LoadOptions, from_csv, from_folder, from_list
from ogenlib.data.hub import from_hub, is_hub
from ogenlib.data.layouts import COOP11, close_names, find_layout, list_suite
from ogenlib.data.pixels import PixelBank
from ogenlib.data.split import BaseNewSplit, base_new_split, few_shot, few_shot_train_val
from ogenlib.data.suite import load_suite
from ogenlib.data.suite_check import SuiteReport, check_suite
from ogenlib.data.webshards import from_shards

__all__ = [
    "COOP11",
    "Augment",
    "BaseNewSplit",
    "Dataset",
    "DatasetReport",
    "Duplicate",
    "FeatureBank",
    "ImageSet",
    "Item",
    "LoadOptions",
    "PixelBank",
    "Problem",
    "SuiteReport",
    "bank_fingerprint",
    "base_new_split",
    "check_dataset",
    "check_images",
    "check_suite",
    "extract_shards",
    "few_shot",
    "few_shot_train_val",
    "from_hub",
    "from_shards",
    "list_datasets",
    "list_suite",
    "load_dataset",
    "merge_shards",
    "open_image",
]

_ACCEPTED = (
    "a name of list_datasets(), a name of list_suite() with root=, a folder (root/class name/image.png, perhaps with "
    "train, val and test folders between), a CSV file (columns path,label and perhaps split,domain) or a list of "
    "(image, label)"
)


def list_datasets() -> list[str]:
    """Names of the bundled datasets."""
    from ogenlib.data.emoji import emoji_datasets

    return emoji_datasets()


def load_dataset(
    source: str | os.PathLike[str] | Sequence[tuple[Any, Any]] | Mapping[str, Any] | Any,
    *,
    root: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
    **options: Any,
) -> Dataset:
    """A bundled dataset by name, a published one from your disk, or your own images.

    source: "emoji-...", a name such as "oxford_pets" (with `root`), a folder, a CSV file, a list of
        `(image, label)`, webdataset shards ("train-{000..127}.tar", or a mapping from train, val and test to such;
        see `from_shards`), or a Hugging Face `datasets` object (see `from_hub`).
    root: where relative paths start: of a folder itself, or of the images that a CSV file or list names. For a
        published dataset, the folder that holds its folder (or its folder itself).
    skip_bad: leave out what cannot be used and list it in `info["skipped"]`, instead of an error at the
        first; decodes every image once. Without it, files are decoded (and can fail) when they are used.
    options: for your own images those of `LoadOptions` (classnames, test_fraction, seed, templates, name);
        for the bundled ones those of `ogenlib.data.emoji.load_emoji` (domain, test_domains); for published ones
        those of `ogenlib.data.suite.load_suite` (test_domains, templates).
    Raises ValueError for an unknown name, FileNotFoundError for a path that is not there, TypeError for an
    unknown option, and what the loader raises.
    """
    if isinstance(source, Mapping) or (not isinstance(source, (list, tuple)) and is_hub(source)):
        return _load_parts(source, skip_bad, options)
    if isinstance(source, (list, tuple)):
        return from_list(source, _load_options(skip_bad, options), root=root)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"cannot load a dataset from {type(source).__name__}; pass {_ACCEPTED}")
    if isinstance(source, str) and source.startswith("emoji-") and source in list_datasets():
        return _load_bundled(source, root, options)
    layout = find_layout(source) if isinstance(source, str) else None
    if layout is not None and root is not None:
        return load_suite(layout, root, skip_bad=skip_bad, **options)
    if root is None and os.fspath(source).endswith(".tar"):
        return from_shards(source, _load_options(skip_bad, options))
    path = Path(source)
    if layout is not None and not path.exists():
        raise ValueError(
            f"{source!r} is read from your disk: pass root=DIR (--root DIR), the folder that holds "
            f"{layout.homes[0]}/ ({layout.page} says what goes there)"
        )
    if path.suffix.lower() == ".csv" and path.exists() and not path.is_dir():
        return from_csv(path, _load_options(skip_bad, options), root=root)
    folder = path if root is None else Path(root) / path
    if folder.is_dir():
        return from_folder(folder, _load_options(skip_bad, options))
    if path.is_file():
        raise ValueError(f"{path}: cannot load a dataset from this file; pass {_ACCEPTED}")
    looks_like_path = isinstance(source, os.PathLike) or os.sep in source or path.suffix
    if looks_like_path and not str(source).startswith("emoji-"):
        raise FileNotFoundError(f"{folder}: no such file or folder; pass {_ACCEPTED}")
    raise _unknown_name(str(source))


def _load_parts(source: Any, skip_bad: bool, options: dict[str, Any]) -> Dataset:
    if is_hub(source):
        columns = {name: options.pop(name) for name in ("image_column", "label_column") if name in options}
        return from_hub(source, _load_options(skip_bad, options), **columns)
    return from_shards(source, _load_options(skip_bad, options))


def _load_bundled(name: str, root: object, options: dict[str, Any]) -> Dataset:
    if root is not None:
        raise ValueError(f"{name!r} is bundled and has no root; leave root= out")
    from ogenlib.data.emoji import load_emoji

    return load_emoji(name, **options)


def _unknown_name(name: str) -> ValueError:
    known = list_datasets()
    close = list(dict.fromkeys([*difflib.get_close_matches(name, known, n=2, cutoff=0.5), *close_names(name, [])]))
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return ValueError(
        f"unknown dataset {name!r}, and no such folder.{hint} Pass {_ACCEPTED}. Bundled: {', '.join(known)}. "
        f"With root=: {', '.join(list_suite())}"
    )


def _load_options(skip_bad: bool, options: dict[str, Any]) -> LoadOptions:
    known = [option.name for option in fields(LoadOptions) if option.name != "skip_bad"]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r} for your own images; known: {', '.join(known)}")
    return LoadOptions(skip_bad=skip_bad, **options)
