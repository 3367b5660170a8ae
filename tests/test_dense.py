"""Maps of patches: open_clip's own intermediates on the merged tower, in the space of the class weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from use_world import NAMES, Merged, Turned, pixels_of

import ogenlib as og
from ogenlib.analysis.dense import dense_features
from ogenlib.hosts import build
from ogenlib.towers import EmbeddingTable


def adapted(clip: Any) -> Any:
    host = build("r_adapter", clip, NAMES)
    with torch.no_grad():
        for i, p in enumerate(host.trainable().values()):
            p.add_(0.03 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return host.rescale(0.5).eval()


def test_maps_are_those_of_the_exported_model(clip: Any, tmp_path: Path) -> None:
    host = adapted(clip)
    pixels = pixels_of(host, 2)
    model = open_clip.create_model(f"local-dir:{og.export_open_clip(host, tmp_path / 'out')}").eval()
    with torch.no_grad():
        third = {"indices": [3], "output_fmt": "NLC"}
        (tokens,) = model.visual.forward_intermediates(pixels, **third)["image_intermediates"]
        (frozen,) = clip.image.visual.forward_intermediates(pixels, **third)["image_intermediates"]
    assert (tokens - frozen).abs().max() > 0.1
    plain = dense_features(host, pixels, block=3, project=False)
    assert plain.shape == (2, 192, 6, 6)
    torch.testing.assert_close(plain.flatten(2).mT, tokens, atol=1e-4, rtol=1e-4)
    maps = dense_features(host, pixels, block=-3)
    with torch.no_grad():
        expected = F.normalize(model.visual.ln_post(tokens) @ model.visual.proj, dim=-1)
    torch.testing.assert_close(maps.flatten(2).mT, expected, atol=1e-5, rtol=0)
    scores = torch.einsum("bdhw,cd->bchw", maps, host.class_weights().detach())
    assert scores.shape == (2, 3, 6, 6) and scores.abs().max() <= 1 + 1e-5


def test_the_last_block_is_the_default_and_other_hosts_have_maps_too(clip: Any) -> None:
    pixels = pixels_of(adapted(clip), 2)
    frozen = build("zero_shot", clip, NAMES)
    maps = dense_features(frozen, pixels)
    assert torch.equal(maps, dense_features(frozen, pixels, block=5))
    norms = maps.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)
    assert torch.equal(dense_features(og.OGEN(build("coop", clip, NAMES)), pixels), maps)
    turned = dense_features(Merged(clip, NAMES), pixels)  # the rows of its projection are reversed
    assert (turned - maps).abs().max() > 0.05


def test_refusals(clip: Any) -> None:
    pixels = pixels_of(adapted(clip), 1)
    for host in (build("vpt", clip, NAMES), Turned(clip, NAMES)):
        with pytest.raises(ValueError, match=rf"{host.info.name} has prompts or layers of its own"):
            dense_features(host, pixels)
    for block in (6, -7):
        with pytest.raises(ValueError, match=rf"block={block}: this tower has 6 blocks, 0 to 5, or -6 to -1"):
            dense_features(build("zero_shot", clip, NAMES), pixels, block=block)
    with pytest.raises(ValueError, match=r"expected \(B, 3, 48, 48\)"):
        dense_features(build("zero_shot", clip, NAMES), pixels[..., 1:])
    table = EmbeddingTable(NAMES, clip.encode_text(NAMES))
    with pytest.raises(ValueError, match="image"):
        dense_features(build("zero_shot", table, NAMES), pixels)
