"""The small world of the data tests, as fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_world import FakeClip, folder_images, write_pictures

from ogenlib.data import ImageSet


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of 3 classes with 5, 4 and 6 pictures."""
    root = tmp_path / "pets"
    write_pictures(root, {"cat": 5, "dog": 4, "red fox": 6})
    return root


@pytest.fixture
def pet_images(pets: Path) -> ImageSet:
    return folder_images(pets)


@pytest.fixture
def make_clip() -> type[FakeClip]:
    return FakeClip


@pytest.fixture
def make_pictures() -> Any:
    return write_pictures
