"""Generators in files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ogenlib.generators import ClassConditionalGenerator, JointGenerator, fit_generator, list_variants
from ogenlib.ogen.generator_file import load_generator, save_generator
from ogenlib.utils.files import DamagedFile, atomic_write
from ogenlib.utils.tensors import recorded_digest, write_tensors

DIM, KNOWN, UNKNOWN, IMAGES = 8, 12, 3, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def new() -> Tensor:
    return torch.randn(UNKNOWN, DIM, generator=seeded(5))


def fitted(variant: str, **settings: Any) -> ClassConditionalGenerator:
    features = torch.randn(KNOWN * IMAGES, DIM, generator=seeded(1))
    labels = torch.arange(KNOWN).repeat_interleave(IMAGES)
    known = torch.randn(KNOWN, DIM, generator=seeded(2))
    return fit_generator(features, labels, known, variant, iterations=5, batch_size=8, seed=3, **settings)


def header_of(path: Path) -> dict[str, Any]:
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["generator"])


@pytest.mark.parametrize("variant", list_variants())
@pytest.mark.parametrize("spread", ["residual", "none"])
def test_a_loaded_generator_synthesizes_the_same_rows(variant: str, spread: str, new: Tensor, tmp_path: Path) -> None:
    generator = fitted(variant, spread=spread, k=2, heads=2, hidden=5)
    save_generator(generator, tmp_path / "deep" / "g.safetensors")
    loaded = load_generator(tmp_path / "deep" / "g.safetensors")
    assert type(loaded) is type(generator) and not loaded.training
    assert loaded.config() == generator.config() and loaded.history == generator.history
    assert loaded.training_settings == generator.training_settings
    rows = generator.synthesize(new, 7, generator=seeded())
    assert torch.equal(rows, loaded.synthesize(new, 7, generator=seeded()))
    if spread != "none" or variant not in ("text-only", "mapped"):  # which draws nothing
        assert not torch.equal(rows, loaded.synthesize(new, 7, generator=seeded(1)))


def test_the_file_is_readable_without_this_library(tmp_path: Path) -> None:
    generator = fitted("shift")
    save_generator(generator, tmp_path / "g.safetensors")
    assert header_of(tmp_path / "g.safetensors")["variant"] == "shift"
    assert torch.equal(load_file(tmp_path / "g.safetensors")["known.features"], generator.require_known().features)
    assert [p.name for p in tmp_path.iterdir()] == ["g.safetensors"]


def test_saving_refuses_what_cannot_be_used_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known classes; make it with fit_generator"):
        save_generator(JointGenerator(DIM), tmp_path / "g.safetensors")
    with pytest.raises(TypeError, match="a Linear is not a generator"):
        save_generator(nn.Linear(2, 2), tmp_path / "g.safetensors")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_loading_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(FileNotFoundError, match=r"g\.safetensors: there is no such file.*save_generator"):
        load_generator(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(DamagedFile, match="cannot be read as a"):
        load_generator(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="tensors, not of a generator"):
        load_generator(path)
    save_generator(fitted("joint"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DamagedFile, match=r"g\.safetensors cannot be read as a"):
        load_generator(path)


@pytest.mark.parametrize("change, message", [
    ({"schema": "ogenlib.generator/9"}, "schema 'ogenlib.generator/9'"),
    ({"variant": "other"}, "variant='other'"),
    ({"variant": "per-class", "config": None}, r"at `\$\.config`"),
    ({"variant": "text-only"}, "not those of a text-only generator"),
    ({"config": {"dim": 8, "tail": 1}}, "tail"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(fitted("joint"), path)
    tensors, settings = load_file(path), header_of(path)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"generator": json.dumps({**settings, **change})})
    with pytest.raises(ValueError, match=message):
        load_generator(path)
    lacking = {k: v for k, v in tensors.items() if k != "known.labels"}
    save_file(lacking, path, metadata={"generator": json.dumps(settings)})
    with pytest.raises(ValueError, match=r"known\.labels"):
        load_generator(path)


def refused_by_name(path: Path) -> bool:
    """Whether loading refuses with one line that begins with the file; any other error is a failure."""
    try:
        load_generator(path)
    except DamagedFile as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error), str(error)
        return True
    return False


@pytest.mark.parametrize("variant", ["joint-shift", "shift"])
def test_a_flipped_byte_is_told_or_changes_nothing(variant: str, new: Tensor, tmp_path: Path) -> None:
    path, draws = tmp_path / "g.safetensors", random.Random(0)
    generator = fitted(variant)
    assert save_generator(generator, path) == recorded_digest(path)
    whole, expected, refused = path.read_bytes(), generator.synthesize(new, 3, generator=seeded()), 0
    for _ in range(200):
        mutated = bytearray(whole)
        mutated[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(mutated)
        if refused_by_name(path):
            refused += 1
        else:  # the name of the digest itself
            assert torch.equal(load_generator(path).synthesize(new, 3, generator=seeded()), expected)
    assert refused > 190


def test_edited_settings_with_a_digest_that_fits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(fitted("joint"), path)
    tensors, settings = load_file(path), header_of(path)
    values = (..., None, "x", -1, 1e9, 10**9, 10**40, [], {}, True)
    for key in ("schema", "variant", "config", "training", "history"):
        for value in values:
            write_tensors(path, tensors, {"generator": json.dumps(edited(settings, key, value))})
            assert refused_by_name(path) or (key, value) in (("training", {}), ("history", []))
    for key in settings["config"]:
        for value in values:
            config = edited(settings["config"], key, value)
            write_tensors(path, tensors, {"generator": json.dumps({**settings, "config": config})})
            # `joint` has no layer of the hidden width, and what is absent is what it is by default.
            harmless = key != "dim" if value is ... else key == "hidden" and value in (None, 10**9, 10**40)
            assert refused_by_name(path) or harmless, (key, value)
    for text in ("", "[]", "{", "nan", "[" * 100_000):
        write_tensors(path, tensors, {"generator": text})
        assert refused_by_name(path)


def edited(record: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key} if value is ... else {**record, key: value}


@pytest.mark.parametrize("name", ["known.features", "known.labels", "known.embeddings", "norm.weight", "gain"])
def test_edited_tensors_with_a_digest_that_fits_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(fitted("joint-shift"), path)
    tensors, text = load_file(path), json.dumps(header_of(path))
    given = tensors[name]
    whole = not given.is_floating_point()
    wrong = [given.new_zeros(0), given.new_zeros(10**12, 0), given[None], given.new_zeros(3, 3), None]
    wrong += [-given - 1, given + KNOWN, given.flip(0), given.float()] if whole else [given * torch.nan]
    for value in wrong:
        write_tensors(path, edited(tensors, name, ... if value is None else value), {"generator": text})
        assert refused_by_name(path), value
    write_tensors(path, {**tensors, "known.more": given}, {"generator": text})
    assert refused_by_name(path)


def test_a_file_of_an_earlier_version_opens_with_a_note(
    new: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, generator = tmp_path / "g.safetensors", fitted("joint")
    save_generator(generator, path)
    save_file(load_file(path), path, metadata={"generator": json.dumps(header_of(path))})
    rows = load_generator(path).synthesize(new, 3, generator=seeded())
    assert torch.equal(rows, generator.synthesize(new, 3, generator=seeded()))
    assert "has no digest" in caplog.text
