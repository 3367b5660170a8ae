"""Pools and anchors that were changed or made up: one error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pool_world import ColourClip, made_bank, made_pool, pictures, unit

from ogenlib.anchors import Anchors, CandidatePool, extract_pool, read_candidates, retrieve
from ogenlib.anchors.strings import Strings
from ogenlib.utils.documents import DamagedFile, write_document
from ogenlib.utils.tensors import write_tensors

HEADER = json.dumps({"format": "ogenlib.pool/1", "fingerprint": {}})


def tensors() -> dict[str, torch.Tensor]:
    keys, captions = Strings.of(["a", "bé", "c"]), Strings.of(["x", "", "zz"])
    return {
        "images": unit(3),
        "keys": keys.data,
        "key_ends": keys.ends,
        "captions": captions.data,
        "caption_ends": captions.ends,
    }


def ends(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"images": torch.full((3, 4), torch.nan)}, "not finite"),
    "integers": ({"images": torch.ones(3, 4, dtype=torch.int64)}, "not of one float type"),
    "two types": ({"texts": unit(3).half()}, "not of one float type"),
    "two shapes": ({"texts": unit(4)}, "as many keys and captions"),
    "fewer": ({"images": unit(2)}, "as many keys and captions"),
    "absent": ({"captions": None}, "lacks the tensors captions"),
    "beyond": ({"key_ends": ends(1, 4, 99)}, "do not rise from 0 to 5"),
    "falling": ({"key_ends": ends(4, 1, 5)}, "do not rise"),
    "below": ({"key_ends": ends(-1, 4, 5)}, "do not rise"),
    "wrapping": ({"key_ends": ends(2**63 - 1, -(2**63), 5)}, "do not rise"),
    "short": ({"key_ends": ends(1, 4, 4)}, "3 strings end at 4 of 5 bytes"),
    "half a character": ({"key_ends": ends(1, 3, 5)}, "ends inside a character"),
    "bytes": ({"keys": torch.full((5,), 255, dtype=torch.uint8)}, "utf-8"),
    "half at the end": ({"keys": torch.tensor([97, 98, 98, 98, 195], dtype=torch.uint8)}, "utf-8"),
    "floats": ({"key_ends": torch.ones(3)}, "int64 in one dimension each"),
}


@pytest.mark.parametrize("changed, message", CHANGES.values(), ids=CHANGES)
def test_pools_that_do_not_fit_are_refused_though_their_digest_does(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    whole = {name: tensor for name, tensor in {**tensors(), **changed}.items() if tensor is not None}
    write_tensors(tmp_path / "p.safetensors", whole, {"pool": HEADER})
    with pytest.raises(DamagedFile, match=rf"p\.safetensors.*{message}.*extract_pool"):
        CandidatePool.load(tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    "header", ["", "[]", "[" * 9999, '{"format": "ogenlib.pool/1"}', HEADER.replace("{}", '{"backbone": "x"}')]
)
def test_headers_that_are_none_are_refused(header: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "p.safetensors", tensors(), {"pool": header})
    with pytest.raises(DamagedFile, match=r"p\.safetensors"):
        CandidatePool.load(tmp_path / "p.safetensors")


def test_strings_are_checked_over_the_bounds_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ogenlib.anchors.strings.CHECKED", 2)
    texts = ["a", "", "é", "ß€", "", "zzzz", "é"]
    assert list(Strings.of(texts).check()) == texts and list(Strings.of([]).check()) == []
    with pytest.raises(ValueError, match="do not rise"):
        Strings(Strings.of(texts).data, ends(1, 3, 2, 15)).check()


def test_a_changed_shard_or_manifest_of_a_pool_is_refused(tmp_path: Path) -> None:
    images, captions = pictures(5)
    extract_pool(ColourClip(), images, captions, tmp_path / "pool")
    shard, manifest = tmp_path / "pool" / "shard-00000-of-00001.safetensors", tmp_path / "pool" / "manifest.json"
    whole, written = shard.read_bytes(), json.loads(manifest.read_text())
    shard.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(ValueError, match=r"shard-00000-of-00001.safetensors was changed"):
        CandidatePool.load(tmp_path / "pool")
    made_pool(unit(5, 8)).save(shard)
    with pytest.raises(ValueError, match=r"shard-00000-of-00001.safetensors is not .*manifest.json"):
        CandidatePool.load(tmp_path / "pool")
    shard.write_bytes(whole)
    entry = written["shards"][0]
    (tmp_path / "pool" / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    made_pool(unit(5, 8)).save(tmp_path / "outside.safetensors")
    for shards, message in (
        ([{**entry, "rows": 4}], "has 5 pairs, and manifest.json 4"),
        ([{"file": "../outside.safetensors", "rows": 5}], "names '../outside.safetensors', which is no file of this"),
        ([{"file": "link.safetensors", "rows": 5}], "names 'link.safetensors', which is no file of this folder"),
        ([{"file": 3, "rows": 5}], "Expected `str`, got `int`"),
        ([], "the pool is empty"),
    ):
        write_document(manifest, {**written, "shards": shards})
        with pytest.raises(DamagedFile, match=message):
            CandidatePool.load(tmp_path / "pool")


def test_anchors_that_were_changed_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "anchors.json"
    retrieve(made_pool(unit(9)), made_bank(unit(3, seed=1), [0, 1, 1], ("a", "b")), 3).save(path)
    text = path.read_text()
    path.write_text(text.replace('"picture', '"image', 1))
    with pytest.raises(DamagedFile, match=r"anchors.json was changed.*retrieve\(pool, bank\)"):
        Anchors.load(path)
    saved = json.loads(text)
    for changed, message in (
        ({"labels": [7] * len(saved["labels"])}, "labels go from 0 to 1"),
        ({"rows": saved["rows"][1:]}, "lengths"),
        ({"rows": [-1] * len(saved["rows"])}, "rows are numbers from 0, got -1"),
        ({"keys": 3}, "got `int`"),
        ({"format": "else"}, "ogenlib.anchors/1"),
        ({"cosines": ["x"] * 3}, "Expected `float`"),
    ):
        write_document(path, {**saved, **changed})
        with pytest.raises(DamagedFile, match=rf"anchors.json.*{message}.*retrieve\(pool, bank\)"):
            Anchors.load(path)


def test_candidates_of_deep_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("[" * 9999)
    with pytest.raises(ValueError, match=r"captions.json .*nested too deep"):
        read_candidates(tmp_path)
