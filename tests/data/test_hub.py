"""Hugging Face datasets objects: a stand-in always, the real ones where they are installed."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ogenlib.data import load_dataset


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Image_:
    pass


Image_.__name__ = "Image"


class Value:
    pass


class Rows:
    """What of `datasets.Dataset` is used: columns by name, rows by number, features."""

    def __init__(self, labels: list[Any], features: dict[str, Any], fingerprint: str = "f0") -> None:
        self.labels, self.features, self._fingerprint = labels, features, fingerprint
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            assert key == "label", "only the labels are read as a column"
            return self.labels
        self.decoded += 1
        return {"photo": picture(key), "label": self.labels[key]}


def picture(shade: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8))


def rows(labels: list[Any], label: Any = None, fingerprint: str = "f0") -> Rows:
    return Rows(labels, {"photo": Image_(), "label": label or ClassLabel("cat", "dog", "fox")}, fingerprint)


def test_splits_names_and_pictures() -> None:
    parts = {"train": rows([0, 1, 1]), "validation": rows([2]), "test": rows([1, 0])}
    data = load_dataset(parts)
    assert data.classnames == ("cat", "dog", "fox") and data.val is not None
    assert data.train.labels.tolist() == [0, 1, 1] and data.test.keys == ["test/0", "test/1"]
    assert parts["train"].decoded == 0
    assert data.train.open(2).getpixel((0, 0)) == (2, 2, 2)


def test_one_object_is_divided_and_its_fingerprint_counts() -> None:
    data = load_dataset(rows([0] * 5 + [1] * 5 + [2] * 5))
    assert (len(data.train), len(data.test)) == (9, 6)
    other = load_dataset(rows([0] * 5 + [1] * 5 + [2] * 5, fingerprint="f1"))
    assert other.hash() == data.hash() and other.train.content_hash() != data.train.content_hash()


def test_names_as_text_or_given() -> None:
    assert load_dataset(rows(["dog", "dog", "cat", "cat"], Value())).classnames == ("dog", "cat")
    data = load_dataset(rows([0, 0, 1, 1], Value()), classnames=["a", "b"])
    assert data.classnames == ("a", "b")
    with pytest.raises(ValueError, match="integers without names"):
        load_dataset(rows([0, 0, 1, 1], Value()))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"split 'unsupervised' of \['unsupervised'\]"):
        load_dataset({"unsupervised": rows([0])})
    two = Rows([0], {"photo": Image_(), "mask": Image_(), "label": ClassLabel("a")})
    with pytest.raises(ValueError, match=r"2 columns could be the image \(\['photo', 'mask'\]\).*image_column="):
        load_dataset(two)
    with pytest.raises(ValueError, match="no column 'picture'; the columns are"):
        load_dataset(two, image_column="picture")
    with pytest.raises(TypeError, match="cannot load a dataset from int"):
        load_dataset(3)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
def test_real_datasets_objects() -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [picture(i) for i in range(6)], "label": [0, 1] * 3}
    part = datasets.Dataset.from_dict(rows, features=features)
    data = load_dataset(datasets.DatasetDict(train=part, test=part.select([0, 1])))
    assert data.classnames == ("cat", "dog") and data.train.labels.tolist() == [0, 1] * 3
    assert data.train.open(5).getpixel((0, 0)) == (5, 5, 5)
    assert data.train.content_hash() != load_dataset(part, test_fraction=0).train.content_hash()


@dataclass(frozen=True)
class Decoding:
    """The feature of a column of pictures, as `datasets.Image` is one."""

    decode: bool = True


Decoding.__name__ = "Image"


class Bytes(Rows):
    """Rows that decode a picture unless they are told not to."""

    def __init__(self, contents: list[bytes], feature: Decoding) -> None:
        super().__init__([0] * len(contents), {"photo": feature, "label": ClassLabel("cat")})
        self.contents, self.feature = contents, feature

    def cast_column(self, column: str, feature: Decoding) -> Bytes:
        assert column == "photo"
        return Bytes(self.contents, feature)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        assert not self.feature.decode, "the library would try every format"
        return {"photo": {"bytes": self.contents[key], "path": None}, "label": 0}


def test_only_pictures_of_known_formats_are_decoded() -> None:
    contents = []
    for kind in ("PNG", "EPS"):
        buffer = io.BytesIO()
        picture(9).save(buffer, kind)
        contents.append(buffer.getvalue())
    data = load_dataset(Bytes(contents, Decoding()), test_fraction=0)
    assert data.train.open(0).getpixel((0, 0)) == (9, 9, 9)
    with pytest.raises(ValueError, match="no picture in one of the formats PNG, JPEG"):
        data.train.open(1)
