"""Hosts on cached features: what training, bf16, OGEN, resuming and saving must give for each of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ogenlib.hosts import Batch, Host, build
from ogenlib.runs.assembly import assemble
from ogenlib.runs.saved import load_run
from ogenlib.train.loop import fit

# Each with options and settings under which a few epochs move it.
HOSTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cocoop": ({"context": "an icon of a"}, {}),
    "clip_adapter": ({}, {}),
    "tip_adapter_f": ({}, {}),
    "clap": ({}, {}),
    "cross_modal": ({}, {}),
    "ship": ({"context": "an icon of a", "vae_epochs": 2, "per_name": 4}, {}),
    "prograd": ({"context": "an icon of a", "templates": ["the {} symbol"]}, {}),
}
OTHERS = ("fox", "bus")
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "warmup_epochs": 0}


@pytest.fixture(params=list(HOSTS))
def case(request: pytest.FixtureRequest, clip, toy_bank) -> tuple[Host, dict[str, Any]]:
    options, settings = HOSTS[request.param]
    return build(request.param, clip, toy_bank.classnames, **options), {**QUICK, **settings}


def scores(host: Host, z: Tensor) -> Tensor:
    """Logits over known and new names."""
    with torch.no_grad():
        return host.logits(z, host.class_weights((*host.names, *OTHERS), z=z))


def test_training_lowers_the_loss(case, toy_bank) -> None:
    host, settings = case
    totals = [
        sum(v for k, v in e.items() if k not in ("epoch", "lr", "seconds"))
        for e in fit(host, toy_bank, **{**settings, "epochs": 6}).epochs
    ]
    assert all(map(math.isfinite, totals)) and totals[-1] < totals[0]


def test_bf16_autocast_gives_about_the_same_losses_and_fp32_parameters(case, toy_bank) -> None:
    host, settings = case
    host.prepare(toy_bank, 2, 1)
    labels, z = toy_bank.labels, toy_bank.features[:, 0]

    def total() -> Tensor:
        return sum(host.losses(Batch(labels, features=z, generator=torch.Generator().manual_seed(0))).values())

    exact = total().item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = total()
    rough.float().backward()
    assert rough.item() == pytest.approx(exact, rel=0.1, abs=0.1)
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in host.trainable().values())
    history = fit(host, toy_bank, **settings, precision="bf16")
    assert all(math.isfinite(v) for e in history.epochs for v in e.values())


@pytest.mark.parametrize("unknown", [None, OTHERS])
def test_ogen_around_it_trains(case, clip, toy_bank, unknown) -> None:
    plain, settings = case
    options = plain.config()
    small = {"iterations": 5, "rows": 6, "per_class": 4, "teacher": "almt", "m_max": 3}
    model = assemble(
        plain.info.name, clip, toy_bank.classnames, ["a photo of a {}."], options, ogen=small, unknown=unknown
    )
    start = {k: p.detach().clone() for k, p in model.trainable().items()}
    history = fit(model, toy_bank, **settings)
    assert {"zero_shot_kl_real", "synthesized_ce"} <= history.epochs[0].keys()
    assert all(math.isfinite(v) for e in history.epochs for v in e.values())
    assert any(not torch.equal(p, start[k]) for k, p in model.trainable().items() if k in start) or not start
    assert scores(model, toy_bank.features[:, 0]).isfinite().all()


def test_a_killed_training_goes_on_to_the_same_end(case, clip, toy_bank, tmp_path) -> None:
    host, settings = case
    whole = fit(host, toy_bank, **settings)

    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    options = HOSTS[host.info.name][0]
    with pytest.raises(KeyboardInterrupt):
        fit(build(host.info.name, clip, host.names, **options), toy_bank, out=tmp_path, measure=stop, **settings)
    again = build(host.info.name, clip, host.names, **options)
    history = fit(again, toy_bank, out=tmp_path, **settings)
    assert [e["epoch"] for e in history.epochs] == [e["epoch"] for e in whole.epochs]
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), host.state_dict().values(), strict=True))


def test_a_saved_run_gives_the_same_logits(case, clip, toy_bank, tmp_path) -> None:
    host, settings = case
    fit(host, toy_bank, **settings)
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert type(again) is type(host) and again.config() == host.config()
    z = toy_bank.features[:, 0]
    assert torch.equal(scores(again, z), scores(host.eval(), z))
