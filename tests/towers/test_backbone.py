"""Loading: what comes out is frozen, fp32 and named; what cannot be loaded is refused with the fix."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ogenlib.towers import Backbone, check_fingerprint, load_backbone, source, weights_hash

from .conftest import CONFIGS, Tiny, shake

Build = Callable[[str], Tiny]


@pytest.fixture(scope="module")
def folder(registry: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local-dir model stored as fp16."""
    path = tmp_path_factory.mktemp("stored") / "tiny"
    write_folder(path, registry["clip"], {"embed_dim": 48, **CONFIGS["clip"]})
    return path


def write_folder(path: Path, name: str, config: dict[str, Any]) -> None:
    torch.manual_seed(0)  # open_clip draws its weights from the global generator
    model = shake(open_clip.create_model(name))
    path.mkdir()
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({key: value.half() for key, value in model.state_dict().items()}, path / "open_clip_model.safetensors")


def test_a_folder_stored_in_fp16_loads_as_frozen_fp32(folder: Path) -> None:
    backbone = load_backbone(f"local-dir:{folder}")
    state = backbone.model.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(part.training for part in backbone.modules())
    backbone.train()
    assert not any(part.training for part in backbone.modules())
    assert backbone.device.type == "cpu" and backbone.embed_dim == 48
    assert backbone.name == f"local-dir:{folder}" and backbone.pretrained is None
    alone = open_clip.create_model(f"local-dir:{folder}")
    assert all(torch.equal(value, state[key]) for key, value in alone.state_dict().items())


def test_the_bundled_name_means_the_packaged_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "source.py"))
    with pytest.raises(FileNotFoundError, match="reinstall ogenlib"):
        load_backbone("ogen-tiny")
    (tmp_path / "ogen_tiny").symlink_to(folder)
    backbone = load_backbone()
    assert backbone.name == "ogen-tiny" and backbone.weights_hash == load_backbone(f"local-dir:{folder}").weights_hash


def test_features(folder: Path) -> None:
    backbone = load_backbone(f"local-dir:{folder}")
    texts = ["a dog", "a photo of a big red fox", "cat"]
    with torch.no_grad():
        expected = backbone.model.encode_text(backbone.text.tokenize(texts))
        raw = backbone.encode_text(texts, normalize=False)
        assert (raw - expected).abs().max() <= 1e-5
        assert (backbone.encode_text(texts, chunk=1, normalize=False) - raw).abs().max() <= 1e-5
        unit = backbone.encode_text(texts)
        assert (unit - expected / expected.norm(dim=-1, keepdim=True)).abs().max() <= 1e-5
        assert backbone.encode_text("a dog").shape == (1, 48) and backbone.encode_text([]).shape == (0, 48)
        image = Image.new("RGB", (50, 40), (200, 30, 10))
        pixels = backbone.preprocess(image)
        assert pixels.shape == (3, 32, 32)
        assert pixels[0].mean() == pytest.approx((200 / 255 - 0.5) / 0.25, abs=1e-3)
        z = backbone.encode_image(pixels[None])
        assert z.norm() == pytest.approx(1, abs=1e-5)
        raw_image = backbone.encode_image(pixels[None], normalize=False)
        assert torch.equal(raw_image, backbone.model.encode_image(pixels[None]))
    with pytest.raises(ValueError, match="reads 24"):
        backbone.encode_text(["dog " * 40])
    with pytest.raises(ValueError, match="chunk is 0"):
        backbone.encode_text(["dog"], chunk=0)


def test_logit_scale_is_exponentiated(tiny: Build) -> None:
    backbone = Backbone(tiny("siglip").model, tiny("siglip").tokenizer, name="siglip")
    assert backbone.logit_scale.shape == () and backbone.logit_scale.dtype == torch.float32
    assert backbone.logit_scale == pytest.approx(tiny("siglip").model.logit_scale.exp().item())
    assert backbone.logit_bias == pytest.approx(-10, abs=1)
    assert Backbone(tiny("clip").model, tiny("clip").tokenizer, name="clip").logit_bias is None


def test_random_weights_of_a_built_in_name(registry: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    backbone = load_backbone(registry["clip"])
    assert backbone.pretrained is None and "random weights" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_low_precision(folder: Path, precision: str) -> None:
    full, low = load_backbone(f"local-dir:{folder}"), load_backbone(f"local-dir:{folder}", precision=precision)
    assert low.text.dtype == torch.bfloat16 and low.precision == precision
    with torch.no_grad():
        z = low.encode_text(["a dog", "cat"])
        assert z.dtype == torch.float32 and (z - full.encode_text(["a dog", "cat"])).abs().max() < 0.05
        pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert (low.encode_image(pixels) - full.encode_image(pixels)).abs().max() < 0.05
    assert low.logit_scale.dtype == torch.float32


def test_the_hash_sees_names_dtypes_shapes_and_bytes(tiny: Build) -> None:
    model = copy.deepcopy(tiny("clip").model)
    before = weights_hash(model)
    assert len(before) == 16 and int(before, 16) >= 0 and before == weights_hash(tiny("clip").model)
    with torch.no_grad():
        model.ln_final.bias[3] += 1e-6
    changed = weights_hash(model)
    model.ln_final.bias.data = model.ln_final.bias.data.reshape(1, -1)
    assert len({before, changed, weights_hash(model), weights_hash(model.double())}) == 4


def test_fingerprints(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(f"local-dir:{folder}")
    saved = json.loads(json.dumps(backbone.fingerprint()))
    assert set(saved) == {"name", "pretrained", "weights_hash", "quick_gelu", "embed_dim", "preprocess"}
    assert saved["preprocess"]["mean"] == [0.5, 0.5, 0.5] and saved["preprocess"]["size"] == [32, 32]
    check_fingerprint(saved, backbone)
    moved = tmp_path / "elsewhere"
    moved.symlink_to(folder)
    check_fingerprint(saved, load_backbone(f"local-dir:{moved}"))
    with pytest.raises(ValueError, match=r"quick_gelu \(saved False, given True\).*quick_gelu=False"):
        check_fingerprint(saved, load_backbone(f"local-dir:{folder}", quick_gelu=True))
    other = {**saved, "weights_hash": "0" * 16, "embed_dim": 7, "name": "ViT-B-16", "pretrained": "openai"}
    with pytest.raises(ValueError, match=r"weights_hash.*embed_dim.*load_backbone\('ViT-B-16', pretrained='openai'"):
        check_fingerprint(other, backbone)
    with pytest.raises(ValueError, match=r"name \(saved 'ViT-B-16', given 'ogen-tiny'\)"):
        backbone.name = "ogen-tiny"
        check_fingerprint({**saved, "name": "ViT-B-16"}, backbone)


def test_quick_gelu_mismatch_of_a_tag_names_both_fixes() -> None:
    with pytest.raises(ValueError, match=r"quick_gelu=True\).*'ViT-B-32-quickgelu', pretrained='openai'"):
        load_backbone("ViT-B-32", "openai")
    with pytest.raises(ValueError, match=r"trained with quick_gelu=False.*'ViT-B-32', pretrained='laion2b_s34b_b79k'"):
        found = source.find_source("ViT-B-32", "laion2b_s34b_b79k")
        wrong = source.Source("ViT-B-32-quickgelu", found.pretrained, found.expects_quick_gelu, True)
        from ogenlib.towers import backbone

        backbone._settle_quick_gelu("ViT-B-32-quickgelu", wrong, None)


def test_quick_gelu_is_what_the_model_is_built_with(registry: dict[str, str]) -> None:
    for kind, recorded in (("clip", False), ("clip-quick", True)):
        assert load_backbone(registry[kind]).quick_gelu is recorded
        for asked in (True, False):
            backbone = load_backbone(registry[kind], quick_gelu=asked)
            activation = type(backbone.model.transformer.resblocks[0].mlp.gelu).__name__
            assert backbone.quick_gelu is asked and activation == ("QuickGELU" if asked else "GELU")


def test_a_checkpoint_with_a_sidecar(folder: Path, registry: dict[str, str], tmp_path: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    checkpoint = tmp_path / "weights.safetensors"
    checkpoint.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    assert not load_backbone(registry["clip"], checkpoint).quick_gelu
    config["model_cfg"]["quick_gelu"] = True
    (tmp_path / "weights.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trained with quick_gelu=True"):
        load_backbone(registry["clip"], checkpoint)
    assert load_backbone(registry["clip-quick"], str(checkpoint)).pretrained == str(checkpoint)
    (tmp_path / "weights.json").write_text("{")
    with pytest.raises(ValueError, match=r"weights\.json cannot be read as JSON"):
        load_backbone(registry["clip"], checkpoint)


def refused(error: type[Exception], match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=match):
        load_backbone(*args, **options)


def test_names_tags_and_files_that_do_not_exist(folder: Path, registry: dict[str, str], tmp_path: Path) -> None:
    refused(ValueError, "unknown model 'ViT-B16'.*did you mean 'ViT-B-16", "ViT-B16")
    refused(ValueError, "did you mean 'ogen-tiny'", "ogen-tinny")
    refused(ValueError, "expected a name", "")
    refused(ValueError, "no pretrained tag 'open_ai'.*did you mean 'openai'.*tags: ", "ViT-B-32", "open_ai")
    refused(FileNotFoundError, "missing.pt does not exist", registry["clip"], tmp_path / "missing.pt")
    refused(FileNotFoundError, "folder .*nowhere does not exist", f"local-dir:{tmp_path}/nowhere")
    refused(ValueError, f"load_backbone\\('local-dir:{folder}'\\)", str(folder))
    refused(ValueError, "is a folder: load_backbone", registry["clip"], folder)
    refused(ValueError, "brings its own weights", f"local-dir:{folder}", "openai")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(FileNotFoundError, "configuration file", f"local-dir:{empty}")
    (empty / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    refused(FileNotFoundError, "no weights", f"local-dir:{empty}")
    (empty / "open_clip_model.safetensors").write_bytes(b"torn")
    refused(ValueError, "cannot be read as a safetensors file", f"local-dir:{empty}")
    refused(ValueError, "not a readable safetensors", registry["clip"], empty / "open_clip_model.safetensors")
    (empty / "open_clip_config.json").write_text("[]")
    refused(ValueError, "no model_cfg", f"local-dir:{empty}")
    refused(ValueError, "could not be loaded into", registry["eva"], folder / "open_clip_model.safetensors")
    refused(ValueError, "precision is 'int8'", f"local-dir:{folder}", precision="int8")
    refused(ValueError, "device is 'gpu'", f"local-dir:{folder}", device="gpu")
    if not torch.cuda.is_available():
        refused(ValueError, "no usable GPU", f"local-dir:{folder}", device="cuda")


def test_a_copy_keeps_its_towers_on_its_own_weights(folder: Path) -> None:
    backbone = load_backbone(f"local-dir:{folder}")
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.model.ln_final.weight.mul_(2)
        before: Tensor = backbone.encode_text(["dog"], normalize=False)
        assert (twin.encode_text(["dog"], normalize=False) - before).abs().max() > 1e-3
        expected = twin.model.encode_text(twin.text.tokenize(["dog"]))
        assert (twin.encode_text(["dog"], normalize=False) - expected).abs().max() <= 1e-5
