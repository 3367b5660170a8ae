"""Learning rates by name: which pattern counts, what is frozen and for how long, and layer-wise decay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tuned_world import KNOWN, QUICK, TEMPLATE, BothTowers, small_bank

from ogenlib.hosts import CoOp, FullFT
from ogenlib.train.config import TrainConfig, check_rates
from ogenlib.train.loop import fit, step_rate
from ogenlib.train.param_groups import factors, frozen, layer_decay


def test_the_first_pattern_found_counts() -> None:
    names = ["head", "visual.proj", "visual.conv1.weight", "visual.ln.weight"]
    rates = check_rates([(r"\.conv\d", 0), ("^visual", 0.1), ("weight$", 5)][:2])
    assert factors(names, rates) == {
        "head": 1.0,
        "visual.proj": 0.1,
        "visual.conv1.weight": 0.0,
        "visual.ln.weight": 0.1,
    }
    assert factors(names, ()) == dict.fromkeys(names, 1.0)
    with pytest.raises(ValueError, match=r"'weight\$' decides about none of the names head, visual.proj"):
        factors(names, check_rates([(r"\.conv\d", 0), ("^visual", 0.1), ("weight$", 5)]))


@pytest.mark.parametrize(
    ("rates", "message"),
    [([("(", 1.0)], "no regular expression"), ([("a", -1.0)], "factor of 'a' is -1.0"), (["ab"], "pairs"),
     ([("a", math.nan)], "is nan"), ([("a", 1.0, 2.0)], "pairs")],
)  # fmt: skip
def test_bad_rates_are_refused(rates: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(rates=rates)


def test_frozen_parameters_are_back_afterwards() -> None:
    parameters = {"a": torch.nn.Parameter(torch.ones(1)), "b": torch.nn.Parameter(torch.ones(1))}
    with frozen(parameters, (("a", 0.0), ("b", 2.0))) as found:
        assert found == {"b": 2.0}
        assert not parameters["a"].requires_grad and parameters["b"].requires_grad
    assert parameters["a"].requires_grad
    with pytest.raises(ValueError, match="freezes every parameter"), frozen(parameters, ((".", 0.0),)):
        pass


def test_training_with_factors_is_the_hand_written_step(clip) -> None:
    bank = small_bank(clip, views=1)
    rates = ((r"^visual\.transformer", 0.0), ("^visual", 0.5))
    host, plain = FullFT(clip, KNOWN, TEMPLATE), FullFT(clip, KNOWN, TEMPLATE)
    start = {n: p.detach().clone() for n, p in host.trainable().items()}
    one = {**QUICK, "epochs": 1, "batch_size": 99, "optimizer": "sgd", "weight_decay": 0.0, "clip_grad": None}
    fit(host, bank, rates=rates, **one)
    fit(plain, bank, **one)
    for name, p in host.trainable().items():
        factor = 0.0 if "transformer" in name else 0.5 if name.startswith("visual") else 1.0
        step = dict(plain.named_parameters())[name] - start[name]
        torch.testing.assert_close(p - start[name], factor * step, atol=1e-7, rtol=1e-3)
    assert (plain.head - start["head"]).abs().max() > 0
    assert all(p.requires_grad for p in host.parameters())


def test_a_run_with_rates_goes_on_and_refuses_others(clip, toy_bank, tmp_path) -> None:
    settings = {"epochs": 2, "rates": [("context", 0.5)]}
    names = ["dog", "red apple", "train", "hammer"]
    fit(CoOp(clip, names, "an icon of a"), toy_bank, out=tmp_path, **settings)
    assert len(fit(CoOp(clip, names, "an icon of a"), toy_bank, out=tmp_path, **settings).epochs) == 2
    with pytest.raises(ValueError, match=r"belongs to another run.*train"):
        fit(CoOp(clip, names, "an icon of a"), toy_bank, out=tmp_path, epochs=2)
    with pytest.raises(ValueError, match="'contxt' decides about none"):
        fit(CoOp(clip, names, "an icon of a"), toy_bank, epochs=1, rates=[("contxt", 0.5)])


# --- layer-wise decay -------------------------------------------------------------------------------------


def test_layer_decay_of_both_towers(clip) -> None:
    names = list(BothTowers(clip, KNOWN).trainable())
    found = factors(names, check_rates(layer_decay(names, 0.5)))
    images, texts = len(clip.model.visual.transformer.resblocks), len(clip.model.transformer.resblocks)
    for i in range(images):
        assert found[f"model.visual.transformer.resblocks.{i}.mlp.c_fc.weight"] == 0.5 ** (images - i)
    for i in range(texts):
        assert found[f"model.transformer.resblocks.{i}.attn.in_proj_weight"] == 0.5 ** (texts - i)
    for name in ("visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre.bias"):
        assert found[f"model.{name}"] == 0.5 ** (images + 1)
    for name in ("token_embedding.weight", "positional_embedding"):
        assert found[f"model.{name}"] == 0.5 ** (texts + 1)
    for name in ("visual.ln_post.weight", "visual.proj", "ln_final.weight", "text_projection"):
        assert found[f"model.{name}"] == 1.0


def test_layer_decay_counts_blocks_by_position() -> None:
    names = ["visual.conv1.weight", "visual.layer1.0.conv1.weight", "visual.layer2.0.conv1.weight", "head"]
    assert factors(names, layer_decay(names, 0.1)) == pytest.approx(
        {names[0]: 1e-3, names[1]: 1e-2, names[2]: 1e-1, "head": 1.0}
    )
    with pytest.raises(ValueError, match="decay=0"):
        layer_decay(names, 0)
    with pytest.raises(ValueError, match="no numbered blocks"):
        layer_decay(["head"], 0.5)


# --- steps ------------------------------------------------------------------------------------------------


def test_step_schedule_closed_form() -> None:
    config = TrainConfig(lr=2.0, schedule="steps", warmup_steps=4)
    got = [step_rate(s, 12, config) for s in (0, 3, 4, 8, 11)]
    assert got == pytest.approx([0.5, 2.0, 2.0, 1.0, 1 + math.cos(7 * math.pi / 8)])
    share = TrainConfig(lr=2.0, schedule="steps", warmup_steps=0.25)
    assert [step_rate(s, 16, share) for s in (0, 3)] == pytest.approx([0.5, 2.0])
    with pytest.raises(ValueError, match="warmup_steps=4: the run has 4 steps in all"):
        step_rate(0, 4, config)
    with pytest.raises(ValueError, match="needs schedule='steps'"):
        TrainConfig(warmup_steps=3)
    with pytest.raises(ValueError, match="epochs, steps"):
        TrainConfig(schedule="step")


@given(st.integers(2, 200), st.integers(0, 100))
def test_step_rates_rise_then_fall_and_stay_positive(total: int, warmup: int) -> None:
    warmup = min(warmup, total - 1)
    config = TrainConfig(lr=1.0, schedule="steps", warmup_steps=warmup)
    rates = [step_rate(s, total, config) for s in range(total)]
    assert all(r > 0 for r in rates)
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_training_takes_a_new_rate_every_step(clip, toy_bank) -> None:
    """Of a gradient that never changes, the way gone is the sum of the rates."""

    class Slope(CoOp):
        def losses(self, batch: Any, **_: Any) -> dict[str, torch.Tensor]:
            return {"slope": self.context.sum()}

    host = Slope(clip, ["dog", "red apple", "train", "hammer"], "an icon of a")
    start = host.context.detach().clone()
    # Momentum 0.9: every step's gradient comes back in all later ones.
    config = TrainConfig(
        epochs=2, batch_size=8, lr=0.1, optimizer="sgd", weight_decay=0.0, schedule="steps", warmup_steps=2
    )
    history = fit(host, toy_bank, config=config)
    rates, speed, way = [step_rate(s, 4, config) for s in range(4)], 0.0, 0.0
    for rate in rates:
        speed = 0.9 * speed + 1
        way += rate * speed
    torch.testing.assert_close(start - host.context, torch.full_like(start, way), atol=1e-5, rtol=0)
    assert history.column("lr") == pytest.approx([rates[1], rates[3]])
