"""What `check_suite` and `ogen data check NAME --root DIR` say about copies with something missing or different."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import miniatures as mini
import pytest

from ogenlib.cli.main import main
from ogenlib.data import check_suite
from ogenlib.data.layouts import LAYOUTS, Layout


@pytest.fixture
def textures(tmp_path: Path) -> Layout:
    """The textures in miniature, and a layout that takes the miniature's numbers for the published ones."""
    mini.make_split(tmp_path, "dtd")
    return replace(LAYOUTS["dtd"], counts={"train": 9, "val": 3, "test": 6}, classes=3)


def snapshot(root: Path) -> list[tuple[str, int]]:
    return sorted((str(p.relative_to(root)), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file())


def test_a_whole_copy_is_ok_and_nothing_is_written(textures: Layout, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    report = check_suite(textures, tmp_path, read=True)
    assert report.ok and report.summary() == "" and report.notes == []
    assert report.counts["train"] == {"banded": (3, 3), "dotted": (3, 3), "waffled": (3, 3)}
    assert "dtd: as published" in report.lines() and "images decoded: all" in report.lines()
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True
    assert snapshot(tmp_path) == before


def test_missing_images_are_counted_by_class(textures: Layout, tmp_path: Path) -> None:
    for number in (10, 9, 7):
        (tmp_path / f"dtd/images/dotted/{number:02d}.jpg").unlink()
    report = check_suite(textures, tmp_path)
    assert report.missing == ["dotted/10.jpg", "dotted/09.jpg", "dotted/07.jpg"]
    assert report.counts["train"]["dotted"] == (3, 1) and report.counts["val"]["dotted"] == (1, 0)
    assert {"  train dotted: 1 of 3", "  val dotted: 0 of 1", "  dotted/10.jpg"} <= set(report.lines())
    assert report.summary() == "dtd: 3 images are missing, the first dotted/10.jpg"


def test_unreadable_images_are_found_only_when_read(textures: Layout, tmp_path: Path) -> None:
    (tmp_path / "dtd/images/banded/10.jpg").write_bytes(b"half a file")
    assert check_suite(textures, tmp_path).ok
    report = check_suite(textures, tmp_path, read=True)
    assert not report.ok and [Path(f).as_posix()[-13:] for f, _ in report.unreadable] == ["banded/10.jpg"[-13:]]
    assert "1 images cannot be read" in report.summary()


def test_unlisted_images_and_other_folders_are_notes(textures: Layout, tmp_path: Path) -> None:
    mini.picture(tmp_path / "dtd/images/banded/extra.jpg")
    shutil.move(tmp_path / "dtd", tmp_path / "DTD")
    report = check_suite(textures, tmp_path)
    assert report.ok
    assert any("1 images in the same folders are in no list" in note for note in report.notes)
    assert any("published as dtd/" in note for note in report.notes) or (tmp_path / "dtd").exists()


def test_other_numbers_than_published(textures: Layout, tmp_path: Path) -> None:
    report = check_suite("dtd", tmp_path)
    assert not report.ok
    assert report.problems == [
        "3 classes, published are 47",
        "9 train images, published are 2,820",
        "3 val images, published are 1,128",
        "6 test images, published are 1,692",
    ]


def test_what_is_not_there_says_where_it_looked(tmp_path: Path) -> None:
    report = check_suite("dtd", tmp_path)
    assert not report.ok and str(tmp_path / "dtd") in report.looked
    assert "found no dtd/images/" in report.summary()
    assert f"  {tmp_path / 'dtd'}" in report.lines()
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    assert "split_zhou_DescribableTextures.json" in check_suite("dtd", tmp_path).summary()


def test_cars_one_folder_deeper_are_noted(tmp_path: Path) -> None:
    mini.make_split(tmp_path, "stanford_cars")
    folder = tmp_path / "stanford_cars" / "cars_train"
    shutil.move(folder, tmp_path / "moved")
    folder.mkdir()
    shutil.move(tmp_path / "moved", folder / "cars_train")
    report = check_suite("stanford_cars", tmp_path)
    assert report.missing == [] and "6 images are one folder deeper than listed (a/a/b.jpg for a/b.jpg)" in report.notes


def test_class_folders_that_one_split_lacks(tmp_path: Path) -> None:
    mini.make_imagenet(tmp_path)
    shutil.rmtree(tmp_path / "imagenet/images/val/n01443537")
    assert "test lacks 1 of 4 class folders" in check_suite("imagenet", tmp_path).problems


def test_objectnet_counts(tmp_path: Path) -> None:
    mini.make_objectnet(tmp_path)
    report = check_suite("objectnet", tmp_path)
    assert not report.ok and "18,574 of 113" in report.summary()
    assert report.notes == ["6 images in 3 folders in all; the full set has 50,273 in 313"]
    assert check_suite(replace(LAYOUTS["objectnet"], counts={"test": 4}, classes=2), tmp_path, read=True).ok


@pytest.mark.parametrize("make", [mini.make_pacs, mini.make_office_home, mini.make_vlcs])
def test_domains_can_be_checked(make: object, tmp_path: Path) -> None:
    make(tmp_path)  # type: ignore[operator]
    name = {"make_pacs": "pacs", "make_office_home": "office_home", "make_vlcs": "vlcs"}[make.__name__]  # type: ignore[attr-defined]
    report = check_suite(name, tmp_path, read=True)
    assert report.missing == [] and report.unreadable == [] and report.counts


def test_the_command_exits_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mini.make_split(tmp_path, "dtd")
    assert main(["data", "check", "dtd", "--root", str(tmp_path), "--read", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "train: 9 of 9 images, 3 classes" in said.out
    assert said.err == "ogen data: dtd: 3 classes, published are 47 (and 3 more)\n"
    assert main(["data", "check", "dtdd", "--root", str(tmp_path)]) == 2
    assert "Did you mean 'dtd'?" in capsys.readouterr().err
    assert main(["data", "check", "dtd", "--root", str(tmp_path / "no")]) == 2
    assert "no such folder; root is" in capsys.readouterr().err


def test_the_command_exits_with_0_for_a_whole_copy(
    textures: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAYOUTS, "dtd", textures)
    assert main(["data", "check", "dtd", "--root", str(tmp_path), "--read", "--quiet"]) == 0
    assert "dtd: as published" in capsys.readouterr().out
    assert main(["data", "show", "dtd", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "dtd-test.png").is_file()
    assert main(["data", "list"]) == 0
    assert "oxford_pets" in capsys.readouterr().out
