"""Your own images: folders, CSV files, lists, and what is wrong with them."""

from __future__ import annotations

import shutil
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ogenlib.data import ImageSet, Item, list_datasets, load_dataset


def keys(images):
    return [item.key for item in images]


def test_a_folder_in_one_line(pets):
    data = load_dataset(pets)
    assert data.name == "pets" and data.classnames == ("cat", "dog", "red fox")
    assert sorted(keys(data.train) + keys(data.test)) == sorted(
        p.relative_to(pets).as_posix() for p in pets.rglob("*.png")
    )
    test_labels = [item.label for item in data.test]
    assert [test_labels.count(c) for c in range(3)] == [2, 1, 2]  # 0.3 of 5, 4 and 6, rounded
    assert data.info["skipped"] == [] and "seed=0" in data.info["split"]
    assert data.train.open(0).size == (24, 20)


def test_the_split_is_seeded_and_does_not_move_with_the_folder(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "elsewhere")
    data = load_dataset(str(pets))
    assert load_dataset("elsewhere", root=tmp_path).hash() == data.hash()
    assert load_dataset(pets, seed=1).hash() != data.hash()
    assert len(load_dataset(pets, test_fraction=1.0).train) == 0
    assert len(load_dataset(pets, test_fraction=0.0).test) == 0


def test_given_splits(pets, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(pets, tmp_path / "root" / split)
    shutil.rmtree(tmp_path / "root" / "train" / "red fox")
    data = load_dataset(tmp_path / "root")
    assert data.classnames == ("cat", "dog", "red fox")
    assert [len(s) for s in data.splits().values()] == [9, 15, 15] and data.info["split"] == "given"
    assert keys(data.val)[0] == "val/cat/00.png"
    shutil.rmtree(tmp_path / "root" / "test")
    data = load_dataset(tmp_path / "root")
    assert [len(s) for s in data.splits().values()] == [6, 3, 15] and "seeded" in data.info["split"]


def test_classes_that_are_called_like_splits(tmp_path, make_pictures):
    make_pictures(tmp_path / "signals", {"test": 2, "train": 3})
    assert load_dataset(tmp_path / "signals").classnames == ("test", "train")


def test_classnames_rename_folders(pets):
    data = load_dataset(pets, classnames={"cat": "house cat"}, templates=["an {}."])
    assert data.classnames == ("house cat", "dog", "red fox") and data.templates == ("an {}.",)
    assert load_dataset(pets, classnames=["red fox", "dog", "cat"]).classnames == ("red fox", "dog", "cat")
    with pytest.raises(ValueError, match="maps 'wolf', but no image"):
        load_dataset(pets, classnames={"wolf": "big wolf"})
    with pytest.raises(ValueError, match=r"'cat' is not among the 2 names.*did you mean 'cats'"):
        load_dataset(pets, classnames=["cats", "dog"])
    with pytest.raises(ValueError, match=r"label 'dog' is the same.*label 'cat'"):
        load_dataset(pets, classnames={"dog": "cat"})


def test_an_empty_class_folder(pets):
    (pets / "wolf").mkdir()
    (pets / "wolf" / "notes.txt").write_text("none yet")
    (pets / ".hidden").mkdir()
    with pytest.raises(ValueError, match=r"wolf: the class folder holds no images.*skip_bad=True"):
        load_dataset(pets)
    data = load_dataset(pets, skip_bad=True)
    assert data.classnames == ("cat", "dog", "red fox")
    assert [s["file"] for s in data.info["skipped"]] == [str(pets / "wolf")]


def test_folders_that_differ_in_case_or_spaces_only(pets, make_pictures):
    make_pictures(pets, {"Red  Fox": 1})
    with pytest.raises(ValueError, match=r"Red  Fox and .*red fox: the class names are the same"):
        load_dataset(pets, skip_bad=True)


def test_a_truncated_image_is_skipped_and_counted(pets):
    broken = pets / "dog" / "01.png"
    broken.write_bytes(broken.read_bytes()[:200])
    data = load_dataset(pets)  # not decoded yet
    assert len(data.train) + len(data.test) == 15
    data = load_dataset(pets, skip_bad=True)
    assert len(data.train) + len(data.test) == 14 and "dog/01.png" not in keys(data.train) + keys(data.test)
    (skipped,) = data.info["skipped"]
    assert skipped["file"] == str(broken) and "runcated" in skipped["reason"]


def test_a_class_whose_images_are_all_bad_is_dropped(pets):
    for file in (pets / "dog").iterdir():
        file.write_bytes(b"")
    data = load_dataset(pets, skip_bad=True)
    assert data.classnames == ("cat", "red fox")
    assert {item.label for item in data.train} == {0, 1}
    assert len(data.info["skipped"]) == 5 and "class 'dog' dropped" in data.info["skipped"][-1]["reason"]


def test_folders_without_classes(tmp_path):
    with pytest.raises(ValueError, match="holds no class folders"):
        load_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        load_dataset(tmp_path / "nothing")


@pytest.fixture
def csv_file(pets):
    def write(text):
        (pets / "labels.csv").write_text(text, encoding="utf-8-sig")
        return pets / "labels.csv"

    return write


AB = {"classnames": ["a", "b"]}
ROWS = "path,label\nred fox/00.png,Fox\ncat/00.png, cat\nred fox/01.png,Fox\ncat/01.png,cat \n"


def test_csv(csv_file, pets, tmp_path):
    data = load_dataset(csv_file(ROWS))
    assert data.name == "labels" and data.classnames == ("Fox", "cat")  # as they first appear
    assert len(data.train) == len(data.test) == 2
    (tmp_path / "moved.csv").write_text(ROWS)
    assert load_dataset(tmp_path / "moved.csv", root=pets).hash() == data.hash()


def test_csv_with_splits_domains_and_integers(csv_file):
    text = (
        "Label,path,split,domain\n1,cat/00.png,train,photo\n\n0,dog/00.png,valid,photo\n"
        "1,cat/01.png,Test,sketch\n1,cat/02.png,test,photo\n"
    )
    data = load_dataset(csv_file(text), classnames=["dog", "cat", "unused"])
    assert data.classnames == ("dog", "cat", "unused") and data.info["empty_classes"] == ["unused"]
    assert [keys(s) for s in data.splits().values()] == [["cat/00.png"], ["cat/01.png", "cat/02.png"], ["dog/00.png"]]
    assert [i.label for i in data.test] == [1, 1] and data.test.domains == ["sketch", "photo"]
    mapped = load_dataset(csv_file(text), classnames={1: "cat", 0: "dog"})
    assert mapped.classnames == ("cat", "dog")


def test_csv_digits_may_be_the_names(csv_file):
    data = load_dataset(csv_file("path,label\ncat/00.png,7\ncat/01.png,7\n"), classnames=["9", "8", "7"])
    assert {item.label for item in data.train} == {2}


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("file,label\nx,y\n", {}, ValueError, r"labels\.csv: the first line must name .*no path, only"),
        ("path;label\nx;y\n", {}, ValueError, r"separated by commas"),
        ("", {}, ValueError, r"labels\.csv: the first line"),
        ("path,label\n", {}, ValueError, r"labels\.csv: no image is left"),
        (ROWS + "cat/99.png,cat\n", {}, FileNotFoundError, r"labels\.csv line 6 \(cat/99\.png\).*root="),
        (ROWS + "cat/02.png,\n", {}, ValueError, r"line 6 .*label is empty"),
        (ROWS + "cat/02.png\n", {}, ValueError, r"line 6 .*label is empty"),
        (ROWS + "cat/02.png,CAT\n", {}, ValueError, r"line 6 .*'CAT' is the same.*'cat'.*line 3"),
        ("path,label\ncat/00.png,3\n", {}, ValueError, r"labels are integers.*classnames="),
        ("path,label\n\ncat/00.png,3\n", AB, ValueError, r"line 3 .*label 3 is out of range.*0 to 1"),
        ("path,label\ncat/00.png,-1\n", AB, ValueError, r"line 2 .*label -1 is out of range"),
        ("path,label\ncat/00.png,kat\n", {"classnames": ["cat"]}, ValueError, r"'kat' is not among.*'cat'"),
        ("path,label,split\ncat/00.png,a,dev0\n", {}, ValueError, r"line 2 .*split is 'dev0'"),
    ],
)  # fmt: skip
def test_csv_errors_name_the_line(csv_file, text, options, error, message):
    with pytest.raises(error, match=message):
        load_dataset(csv_file(text), **options)


def test_csv_bad_lines_are_skipped_and_counted(csv_file):
    text = ROWS.replace("Fox", "1").replace("cat \n", "0\n").replace(" cat\n", "0\n")
    text += "cat/99.png,0\ncat/02.png,5\ncat/03.png,\n"
    data = load_dataset(csv_file(text), classnames=["cat", "fox"], skip_bad=True)
    assert len(data.train) + len(data.test) == 4
    assert len(data.info["skipped"]) == 3
    reasons = " | ".join(f"{s['file']}: {s['reason']}" for s in data.info["skipped"])
    for part in ("line 6", "cat/99.png", "line 7", "out of range", "line 8", "empty"):
        assert part in reasons


def test_a_csv_that_is_not_utf8(pets):
    (pets / "latin.csv").write_bytes("path,label\ncat/00.png,Bär\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv: is no UTF-8 CSV file"):
        load_dataset(pets / "latin.csv")


def test_lists(pets):
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pairs = [("dog/00.png", "dog"), (array, "noise"), (str(pets / "dog" / "01.png"), "dog")]
    pairs += [(Image.fromarray(array[::-1]), "noise")]
    data = load_dataset(pairs, root=pets, test_fraction=0.0)
    assert data.classnames == ("dog", "noise") and [i.label for i in data.train] == [0, 1, 0, 1]
    assert data.train.open(1).getpixel((1, 0)) == (3, 4, 5)
    by_number = load_dataset([(a, np.int64(b == "dog")) for a, b in pairs], root=pets, classnames=["noise", "dog"])
    assert by_number.classnames == ("noise", "dog")


@pytest.mark.parametrize(
    ("pairs", "options", "error", "message"),
    [
        ([("nowhere.png", "a")], {}, FileNotFoundError, r"item 0 \(nowhere\.png\)"),
        ([("a.png", 1)], {}, ValueError, r"item 0 .*label 1 is an integer.*classnames="),
        ([("a.png", 4)], {"classnames": ["x"]}, ValueError, r"item 0 .*label 4 is out of range"),
        ([("a.png", 4)], {"classnames": {1: "x", 4: "y"}}, ValueError, r"maps '1'"),
        ([("a.png", 1.5)], {}, TypeError, r"item 0 .*1\.5"),
        (["a.png"], {}, TypeError, r"item 0 is 'a\.png'; expected \(image, label\)"),
        ([(3, "a")], {}, TypeError, r"item 0: .*not int"),
        ([], {}, ValueError, r"no image is left"),
        ([("a.png", "a")], {"shots": 3}, TypeError, r"unknown option 'shots'.*test_fraction"),
    ],
)
def test_list_errors_name_the_item(pairs, options, error, message):
    with pytest.raises(error, match=message):
        load_dataset(pairs, **options)


@pytest.fixture
def bundled(monkeypatch):
    """A stand-in for the bundled datasets."""
    images = ImageSet([Item("x.png", 0)], ["x"])

    def load_emoji(name, *, domain="noto", test_domains=None):
        from ogenlib.data import Dataset

        return Dataset(name, images, images, info={"domain": domain})

    module = types.ModuleType("ogenlib.data.emoji")
    module.load_emoji = load_emoji
    module.emoji_datasets = lambda: ["emoji-categories", "emoji-concepts/food-drink"]
    monkeypatch.setitem(sys.modules, "ogenlib.data.emoji", module)


@pytest.mark.usefixtures("bundled")
def test_names_are_dispatched(tmp_path, monkeypatch):
    assert list_datasets() == ["emoji-categories", "emoji-concepts/food-drink"]
    assert load_dataset("emoji-categories", domain="openmoji").info == {"domain": "openmoji"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji-categories").mkdir()  # an output folder, say: the bundled name wins
    assert load_dataset("emoji-categories").name == "emoji-categories"


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("name", ["emoji-category", "emoji-concepts/food", "emojicategories"])
def test_unknown_names_get_a_hint(name):
    with pytest.raises(ValueError, match=rf"unknown dataset '{name}'.*Did you mean 'emoji-.*CSV file"):
        load_dataset(name)


@pytest.mark.usefixtures("bundled")
def test_other_sources_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a\.json: cannot load .*CSV file"):
        load_dataset(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.csv: no such file"):
        load_dataset(str(tmp_path / "b.csv"))
    with pytest.raises(TypeError, match="from int"):
        load_dataset(3)
    with pytest.raises(ValueError, match="root"):
        load_dataset("emoji-categories", root=tmp_path)
