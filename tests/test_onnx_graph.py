"""ONNX graphs against torch; without the extra these tests skip, and the call says how to get it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from use_world import NAMES, Cached, Conditional, Turned, logits_of, pixels_of, trained

import ogenlib as og
from ogenlib.cli.main import main
from ogenlib.data import FeatureBank
from ogenlib.export import onnx as module
from ogenlib.export.onnx import ONNX_CARD, ONNX_FILE, PixelsToLogits
from ogenlib.hosts import VPT, CoOp, TipAdapter, ZeroShot
from ogenlib.towers import Backbone, EmbeddingTable, encode_prompts

MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"extra onnx is not installed ({', '.join(MISSING)})")


class WithContext(CoOp):
    """A context moved by the image, so that the text tower would be part of the graph."""

    def class_weights(self, names: Any = None, z: torch.Tensor | None = None) -> torch.Tensor:
        if z is None:
            return super().class_weights(names)
        context = self.context + F.pad(z, (0, self.context.shape[1] - z.shape[1]))[:, None]
        tokens = self._tokens(self.names if names is None else tuple(names))
        return F.normalize(encode_prompts(self.clip.text, tokens, context, per_image=True), dim=-1)


def cached(clip: Backbone, names: list[str]) -> TipAdapter:
    """A cache of two features of each name."""
    host, labels = TipAdapter(clip, names), torch.arange(len(names)).repeat_interleave(2)
    features = torch.randn(len(labels), clip.embed_dim, generator=torch.Generator().manual_seed(0))
    host.prepare(FeatureBank.from_features(F.normalize(features, dim=-1), labels, names, clip), 1, 1)
    return host


@pytest.fixture(scope="module")
def small() -> Backbone:
    """One block a tower: writing a graph takes a second a block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            16,
            {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
            {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
        )
    return Backbone(model, open_clip.SimpleTokenizer(context_length=16), name="small")


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("kind", [CoOp, Conditional, VPT, cached])
def test_the_graph_computes_the_logits_of_the_run(kind: Any, small: Backbone, tmp_path: Path) -> None:
    host, names = kind(small, NAMES), ["cat", *NAMES]
    folder = og.export_onnx(host, tmp_path / "out", names)
    session = module.load_onnxruntime().InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    for count in (1, 5):  # the batch size is free
        pixels = pixels_of(host, count)
        (found,) = session.run(["logits"], {"pixels": pixels.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), logits_of(host, pixels, names), atol=1e-4, rtol=0)
    card = json.loads((folder / ONNX_CARD).read_text())
    assert card["names"] == names and card["preprocess"] == small.preprocess_cfg
    assert 0 <= card["relative_error_against_torch"] < 1e-4
    assert card["files"] == {ONNX_FILE: hashlib.sha256((folder / ONNX_FILE).read_bytes()).hexdigest()}
    # The text tower is left out: its table of tokens is almost all of this model.
    assert (folder / ONNX_FILE).stat().st_size < 1e6


@pytest.mark.slow
@needs_onnx
def test_a_text_tower_in_the_graph_is_refused_by_name(small: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"coop on 'small' cannot be written.*depend on the image.*Classifier\.load"):
        og.export_onnx(WithContext(small, NAMES), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [Turned, Cached, Conditional])
def test_the_module_that_is_written_is_the_host(kind: Any, clip: Any) -> None:
    host = kind(clip, NAMES)
    pixels = pixels_of(host, 3)
    torch.testing.assert_close(PixelsToLogits(host)(pixels), logits_of(host, pixels), atol=1e-4, rtol=0)
    assert (PixelsToLogits(host)(pixels) - logits_of(ZeroShot(clip, NAMES), pixels)).abs().max() > 0.1


@needs_onnx
def test_a_graph_that_computes_something_else_is_not_kept(
    clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_trace", lambda model, pixels, path: path.write_bytes(b""))
    monkeypatch.setattr(module, "_difference", lambda path, model, pixels: 0.02)
    with pytest.raises(RuntimeError, match=r"0\.02 away from torch's"):
        og.export_onnx(trained(clip), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_call_says_what_to_install(
    clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_NEEDED", ("onnx_of_nobody",))
    with pytest.raises(ImportError, match=r"needs onnx_of_nobody: pip install 'ogenlib\[onnx\]'"):
        og.export_onnx(trained(clip), tmp_path / "out")
    trained(clip).save(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'ogenlib[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tables_and_low_precision_are_refused(clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEEDED", ())
    table = EmbeddingTable(NAMES, clip.encode_text(NAMES))
    with pytest.raises(ValueError, match=r"no image tower; open the run with load_backbone"):
        og.export_onnx(ZeroShot(table, NAMES, "{}"), tmp_path / "out")
    monkeypatch.setattr(clip, "precision", "bf16")
    with pytest.raises(ValueError, match="in bf16; ONNX export takes fp32"):
        og.export_onnx(trained(clip), tmp_path / "out")
