"""Every kind of file that ogenlib writes, damaged in hundreds of seeded ways: refused by name, or read unchanged.

What a reader may do with a damaged file: raise ValueError or FileNotFoundError with the file's name in it (the command
line ends with 2 and that one line), or give back just what was written, as where a space was changed. Nothing else.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from damage import content, damages
from torch import Tensor, nn

import ogenlib as og
from ogenlib.anchors import Anchors, CandidatePool
from ogenlib.bench.document import read_cell
from ogenlib.cli.main import main
from ogenlib.data import FeatureBank, ImageSet, Item, extract_shards
from ogenlib.detect import OGENDetector
from ogenlib.generators import EvidenceSettings, fit_densities, fit_generator
from ogenlib.ogen.evidence import Evidence
from ogenlib.ogen.evidence_file import load_evidence, save_evidence
from ogenlib.towers import Backbone, EmbeddingTable
from ogenlib.train.checkpoint import load_checkpoint
from ogenlib.utils.documents import write_document

TIMES = 40  # damaged versions of a file
NAMES = ("dog", "red apple", "train", "hammer")


def unit(count: int, seed: int = 0, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def small_generator() -> Any:
    labels = torch.arange(6).repeat_interleave(4)
    return fit_generator(unit(24), labels, unit(6, 1), "text-only", iterations=3, batch_size=8, seed=1)


def table() -> EmbeddingTable:
    return EmbeddingTable([*NAMES, "cat", "bus"], unit(6, 3))


def adapter() -> og.hosts.Host:
    return og.hosts.TextAdapter(table(), NAMES, templates="{}")


def small_bank() -> FeatureBank:
    labels = torch.arange(4).repeat_interleave(4)
    return FeatureBank.from_features(unit(16, 2), labels, NAMES, table(), domain="toy")


# --- the kinds --------------------------------------------------------------------------------------------


def make_run(folder: Path, clip: Backbone) -> None:
    model = og.OGEN(adapter(), unknown=["cat", "bus"], iterations=3, k=2)
    og.fit(model, small_bank(), epochs=1, batch_size=8)
    model.save(folder, {"note": [1, 2.5, None]})


def open_run(folder: Path, clip: Backbone) -> Any:
    host = og.load_run(folder, clip=table())
    assert isinstance(host, og.OGEN)
    kept = host.generator.state() if host.generator is not None else None
    return host.config(), host.names, dict(host.host.state_dict()), kept


def make_checkpoint(folder: Path, clip: Backbone) -> None:
    og.fit(adapter(), small_bank(), epochs=2, batch_size=8, out=folder)


def open_checkpoint(folder: Path, clip: Backbone) -> Any:
    host: nn.Module = adapter()
    states, progress = load_checkpoint(folder / "checkpoint.safetensors", host)
    return dict(host.state_dict()), states, dict(progress)


def fields(bank: FeatureBank) -> Any:
    return (bank.features, bank.labels, bank.classnames, bank.domains, bank.keys, bank.fingerprint, bank.skipped)


def make_bank(folder: Path, clip: Backbone) -> None:
    small_bank().save(folder / "bank.safetensors")


def open_bank(folder: Path, clip: Backbone) -> Any:
    return fields(FeatureBank.load(folder / "bank.safetensors"))


def make_shards(folder: Path, clip: Backbone) -> None:
    images = og.load_dataset("emoji-categories").test
    few = ImageSet((Item(images.open(i), i % 2, key=f"{i}") for i in range(6)), ["a", "b"])
    extract_shards(clip, few, folder, keep_shards=True)


def open_shards(folder: Path, clip: Backbone) -> Any:
    return fields(FeatureBank.load(folder))


def make_pool(folder: Path, clip: Backbone) -> None:
    pool = CandidatePool.from_features(unit(6), ["é", "a", "b", "c", "d", "e"], unit(6, 1), fingerprint={"made": 1})
    pool.save(folder / "pool.safetensors")


def open_pool(folder: Path, clip: Backbone) -> Any:
    pool = CandidatePool.load(folder / "pool.safetensors")
    rows = range(len(pool))
    return pool.keys(rows), pool.captions(rows), pool.features(rows), pool.features(rows, "texts"), pool.fingerprint


def make_anchors(folder: Path, clip: Backbone) -> None:
    found = Anchors((3, 1), (0, 1), (0.5, 0.25), ("x", "y"), ("a dog", "a cat"), ("dog", "cat"), {"k": 2})
    found.save(folder / "a.json")


def open_anchors(folder: Path, clip: Backbone) -> Any:
    return asdict(Anchors.load(folder / "a.json"))


def make_detector(folder: Path, clip: Backbone) -> None:
    detector = OGENDetector(None, small_generator(), unit(6, 1), unit(3, 4))
    detector.fit_features(unit(24), torch.arange(6).repeat_interleave(4)).save(folder)


def open_detector(folder: Path, clip: Backbone) -> Any:
    detector = OGENDetector.load(folder)
    tensors, plan = detector.state()
    return tensors, asdict(plan), detector.generator.state() if detector.generator is not None else None


def make_generator(folder: Path, clip: Backbone) -> None:
    og.save_generator(small_generator(), folder / "generator.safetensors")


def open_generator(folder: Path, clip: Backbone) -> Any:
    return og.load_generator(folder / "generator.safetensors").state()


def make_evidence(folder: Path, clip: Backbone) -> None:
    chosen = EvidenceSettings(0.3, 0.5, 0.01, (40.5, 42.25))
    densities = fit_densities(unit(24), torch.arange(6).repeat_interleave(4), unit(6, 1))
    names = tuple(f"é {i}" for i in range(6))
    save_evidence(Evidence(names, densities, unit(1, 5)[0], 0.125, 0.25, 1.5, chosen), folder / "evidence.safetensors")


def open_evidence(folder: Path, clip: Backbone) -> Any:
    return asdict(load_evidence(folder / "evidence.safetensors"))


CELL = {
    "signature": "0" * 16, "host": "coop", "ogen": False, "seed": 1, "config": {"n_context": 4}, "train": {"lr": 2e-3},
    "new_names_known_in_training": False, "rows": [{"dataset": "d", "domain": "x", "base": 66.25, "new": 50.5}],
    "curve": {"epoch": [1, 2], "base": [60.0, 66.25]}, "confusions": [], "per_class": [], "projection": None,
}  # fmt: skip


def make_cell(folder: Path, clip: Backbone) -> None:
    write_document(folder / "cell.json", CELL)


def open_cell(folder: Path, clip: Backbone) -> Any:
    found = read_cell(folder / "cell.json", CELL["signature"])
    return CELL if found is None else dict(found)  # another signature: the cell is run again


def make_model(folder: Path, clip: Backbone) -> None:
    folder.rmdir()
    og.export.export_open_clip(og.hosts.ZeroShot(clip, NAMES), folder)


def open_model(folder: Path, clip: Backbone) -> Any:
    again = og.load_backbone(f"local-dir:{folder}")
    return again.weights_hash, again.preprocess_cfg, again.quick_gelu


@dataclass(frozen=True)
class Kind:
    """make: writes the files into an empty folder. open: reads them. times: damaged versions of each file."""

    make: Callable[[Path, Backbone], None]
    open: Callable[[Path, Backbone], Any]
    files: tuple[str, ...]
    times: int = TIMES


KINDS = {
    "run": Kind(make_run, open_run, ("run.json", "host.safetensors", "generator.safetensors")),
    "checkpoint": Kind(make_checkpoint, open_checkpoint, ("checkpoint.safetensors",)),
    "bank": Kind(make_bank, open_bank, ("bank.safetensors",)),
    "shards": Kind(make_shards, open_shards, ("manifest.json", "bank.safetensors")),
    "pool": Kind(make_pool, open_pool, ("pool.safetensors",)),
    "anchors": Kind(make_anchors, open_anchors, ("a.json",)),
    "detector": Kind(make_detector, open_detector, ("detector.json", "detector.safetensors", "generator.safetensors")),
    "generator": Kind(make_generator, open_generator, ("generator.safetensors",)),
    "evidence": Kind(make_evidence, open_evidence, ("evidence.safetensors",)),
    "cell": Kind(make_cell, open_cell, ("cell.json",)),
    "model": Kind(make_model, open_model, ("open_clip_config.json", "open_clip_model.safetensors"), times=12),
}


@pytest.fixture(scope="module")
def whole(clip: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every kind."""
    root = tmp_path_factory.mktemp("whole")
    for name, kind in KINDS.items():
        (root / name).mkdir()
        kind.make(root / name, clip)
    return root


@pytest.mark.parametrize("name, file", [(name, file) for name, kind in KINDS.items() for file in kind.files])
def test_damage_is_told_by_name(name: str, file: str, whole: Path, clip: Backbone, tmp_path: Path, caplog: Any) -> None:
    kind, place = KINDS[name], tmp_path / "damaged"
    shutil.copytree(whole / name, place)
    expected = content(kind.open(place, clip))
    assert "has no digest" not in caplog.text
    refused = 0
    for data in damages(place / file, kind.times, seed=13):
        (place / file).write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            try:
                found = content(kind.open(place, clip))
            except (ValueError, OSError) as error:
                refused += 1
                assert file in str(error), f"the message names no file: {error}"
                continue
        # A damaged name of the digest is a missing digest, which is told.
        assert found == expected, "a silent change" + caplog.text
    assert refused > kind.times / 2
    (place / file).unlink()
    if name != "cell":  # a cell that is not there is run
        with pytest.raises((ValueError, OSError), match="damaged"):
            kind.open(place, clip)


# --- what only an edit with a new digest can do -------------------------------------------------------------


def test_files_of_two_runs_do_not_pass_for_one(whole: Path, clip: Backbone, tmp_path: Path) -> None:
    """As after a training that ended between the files of a run that was there before."""
    model = og.OGEN(adapter(), unknown=["cat", "bus"], iterations=3, k=2)
    og.fit(model, small_bank(), epochs=1, batch_size=8, seed=2)
    model.save(tmp_path / "second")
    for file in ("host.safetensors", "generator.safetensors"):
        mixed = tmp_path / f"mixed-{file}"
        shutil.copytree(whole / "run", mixed)
        shutil.copy(tmp_path / "second" / file, mixed / file)
        with pytest.raises(ValueError, match=rf"{file} is not the file that run\.json beside it was written with"):
            og.load_run(mixed, clip=table())


def test_a_run_of_an_earlier_version_opens_with_a_note(whole: Path, tmp_path: Path, caplog: Any) -> None:
    shutil.copytree(whole / "run", tmp_path / "run")
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    del card["sha256"], card["files"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(card))
    with caplog.at_level(logging.WARNING):
        og.load_run(tmp_path / "run", clip=table())
    assert "run.json has no digest" in caplog.text


SETTINGS: dict[str, dict[str, Any]] = {
    "method": {"method": "nothing"},
    "config": {"config": {"bogus": 1}},
    "config type": {"config": {"reduction": "x"}},
    "config size": {"config": {"reduction": 0}},
    "config too large": {"config": {"templates": ["{}"], "hidden": 10**7}},
    "names": {"names": []},
    "names twice": {"names": ["dog", "Dog"]},
    "ogen": {"ogen": {"preset": "x", "settings": {}, "templates": [], "new_names_known_in_training": True,
                      "other_names": []}},
    "precision": {"precision": 3},
    "backbone": {"backbone": {}},
}  # fmt: skip


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_a_sealed_card_that_makes_no_method_ends_in_one_line(
    change: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "run", tmp_path / "run")
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    write_document(tmp_path / "run" / "run.json", {**card, **change})
    with pytest.raises(ValueError, match=r"run\.json"):
        og.load_run(tmp_path / "run", clip=table())


@pytest.mark.slow
def test_an_edited_cell_does_not_reach_the_results(tmp_path: Path, capsys: Any) -> None:
    ask = ["bench", "--smoke", "--hosts", "zero_shot", "--no-ogen", "--quiet", "--out", str(tmp_path)]
    assert main(ask) == 0
    (cell,) = (tmp_path / "cells").iterdir()
    edited = json.loads(cell.read_text())
    edited["rows"][0]["base"] = 99.9
    for digest in ({}, {"sha256": None}):
        cell.write_text(json.dumps({**edited, **digest}))
        assert main(ask) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert cell.name in line and "delete it" in line
    cell.write_text("")
    assert main(ask) == 2 and cell.name in capsys.readouterr().err
    assert "99.9" not in (tmp_path / "results.json").read_text()
    results = tmp_path / "results.json"
    for number, data in enumerate(damages(results, TIMES, seed=2)):
        place = tmp_path / f"edited-{number}"
        place.mkdir()
        (place / "results.json").write_bytes(data)
        code = main(["report", str(place), "--quiet", "--out", str(place / "report")])
        said = capsys.readouterr().err
        same = code == 0 and (not said or "has no digest" in said)
        assert same or (code == 2 and len(said.strip().splitlines()) <= 2 and "results.json" in said), said
    results.unlink()
    cell.unlink()
    assert main(ask) == 0 and json.loads(results.read_text())["rows"][0]["base"] != 99.9
