"""What is changed, made up or meant to hang ends in one error that names the file; what it says is not believed."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_world import FakeClip
from PIL import Image

from ogenlib.data import FeatureBank, ImageSet, Item, load_dataset, open_image
from ogenlib.data.bank import SHARDS
from ogenlib.data.braces import MOST, count_names, refuse_many
from ogenlib.data.captions import read_karpathy
from ogenlib.utils.documents import DamagedFile, write_document
from ogenlib.utils.tensors import write_tensors

# ---------------------------------------------------------------- banks


def contents(n: int = 6) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a bank of two classes and two domains."""
    bank = FeatureBank(
        features=torch.nn.functional.normalize(torch.arange(8.0 * n).sin().reshape(n, 1, 8), dim=-1),
        labels=torch.arange(n) % 2,
        classnames=("cat", "dog"),
        domains=["x", "y"] * (n // 2),
        keys=[f"k{i}" for i in range(n)],
        fingerprint={"backbone": {"name": "fake"}, "data": {"hash": "0"}},
    )
    return bank.contents()


def keys(*names: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(names).encode()), dtype=torch.uint8)


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"features": torch.full((6, 1, 8), torch.nan)}, "tensor 'features' holds numbers that are not finite"),
    "label": ({"labels": torch.tensor([0, 1, 0, 1, 0, 2])}, "the label 2 is out of range: there are 2 names of labels"),
    "negative": ({"labels": torch.tensor([0, 1, 0, 1, 0, -1])}, "the label -1 is out of range"),
    "domain": ({"domain": torch.full((6,), 2, dtype=torch.int32)}, "the domain 2 is out of range"),
    "type": ({"features": torch.ones(6, 1, 8, dtype=torch.int8)}, "of torch.int8, and should be .* of a float type"),
    "flat": ({"features": torch.ones(6, 8)}, r"features are \(6, 8\)"),
    "floats": ({"labels": torch.zeros(6)}, "labels, domains and keys are torch.float32"),
    "fewer": ({"labels": torch.zeros(5, dtype=torch.int64)}, r"6 features have \(5,\) labels"),
    "keys": ({"keys": keys("a", "b")}, "2 keys for 6 images"),
    "numbers": ({"keys": keys(1, 2, 3, 4, 5, 6)}, "Expected `str`, got `int`"),
    "deep": ({"keys": torch.frombuffer(bytearray(b"[" * 9999), dtype=torch.uint8)}, "nested too deep"),
    "bytes": ({"keys": torch.tensor([255, 254], dtype=torch.uint8)}, "cannot be read as JSON"),
    "none": ({"keys": None}, "lacks the tensors keys"),
}
HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": "else"}, "no feature bank of format ogenlib.bank/1 .*'else'"),
    "classnames": ({"classnames": ["cat", 3]}, "Expected `str`, got `int`"),
    "one text": ({"classnames": "cat dog"}, "Expected `array`, got `str`"),
    "fingerprint": ({"fingerprint": []}, "Expected `object`, got `array`"),
    "backbone": ({"fingerprint": {"backbone": "fake"}}, "Expected `object`, got `str`"),
    "selected": ({"fingerprint": {"data": {"selected": 3}}}, "Expected `array`, got `int`"),
    "skipped": ({"skipped": [{"file": 3}]}, "Expected `str`, got `int`"),
    "fewer": ({"classnames": ["cat"]}, "the label 1 is out of range: there are 1 names"),
}


@pytest.mark.parametrize("changed, message", TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fit_are_refused_though_their_digest_does(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    header, tensors = contents()
    whole = {name: tensor for name, tensor in {**tensors, **changed}.items() if tensor is not None}
    write_tensors(tmp_path / "b.safetensors", whole, {"bank": json.dumps(header)})
    with pytest.raises(DamagedFile, match=rf"b\.safetensors.*{message}.*FeatureBank.extract"):
        FeatureBank.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("changed, message", HEADERS.values(), ids=HEADERS)
def test_headers_that_do_not_fit_are_refused_though_their_digest_does(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    header, tensors = contents()
    write_tensors(tmp_path / "b.safetensors", tensors, {"bank": json.dumps({**header, **changed})})
    with pytest.raises(DamagedFile, match=rf"b\.safetensors.*{message}.*FeatureBank.extract"):
        FeatureBank.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 9999, '{"format": "ogenlib.bank/1"}', "NaN"])
def test_headers_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "b.safetensors", contents()[1], {"bank": text})
    with pytest.raises(DamagedFile, match=r"b\.safetensors"):
        FeatureBank.load(tmp_path / "b.safetensors")


def test_no_byte_of_a_bank_changes_unseen(tmp_path: Path) -> None:
    header, tensors = contents()
    path = tmp_path / "b.safetensors"
    write_tensors(path, tensors, {"bank": json.dumps(header)})
    whole = path.read_bytes()
    good = FeatureBank.load(path)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            bank = FeatureBank.load(path)
        except DamagedFile as error:
            assert str(path) in str(error)
        else:  # the padding of the header, and the name of the digest itself
            assert torch.equal(bank.features, good.features) and torch.equal(bank.labels, good.labels)
            assert (bank.keys, bank.classnames, bank.domains) == (good.keys, good.classnames, good.domains)
            assert bank.fingerprint == good.fingerprint


def test_a_bank_of_an_earlier_version_opens_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import save_file

    header, tensors = contents()
    save_file(tensors, tmp_path / "b.safetensors", metadata={"bank": json.dumps(header)})
    assert FeatureBank.load(tmp_path / "b.safetensors").keys[:2] == ["k0", "k1"]
    assert "b.safetensors has no digest" in caplog.text


def three_parts_of_four(images: ImageSet, path: Path) -> ImageSet:
    """Leaves finished parts of an extraction that a damaged image stopped; the images without it."""
    broken = Item(path.with_name("broken.png"), 0, key="broken")
    broken.image.write_bytes(b"broken")
    stopped = ImageSet([*[*images][:12], broken], images.classnames)
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read as an image"):
        FeatureBank.extract(FakeClip(), stopped, chunk_views=4, path=path)
    return stopped


def test_damaged_parts_are_made_again(pet_images: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    images = three_parts_of_four(pet_images, path)
    first, second, _ = sorted((tmp_path / "b.safetensors.partial").glob("from-*"))
    data = bytearray(first.read_bytes())
    data[-9] ^= 1
    first.write_bytes(data)
    # of its digest, but of other images
    write_tensors(second, {"features": torch.ones(4, 1, 8), "rows": torch.tensor([0, 1, 2, 3])}, {"skipped": "[]"})
    clip = FakeClip()
    bank = FeatureBank.extract(clip, images, skip_bad=True, path=path)
    assert sum(map(len, clip.batches)) == 8 and len(bank) == 12  # the third part was whole
    expected = FeatureBank.extract(FakeClip(), pet_images).features[:12]
    torch.testing.assert_close(bank.features, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 9999, '{"fingerprint": {}, "images": 0}', '{"fingerprint": [], "images": 4}']
)
def test_a_damaged_plan_is_named_and_can_be_overwritten(text: str, pet_images: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    three_parts_of_four(pet_images, path)
    (tmp_path / "b.safetensors.partial" / "plan.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"plan\.json .*delete .*partial, or pass overwrite=True"):
        FeatureBank.extract(FakeClip(), pet_images, path=path)
    assert len(FeatureBank.extract(FakeClip(), pet_images, path=path, overwrite=True)) == 15


# ---------------------------------------------------------------- manifests


@pytest.mark.parametrize("name", ["../outside.safetensors", "..", "", "link.safetensors", "a/b.safetensors", "a\0b"])
def test_a_manifest_names_no_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    header, tensors = contents()
    for path in (tmp_path / "outside.safetensors", tmp_path / "bank" / "a" / "b.safetensors"):
        write_tensors(path, tensors, {"bank": json.dumps(header)})
    (tmp_path / "bank" / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    for named in (name, str(tmp_path / "outside.safetensors")):
        write_document(
            tmp_path / "bank" / "manifest.json",
            {"format": SHARDS.manifest, "bank": named, "fingerprint": header["fingerprint"], "rows": 6, "shards": []},
        )
        with pytest.raises(DamagedFile, match=r"bank/manifest\.json: names .* no file of this folder"):
            FeatureBank.load(tmp_path / "bank")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "[" * 9999, '{"format": "ogenlib.bank-manifest/1"}',
     '{"format": "ogenlib.bank-manifest/1", "fingerprint": {}, "rows": 1, "shards": []}',
     '{"format": "ogenlib.bank-manifest/1", "bank": 3, "fingerprint": {}, "rows": 1, "shards": []}'],
)  # fmt: skip
def test_manifests_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        FeatureBank.load(tmp_path)


# ---------------------------------------------------------------- images


def encoded(kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 7, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX", "TGA", "SGI", "IM"])
def test_other_formats_are_refused_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(kind))
    with pytest.raises(ValueError, match=r"a\.png: .*no picture in one of the formats PNG, JPEG, WEBP"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_the_formats_that_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encoded(kind))
    image = open_image(tmp_path / "a")
    assert image.mode == "RGB" and image.size == (8, 8) and abs(image.getpixel((3, 3))[0] - 7) < 3  # type: ignore[index]


def test_postscript_inside_a_picture_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the name says what it is, and a Ghostscript is installed."""
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("a.eps", "b.png"):
        (tmp_path / name).write_bytes(encoded("EPS"))
        with pytest.raises(ValueError, match="cannot be read as an image"):
            open_image(tmp_path / name)
    assert not ran.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as an image \(.*is no regular file\)"):
            open_image(tmp_path / name)
        images = ImageSet([Item(tmp_path / name, 0)], ["x"])
        assert images.content_hash() == ImageSet([Item(str(tmp_path / name), 0)], ["x"]).content_hash()
        with pytest.raises(ValueError, match="none of the 1 images can be read"):
            FeatureBank.extract(FakeClip(), images, skip_bad=True)
    with pytest.raises(ValueError, match="is no regular file"):
        open_image("/dev/zero")
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"list\.csv"):
        load_dataset(tmp_path / "list.csv")


def test_a_small_file_of_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG", (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    with pytest.raises(ValueError, match=r"a\.png: .*has 40 x 40 pixels, and 1599 are read at most"):
        open_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        open_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert open_image(tmp_path / "a.png").size == (40, 40)


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "content, message",
    [(b"path,label\na.png," + b"x" * 200_000, "field larger than field limit"), (b"path,label\n\xff\xfe,x", "UTF-8"),
     (b"\0\0\0", "must name the columns path,label"), (b"path,label\na\0.png,cat\n", "no image"),
     (b"", "must name the columns"), (b"path,label\n", "no image is left")],
    ids=["field", "bytes", "zeros", "zero", "empty", "none"],
)  # fmt: skip
def test_lists_that_are_none_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset(tmp_path / "list.csv")


SPLITS: dict[str, tuple[str, str]] = {
    "text": ('{"train": [["a.jpg", "zero", "x"]], "test": []}', "train item 0 is .'a.jpg', 'zero', 'x'.; expected"),
    "null": ('{"train": [["a.jpg", null, "x"]], "test": []}', "train item 0 is"),
    "fraction": ('{"train": [["a.jpg", 0.5, "x"]], "test": []}', "train item 0 is"),
    "truth": ('{"train": [["a.jpg", true, "x"]], "test": []}', "train item 0 is"),
    "number": ('{"train": 3, "test": []}', "Expected `array`, got `int`"),
    "list": ("[]", "Expected `object`, got `array`"),
    "deep": ("[" * 9999, "nested too deep"),
    "no name": ('{"train": [["", 0, "x"], [".", 0, "x"]], "test": []}', "lists are not below"),
}


@pytest.mark.parametrize("text, message", SPLITS.values(), ids=SPLITS)
def test_split_files_that_are_none_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"split_zhou_DescribableTextures.json.*{message}"):
        load_dataset("dtd", root=tmp_path)


@pytest.mark.parametrize(
    "value",
    [{"images": 3}, {"images": [3]}, {"images": [{"filename": "a", "split": ["train"]}]},
     {"images": [{"filename": "a", "split": "train", "sentences": 3}]},
     {"images": [{"filename": "a", "split": "train", "sentences": [{"tokens": 3}]}]},
     {"images": [{"filename": "a", "filepath": 3, "split": "train", "sentences": [{"raw": 3}]}]}, [], 3, None],
)  # fmt: skip
def test_caption_splits_that_are_none_are_refused(value: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"dataset\.json"):
        read_karpathy(tmp_path / "dataset.json")


# ---------------------------------------------------------------- patterns

COUNTS = {
    "a.tar": 1, "{a}": 1, "x-{000..127}.tar": 128, "{a,b}{1..3}": 6, "{a,b{1..3}}": 4, "{3..1}": 3, "{1..9..2}": 5,
    "{a..e}": 5, "{,}": 2, r"\{1..3}": None, r"\{1..3\}": 1, "{{1..2},{1..3}}": 5, "a,b": 1, "{a{1..2}}": 2,
    "{1..2}::{1..3}": None, "{": None, "}{": None,
}  # fmt: skip


@pytest.mark.parametrize("pattern", [pattern for pattern, count in COUNTS.items() if count is not None])
def test_names_are_counted_as_they_are_made(pattern: str) -> None:
    assert count_names(pattern) == COUNTS[pattern]
    braceexpand = pytest.importorskip("braceexpand", reason="the extra webdataset is not installed")
    assert len(list(braceexpand.braceexpand(pattern))) == COUNTS[pattern]


@pytest.mark.parametrize(
    "pattern, count",
    [("x-{000000..300000000}.tar", "300,000,001"), ("{1..1000}{1..1000}{1..2}", "2,000,000"),
     ("{a,{1..1000000}}", "1,000,001"), ("{a..z}" * 5, "11,881,376"), ("x{1..99999999999999999999}", "10.18 or more"),
     ("{1..500001}::{1..500000}", "1,000,001")],
)  # fmt: skip
def test_patterns_of_too_many_names_are_refused_before_any_is_made(pattern: str, count: str) -> None:
    with pytest.raises(ValueError, match=rf"stands for {count} names, and {MOST:,} are the most"):
        refuse_many(pattern)


@pytest.mark.parametrize("pattern", ["{", "}", "{1{2,3}", "a}{", "{" * 30 + "1..2" + "}" * 30])
def test_braces_that_do_not_close_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="braces"):
        refuse_many(pattern)
