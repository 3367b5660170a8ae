"""The folders and files of published datasets, as people have them after CoOp's and Dassl's instructions.

Facts only: https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md (the CoOp suite, ImageNet's variants; prompts
from its zero-shot trainer, image counts from the CoOp paper, https://arxiv.org/abs/2109.01134),
https://github.com/KaiyangZhou/Dassl.pytorch/blob/master/DATASETS.md (domains), https://objectnet.dev (ObjectNet).
What reads them is in `ogenlib.data.suite`; nothing here or there downloads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

COOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
DASSL_PAGE = "https://github.com/KaiyangZhou/Dassl.pytorch/blob/master/DATASETS.md"
PHOTO = "a photo of a {}."


@dataclass(frozen=True)
class Layout:
    """One dataset's place on disk.

    kind: what lists the images. "split": a split_zhou file; "lists": FGVC's text files; "wordnet": a folder per
        WordNet id; "numbered": a folder per class number; "objectnet"; "domains": a folder per domain.
    homes: its folder below the root, CoOp's or Dassl's own first, then other spellings in use.
    images: the folder of images below home, likewise.
    folders: for "wordnet", the folder below `images` of each split ("." for itself).
    lists: for "domains", the list files of each split with {} for the domain; empty where there are none.
    domains: every domain's name and its folder's other spellings.
    numbered: names of class folders that are only numbered 0, 1, ...
    ignored: files that the published protocol leaves out.
    counts, classes: as published, to compare with; 0 or left out where none are published. `strict` refuses others.
    """

    name: str
    title: str
    kind: str
    homes: tuple[str, ...]
    images: tuple[str, ...]
    template: str = PHOTO
    aliases: tuple[str, ...] = ()
    split: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: int = 0
    strict: bool = False
    page: str = COOP_PAGE


def _counts(train: int, val: int, test: int) -> dict[str, int]:
    return {split: n for split, n in (("train", train), ("val", val), ("test", test)) if n}


def _split(
    title: str,
    classes: int,
    counts: tuple[int, int, int],
    homes: tuple[str, ...],
    images: tuple[str, ...],
    template: str = PHOTO,
    *,
    name: str,
    aliases: tuple[str, ...] = (),
) -> Layout:
    return Layout(
        name,
        title,
        "split",
        homes,
        images,
        template,
        aliases,
        f"split_zhou_{title}.json",
        counts=_counts(*counts),
        classes=classes,
    )


_COOP = (
    Layout("imagenet", "ImageNet", "wordnet", ("imagenet", "ImageNet", "imagenet-1k"),
           ("images", ".", "ILSVRC/Data/CLS-LOC"), aliases=("imagenet1k", "in1k", "ilsvrc2012"),
           folders={"train": "train", "test": "val"}, counts=_counts(1_281_167, 0, 50_000), classes=1000),
    _split("Caltech101", 100, (4128, 1649, 2465), ("caltech-101", "caltech101"),
           ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "caltech101/101_ObjectCategories"),
           name="caltech101", aliases=("caltech",)),
    _split("OxfordPets", 37, (2944, 736, 3669), ("oxford_pets", "oxford-iiit-pet", "pets"), ("images",),
           "a photo of a {}, a type of pet.", name="oxford_pets", aliases=("pets", "oxford_iiit_pet")),
    _split("StanfordCars", 196, (6509, 1635, 8041), ("stanford_cars", "StanfordCars", "cars"),
           (".",), name="stanford_cars", aliases=("cars",)),
    _split("OxfordFlowers", 102, (4093, 1633, 2463), ("oxford_flowers", "flowers-102", "flowers102"), ("jpg",),
           "a photo of a {}, a type of flower.", name="oxford_flowers",
           aliases=("flowers", "flowers102", "oxford_flowers102")),
    _split("Food101", 101, (50_500, 20_200, 30_300), ("food-101", "food101"), ("images", "food-101/images"),
           "a photo of {}, a type of food.", name="food101", aliases=("food",)),
    Layout("fgvc_aircraft", "FGVCAircraft", "lists", ("fgvc_aircraft", "fgvc-aircraft", "fgvc-aircraft-2013b"),
           ("images", "data/images", "fgvc-aircraft-2013b/data/images"), "a photo of a {}, a type of aircraft.",
           ("aircraft", "fgvc"), counts=_counts(3334, 3333, 3333), classes=100),
    _split("SUN397", 397, (15_880, 3970, 19_850), ("sun397", "SUN397"), ("SUN397", "."), name="sun397",
           aliases=("sun",)),
    _split("DescribableTextures", 47, (2820, 1128, 1692), ("dtd", "DTD"), ("images", "dtd/images"), "{} texture.",
           name="dtd", aliases=("describable_textures", "textures")),
    _split("EuroSAT", 10, (13_500, 5400, 8100), ("eurosat", "EuroSAT"), ("2750", "EuroSAT/2750", "EuroSAT"),
           "a centered satellite photo of {}.", name="eurosat"),
    _split("UCF101", 101, (7639, 1898, 3783), ("ucf101", "UCF101"), ("UCF-101-midframes",),
           "a photo of a person doing {}.", name="ucf101", aliases=("ucf",)),
)  # fmt: skip
COOP11 = tuple(layout.name for layout in _COOP)
"""The eleven datasets of the CoOp suite, as `load_dataset` knows them."""

_SHIFTS = (
    Layout("imagenetv2", "ImageNetV2", "numbered", ("imagenetv2", "imagenet-v2", "imagenet_v2"),
           ("imagenetv2-matched-frequency-format-val", "ImageNetV2-matched-frequency",
            "imagenetv2-matched-frequency-format-val/imagenetv2-matched-frequency-format-val", "."),
           aliases=("imagenet_v2", "inv2"), counts=_counts(0, 0, 10_000), classes=1000),
    Layout("imagenet_sketch", "ImageNetSketch", "wordnet", ("imagenet-sketch", "imagenet_sketch"),
           ("images", "sketch", "."), aliases=("in_sketch",), folders={"test": "."},
           counts=_counts(0, 0, 50_889), classes=1000),
    Layout("imagenet_a", "ImageNetA", "wordnet", ("imagenet-adversarial", "imagenet-a", "imagenet_a"),
           ("imagenet-a", "."), aliases=("imagenet_adversarial", "in_a"), folders={"test": "."},
           counts=_counts(0, 0, 7500), classes=200),
    Layout("imagenet_r", "ImageNetR", "wordnet", ("imagenet-rendition", "imagenet-r", "imagenet_r"),
           ("imagenet-r", "."), aliases=("imagenet_rendition", "in_r"), folders={"test": "."},
           counts=_counts(0, 0, 30_000), classes=200),
    Layout("objectnet", "ObjectNet", "objectnet", ("objectnet-1.0", "objectnet", "ObjectNet"),
           ("images", "objectnet-1.0/images"), aliases=("objectnet_1.0",), counts=_counts(0, 0, 18_574), classes=113,
           strict=True, page="https://objectnet.dev"),
)  # fmt: skip

_DOMAINS = (
    Layout("domainnet", "DomainNet", "domains", ("domainnet", "DomainNet"), (".",),
           lists={"train": ("splits/{}_train.txt", "{}_train.txt"), "test": ("splits/{}_test.txt", "{}_test.txt")},
           domains={d: () for d in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")},
           classes=345, page=DASSL_PAGE),
    Layout("office_home", "OfficeHome", "domains",
           ("office_home", "office_home_dg", "OfficeHome", "OfficeHomeDataset_10072016", "office-home"), (".",),
           aliases=("officehome",), classes=65, page=DASSL_PAGE,
           domains={"art": (), "clipart": (), "product": (), "real_world": ("Real World", "Real", "RealWorld")}),
    Layout("pacs", "PACS", "domains", ("pacs", "PACS"), ("images", "kfold", "."),
           lists={"train": ("splits/{}_train_kfold.txt",), "val": ("splits/{}_crossval_kfold.txt",)},
           domains={"art_painting": ("art",), "cartoon": (), "photo": (), "sketch": ()},
           ignored=("sketch/dog/n02103406_4068-1.png",), classes=7, page=DASSL_PAGE),
    Layout("vlcs", "VLCS", "domains", ("VLCS", "vlcs"), (".",),
           domains={"caltech": ("Caltech101",), "labelme": (), "pascal": ("VOC2007",), "sun": ("SUN09",)},
           numbered=("bird", "car", "chair", "dog", "person"), classes=5, page=DASSL_PAGE),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (*_COOP, *_SHIFTS, *_DOMAINS)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _spellings() -> dict[str, str]:
    names: dict[str, str] = {}
    for layout in LAYOUTS.values():
        for spelling in (layout.name, layout.title, *layout.aliases, *layout.homes):
            names.setdefault(_plain(spelling), layout.name)
    return names


def find_layout(name: str) -> Layout | None:
    """The dataset of this name, title, alias or folder name; case and punctuation do not count. None if there is none.

    "oxford_pets", "OxfordPets", "oxford-iiit-pet" and "pets" are the same dataset.
    """
    key = _spellings().get(_plain(name))
    return None if key is None else LAYOUTS[key]


def list_suite() -> list[str]:
    """Names of the published datasets that `load_dataset(name, root=...)` reads."""
    return list(LAYOUTS)


def close_names(name: str, also: list[str]) -> list[str]:
    """The most similar names of published datasets (whatever spelling was close) and of `also`, best first."""
    spellings = {**_spellings(), **{_plain(other): other for other in also}}
    close = difflib.get_close_matches(_plain(name), spellings, n=5, cutoff=0.6)
    return list(dict.fromkeys(spellings[key] for key in close))[:3]
