"""Images with labels, domains and stable names: plain values that every loader builds and everything reads.

Notation: `N` images, `C` classes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ogenlib.data.decode import decoded, open_file

# what Pillow raises on damaged files, over all of its formats
_READ_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One labelled image.

    image: a path, a PIL image, a uint8 array ((H, W), (H, W, 1|3|4)) or a function that returns a PIL image.
    key: a name that stays the same over runs and machines (a relative path, say): augmentation is seeded by
        it and banks are fingerprinted by it. Left empty it is the path, or a hash of the pixels; a function
        must come with a key (ValueError), because nothing else tells it from the next one.
    """

    image: Any = field(compare=False)
    label: int
    domain: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        image = self.image
        if not (isinstance(image, (str, os.PathLike, Image.Image, np.ndarray)) or callable(image)):
            raise TypeError(
                f"an image is a path, a PIL image, a numpy array or a function that returns a PIL image, "
                f"not {type(image).__name__}"
            )
        if not self.key:
            object.__setattr__(self, "key", _default_key(image))

    @property
    def file(self) -> str:
        """How messages name this image: its path if it has one, its key otherwise."""
        return os.fspath(self.image) if isinstance(self.image, (str, os.PathLike)) else self.key


def _default_key(image: Any) -> str:
    if isinstance(image, (str, os.PathLike)):
        return Path(image).as_posix()
    if isinstance(image, (Image.Image, np.ndarray)):
        return getattr(image, "filename", "") or f"pixels-{image_digest(image)[:16]}"
    raise ValueError(f"{image!r} is a function: give it a name that does not change, Item(..., key='...')")


def image_digest(image: Any) -> str:
    """SHA-256 (hex) of a file's bytes, or of a picture's mode, size and pixels.

    Raises FileNotFoundError for a path that does not exist, ValueError for one that is no regular file, and for pixels
    that cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        with open_file(image) as file:
            return _digest(iter(lambda: file.read(1 << 20), b""))
    if isinstance(image, np.ndarray):
        return _digest([f"{image.dtype}{image.shape}".encode(), np.ascontiguousarray(image).tobytes()])
    try:
        picture = image() if callable(image) else image
        return _digest([f"{picture.mode}{picture.size}".encode(), picture.tobytes()])
    except _READ_ERRORS as error:
        raise ValueError(f"cannot read the picture {image!r}: {error}") from error


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def open_image(image: Any, name: str = "") -> Image.Image:
    """Decode anything an `Item` may hold: RGB, upright (EXIF), transparency composited on white.

    Raises FileNotFoundError for a missing file, ValueError naming `name` for one that cannot be decoded: see
    `ogenlib.data.decode` for the formats and sizes that are read.
    """
    name = name or (os.fspath(image) if isinstance(image, (str, os.PathLike)) else repr(image))
    try:
        if isinstance(image, (str, os.PathLike)):
            with decoded(image) as opened:
                return _to_rgb(opened)
        if isinstance(image, np.ndarray):
            return _to_rgb(_from_array(image))
        return _to_rgb(image() if callable(image) else image)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: no such image file; restore it, correct its path, or pass skip_bad=True to leave it out"
        ) from error
    except _READ_ERRORS as error:
        raise ValueError(
            f"{name}: cannot be read as an image ({error}); replace or delete it, "
            f"or pass skip_bad=True to leave it out and count it"
        ) from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ValueError(f"the array holds {array.dtype}, not uint8: scale to 0..255 and .astype('uint8')")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(f"the array has shape {array.shape}, not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("it holds floating-point pixels without a known range: save it with 8 bits")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to RGB would clip it to white
        grey = np.asarray(image).astype(np.float64)
        if image.mode != "I" or grey.max(initial=0) > 255:
            grey = grey / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("RGB")


def normal_name(name: str) -> str:
    """What two spellings of one class name share: case, underscores and runs of spaces are ignored."""
    return " ".join(name.replace("_", " ").split()).casefold()


def check_classnames(names: Iterable[str]) -> tuple[str, ...]:
    """Names without outer spaces; TypeError if one is no string, ValueError if empty or there twice."""
    if isinstance(names, str):
        raise TypeError(f"class names are a list of names, not the one string {names!r}; write [{names!r}]")
    clean: list[str] = []
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"class names are strings, not {type(name).__name__} ({name!r})")
        if not name.strip():
            raise ValueError(f"class name number {len(clean)} is empty; every class needs a name")
        normal = normal_name(name)
        if normal in seen:
            raise ValueError(
                f"the class names {seen[normal]!r} and {name!r} are the same but for case or spaces; "
                f"rename one, or merge the two classes"
            )
        seen[normal] = name
        clean.append(name.strip())
    return tuple(clean)


def name_indices(names: Iterable[str], classnames: Sequence[str], what: str) -> list[int]:
    """Positions of `names` in `classnames`; ValueError naming the unknown ones and the closest known ones."""
    chosen = check_classnames(names)
    position = {name: i for i, name in enumerate(classnames)}
    unknown = [name for name in chosen if name not in position]
    if unknown:
        close = sorted({c for name in unknown for c in difflib.get_close_matches(name, classnames, n=2)})
        hint = f"did you mean {', '.join(map(repr, close))}? " if close else ""
        known = ", ".join(map(repr, classnames[:8])) + (", ..." if len(classnames) > 8 else "")
        raise ValueError(
            f"{what} has no class {', '.join(map(repr, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}; "
            f"{hint}its {len(classnames)} classes (.classnames) are {known}"
        )
    return [position[name] for name in chosen]


def short_hash(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value."""
    return _digest([json.dumps(value, sort_keys=True).encode()])[:16]


class ImageSet(Sequence[Item]):
    """N labelled images over C class names; immutable, and selecting from it never copies an image."""

    def __init__(self, items: Iterable[Item], classnames: Iterable[str]) -> None:
        """Raises ValueError if a label is outside 0..C-1 (naming the image) or a class name comes twice."""
        self.items = tuple(items)
        self.classnames = check_classnames(classnames)
        for item in self.items:
            if not 0 <= item.label < len(self.classnames):
                raise ValueError(
                    f"{item.file}: label {item.label} is out of range; there are {len(self.classnames)} "
                    f"class names, so labels go from 0 to {len(self.classnames) - 1}"
                )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> ImageSet: ...

    def __getitem__(self, index: int | slice) -> Item | ImageSet:
        return ImageSet(self.items[index], self.classnames) if isinstance(index, slice) else self.items[index]

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images, {len(self.classnames)} classes)"

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return torch.tensor([item.label for item in self.items], dtype=torch.long)

    @property
    def domains(self) -> list[str]:
        """N domain names, one an image."""
        return [item.domain for item in self.items]

    @property
    def keys(self) -> list[str]:
        """N stable names, one an image."""
        return [item.key for item in self.items]

    def open(self, index: int) -> Image.Image:
        """The image as RGB; see `open_image`."""
        item = self.items[index]
        return open_image(item.image, item.file)

    def subset(self, indices: Iterable[int] | Tensor) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = indices.tolist() if isinstance(indices, Tensor) else indices
        return ImageSet((self.items[i] for i in chosen), self.classnames)

    def of_classes(self, names: Iterable[str]) -> ImageSet:
        """The images of `names`, relabelled 0.. in the order of `names`; ValueError for an unknown name."""
        chosen = name_indices(names, self.classnames, "this image set")
        new = {old: label for label, old in enumerate(chosen)}
        items = (Item(item.image, new[item.label], item.domain, item.key) for item in self.items if item.label in new)
        return ImageSet(items, (self.classnames[i] for i in chosen))

    def of_domain(self, domain: str) -> ImageSet:
        """The images of one domain, labels unchanged; ValueError for a domain that no image has."""
        known = sorted(set(self.domains))
        if domain not in known:
            raise ValueError(f"no image is of domain {domain!r}; the domains are {', '.join(map(repr, known))}")
        return ImageSet((item for item in self.items if item.domain == domain), self.classnames)

    def hash(self) -> str:
        """16 hex digits over keys, labels and class names: the same split has the same hash anywhere."""
        return short_hash([self.keys, [item.label for item in self.items], self.classnames])

    def content_hash(self) -> str:
        """16 hex digits over `hash()` and what the images hold: reads every file once, decodes none.

        An image that comes from a function counts with what its `digest()` returns, or with its key where the
        function has none; a missing file, and what is no regular file, counts as missing.
        """
        return short_hash([self.hash(), [_content(item) for item in self.items]])


def _content(item: Item) -> str:
    image = item.image
    if isinstance(image, (str, os.PathLike)) and not Path(image).is_file():
        return "missing"
    try:
        if callable(image):
            return image.digest() if hasattr(image, "digest") else item.key
        return image_digest(image)
    except FileNotFoundError:
        return "missing"


@dataclass(frozen=True)
class Dataset:
    """Train, test and perhaps validation images over the same class names.

    templates: prompts with one `{}` for the class name; the default is CLIP's own first template.
    info: JSON-able facts for the report; `info["skipped"]` lists what `skip_bad=True` left out, as
        `{"file": ..., "reason": ...}`.
    """

    name: str
    train: ImageSet
    test: ImageSet
    val: ImageSet | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split, images in self.splits().items():
            if images.classnames != self.test.classnames:
                raise ValueError(f"dataset {self.name!r}: {split} and test do not have the same class names")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(
                    f"dataset {self.name!r}: template {template!r} must hold {{}} exactly once, "
                    f"where the class name goes, as in 'a photo of a {{}}.'"
                )

    @property
    def classnames(self) -> tuple[str, ...]:
        """The names that labels are indices into, the same for all image sets."""
        return self.test.classnames

    def splits(self) -> dict[str, ImageSet]:
        """The image sets by name: train, test, and val if there is one."""
        sets = {"train": self.train, "test": self.test}
        return sets if self.val is None else {**sets, "val": self.val}

    def hash(self) -> str:
        """16 hex digits over the three splits; the dataset's name and templates do not count."""
        return short_hash({split: images.hash() for split, images in self.splits().items()})


def read_failure(error: Exception) -> str:
    """Why an image could not be opened, without the advice: for lists of what was skipped."""
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
