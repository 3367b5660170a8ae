"""Images in webdataset shards: tar files in which the files of one sample share a name, 000123.jpg and 000123.cls.

https://github.com/webdataset/webdataset (extra `webdataset`) expands the names of shards and groups their files into
samples, by its own rules. Only headers are read to list them; an image is read from its place in the tar when it is
used, so shards count as an `ImageSet` like any other: few-shot picks, views and restarts do not depend on an order.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ogenlib.data.braces import refuse_many
from ogenlib.data.dataset import Dataset
from ogenlib.data.decode import decoded, open_file
from ogenlib.data.folder import SPLITS, SUFFIXES, Bad, LoadOptions, Row, assemble
from ogenlib.utils.documents import DamagedFile, parse

Shards = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
LABELS = ("cls", "txt", "json")
LABEL_BYTES = 2**20  # of a file that says a class; more is no label


@dataclass(frozen=True)
class TarImage:
    """An image inside an uncompressed tar file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The file's bytes."""
        with open_file(self.path) as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __call__(self) -> Image.Image:
        with decoded(self.read()) as image:
            return image.copy()

    def digest(self) -> str:
        """SHA-256 of the file's bytes."""
        return hashlib.sha256(self.read()).hexdigest()


def from_shards(source: Shards | Mapping[str, Shards], options: LoadOptions | None = None) -> Dataset:
    """Shards as a dataset.

    source: a folder of tar files, one tar file, a pattern such as "train-{000..127}.tar", a list of these, or a
        mapping from train, val and test to them. Without a mapping, a shard whose name begins with train, val or
        test, or that is in a folder of that name, is of that split.
    A sample's label is its `.cls` (an integer, which `classnames=` turns into a name, or a name), `.txt` (a name) or
    `.json` (with "label" or "cls"). Keys are shard and sample names.
    Raises ModuleNotFoundError without the extra, FileNotFoundError for a missing shard, ValueError for a pattern of
    too many names, a tar that is compressed or damaged, and a sample without image or label, naming it (skipped with
    `skip_bad`).
    """
    options = options or LoadOptions()
    given = source if isinstance(source, Mapping) else {"": source}
    bad = Bad(options.skip_bad)
    examples: list[Row] = []
    for name, shards in given.items():
        split = SPLITS.get(str(name).casefold(), "")
        if name and not split:
            raise ValueError(f"split is {name!r}; name shards train, val or test")
        for path in _paths(shards):
            examples += _examples(path, split or _split_of(path), bad)
    if len({bool(example.split) for example in examples}) > 1:
        loose = next(example for example in examples if not example.split)
        raise ValueError(f"{loose.where}: is of no split, and others are; pass a mapping {{'train': ..., 'test': ...}}")
    label = str(next(iter(given.values()))) if len(given) == 1 else "shards"
    return assemble(examples, replace(options, name=options.name or "shards"), label, bad)


def _webdataset() -> tuple[Any, Any]:
    try:
        from webdataset.shardlists import expand_urls
        from webdataset.tariterators import group_by_keys
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"webdataset shards need {error.name}, which is not installed: pip install ogenlib[webdataset]"
        ) from error
    return expand_urls, group_by_keys


def _paths(shards: Shards) -> list[Path]:
    expand, _ = _webdataset()
    if isinstance(shards, Sequence) and not isinstance(shards, str):
        return [path for one in shards for path in _paths(one)]
    if Path(shards).is_dir():
        files = sorted(path for path in Path(shards).rglob("*.tar") if path.name[0] != ".")
        if not files:
            raise FileNotFoundError(f"{shards}: holds no .tar files; pass a folder of shards")
        return files
    text = os.fspath(shards)
    if "://" in text or text.startswith("pipe:"):
        raise ValueError(f"{text}: shards are read from files, at any place in them; download or mount them first")
    refuse_many(text)
    paths = [Path(one) for one in expand(text)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such shard ({len(missing)} of {len(paths)} of {text} are missing)")
    return paths


def _split_of(path: Path) -> str:
    """By the first word of the shard's name, else by the whole name of its folder."""
    word = re.match(r"[a-z]*", path.name.casefold())
    return SPLITS.get(word[0] if word else "", "") or SPLITS.get(path.parent.name.casefold(), "")


def _members(path: Path) -> Iterator[dict[str, Any]]:
    """A tar's files as webdataset's grouping takes them, with places instead of bytes."""
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            size = os.fstat(file.fileno()).st_size
            for member in tar:
                if member.issparse() or member.size < 0 or member.offset_data + member.size > size:
                    kind = "a sparse file" if member.issparse() else f"{member.size} bytes, beyond the tar's end"
                    raise ValueError(f"its member {member.name} is {kind}")
                if member.isfile():
                    place = TarImage(path, member.offset_data, member.size)
                    yield {"fname": member.name, "data": place, "__url__": str(path)}
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"{path}: cannot be read as an uncompressed tar file ({error}); unpack or replace it"
        ) from error


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    _, group = _webdataset()
    try:
        yield from group(_members(path))
    except ValueError as error:
        reason = str(error.args[0])  # webdataset adds to the arguments
        raise ValueError(reason if reason.startswith(str(path)) else f"{path}: {reason}; pack it again") from error


def _examples(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    for sample in _samples(path):
        where = f"{path} sample {sample['__key__']}"
        images = [name for name in sample if f".{name.rpartition('.')[2]}" in SUFFIXES]
        labels = [name for name in LABELS if name in sample]
        if len(images) != 1 or not labels:
            had = sorted(name for name in sample if not name.startswith("__"))
            bad(where, f"needs one image and one of .{', .'.join(LABELS)}; it has {had}")
            continue
        written = sample[labels[0]]
        if written.size > LABEL_BYTES:
            bad(where, f"its .{labels[0]} has {written.size} bytes, and a label has {LABEL_BYTES} at most")
            continue
        label = _label(written.read().decode("utf-8", "replace").strip(), labels[0])
        if label in (None, ""):
            bad(where, f"its .{labels[0]} says no class; write a name or a number")
            continue
        yield Row(sample[images[0]], label, where, f"{path.name}/{sample['__key__']}", split)


def _label(text: str, kind: str) -> Any:
    if kind != "json":
        return int(text) if kind == "cls" and text.isdecimal() and len(text) < 10 else text
    try:
        fields = parse(text, "", "", "")
    except DamagedFile:
        return None  # the caller names the sample
    value = (
        next((fields[name] for name in ("label", "cls") if name in fields), None) if isinstance(fields, dict) else None
    )
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None
