"""Shards written here, read with webdataset's own grouping; skipped where webdataset is absent."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ogenlib.data import few_shot, load_dataset

NEEDS = pytest.mark.skipif(importlib.util.find_spec("webdataset") is None, reason="webdataset is not installed")


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def samples(start: int, count: int, kind: str = "cls") -> dict[str, bytes]:
    write = {
        "cls": lambda i: str(i % 2),
        "txt": lambda i: ("cat", "dog")[i % 2],
        "json": lambda i: f'{{"label": {i % 2}}}',
    }
    files = {}
    for i in range(start, start + count):
        files[f"{i:04d}.png"] = png(10 * i)
        files[f"{i:04d}.{kind}"] = write[kind](i).encode()
    return files


@NEEDS
@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_shards_of_two_splits(kind: str, tmp_path: Path) -> None:
    shard(tmp_path / "train-000.tar", samples(0, 4, kind))
    shard(tmp_path / "train-001.tar", samples(4, 4, kind))
    shard(tmp_path / "test-000.tar", samples(8, 2, kind))
    names = ["cat", "dog"]
    pattern = {"train": str(tmp_path / "train-{000..001}.tar"), "test": str(tmp_path / "test-000.tar")}
    data = load_dataset(pattern, classnames=names)
    assert data.classnames == ("cat", "dog") and (len(data.train), len(data.test)) == (8, 2)
    assert data.train.keys[:5] == [f"train-000.tar/{i:04d}" for i in range(4)] + ["train-001.tar/0004"]
    assert data.train.labels.tolist() == [0, 1] * 4
    assert [data.train.open(i).getpixel((0, 0)) for i in (7, 0, 5)] == [(70,) * 3, (0,) * 3, (50,) * 3]
    assert len(few_shot(data.train, 2, 1)) == 4
    everything = load_dataset(str(tmp_path / "{train-000,train-001,test-000}.tar"), classnames=names)
    assert everything.hash() == data.hash()


@NEEDS
def test_contents_count_in_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    shard(path, samples(0, 4, "txt"))
    first = load_dataset(path, test_fraction=0).train
    shard(path, {**samples(0, 4, "txt"), "0000.png": png(99)})
    second = load_dataset(path, test_fraction=0).train
    assert first.hash() == second.hash() and first.open(0).size == (8, 8)
    before = second.content_hash()
    shard(path, samples(0, 4, "txt"))
    assert load_dataset(path, test_fraction=0).train.content_hash() != before


@NEEDS
def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    shard(path, {**samples(0, 4, "txt"), "0009.png": png(1), "0010.txt": b"cat"})
    with pytest.raises(ValueError, match=r"a.tar sample 0009: .*one image .*\.cls, \.txt, \.json"):
        load_dataset(path)
    assert len(load_dataset(path, skip_bad=True).info["skipped"]) == 2
    with pytest.raises(FileNotFoundError, match=r"b-1.tar: no such shard \(2 of 2"):
        load_dataset(str(tmp_path / "b-{1..2}.tar"))
    with pytest.raises(ValueError, match="download or mount them first"):
        load_dataset({"train": "https://example.org/x.tar"})
    with pytest.raises(ValueError, match="split is 'extra'"):
        load_dataset({"extra": str(path)})
    with tarfile.open(tmp_path / "z.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match="cannot be read as an uncompressed tar file"):
        load_dataset(tmp_path / "z.tar")
    shard(path, samples(0, 4))
    with pytest.raises(ValueError, match="classnames"):
        load_dataset(path)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    shard(tmp_path / "a.tar", samples(0, 2))
    with pytest.raises(ModuleNotFoundError, match=r"pip install ogenlib\[webdataset\]"):
        load_dataset(tmp_path / "a.tar")


@NEEDS
def test_shards_that_are_made_to_harm_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with pytest.raises(ValueError, match="stands for 300,000,001 names"):
        load_dataset(str(tmp_path / "x-{000000..300000000}.tar"))
    shard(path, {**samples(0, 2, "txt"), "0001.json": b"[" * 9999, "0002.png": png(1), "0002.json": b"[" * 9999})
    with pytest.raises(ValueError, match=r"a.tar sample 0002: its .json says no class"):
        load_dataset(path)
    shard(path, {**samples(0, 2, "txt"), "0002.png": png(1), "0002.txt": b"x" * (2**20 + 1)})
    with pytest.raises(ValueError, match=r"a.tar sample 0002: .*\.txt .*1048577 .*1048576"):
        load_dataset(path)
    shard(path, {**samples(0, 2, "txt"), "0001.PNG": png(1)})
    with pytest.raises(ValueError, match=r"a.tar: 0001.PNG: duplicate file name"):
        load_dataset(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:540])
    with pytest.raises(ValueError, match=r"a.tar: .*0000.png is \d+ bytes, beyond the tar's end"):
        load_dataset(path)
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / ".a.tmp.tar")  # what a killed writer leaves
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar files"):
        load_dataset({"train": str(tmp_path / "folder")})


@NEEDS
def test_members_with_holes_or_made_up_sizes_are_refused(tmp_path: Path) -> None:
    cases = ((tarfile.GNUTYPE_SPARSE, 0, "a sparse file"), (tarfile.REGTYPE, 8**11 - 1, "beyond the tar's end"))
    for kind, size, message in cases:
        member = tarfile.TarInfo("0000.png")
        member.type, member.size = kind, size
        (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
        with pytest.raises(ValueError, match=rf"a.tar: cannot be read .*its member 0000.png is .*{message}"):
            load_dataset(tmp_path / "a.tar")


@NEEDS
def test_only_pictures_of_known_formats_are_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    shard(tmp_path / "a.tar", {**samples(0, 2, "txt"), "0000.png": buffer.getvalue()})
    data = load_dataset(tmp_path / "a.tar", test_fraction=0)
    with pytest.raises(ValueError, match=r"a.tar/0000: .*no picture in one of the formats PNG, JPEG"):
        data.train.open(0)
