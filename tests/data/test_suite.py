"""Published datasets from folders in miniature: every layout and its variants, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import miniatures as mini
import pytest

from ogenlib.data import COOP11, base_new_split, list_suite, load_dataset, load_suite
from ogenlib.data.layouts import LAYOUTS, find_layout


@pytest.mark.parametrize("name", mini.SPLITS)
def test_a_split_file_gives_its_items_labels_and_names(name: str, tmp_path: Path) -> None:
    split = mini.make_split(tmp_path, name)
    data = load_dataset(name, root=tmp_path)
    assert data.name == name
    for part, images in data.splits().items():
        assert [(item.key, item.label, images.classnames[item.label]) for item in images] == list(
            map(tuple, split[part])
        )
        assert all(Path(item.image).is_file() for item in images)
    assert data.templates == (LAYOUTS[name].template,)
    assert data.info["layout"] == [] and data.info["skipped"] == []
    assert any("published" in line for line in data.info["differs"])


TEMPLATES = {
    "oxford_pets": "a photo of a {}, a type of pet.", "oxford_flowers": "a photo of a {}, a type of flower.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.", "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.", "food101": "a photo of {}, a type of food.",
    "ucf101": "a photo of a person doing {}.",
}  # fmt: skip


def test_templates_and_counts_are_the_published_ones() -> None:
    assert {
        name: layout.template for name, layout in LAYOUTS.items() if layout.template != "a photo of a {}."
    } == TEMPLATES
    assert len(COOP11) == 11 and set(COOP11) < set(list_suite()) and len(list_suite()) == 20
    assert dict(LAYOUTS["oxford_pets"].counts) == {"train": 2944, "val": 736, "test": 3669}
    assert LAYOUTS["objectnet"].counts["test"] == 18_574 and LAYOUTS["objectnet"].classes == 113


@pytest.mark.parametrize(
    "spelling, name",
    [("OxfordPets", "oxford_pets"), ("pets", "oxford_pets"), ("oxford-iiit-pet", "oxford_pets"), ("DTD", "dtd"),
     ("caltech-101", "caltech101"), ("Food101", "food101"), ("ImageNetV2", "imagenetv2"), ("imagenet-v2", "imagenetv2"),
     ("imagenet-r", "imagenet_r"), ("imagenet-adversarial", "imagenet_a"), ("ImageNet-Sketch", "imagenet_sketch"),
     ("Office-Home", "office_home"), ("flowers102", "oxford_flowers"), ("FGVCAircraft", "fgvc_aircraft")],
)  # fmt: skip
def test_other_spellings_of_a_name(spelling: str, name: str) -> None:
    layout = find_layout(spelling)
    assert layout is not None and layout.name == name


VARIANTS = {
    "torchvision's folder": ("oxford_pets", "oxford-iiit-pet", "images"),
    "an archive inside": ("dtd", "dtd", "dtd/images"),
    "unpacked in place": ("caltech101", "caltech101", "caltech-101/101_ObjectCategories"),
    "flowers of torchvision": ("oxford_flowers", "flowers-102", "jpg"),
    "food inside food": ("food101", "food-101", "food-101/images"),
    "SUN397 alone": ("sun397", "SUN397", "."),
    "EuroSAT zip": ("eurosat", "eurosat", "EuroSAT/2750"),
}


@pytest.mark.parametrize("name, home, images", VARIANTS.values(), ids=VARIANTS)
def test_variants_of_a_layout_hold_the_same_items(name: str, home: str, images: str, tmp_path: Path) -> None:
    mini.make_split(tmp_path / "published", name)
    mini.make_split(tmp_path / "variant", name, home, images)
    published, variant = (load_dataset(name, root=tmp_path / kind) for kind in ("published", "variant"))
    assert variant.hash() == published.hash()
    assert variant.info["layout"] and not published.info["layout"]


def test_the_root_may_be_the_datasets_own_folder(tmp_path: Path) -> None:
    mini.make_split(tmp_path, "dtd")
    shutil.move(tmp_path / "dtd", tmp_path / "textures of mine")
    assert len(load_dataset("dtd", root=tmp_path / "textures of mine").train) == 9


def test_a_split_file_beside_the_folder_is_found(tmp_path: Path) -> None:
    mini.make_split(tmp_path, "dtd")
    shutil.move(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", tmp_path)
    assert len(load_dataset("dtd", root=tmp_path).test) == 6


def test_cars_unpacked_twice(tmp_path: Path) -> None:
    mini.make_split(tmp_path, "stanford_cars")
    published = load_dataset("stanford_cars", root=tmp_path).hash()
    for name in ("cars_train", "cars_test"):
        folder = tmp_path / "stanford_cars" / name
        shutil.move(folder, tmp_path / "moved")
        folder.mkdir()
        shutil.move(tmp_path / "moved", folder / name)
    data = load_dataset("stanford_cars", root=tmp_path)
    assert data.hash() == published
    data.train.open(0)


def test_aircraft_comes_from_its_lists(tmp_path: Path) -> None:
    mini.make_aircraft(tmp_path)
    data = load_dataset("fgvc_aircraft", root=tmp_path)
    assert data.classnames == ("707-320", "Cessna 525")
    assert [(i.key, i.label) for i in data.train] == [("0000003.jpg", 1), ("0000001.jpg", 0)]
    assert data.val is not None and (len(data.val), len(data.test)) == (1, 2)
    mini.make_aircraft(tmp_path / "whole", "fgvc-aircraft-2013b/data")
    assert load_dataset("aircraft", root=tmp_path / "whole").hash() == data.hash()
    (tmp_path / "fgvc_aircraft" / "images_variant_val.txt").write_text("0000002 Boeing\n")
    with pytest.raises(ValueError, match=r"images_variant_val.txt line 1: 'Boeing' is not in variants.txt"):
        load_dataset("fgvc_aircraft", root=tmp_path)


@pytest.mark.parametrize("images", ["images", ".", "ILSVRC/Data/CLS-LOC"])
def test_imagenet(images: str, tmp_path: Path) -> None:
    mini.make_imagenet(tmp_path, images)
    data = load_dataset("imagenet", root=tmp_path)
    assert data.classnames == ("tench", "goldfish", "missile", "projectile")  # the second missile is told apart
    assert data.info["renamed"] == {"n04008634": "projectile"}
    assert [i.key for i in data.train][:3] == [
        "train/n01440764/n01440764_1.JPEG",
        "train/n01440764/n01440764_2.JPEG",
        "train/n01443537/n01443537_1.JPEG",
    ]
    assert (len(data.train), len(data.test), data.val) == (8, 4, None)
    assert base_new_split(data.classnames).base == ("tench", "goldfish")


SHIFTS = {
    "imagenet_sketch": ("imagenet-sketch/images", "n01443537", 1),
    "imagenet_a": ("imagenet-adversarial/imagenet-a", "n01443537", 1),
    "imagenet_r": ("imagenet-rendition/imagenet-r", "n01443537", 1),
    "imagenetv2": ("imagenetv2/imagenetv2-matched-frequency-format-val", "3", 4),
}  # fmt: skip


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("names_in", ["own", "imagenet"])
def test_imagenet_variants_are_for_testing(name: str, names_in: str, tmp_path: Path) -> None:
    folder, cls, count = SHIFTS[name]
    mini.pictures(tmp_path / folder / cls, "a.JPEG", "b.JPEG")
    (tmp_path / folder / "README.txt").write_text("not a class")
    mini.classnames_txt(tmp_path / ("imagenet" if names_in == "imagenet" else folder.split("/")[0]))
    data = load_dataset(name, root=tmp_path)
    assert (len(data.train), len(data.test), len(data.classnames)) == (0, 2, count)
    expected = {"n01443537": "goldfish", "3": "projectile"}[cls]
    assert {data.classnames[item.label] for item in data.test} == {expected}


def test_without_classnames_txt_the_names_are_missed(tmp_path: Path) -> None:
    mini.pictures(tmp_path / "imagenet-rendition/imagenet-r/n01443537", "a.JPEG")
    with pytest.raises(FileNotFoundError, match=r"imagenet_r: .*imagenet.classnames.txt.*DATASETS.md"):
        load_dataset("imagenet_r", root=tmp_path)


def test_a_thousand_folders_take_their_names_from_open_clip(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "imagenet-sketch" / "images" / f"n{number:08d}").mkdir(parents=True)
    mini.picture(tmp_path / "imagenet-sketch" / "images" / "n00000001" / "a.JPEG")
    data = load_dataset("imagenet_sketch", root=tmp_path)
    assert len(data.classnames) == 1000 and data.classnames[data.test[0].label] == "goldfish"
    assert set(data.info["renamed"]) == {"n00000744", "n00000837"}  # by id here: these are not ImageNet's ids
    assert data.info["classnames"] == "open_clip"


def test_flat_validation_images_are_refused_with_the_fix(tmp_path: Path) -> None:
    mini.make_imagenet(tmp_path)
    shutil.rmtree(tmp_path / "imagenet/images/val")
    mini.pictures(tmp_path / "imagenet/images/val", "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match=r"val: .*n01440764; sort the images"):
        load_dataset("imagenet", root=tmp_path)


# ------------------------------------------------------------------ ObjectNet


def test_objectnet_refuses_other_counts(tmp_path: Path) -> None:
    mini.make_objectnet(tmp_path)
    with pytest.raises(ValueError, match=r"4 .* of 2 classes .*18,574 of 113 .*50,273.* 313"):
        load_dataset("objectnet", root=tmp_path)


def test_objectnet_keeps_shared_classes_and_cuts_the_border(tmp_path: Path) -> None:
    mini.make_objectnet(tmp_path)
    layout = replace(LAYOUTS["objectnet"], counts={"test": 4}, classes=2)
    data = load_suite(layout, tmp_path)
    assert data.classnames == ("Alarm clock", "Backpack") and len(data.train) == 0
    assert [item.key for item in data.test][:2] == ["alarm_clock/0.png", "alarm_clock/1.png"]
    assert data.info["imagenet"]["Alarm clock"] == ["analog clock", "digital clock"]
    image = data.test.open(0)
    assert image.size == (8, 8) and image.getcolors() == [(64, (0, 0, 255))]
    before = data.test.content_hash()
    mini.picture(tmp_path / "objectnet-1.0/images/alarm_clock/0.png")
    assert data.test.content_hash() != before  # the file's bytes count, cropped or not
    (tmp_path / "objectnet-1.0/images/backpack/1.png").unlink()
    with pytest.raises(ValueError, match="3 images of 2 classes"):
        load_suite(layout, tmp_path)


# ------------------------------------------------------------------ what is refused


def test_a_missing_image_is_named_or_skipped(tmp_path: Path) -> None:
    mini.make_split(tmp_path, "dtd")
    (tmp_path / "dtd/images/banded/10.jpg").unlink()
    (tmp_path / "dtd/images/dotted/10.jpg").write_bytes(b"no image")
    with pytest.raises(FileNotFoundError, match=r"dtd: 1 of 18 .*banded/10.jpg.*ogen data check dtd"):
        load_dataset("dtd", root=tmp_path)
    data = load_dataset("dtd", root=tmp_path, skip_bad=True)
    assert [Path(s["file"]).parent.name for s in data.info["skipped"]] == ["banded", "dotted"]
    assert len(data.train) == 7 and data.classnames == ("banded", "dotted", "waffled")


@pytest.mark.parametrize(
    "text, message",
    [("{", "cannot be read as JSON .* should be a split_zhou file"), ('{"train": []}', "is no split_zhou file"),
     ('{"train": [["a.jpg", 0]], "test": []}', r"train item 0 is \['a.jpg', 0\]; expected"),
     ('{"train": [["a.jpg", 1, "x"]], "test": []}', "without a gap, and 0 is missing"),
     ('{"train": [["a.jpg", 0, "x"]], "test": [["b.jpg", 0, "y"]]}', "label 0 is 'x' and 'y'"),
     ('{"train": [], "test": []}', "lists no image")],
)  # fmt: skip
def test_bad_split_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset("dtd", root=tmp_path)


def test_messages_for_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dtd: .*dtd/images/ .*DTD.*DATASETS.md"):
        load_dataset("dtd", root=tmp_path)
    with pytest.raises(ValueError, match=r"'dtd' is read from your disk: pass root=DIR"):
        load_dataset("dtd")
    with pytest.raises(ValueError, match=r"unknown dataset 'oxfrd_pets'.* Did you mean 'oxford_pets'"):
        load_dataset("oxfrd_pets", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder; root is the folder that holds dtd/"):
        load_dataset("dtd", root=tmp_path / "nowhere")
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"dtd: no file .*split_zhou_DescribableTextures.json; http"):
        load_dataset("dtd", root=tmp_path)
    with pytest.raises(TypeError, match="shots"):
        load_dataset("dtd", root=tmp_path, shots=3)


def test_a_folder_of_your_own_is_still_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        mini.pictures(tmp_path / "pets" / name, "a.png", "b.png")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("pets").classnames == ("cat", "dog")
    assert load_dataset(tmp_path / "pets").classnames == ("cat", "dog")


# ------------------------------------------------------------------ domains


def test_pacs_lists_with_and_without_test_domains(tmp_path: Path) -> None:
    mini.make_pacs(tmp_path)
    data = load_dataset("pacs", root=tmp_path)
    assert data.classnames == ("dog", "horse") and data.val is None
    assert (len(data.train), len(data.test)) == (16, 8)
    assert set(data.train.domains) == {"art_painting", "cartoon", "photo", "sketch"}
    data = load_dataset("pacs", root=tmp_path, test_domains=["sketch"])
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (12, 6, 6)
    assert set(data.test.domains) == {"sketch"} and "sketch" not in {*data.train.domains, *data.val.domains}
    with pytest.raises(ValueError, match=r"test_domains is .*pacs are art_painting, cartoon"):
        load_dataset("pacs", root=tmp_path, test_domains=["quickdraw"])
    with pytest.raises(ValueError, match="leave one or more domains"):
        load_dataset("pacs", root=tmp_path, test_domains=["art_painting", "cartoon", "photo", "sketch"])
    (tmp_path / "pacs/splits/photo_train_kfold.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*photo_train_kfold.txt \(1 of 8 lists"):
        load_dataset("pacs", root=tmp_path)


def test_domainbed_folders_without_lists(tmp_path: Path) -> None:
    mini.make_pacs(tmp_path, "PACS", lists=False)
    data = load_dataset("pacs", root=tmp_path)
    assert (len(data.train), len(data.test)) == (16, 8)  # 1 of 3 images of every class and domain
    again = load_dataset("pacs", root=tmp_path, test_domains="photo")
    assert (len(again.train), len(again.test)) == (18, 6)


@pytest.mark.parametrize("home, real", [("office_home", "real_world"), ("OfficeHomeDataset_10072016", "Real World")])
def test_office_home(home: str, real: str, tmp_path: Path) -> None:
    mini.make_office_home(tmp_path, home, real)
    data = load_dataset("office-home", root=tmp_path, test_domains=["real_world"])
    assert data.classnames == ("Alarm_Clock", "Bed")
    assert (len(data.train), len(data.test), set(data.test.domains)) == (24, 8, {"real_world"})


def test_vlcs_has_numbered_folders(tmp_path: Path) -> None:
    mini.make_vlcs(tmp_path)
    data = load_dataset("vlcs", root=tmp_path, test_domains=["sun"])
    assert data.classnames == ("bird", "car", "chair", "dog", "person")
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (15, 15, 5)
    assert data.test[0].key == "SUN/test/0/test.jpg" and data.test[0].domain == "sun"


@pytest.mark.parametrize("lists", ["splits", "."])
def test_domainnet_lists(lists: str, tmp_path: Path) -> None:
    mini.make_domainnet(tmp_path, lists)
    data = load_dataset("DomainNet", root=tmp_path)
    assert data.classnames == ("aircraft_carrier", "zebra") and (len(data.train), len(data.test)) == (24, 12)
    assert len(data.test.of_domain("quickdraw")) == 2
    path = tmp_path / "domainnet" / lists / "real_test.txt"
    path.write_text("real/zebra/real_003.jpg 0\n")
    with pytest.raises(ValueError, match=r"real_test.txt line 1: .*'zebra' .*'aircraft_carrier'"):
        load_dataset("DomainNet", root=tmp_path)
