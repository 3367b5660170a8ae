"""Checks find what is broken, what is doubled and what is missing."""

from __future__ import annotations

import json
import shutil

import numpy as np

from ogenlib.data import Dataset, ImageSet, Item, check_dataset, check_images, load_dataset


def test_check_images_finds_exactly_the_broken_ones(pet_images):
    assert check_images(pet_images) == []
    pet_images[2].image.write_bytes(pet_images[2].image.read_bytes()[:100])
    pet_images[7].image.unlink()
    cut, gone = check_images(pet_images)
    assert (cut.index, cut.file) == (2, str(pet_images[2].image)) and "runcated" in cut.reason
    assert (gone.index, gone.file) == (7, str(pet_images[7].image)) and "No such file" in gone.reason


def test_check_dataset_counts_and_is_content(pets):
    report = check_dataset(load_dataset(pets))
    assert report.ok
    assert report.counts == {"train": {"cat": 3, "dog": 3, "red fox": 4}, "test": {"cat": 2, "dog": 1, "red fox": 2}}
    assert any("train: 10 images of 3 classes, 3 to 4 a class" in line for line in report.lines())


def test_check_dataset_finds_duplicates_problems_and_empty_classes(pets):
    data = load_dataset(pets, classnames=["cat", "dog", "red fox", "wolf"])
    shutil.copy(data.train[0].image, data.test[1].image)
    data.train[3].image.write_bytes(b"")
    report = check_dataset(data)
    assert not report.ok
    (double,) = report.duplicates
    assert (double.split, double.other_split) == ("train", "test")
    assert (double.file, double.other_file) == (str(data.train[0].image), str(data.test[1].image))
    assert [(p.split, p.index) for p in report.problems] == [("train", 3)]
    assert report.empty == ("wolf",)
    assert json.loads(json.dumps(report.as_dict()))["ok"] is False
    text = "\n".join(report.lines())
    assert "wolf" in text and str(data.train[3].image) in text


def test_the_same_bytes_within_one_split_or_in_two_broken_files_are_no_leak(pets):
    data = load_dataset(pets)
    shutil.copy(data.train[0].image, data.train[1].image)
    data.train[2].image.write_bytes(b"")
    data.test[0].image.write_bytes(b"")
    assert check_dataset(data).duplicates == ()


def test_pictures_without_a_file_are_compared_by_their_pixels():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    train = ImageSet([Item(array, 0), Item(array[::-1], 0)], ["a"])
    test = ImageSet([Item(array.copy(), 0)], ["a"])
    assert len(check_dataset(Dataset("mine", train, test)).duplicates) == 1


def test_what_loading_skipped_is_reported(pets):
    (pets / "cat" / "00.png").write_bytes(b"")
    report = check_dataset(load_dataset(pets, skip_bad=True))
    assert report.ok and len(report.skipped) == 1
    assert any("skipped when loading: 1" in line for line in report.lines())
