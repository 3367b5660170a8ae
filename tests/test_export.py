"""Exports: opened by open_clip and safetensors alone, they compute the run's logits; what cannot be is refused."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from use_world import NAMES, Cached, Conditional, Merged, Turned, logits_of, pixels_of, trained

import ogenlib as og
from ogenlib.export.open_clip import HEAD_CARD, HEAD_FILE, TOWER_FILE, obstacle
from ogenlib.hosts import Batch, ZeroShot
from ogenlib.towers import EmbeddingTable
from ogenlib.utils.documents import read_document
from ogenlib.utils.tensors import open_tensors

OTHERS = ["a name nobody trained on", "cat"]


def head_logits(folder: Path, z: torch.Tensor) -> torch.Tensor:
    card, weight = json.loads((folder / HEAD_CARD).read_text()), load_file(folder / HEAD_FILE)["weight"]
    return card["logit_scale"] * F.normalize(z, dim=-1) @ weight.T + (card["logit_bias"] or 0)


@pytest.mark.parametrize("names", [None, OTHERS])
def test_open_clip_alone_gives_the_logits_of_the_run(clip: Any, tmp_path: Path, names: list[str] | None) -> None:
    host, pixels = trained(clip), pixels_of(trained(clip), 3)
    folder = og.export_open_clip(host, tmp_path / "out", names)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert repr(preprocess) == repr(clip.preprocess)
    with torch.no_grad():
        logits = head_logits(folder, model.eval().encode_image(pixels))
    torch.testing.assert_close(logits, logits_of(host, pixels, names), atol=1e-3, rtol=0)
    card = json.loads((folder / HEAD_CARD).read_text())
    assert card["names"] == (names or NAMES) and card["trained_names"] == NAMES and card["method"] == "coop"
    assert card["backbone"] == clip.fingerprint() and card["merged"] == []


def test_the_run_opens_on_the_exported_backbone(clip: Any, tmp_path: Path) -> None:
    host = trained(clip)
    host.save(tmp_path / "run")
    folder = og.export_open_clip(host, tmp_path / "out")
    again = og.load_run(tmp_path / "run", clip=og.load_backbone(f"local-dir:{folder}"))
    torch.testing.assert_close(again.class_weights(), host.class_weights(), atol=0, rtol=0)


def test_merged_tensors_are_in_the_checkpoint(clip: Any, tmp_path: Path) -> None:
    host = Merged(clip, NAMES)
    pixels = pixels_of(host, 2)
    folder = og.export_open_clip(host, tmp_path / "out")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        logits = head_logits(folder, model.encode_image(pixels))
    torch.testing.assert_close(logits, logits_of(host, pixels), atol=1e-3, rtol=0)
    assert (logits - logits_of(ZeroShot(clip, NAMES), pixels)).abs().max() > 1
    assert json.loads((folder / HEAD_CARD).read_text())["merged"] == ["visual.proj"]
    tower = load_file(og.export_head(host, tmp_path / "head") / TOWER_FILE)
    torch.testing.assert_close(tower["proj"], clip.model.visual.proj.flip(0), atol=0, rtol=0)


def test_merged_tensors_must_fit(clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Merged, "merged", lambda self: {"visual.projection": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"'visual.projection' is \(2, 2\), the model's is none"):
        og.export_open_clip(Merged(clip, NAMES), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_head_is_tower_weights_and_json(clip: Any, tmp_path: Path) -> None:
    host = trained(clip)
    folder = og.export_head(host, tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == [HEAD_CARD, HEAD_FILE, TOWER_FILE]
    card = json.loads((folder / HEAD_CARD).read_text())
    model = open_clip.CLIP(**card["model_cfg"]).eval()
    model.visual.load_state_dict(load_file(folder / TOWER_FILE))
    pixels = pixels_of(host, 2)
    with torch.no_grad():
        logits = head_logits(folder, model.visual(pixels))
    torch.testing.assert_close(logits, logits_of(host, pixels), atol=1e-3, rtol=0)
    assert card["preprocess"] == clip.preprocess_cfg
    small = og.export_head(host, tmp_path / "small", tower=False)
    assert sorted(p.name for p in small.iterdir()) == [HEAD_CARD, HEAD_FILE]


def test_the_card_holds_what_anyone_can_check_the_files_with(clip: Any, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folders = [og.export_head(trained(clip), tmp_path / "head"), og.export_open_clip(trained(clip), tmp_path / "o")]
    finally:
        os.umask(before)
    for folder in folders:
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o640}
        files = json.loads((folder / HEAD_CARD).read_text())["files"]
        found = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in written}
        assert files == {name: digest for name, digest in found.items() if name != HEAD_CARD} and HEAD_FILE in files
        assert read_document(folder / HEAD_CARD, dict, what="a head", fix="export it again")["files"] == files
        for name in (HEAD_FILE, TOWER_FILE):
            assert name not in files or open_tensors(folder / name, what="a head", fix="export it").digest


def test_a_linear_head_has_scale_and_bias_in_it(clip: Any) -> None:
    host = trained(clip)
    pixels = pixels_of(host, 4)
    head = og.to_linear_head(host, OTHERS)
    logits = head(clip.encode_image(pixels))
    torch.testing.assert_close(logits, logits_of(host, pixels, OTHERS), atol=1e-3, rtol=0)
    assert not logits.requires_grad and head.out_features == 2


def test_a_logit_bias_goes_along(clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(type(clip), "logit_bias", torch.tensor(-10.0))
    host = ZeroShot(clip, NAMES)
    z = clip.encode_image(pixels_of(host, 2))
    expected = clip.logit_scale * z @ host.class_weights().T - 10
    torch.testing.assert_close(og.to_linear_head(host)(z), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(head_logits(og.export_head(host, tmp_path / "h"), z), expected, atol=1e-3, rtol=0)


def test_ogen_exports_its_own_weights(clip: Any) -> None:
    model = og.OGEN(trained(clip), zero_shot_share=0.5)
    names = [NAMES[0], "cat"]
    expected = clip.logit_scale * model.class_weights(names)
    torch.testing.assert_close(og.to_linear_head(model, names).weight, expected.detach(), atol=1e-4, rtol=0)
    assert (expected[1] - clip.logit_scale * model.host.class_weights(names)[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    "kind, reason",
    [(Turned, "image features of its own"), (Cached, "more than image features"), (Conditional, "depend on the image")],
)
def test_other_hosts_are_refused_by_name(kind: type, reason: str, clip: Any, tmp_path: Path) -> None:
    host = kind(clip, NAMES)
    for call in (og.export_head, og.export_open_clip):
        with pytest.raises(ValueError, match=rf"{host.info.name} is no image tower.*{reason}.*onnx.*Classifier.load"):
            call(host, tmp_path / "out")
    with pytest.raises(ValueError, match=reason):
        og.to_linear_head(host)
    assert list(tmp_path.iterdir()) == []


def test_every_host_that_changes_only_class_weights_is_a_head(clip: Any) -> None:
    for name in ("zero_shot", "coop", "kgcoop", "text_adapter", "taskres"):
        assert obstacle(og.hosts.build(name, clip, NAMES)) is None


def test_a_table_has_a_head_and_nothing_else(clip: Any, tmp_path: Path) -> None:
    table = EmbeddingTable(NAMES, clip.encode_text(NAMES))
    host = ZeroShot(table, NAMES, "{}")
    z = F.normalize(torch.randn(2, table.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    folder = og.export_head(host, tmp_path / "out", tower=False)
    expected = host.logits(host.image_features(Batch(torch.zeros(2).long(), features=z)), host.class_weights())
    torch.testing.assert_close(head_logits(folder, z), expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="pass tower=False"):
        og.export_head(host, tmp_path / "other")
    with pytest.raises(ValueError, match=r"no open_clip model.*tower=False"):
        og.export_open_clip(host, tmp_path / "other")


def test_bad_requests(clip: Any, tmp_path: Path) -> None:
    host = trained(clip)
    (tmp_path / "there.txt").write_text("x")
    for call in (og.export_head, og.export_open_clip):
        with pytest.raises(FileExistsError, match="name a folder that does not"):
            call(host, tmp_path)
        with pytest.raises(ValueError, match="at least one class name"):
            call(host, tmp_path / "out", [])
        with pytest.raises(TypeError, match="not the one string"):
            call(host, tmp_path / "out", "cat")
        with pytest.raises(ValueError, match="'cat' and 'Cat' are the same"):
            call(host, tmp_path / "out", ["cat", "Cat"])
    assert [p.name for p in tmp_path.iterdir()] == ["there.txt"]
