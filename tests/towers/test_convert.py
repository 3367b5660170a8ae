"""OpenAI archives with their own key layout become folders that open_clip opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ogenlib.towers import convert_openai, load_backbone

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VISION: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2},
    "resnet": {"image_size": 64, "patch_size": None, "width": 32, "layers": [1, 2, 1, 1]},
}


class Holder(nn.Module):
    """A module tree with given tensor names, as scripting keeps them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        below: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                below.setdefault(head, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(head, nn.Parameter(tensor))
            else:
                self.register_buffer(head, tensor)
        for head, inner in below.items():
            self.add_module(head, Holder(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


def openai_weights(kind: str) -> tuple[Any, dict[str, Tensor]]:
    """A random model and its weights as OpenAI stores them: matrices in fp16, three numbers beside them."""
    torch.manual_seed(0)  # open_clip draws its weights from the global generator
    model = open_clip.CLIP(embed_dim=48, vision_cfg=VISION[kind], text_cfg=TEXT, quick_gelu=True).eval()
    state = {key: value.half() if value.ndim > 1 else value for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    extra = {"input_resolution": VISION[kind]["image_size"], "context_length": 77, "vocab_size": 49408}
    return model, {**state, **{key: torch.tensor(value) for key, value in extra.items()}}


def write_jit(weights: dict[str, Tensor], path: Path) -> Path:
    torch.jit.save(torch.jit.trace(Holder(weights), torch.zeros(1)), str(path))
    return path


def write_plain(weights: dict[str, Tensor], path: Path) -> Path:
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, path)
    return path


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("write", [write_jit, write_plain])
def test_the_folder_computes_what_the_archive_did(
    tmp_path: Path, kind: str, write: Callable[[dict[str, Tensor], Path], Path]
) -> None:
    model, weights = openai_weights(kind)
    archive = write(weights, tmp_path / "Tiny-32.pt")
    out = convert_openai(archive, tmp_path / "made" / "here")
    assert out == tmp_path / "made" / "here"
    assert sorted(p.name for p in out.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert [p.name for p in out.parent.iterdir()] == ["here"]
    document = json.loads((out / "open_clip_config.json").read_text())
    assert document["model_cfg"]["quick_gelu"] is True and document["converted"]["name"] == "Tiny-32"

    size = VISION[kind]["image_size"]
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    alone = open_clip.create_model(f"local-dir:{out}").eval()
    backbone = load_backbone(f"local-dir:{out}")
    assert backbone.quick_gelu and backbone.image.image_size == (size, size)
    with torch.no_grad():
        ids = backbone.text.tokenize(["a dog", "a cat"])
        for made in (alone, backbone.model):
            assert (made.encode_image(pixels) - model.encode_image(pixels)).abs().max() <= 1e-5
            assert (made.encode_text(ids) - model.encode_text(ids)).abs().max() <= 1e-5
            for key, value in made.state_dict().items():
                assert torch.equal(value, model.state_dict()[key])
    assert next(backbone.model.parameters()).dtype == torch.float32


def test_the_files_quick_gelu_travels_with_it(tmp_path: Path, registry: dict[str, str]) -> None:
    """Built from a name with plain GELU, the converted weights are refused and the fix is named."""
    _, weights = openai_weights("vit")
    out = convert_openai(write_plain(weights, tmp_path / "a.pt"), tmp_path / "out", name="ViT-tiny")
    config = json.loads((out / "open_clip_config.json").read_text())["model_cfg"]
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "ogenlib-test-plain-gelu.json").write_text(json.dumps({**config, "quick_gelu": False}))
    open_clip.add_model_config(folder)
    file = out / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match=r"quick_gelu=True\)"):
        load_backbone("ogenlib-test-plain-gelu", file)
    moved = file.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ValueError, match="trained with quick_gelu=True"):
        load_backbone("ogenlib-test-plain-gelu", moved)
    assert load_backbone("ogenlib-test-plain-gelu", moved, quick_gelu=True).quick_gelu
    assert not load_backbone("ogenlib-test-plain-gelu", moved, quick_gelu=False).quick_gelu


def test_weights_keep_their_precision(tmp_path: Path) -> None:
    _, weights = openai_weights("vit")
    out = convert_openai(write_jit(weights, tmp_path / "a.pt"), tmp_path / "out")
    stored = load_file(out / "open_clip_model.safetensors")
    assert set(stored) == set(weights) - {"input_resolution", "context_length", "vocab_size"}
    assert all(torch.equal(stored[key], weights[key]) for key in stored)


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    _, weights = openai_weights("vit")
    work = tmp_path / "work"
    work.mkdir()
    out = work / "out"
    with pytest.raises(FileNotFoundError, match=r"absent\.pt does not exist"):
        convert_openai(tmp_path / "absent.pt", out)
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"no weights here")
    with pytest.raises(ValueError, match="neither a TorchScript archive nor a torch state dict"):
        convert_openai(garbage, out)
    with pytest.raises(ValueError, match="text_projection"):
        convert_openai(write_plain({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt"), out)
    broken = {key: value for key, value in weights.items() if not key.endswith("ln_2.bias")}
    with pytest.raises(ValueError, match="does not fit"):
        convert_openai(write_jit(broken, tmp_path / "broken.pt"), out)
    assert list(work.iterdir()) == []
    (out / "mine").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="already exists"):
        convert_openai(write_jit(weights, tmp_path / "a.pt"), out)
    assert [p.name for p in out.iterdir()] == ["mine"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogenlib.towers import convert

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    _, weights = openai_weights("vit")
    archive = write_jit(weights, tmp_path / "a.pt")
    monkeypatch.setattr(convert, "write_tensors", full)
    with pytest.raises(OSError, match="no space"):
        convert_openai(archive, tmp_path / "work" / "out")
    assert list((tmp_path / "work").iterdir()) == []


def test_loading_an_archive_names_the_converter(tmp_path: Path) -> None:
    _, weights = openai_weights("vit")
    archive = write_jit(weights, tmp_path / "ViT-B-32.pt")
    with pytest.raises(ValueError, match=r"ogen convert openai .*ViT-B-32\.pt"):
        load_backbone("ViT-B-32", archive)
