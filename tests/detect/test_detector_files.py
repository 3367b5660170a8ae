"""Detector folders changed, mixed up or written by an earlier version: refused by name, or the same scores."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detect_world import World, make_world
from safetensors.torch import load_file, save_file
from torch import Tensor

from ogenlib.detect import OGENDetector
from ogenlib.detect.files import CARD, GENERATOR, TENSORS
from ogenlib.generators import fit_generator
from ogenlib.utils.documents import DamagedFile, write_document
from ogenlib.utils.tensors import write_tensors

FILES = (CARD, TENSORS, GENERATOR)
FLIPS = 150  # of each file


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(dim=8)


def saved(world: World, folder: Path) -> Path:
    """A detector with images and a generator."""
    generator = fit_generator(world.fit_x, world.fit_y, world.names, "shift")
    detector = OGENDetector(None, generator, world.names, world.others)
    return detector.fit_features(world.fit_x.half(), world.fit_y).save(folder)


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(world, tmp_path_factory.mktemp("detector") / "one")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def refused_by_name(folder: Path) -> bool:
    """Whether loading refuses with one line that begins with a file of the folder; any other error is a failure."""
    try:
        OGENDetector.load(folder)
    except DamagedFile as error:
        assert any(str(error).startswith(str(folder / name)) for name in FILES), str(error)
        assert "\n" not in str(error)
        return True
    return False


def scores(folder: Path, world: World) -> Tensor:
    return OGENDetector.load(folder).predict_features(world.known)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_told_or_changes_nothing(name: str, folder: Path, copy: Path, world: World) -> None:
    whole, draws, expected = (folder / name).read_bytes(), random.Random(0), scores(folder, world)
    refused = 0
    for _ in range(FLIPS):
        mutated = bytearray(whole)
        mutated[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        (copy / name).write_bytes(mutated)
        if refused_by_name(copy):
            refused += 1
        else:  # the name of the digest itself, or a space
            assert torch.equal(scores(copy, world), expected)
    assert refused > 0.9 * FLIPS


@pytest.mark.parametrize("name", FILES)
def test_files_of_two_detectors_are_not_mixed(name: str, copy: Path, tmp_path: Path) -> None:
    other = saved(make_world(dim=8, seed=1), tmp_path / "other")
    shutil.copy(other / name, copy / name)
    with pytest.raises(DamagedFile, match=r"(detector|generator)\.safetensors is not .*detector\.json"):
        OGENDetector.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_empty_or_no_file_is_named(name: str, folder: Path, copy: Path) -> None:
    whole = (folder / name).read_bytes()
    for size in (0, 1, 8, len(whole) // 2, len(whole) - 1 - (name == CARD)):
        (copy / name).write_bytes(whole[:size])
        assert refused_by_name(copy)
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        OGENDetector.load(copy)
    (copy / name).mkdir()
    assert refused_by_name(copy)


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of nested objects, as a path."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, (*path, key))


def changed(record: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(record))
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return found


def test_edited_values_with_a_digest_that_fits_are_refused(copy: Path) -> None:
    record = json.loads((copy / CARD).read_text())
    edits = [(path, value) for path in places(record) for value in (..., None, "x", -1, 1e9, 10**40, [], {})]
    edits = [(path, value) for path, value in edits if path[0] != "sha256"]
    kept = []
    for path, value in edits:
        write_document(copy / CARD, changed(record, path, value))
        if not refused_by_name(copy):
            kept.append((path, value))
    # Without these files it is one of an earlier version.
    assert kept == [(("files",), ...)] and len(edits) > 150


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def put(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: {**tensors, name: make(tensors[name])}


def without(name: str) -> Change:
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


WRONG: dict[str, tuple[Change, str]] = {
    "label": (put("labels", lambda y: y.clone().fill_(12)), "'labels' is torch.int64 from 12 to 12.*0 to 11"),
    "negative": (put("labels", lambda y: y - 1), "'labels' is torch.int64 from -1 to 10"),
    "label type": (put("labels", lambda y: y.float()), "'labels' is torch.float32"),
    "label count": (put("labels", lambda y: y[1:]), r"'labels' has shape \(47,\), where \(48\) is needed"),
    "width": (put("features", lambda x: x[:, 1:].contiguous()), r"'features' has shape \(48, 7\), where \(any, 8\)"),
    "axes": (put("class_embeddings", lambda x: x[0]), r"'class_embeddings' has shape \(8,\)"),
    "no rows": (put("unknown_embeddings", lambda x: x[:0]), r"'unknown_embeddings' has shape \(0, 8\)"),
    "empty": (put("class_embeddings", lambda x: x.new_zeros(10**12, 0)), "is needed"),
    "type": (put("weights", lambda x: x.half()), "'weights' is torch.float16"),
    "columns": (put("weights", lambda x: x[:2]), r"'weights' has shape \(2,\), where \(3\)"),
    "classes": (put("directions", lambda x: x[:3]), r"'directions' has shape \(3, 8\), where \(12, 8\)"),
    "NaN": (put("centre", lambda x: x * torch.nan), "'centre' holds numbers that are not finite"),
    "no labels": (without("labels"), "'features' is there without 'labels'"),
    "no features": (without("features"), "'labels' lacks 'features'"),
    "no centre": (without("centre"), "'features' is there without 'centre'"),
    "no weights": (without("weights"), "lacks the tensors weights"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tensors_that_are_no_detectors_are_named(wrong: str, copy: Path) -> None:
    change, message = WRONG[wrong]
    record = json.loads((copy / CARD).read_text())
    record["files"][TENSORS] = write_tensors(copy / TENSORS, change(load_file(copy / TENSORS)))
    write_document(copy / CARD, record)
    with pytest.raises(DamagedFile, match=rf"detector\.safetensors.*{message}"):
        OGENDetector.load(copy)


def test_a_folder_of_an_earlier_version_opens_with_a_note(
    folder: Path, copy: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((copy / CARD).read_text())
    (copy / CARD).write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "sha256")}))
    save_file(load_file(copy / TENSORS), copy / TENSORS)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(scores(copy, world), scores(folder, world))
    assert {Path(row.args[0]).name for row in caplog.records if "no digest" in row.message} == {CARD, TENSORS}  # type: ignore[index,arg-type]


def test_rows_of_fitted_images_are_kept_as_they_were_given(folder: Path, world: World) -> None:
    assert torch.equal(load_file(folder / TENSORS)["features"], world.fit_x.half())
    labels = world.fit_y.clone()
    labels[::2] = -1
    detector = OGENDetector(None, class_embeddings=world.names).fit_features(world.fit_x, labels)
    assert torch.equal(detector.state()[0]["features"], world.fit_x[1::2])  # those of no known class are not kept
