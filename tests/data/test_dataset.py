"""Items, image sets and what opening an image means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ogenlib.data import Dataset, ImageSet, Item, open_image


def pixel(image):
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (4, 4), (10, 20, 30)), (10, 20, 30)),
        (Image.new("L", (4, 4), 7), (7, 7, 7)),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        (np.zeros((4, 4, 4), np.uint8), (255, 255, 255)),
        (np.full((4, 4), 9, np.uint8), (9, 9, 9)),
        (np.full((4, 4, 1), 9, np.uint8), (9, 9, 9)),
        (np.tile(np.array([1, 2, 3], np.uint8), (4, 4, 1)), (1, 2, 3)),
        (Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)), (100, 100, 100)),
        (lambda: Image.new("RGBA", (4, 4), (0, 0, 0, 0)), (255, 255, 255)),
    ],
)
def test_open_image_gives_rgb_on_white(image, expected):
    assert pixel(open_image(image)) == expected


def test_half_transparent_pixels_are_mixed_with_white():
    red, green, blue = pixel(open_image(Image.new("RGBA", (2, 2), (255, 0, 0, 128))))
    assert red == 255 and green == blue and 125 <= green <= 129


def test_palette_transparency_in_a_file_becomes_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    image.save(tmp_path / "p.png", transparency=0)
    assert pixel(open_image(tmp_path / "p.png")) == (255, 255, 255)


def test_exif_orientation_is_respected(tmp_path):
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))  # left half white
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: the left half comes out on top
    image.save(tmp_path / "turned.png", exif=exif)
    upright = open_image(tmp_path / "turned.png")
    assert upright.size == (4, 8)
    assert upright.getpixel((2, 1)) == (255, 255, 255) and upright.getpixel((2, 6)) == (0, 0, 0)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_arrays_of_other_kinds_are_refused(array):
    with pytest.raises(ValueError, match=r"uint8|\(H, W"):
        open_image(array, "mine")


def test_unreadable_files_are_named(tmp_path, pets):
    whole = (pets / "cat" / "00.png").read_bytes()
    cases = {"cut.png": whole[: len(whole) // 2], "empty.png": b"", "text.png": b"no picture", "head.png": whole[:20]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as an image .*skip_bad=True"):
            open_image(tmp_path / name)
    Image.open(pets / "cat" / "00.png").save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        open_image(tmp_path / "cut.jpg")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        open_image(tmp_path / "gone.png")


def test_items_have_stable_keys(tmp_path):
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert Item("a/b.png", 0).key == "a/b.png"
    assert Item(array, 0).key == Item(array.copy(), 0).key != Item(array[::-1], 0).key
    with pytest.raises(ValueError, match="key="):
        Item(lambda: Image.new("RGB", (1, 1)), 0)
    with pytest.raises(TypeError, match="not int"):
        Item(3, 0)


@pytest.fixture
def small() -> ImageSet:
    rows = [("a", 0, "x"), ("b", 1, "y"), ("c", 2, "x"), ("d", 1, "x")]
    return ImageSet([Item(f"{k}.png", label, domain) for k, label, domain in rows], ["cat", "dog", "fox"])


def test_image_set_reads_like_a_sequence(small):
    assert len(small) == 4 and small[1].key == "b.png" and [i.key for i in small[2:]] == ["c.png", "d.png"]
    assert torch.equal(small.labels, torch.tensor([0, 1, 2, 1]))
    assert small.domains == ["x", "y", "x", "x"]
    assert [i.key for i in small.subset(torch.tensor([3, 0]))] == ["d.png", "a.png"]


def test_of_classes_relabels_in_the_given_order(small):
    chosen = small.of_classes(["fox", "dog"])
    assert chosen.classnames == ("fox", "dog")
    assert [(i.key, i.label) for i in chosen] == [("b.png", 1), ("c.png", 0), ("d.png", 1)]
    with pytest.raises(ValueError, match=r"no class 'dgo'; did you mean 'dog'\?"):
        small.of_classes(["dgo"])


def test_of_domain(small):
    assert [(i.key, i.label) for i in small.of_domain("y")] == [("b.png", 1)]
    with pytest.raises(ValueError, match="'z'; the domains are 'x', 'y'"):
        small.of_domain("z")


def test_hash_sees_keys_labels_and_names_only(small):
    moved = ImageSet([Item(f"/else/{i.key}", i.label, "other", i.key) for i in small], small.classnames)
    assert moved.hash() == small.hash() and len(small.hash()) == 16
    relabelled = ImageSet([Item(i.image, 0) for i in small], small.classnames)
    renamed = ImageSet(small.items, ["cat", "dog", "wolf"])
    hashes = {small.hash(), small.subset([1, 0, 2, 3]).hash(), relabelled.hash(), renamed.hash(), small[:3].hash()}
    assert len(hashes) == 5


def test_content_hash_sees_a_changed_file_of_the_same_size(pet_images):
    before, split = pet_images.content_hash(), pet_images.hash()
    file = pet_images[0].image
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    assert pet_images.hash() == split
    assert pet_images.content_hash() != before


@pytest.mark.parametrize(
    ("names", "message"),
    [(["cat", "CAT "], "'cat' and 'CAT '"), (["sea  lion", "sea_lion"], "same but for"), (["a", " "], "empty")],
)
def test_class_names_must_differ(names, message):
    with pytest.raises(ValueError, match=message):
        ImageSet([], names)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_named(label):
    with pytest.raises(ValueError, match=rf"x/y.png: label {label} is out of range.*0 to 1"):
        ImageSet([Item("x/y.png", label)], ["a", "b"])


def test_dataset_checks_its_parts(small):
    data = Dataset("mine", small, small[:1])
    assert data.classnames == small.classnames and list(data.splits()) == ["train", "test"]
    assert data.hash() == Dataset("other", small, small[:1]).hash() != Dataset("mine", small[:1], small).hash()
    assert data.hash() != Dataset("mine", small, small[:1], small[1:]).hash()
    with pytest.raises(ValueError, match="train and test do not have the same class names"):
        Dataset("mine", small.of_classes(["cat"]), small)
    with pytest.raises(ValueError, match="exactly once"):
        Dataset("mine", small, small, templates=("a photo.",))
