"""R-Adapter: presets, what is refused, and training by several processes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pixel_world import KNOWN
from processes import BESIDE, python, two_of
from prompted_world import NAMES, TEXT, VISION, make_clip, new_clip
from safetensors.torch import load_file

from ogenlib.hosts import Batch, RAdapter, build
from ogenlib.towers import EmbeddingTable
from ogenlib.train.config import TrainConfig

TEMPLATES = ("a photo of a {}.", "an icon of a {}.")


@pytest.fixture(scope="module")
def world() -> Any:
    return make_clip()


# --- settings ---------------------------------------------------------------------------------------------


def test_presets_are_the_papers(world) -> None:
    for task, alpha, rank in (
        ("classification", 0.5, None),
        ("retrieval", 0.8, None),
        ("segmentation", 0.4, None),
        ("few-shot", 0.5, 4),
    ):
        options = {"rank": 4} if task == "few-shot" else {}
        config = RAdapter.paper(world, NAMES, task, **options).config()
        assert config["alpha"] == alpha and config["rank"] == rank
        assert (config["drop"], config["accumulation"], config["early"]) == (0.2, 0.999, False)
        assert (config["margin"], config["temperature"]) == (0.05, 0.01)
    host = RAdapter.paper(world, NAMES, margin=0.1)
    assert host.margin == 0.1
    settings = replace(TrainConfig(), **host.train_settings())
    assert (settings.lr, settings.weight_decay, settings.epochs, settings.optimizer) == (5e-4, 0.0, 10, "adamw")
    assert (settings.schedule, settings.warmup_steps) == ("steps", 500)
    with pytest.raises(ValueError, match="task='few': must be one of classification, few-shot, retrieval"):
        RAdapter.paper(world, NAMES, "few")


def test_a_quarter_of_full_fine_tuning_is_trained(clip) -> None:
    count = sum(p.numel() for p in RAdapter(clip, KNOWN).trainable().values())
    assert count == 12 * 192**2 + 6 * 128**2 < 0.25 * sum(p.numel() for p in clip.model.visual.parameters())
    low = sum(p.numel() for p in RAdapter(clip, KNOWN, rank=8).trainable().values())
    assert low == 12 * 2 * 8 * 192 + 6 * 2 * 8 * 128


def test_a_low_rank_start_is_drawn_by_the_generator(world) -> None:
    one, two = RAdapter(world, NAMES, rank=3), RAdapter(world, NAMES, rank=3)
    other = RAdapter(world, NAMES, rank=3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(one.visual.resblocks[0]["attn"].down, two.visual.resblocks[0]["attn"].down)
    assert not torch.equal(one.visual.resblocks[0]["attn"].down, other.visual.resblocks[0]["attn"].down)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"drop": 1.0}, r"drop=1.0: must be 0 or more and below 1"),
        ({"accumulation": -0.1}, r"accumulation=-0.1"),
        ({"smoothing": 1.0}, r"smoothing=1.0"),
        ({"temperature": 0.0}, r"temperature=0.0: must be a positive number \(paper: 0.01\)"),
        ({"margin": -1.0}, r"margin=-1.0: must be 0 or more \(paper: 0.05\)"),
        ({"alpha": -0.5}, r"alpha=-0.5: must be 0 or more; 0 is the model as it was"),
        ({"rank": 24}, r"rank=24: must be 1 to 23"),
        ({"texts": {"dog": ["x"]}}, r"texts has none for 2 names"),
        ({"texts": {**{n: ["x"] for n in NAMES}, "fox": "x"}}, r"texts\['fox'\] is a string"),
    ],
)
def test_bad_settings_are_refused(world, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RAdapter(world, NAMES, **options)


def test_models_that_take_no_adapters_are_named(world) -> None:
    table = EmbeddingTable(NAMES, world.encode_text(NAMES))
    with pytest.raises(ValueError, match=r"has no towers to train; load a model"):
        RAdapter(table, NAMES)
    convolutions = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
    resnet = new_clip({**VISION, **convolutions}, TEXT)
    with pytest.raises(ValueError, match=r"image tower ModifiedResNet of 'prompted-world' takes no residual adapters"):
        build("r_adapter", resnet, NAMES)
    other = deepcopy(world)
    other.text = object()
    with pytest.raises(ValueError, match=r"text tower CLIP of 'prompted-world' takes no residual adapters"):
        build("r_adapter", other, NAMES)
    frozen = Batch(torch.zeros(1).long(), features=torch.ones(1, world.embed_dim))
    with pytest.raises(ValueError, match=r"features of the frozen.*r_adapter puts adapters into both.*PixelBank"):
        RAdapter(world, NAMES).image_features(frozen)


# --- several processes ------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from tuned_world import KNOWN, small_bank
from ogenlib.utils import distributed
from ogenlib.hosts import RAdapter
from ogenlib.towers import load_backbone
from ogenlib.train.loop import fit

torch.set_num_threads(1)
distributed.start("cpu")
clip = load_backbone("ogen-tiny")
host = RAdapter(clip, KNOWN, ("an icon of a {}.", "a photo of a {}."))
fit(host, small_bank(clip), epochs=1, batch_size=5, lr=1e-3, optimizer="sgd", warmup_steps=0)
if distributed.is_main():
    save_file({n: p.detach().clone() for n, p in host.trainable().items()}, sys.argv[1])
distributed.barrier()
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    script, ends = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for run in (python, two_of):
        end = tmp_path / f"{len(ends)}.safetensors"
        run(str(script), str(end), **BESIDE)
        ends.append(load_file(end))
    assert sum(bool(p.abs().max() > 0) for p in ends[0].values()) > 9  # but for those dropped in every step
    for name, one in ends[0].items():
        torch.testing.assert_close(ends[1][name], one, atol=1e-6, rtol=1e-4)
