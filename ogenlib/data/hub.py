"""Images in Hugging Face `datasets` objects (extra `datasets`): what has `features` and examples, decoded when used.

Nothing of that library is imported: an object with `features`, `len` and examples by number will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ogenlib.data.dataset import Dataset
from ogenlib.data.decode import decoded
from ogenlib.data.folder import SPLITS, Bad, LoadOptions, Row, assemble


@dataclass(frozen=True)
class HubImage:
    """The picture of one example. fingerprint: of its dataset, so that other contents count as other images."""

    examples: Any = field(repr=False)
    index: int
    column: str
    fingerprint: str = ""

    def __call__(self) -> Image.Image:
        picture = self.examples[self.index][self.column]
        if isinstance(picture, Mapping):
            with decoded(picture.get("bytes") or str(picture.get("path"))) as opened:
                return opened.copy()
        if not isinstance(picture, Image.Image):
            raise ValueError(f"column {self.column!r} holds {type(picture).__name__}, no picture: cast it to Image()")
        return picture

    def digest(self) -> str:
        """SHA-256 of the dataset's fingerprint, the column and the row's number; decodes nothing."""
        return hashlib.sha256(f"{self.fingerprint}\0{self.column}\0{self.index}".encode()).hexdigest()


def is_hub(source: Any) -> bool:
    """Whether `source` is a `datasets` object, or a mapping from splits to them."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_hub(part) for part in source.values())
    return all(hasattr(source, name) for name in ("features", "__getitem__", "__len__"))


def from_hub(
    source: Any, options: LoadOptions | None = None, *, image_column: str = "", label_column: str = ""
) -> Dataset:
    """A `datasets.Dataset`, or a `DatasetDict` of train, validation and test.

    image_column, label_column: by default the column of type Image (or named image or img), and that of type
        ClassLabel (or named label, labels or class).
    Class names are those of ClassLabel, unless `options.classnames` gives others; a column of strings holds names.
    Raises ValueError naming the columns if there is no such column or several, and for an unknown split's name.
    """
    options = options or LoadOptions()
    parts = dict(source.items()) if isinstance(source, Mapping) else {"": source}
    unknown = [name for name in parts if name and str(name).casefold() not in SPLITS]
    if unknown:
        raise ValueError(f"split {unknown[0]!r} of {list(parts)}: pass {{'train': ..., 'test': ...}} with those to use")
    examples: list[Row] = []
    for name, part in parts.items():
        picture = image_column or _column(part, "image", "Image", ("image", "img"))
        label = label_column or _column(part, "label", "ClassLabel", ("label", "labels", "class"))
        for column in (picture, label):
            if column not in part.features:
                raise ValueError(f"no column {column!r}; the columns are {list(part.features)}")
        names = list(getattr(part.features[label], "names", None) or ())
        if names and options.classnames is None:
            options = replace(options, classnames=names)
        mark, pictures = str(getattr(part, "_fingerprint", "")), _undecoded(part, picture)
        for i, value in enumerate(part[label]):
            image = HubImage(pictures, i, picture, mark)
            where = f"{name or 'rows'} row {i}"
            examples.append(Row(image, value, where, f"{name or 'row'}/{i}", SPLITS.get(str(name).casefold(), "")))
    if options.classnames is None and examples and not isinstance(examples[0].label, str):
        raise ValueError("the labels are integers without names; name the classes with classnames=['first', ...]")
    return assemble(
        examples, replace(options, name=options.name or "datasets"), "datasets object", Bad(options.skip_bad)
    )


def _undecoded(part: Any, column: str) -> Any:
    """The same examples with pictures as bytes: the library would try every format that Pillow knows."""
    feature = part.features[column]
    if not (getattr(feature, "decode", False) and hasattr(part, "cast_column")):
        return part
    return part.cast_column(column, replace(feature, decode=False))


def _column(part: Any, what: str, kind: str, usual: tuple[str, ...]) -> str:
    typed = [name for name, feature in part.features.items() if type(feature).__name__ == kind]
    names = typed or [name for name in usual if name in part.features]
    if len(names) != 1:
        raise ValueError(
            f"{len(names)} columns could be the {what} ({names}) of {list(part.features)}; name it with {what}_column="
        )
    return names[0]
