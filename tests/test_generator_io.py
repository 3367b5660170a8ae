"""Generators in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ogenlib.generator_io import load_generator, save_generator
from ogenlib.generators import ClassConditionalGenerator, JointGenerator, fit_generator, list_variants
from ogenlib.utils.files import atomic_write

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
def test_a_loaded_generator_synthesizes_the_same_rows(
    variant: str, spread: str, new: Tensor, tmp_path: Path
) -> None:
    generator = fitted(variant, spread=spread, k=2, heads=2, hidden=5)
    save_generator(generator, tmp_path / "deep" / "g.safetensors")
    loaded = load_generator(tmp_path / "deep" / "g.safetensors")
    assert type(loaded) is type(generator) and not loaded.training
    assert loaded.config() == generator.config() and loaded.history == generator.history
    assert loaded.training_settings == generator.training_settings
    rows = generator.synthesize(new, 7, generator=seeded())
    assert torch.equal(rows, loaded.synthesize(new, 7, generator=seeded()))
    if (variant, spread) != ("text-only", "none"):  # which draws nothing
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
    with pytest.raises(FileNotFoundError, match=r"no generator at .*g\.safetensors; save_generator"):
        load_generator(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="no safetensors file, or damaged"):
        load_generator(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="tensors, not of a generator"):
        load_generator(path)
    save_generator(fitted("joint"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_generator(path)


@pytest.mark.parametrize("change, message", [
    ({"schema": "ogenlib.generator/9"}, "schema 'ogenlib.generator/9'"),
    ({"variant": "other"}, "variant='other'"),
    ({"variant": "per-class", "config": None}, "whole generator"),
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
