"""Options of methods: which there are, and that `config()` says them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ogenlib.hosts import METHODS, VPT, CoOp, Host, MethodInfo, build, option_names
from ogenlib.hosts.options import saved_options

NAMES = ["dog", "red apple", "train", "hammer"]
TEMPLATES: dict[str, Any] = {"templates": ["a photo of a {}.", "the {}"]}
FULL_FT: dict[str, Any] = {**TEMPLATES, "unit_head": False, "extra_names": ["fox"], "paper_training": True}
TEXTS: dict[str, Any] = {"texts": {n: [n, f"one {n}"] for n in NAMES}}
FLYP: dict[str, Any] = {**TEMPLATES, "chunk": 7, **TEXTS, "paper_training": True}
DISTILLED: dict[str, Any] = {**FLYP, "distill": 2.0, "joint": 0.1, "orthogonal": 0.3, "every": 3}
CACHE: dict[str, Any] = {**TEMPLATES, "alpha": 2.0, "beta": 3.0, "centred": False, "search": True, "size": 5}
COOP: dict[str, Any] = {"context": None, "n_context": 3, "position": "front", "chunk": 2}
DEEP: dict[str, Any] = {"context": None, "n_context": 3, "depth": 2, "chunk": 2, "paper_training": True}
# Every option that a saved run holds, other than by default wherever it can be, in the order in which files have them.
OPTIONS: dict[str, dict[str, Any]] = {
    "zero_shot": TEMPLATES,
    "coop": {"context": None, "n_context": 3, "position": "front", "class_specific": True, "chunk": 2},
    "cocoop": {**COOP, "image_chunk": 3},
    "kgcoop": {
        "context": "an icon of a", "n_context": 4, "position": "front", "class_specific": False, "chunk": 2,
        "weight": 2.0, **TEMPLATES, "anchor_names": ["fox"],
    },
    "prograd": {
        "context": None, "n_context": 3, "position": "front", "class_specific": True, "chunk": 2, "strength": 0.5,
        "temperature": 2.0, **TEMPLATES,
    },
    "ship": {**COOP, "new_names": ["fox"], "vae_epochs": 2, "rows": 3, "per_name": 4},
    "vpt": {**TEMPLATES, "n_visual": 3, "depth": 2, "paper_training": True},
    "ivlp": {**DEEP, "n_visual": 3},
    "maple": DEEP,
    "promptsrc": {
        **DEEP, "n_visual": 3, **TEMPLATES, "text_weight": 1.0, "image_weight": 2.0, "logit_weight": 3.0,
        "average": False, "mu": 2.0, "sigma": 3.0,
    },
    "promptkd": {
        "other_names": ["fox"], "n_visual": 3, "depth": 2, "weight": 4.0, "temperature": 2.0, "paper_training": True,
        "taught_by": {"embed_dim": 5, "method": "zero_shot"},
    },
    "text_adapter": {**TEMPLATES, "hidden": 3, "ratio": 0.5, "bias": False},
    "clip_adapter": {**TEMPLATES, "hidden": 3, "ratio": 0.5},
    "tip_adapter": CACHE,
    "tip_adapter_f": CACHE,
    "taskres": {**TEMPLATES, "extra_names": ["fox"], "alpha": 2.0},
    "clap": {**TEMPLATES, "extra_names": ["fox"], "adaptive": True, "length": 3.0},
    "cross_modal": {**TEMPLATES, "extra_names": ["fox"], "text_rows": 3},
    "linear_probe": {**TEMPLATES, "unit_head": False, "extra_names": ["fox"]},
    "full_ft": FULL_FT,
    "lp_ft": {**FULL_FT, "probe_epochs": 2, "probe_lr": 0.1},
    "ema": {**FULL_FT, "decay": 0.5},
    "l2_sp": {**FULL_FT, "weight": 2.0},
    "kd": {**FULL_FT, "weight": 2.0, "temperature": 3.0},
    "car_ft": {**FULL_FT, "weight": 2.0, "contexts": ["a {}", "the {}"]},
    "flyp": FLYP,
    "starft": {**FLYP, "spuriosities": ["in the snow"], "ratio": 0.1},
    "lipsum_ft": {**FULL_FT, "weight": 2.0, "strings": 3, "length": 4},
    "r_adapter": {
        **TEMPLATES, **TEXTS, "rank": 2, "drop": 0.1, "accumulation": 0.5, "early": False, "alpha": 2.0, "margin": 0.1,
        "smoothing": 0.2, "temperature": 0.3, "paper_training": True,
    },
    "arf": {
        **FLYP, "caption_weight": 0.5, "anchor_weight": 0.2, "anchor_batch": 3, "repeats": "masked",
        "made_with": {"captions": None, "anchors": None},
    },
    "carot": DISTILLED,
    "tracer": {**DISTILLED, "relation": 0.1, "features": 0.2, "interaction": 0.3, "cross": 0.4, "beta": 0.7},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_config_says_every_option_and_rebuilds_an_equal_host(name: str, clip) -> None:
    options = OPTIONS[name]
    host = build(name, clip, NAMES, **options)
    config = host.config()
    assert list(config.items()) == list(options.items())
    assert set(config) == set(option_names(METHODS[name])) - METHODS[name].unsaved
    again = build(name, clip, NAMES, **json.loads(json.dumps(config)))
    assert again.config() == config
    one, other = host.state_dict(), again.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in other.items()}


class Blurred(CoOp):
    """CoOp with one more option."""

    info = MethodInfo("blurred", "prompt", "none", "https://arxiv.org/abs/0000.00000", 2026)

    def __init__(self, clip: Any, names: Sequence[str], *args: Any, blur: float = 0.5, **options: Any) -> None:
        super().__init__(clip, names, *args, **options)


def test_an_option_that_no_attribute_holds_is_named(clip) -> None:
    host = Blurred(clip, NAMES)
    with pytest.raises(NotImplementedError, match=r"Blurred does not say .* 'blur' was; keep it as self\.blur"):
        host.config()
    host.blur = 0.25  # type: ignore[assignment]
    assert host.config()["blur"] == 0.25 and list(host.config())[-1] == "blur"


def test_a_class_without_info_is_saved_as_the_method_it_is(clip) -> None:
    class Shallow(VPT):
        def __init__(self, clip: Any, names: Sequence[str]) -> None:
            super().__init__(clip, names, depth=1)

    assert option_names(Shallow) == [] and saved_options(Shallow) == saved_options(VPT)
    host: Host = Shallow(clip, NAMES)
    assert host.config()["depth"] == 1
    again = build("vpt", clip, NAMES, **host.config())
    assert torch.equal(again.state_dict()["visual"], host.state_dict()["visual"])
