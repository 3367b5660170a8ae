"""Published datasets in miniature: the folders and files that people have, with a few tiny pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

WORDNET = {"n01440764": "tench", "n01443537": "goldfish", "n03773504": "missile", "n04008634": "missile"}


def picture(path: Path, shade: int = 0) -> None:
    """An 8 x 8 picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade % 256, 255 - shade % 256, 90)).save(path)


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        picture(folder / name, 7 * number)


def split_zhou(path: Path, images: Path, classes: dict[str, str], counts: tuple[int, int, int] = (3, 1, 2)) -> Any:
    """A split file over `classes` (folder to class name), with its pictures; test rows first class last.

    The items of a class are not in sorted order, and train lists the last class first.
    """
    split: dict[str, list[list[Any]]] = {"train": [], "val": [], "test": []}
    labels = {name: i for i, name in enumerate(classes.values())}
    for folder, name in reversed(classes.items()):
        number = 10
        for part, count in zip(split, counts, strict=True):
            for _ in range(count):
                file = f"{folder}/{number:02d}.jpg" if folder else f"{name}_{number:02d}.jpg"
                split[part].append([file, labels[name], name])
                picture(images / file, number)
                number -= 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(split))
    return split


# name: (home, images below it, split file, folders and class names)
SPLITS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "caltech101": ("caltech-101", "101_ObjectCategories", "Caltech101", {"Faces": "face", "ant": "ant"}),
    "oxford_pets": ("oxford_pets", "images", "OxfordPets", {"": "american_bulldog"}),
    "stanford_cars": ("stanford_cars", ".", "StanfordCars", {"cars_train": "2012 Audi A5", "cars_test": "2007 BMW X5"}),
    "oxford_flowers": ("oxford_flowers", "jpg", "OxfordFlowers", {"": "pink primrose"}),
    "food101": ("food-101", "images", "Food101", {"apple_pie": "apple_pie", "sushi": "sushi"}),
    "sun397": ("sun397", "SUN397", "SUN397", {"a/abbey": "abbey", "b/bar": "bar"}),
    "dtd": ("dtd", "images", "DescribableTextures", {"banded": "banded", "dotted": "dotted", "waffled": "waffled"}),
    "eurosat": ("eurosat", "2750", "EuroSAT", {"AnnualCrop": "Annual Crop Land", "River": "River"}),
    "ucf101": ("ucf101", "UCF-101-midframes", "UCF101", {"Apply_Lipstick": "Apply_Lipstick", "Archery": "Archery"}),
}


def make_split(root: Path, name: str, home: str = "", images: str = "") -> Any:
    """One dataset of `SPLITS` below `root`, in other folders if given; returns the split."""
    published_home, published_images, title, classes = SPLITS[name]
    folder = root / (home or published_home)
    return split_zhou(folder / f"split_zhou_{title}.json", folder / (images or published_images), classes)


def classnames_txt(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("".join(f"{wordnet} {name}\n" for wordnet, name in WORDNET.items()))


def make_imagenet(root: Path, images: str = "images") -> None:
    classnames_txt(root / "imagenet")
    for wordnet in WORDNET:
        pictures(root / "imagenet" / images / "train" / wordnet, f"{wordnet}_2.JPEG", f"{wordnet}_1.JPEG")
        pictures(root / "imagenet" / images / "val" / wordnet, "ILSVRC2012_val_00000001.JPEG")


def make_aircraft(root: Path, below: str = ".") -> None:
    folder = root / "fgvc_aircraft" / below
    pictures(folder / "images", *(f"{i:07d}.jpg" for i in range(6)))
    (folder / "variants.txt").write_text("707-320\nCessna 525\n")
    for part, lines in {
        "train": "0000003 Cessna 525\n0000001 707-320\n",
        "val": "0000002 707-320\n",
        "test": "0000000 707-320\n0000005 Cessna 525\n",
    }.items():
        (folder / f"images_variant_{part}.txt").write_text(lines)


def make_objectnet(root: Path, per_class: int = 2) -> None:
    """Two classes that ImageNet has and one that it has not."""
    folder = root / "objectnet-1.0"
    for name in ("air_freshener", "alarm_clock", "backpack"):
        for number in range(per_class):
            path = folder / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (12, 12), "red")
            image.paste((0, 0, 255), (2, 2, 10, 10))
            image.save(path)
    (folder / "mappings").mkdir()
    labels = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "backpack": "Backpack"}
    shared = {"Alarm clock": "analog clock; digital clock", "Backpack": "backpack, back pack, knapsack"}
    (folder / "mappings" / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    (folder / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shared))


def make_pacs(root: Path, home: str = "pacs/images", *, lists: bool = True) -> None:
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        for name in ("dog", "horse"):
            pictures(root / home / domain / name, "a.jpg", "b.jpg", "c.jpg")
    if not lists:
        return
    splits = root / "pacs" / "splits"
    splits.mkdir(parents=True)
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        rows = [
            f"{domain}/{name}/{letter}.jpg {label}\n" for label, name in ((1, "dog"), (2, "horse")) for letter in "abc"
        ]
        extra = ["sketch/dog/n02103406_4068-1.png 1\n"] if domain == "sketch" else []
        (splits / f"{domain}_train_kfold.txt").write_text("".join(rows[::3] + rows[1::3] + extra))
        (splits / f"{domain}_crossval_kfold.txt").write_text("".join(rows[2::3]))


def make_vlcs(root: Path) -> None:
    for domain in ("CALTECH", "LABELME", "PASCAL", "SUN"):
        for part in ("train", "crossval", "test", "full"):
            for label in range(5):
                pictures(root / "VLCS" / domain / part / str(label), f"{part}.jpg")


def make_office_home(root: Path, home: str = "office_home", real: str = "real_world") -> None:
    for domain in ("art", "clipart", "product", real):
        for name in ("Alarm_Clock", "Bed"):
            pictures(root / home / domain / name, *(f"{i:05d}.jpg" for i in range(4)))


def make_domainnet(root: Path, lists: str = "splits") -> None:
    for domain in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"):
        for part, numbers in {"train": (1, 2), "test": (3,)}.items():
            rows = []
            for label, name in enumerate(("aircraft_carrier", "zebra")):
                for number in numbers:
                    file = f"{domain}/{name}/{domain}_{number:03d}.jpg"
                    picture(root / "domainnet" / file)
                    rows.append(f"{file} {label}\n")
            (root / "domainnet" / lists).mkdir(parents=True, exist_ok=True)
            (root / "domainnet" / lists / f"{domain}_{part}.txt").write_text("".join(rows))
