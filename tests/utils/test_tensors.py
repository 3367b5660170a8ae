"""Tensor files tell whether they were changed, whatever was."""

from __future__ import annotations

import logging
import random

import pytest
import torch
from safetensors.torch import save_file

from ogenlib.utils.documents import DIGEST, DamagedFile
from ogenlib.utils.tensors import EMPTY, open_tensors, recorded_digest, seal, write_tensors

ASK = {"what": "a bank", "fix": "make it again"}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(40, 8, generator=generator)
    return {
        "rows": rows,
        "part": rows[3:7],
        "same": rows,
        "columns": rows.T,
        "half": rows.half(),
        "brain": rows.bfloat16(),
        "labels": torch.arange(40),
        "empty": torch.empty(0, 8),
        "number": torch.tensor(3.0),
        "bytes": torch.ones(3).byte(),
    }


def test_what_was_written_is_read_with_its_digest(tmp_path, caplog):
    digest = write_tensors(tmp_path / "a.safetensors", tensors(), {"card": '{"k": 1}'})
    with caplog.at_level(logging.WARNING):
        opened = open_tensors(tmp_path / "a.safetensors", needs=["rows"], **ASK)
    assert opened.digest == digest == recorded_digest(tmp_path / "a.safetensors")
    assert opened.header("card", **ASK) == {"k": 1} and opened.header("other", **ASK) is None
    assert all(opened.tensors[name].equal(tensor) for name, tensor in tensors().items())
    assert opened.tensors.keys() == tensors().keys() and caplog.messages == []


def test_the_digest_depends_on_the_content_alone(tmp_path):
    first = write_tensors(tmp_path / "a.safetensors", tensors(), {"a": "1", "b": "2"})
    reordered = dict(reversed(tensors().items()))
    assert write_tensors(tmp_path / "b.safetensors", reordered, {"b": "2", "a": "1"}) == first
    assert write_tensors(tmp_path / "b.safetensors", tensors(), {"a": "1", "b": "3"}) != first
    renamed = {("other" if name == "number" else name): tensor for name, tensor in tensors().items()}
    assert write_tensors(tmp_path / "b.safetensors", renamed, {"a": "1", "b": "2"}) != first


def test_every_flipped_bit_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors(), {"card": '{"k": 1}'})
    whole = path.read_bytes()
    draw = random.Random(1)
    for place in draw.sample(range(len(whole)), 300):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            opened = open_tensors(path, note=False, **ASK)
        except DamagedFile as error:
            assert str(path) in str(error) and "make it again" in str(error)
        else:  # the name of the digest itself was hit: there is none any more
            assert opened.digest is None


@pytest.mark.parametrize("cut", [0, 5, 8, 40, -1])
def test_a_cut_file_is_refused(tmp_path, cut):
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedFile, match="cannot be read as a bank"):
        open_tensors(path, **ASK)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_even_with_a_digest(tmp_path, dtype, value):
    rows = torch.zeros(5, 3, dtype=dtype)
    rows[4, 2] = value
    write_tensors(tmp_path / "a.safetensors", {"fine": torch.ones(2), "rows": rows})
    with pytest.raises(DamagedFile, match="'rows' holds numbers that are not finite"):
        open_tensors(tmp_path / "a.safetensors", **ASK)


def test_large_finite_numbers_are_accepted(tmp_path):
    rows = torch.full((9, 3), torch.finfo(torch.float64).max, dtype=torch.float64)
    write_tensors(tmp_path / "a.safetensors", {"rows": rows})
    assert open_tensors(tmp_path / "a.safetensors", **ASK).tensors["rows"].equal(rows)


def test_files_without_a_digest_open_with_a_note(tmp_path, caplog):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with caplog.at_level(logging.WARNING):
        assert open_tensors(tmp_path / "a.safetensors", **ASK).digest is None
    assert "has no digest" in caplog.text
    with pytest.raises(DamagedFile, match="lacks the tensors b"):
        open_tensors(tmp_path / "a.safetensors", needs=["a", "b"], **ASK)


def test_a_seal_needs_its_place_and_cannot_be_put_elsewhere(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="keep no place"):
        seal(path)
    # A text in the metadata that looks like the place is not the place.
    save_file({"a": torch.ones(2)}, path, metadata={"aaa": f'"{DIGEST}":"{EMPTY}"', DIGEST: EMPTY})
    digest = seal(path)
    assert open_tensors(path, **ASK).digest == digest
    assert open_tensors(path, **ASK).metadata == {"aaa": f'"{DIGEST}":"{EMPTY}"'}


def test_places_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_tensors(tmp_path / "a.safetensors", **ASK)
    with pytest.raises(DamagedFile, match="is no file"):
        open_tensors(tmp_path, **ASK)
    assert recorded_digest(tmp_path / "a.safetensors") is None


def test_equal_contents_make_equal_files(tmp_path):
    for i in range(12):
        write_tensors(tmp_path / f"{i}.safetensors", tensors(), {"b": "é \x07", "a": "1", "c": "3"})
    assert len({(tmp_path / f"{i}.safetensors").read_bytes() for i in range(12)}) == 1
