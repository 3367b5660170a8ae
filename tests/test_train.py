"""The training loop: schedule, resuming after SIGKILL, several processes, precision and guards."""

from __future__ import annotations

import math
import signal
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import Python, python, two_of
from safetensors.torch import load_file
from torch import nn

from ogenlib.hosts import Batch, CoOp, Host, ZeroShot
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import epoch_seed, fit, learning_rate

NAMES = ["dog", "red apple", "train", "hammer"]


def host(clip) -> CoOp:
    return CoOp(clip, NAMES, "an icon of a")


# --- schedule ---------------------------------------------------------------------------------------------


def test_schedule_closed_form() -> None:
    config = TrainConfig(epochs=4, lr=1.0, warmup_epochs=1, warmup_lr=0.1)
    got = [learning_rate(e, config) for e in (1, 2, 3, 4)]
    assert got == pytest.approx([0.1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2])


@given(st.integers(2, 300), st.integers(0, 5))
def test_schedule_falls_and_stays_positive(epochs: int, warmup: int) -> None:
    config = TrainConfig(epochs=epochs, lr=1.0, warmup_epochs=warmup, warmup_lr=0.5)
    rates = [learning_rate(e, config) for e in range(1, epochs + 1)]
    after = rates[warmup:] if epochs > warmup else rates
    assert all(a > b > 0 for a, b in pairwise(after))


def test_epoch_seeds_differ() -> None:
    assert len({epoch_seed(s, e) for s in range(10) for e in range(50)}) == 500


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"epochs": 0}, "epochs=0"), ({"lr": -1.0}, "lr=-1.0"), ({"lr": math.nan}, "lr=nan"),
     ({"optimizer": "lion"}, "adamw, sgd"), ({"precision": "int8"}, "fp32, bf16, fp16"),
     ({"batch_size": 0}, "batch_size=0")],
)  # fmt: skip
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


# --- what training does -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.02), ("sgd", 0.02)])
def test_training_lowers_the_loss_and_is_seeded(clip, toy_bank, optimizer: str, lr: float) -> None:
    settings = {"epochs": 8, "batch_size": 8, "optimizer": optimizer, "lr": lr, "warmup_epochs": 0}
    a, b, c = host(clip), host(clip), host(clip)
    batch = Batch(toy_bank.labels, features=toy_bank.features[:, 0])
    before = a.losses(batch)["ce"].item()
    first = fit(a, toy_bank, seed=1, **settings)
    second = fit(b, toy_bank, seed=1, **settings)
    fit(c, toy_bank, seed=2, **settings)
    assert first.column("ce") == second.column("ce") and torch.equal(a.context, b.context)
    assert not torch.equal(a.context, c.context)
    assert a.losses(batch)["ce"].item() < 0.95 * before
    assert [e["epoch"] for e in first.epochs] == list(range(1, 9))


def test_one_epoch_of_one_batch_is_one_hand_written_step(clip, toy_bank) -> None:
    settings = TrainConfig(epochs=1, batch_size=16, lr=0.1, optimizer="sgd", weight_decay=0.0, warmup_epochs=0)
    trained, by_hand = host(clip), host(clip)
    fit(trained, replace_views(toy_bank), config=settings)
    features, labels = toy_bank.features[:, 0], toy_bank.labels
    loss = nn.functional.cross_entropy(clip.logit_scale * features @ by_hand.class_weights().T, labels)
    loss.backward()
    torch.testing.assert_close(trained.context, by_hand.context - 0.1 * by_hand.context.grad, atol=1e-6, rtol=1e-4)


def replace_views(bank):
    return replace(bank, features=bank.features[:, :1])


def test_what_measure_returns_joins_the_history(clip, toy_bank) -> None:
    history = fit(host(clip), toy_bank, epochs=3, measure=lambda h, e: {"twice": 2.0 * e})
    assert history.column("twice") == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_fp32_parameters_to_nearly_the_same(clip, toy_bank, precision: str) -> None:
    full, low = host(clip), host(clip)
    start = full.context.detach().clone()
    settings = {"epochs": 3, "warmup_epochs": 0, "batch_size": 8, "optimizer": "sgd", "lr": 0.01}
    fit(full, toy_bank, **settings)
    fit(low, toy_bank, precision=precision, **settings)
    assert low.context.dtype == torch.float32
    moved = (full.context - start).norm()
    assert 0 < (full.context - low.context).norm() < 0.1 * moved


class Exploding(CoOp):
    """Its second term becomes NaN in epoch 2."""

    epoch = 1

    def losses(self, batch):
        bad = torch.tensor(math.nan if self.epoch > 1 else 0.0)
        return {**super().losses(batch), "margin": bad + 0 * self.context.sum()}

    def on_epoch_end(self, epoch: int, total: int) -> None:
        self.epoch = epoch + 1


def test_a_term_that_is_not_finite_is_named(clip, toy_bank) -> None:
    with pytest.raises(FloatingPointError, match=r"'margin' is nan in epoch 2, step 0; lower lr"):
        fit(Exploding(clip, NAMES, "an icon of a"), toy_bank, epochs=3)


def test_clipping_bounds_the_step(clip, toy_bank) -> None:
    settings = TrainConfig(epochs=1, batch_size=16, lr=1.0, optimizer="sgd", weight_decay=0.0, warmup_epochs=0)
    trained = host(clip)
    start = trained.context.detach().clone()
    fit(trained, toy_bank, config=settings, clip_grad=0.01)
    assert (trained.context - start).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_refusals_before_training(clip, toy_bank) -> None:
    with pytest.raises(ValueError, match="zero_shot has nothing to train"):
        fit(ZeroShot(clip, NAMES), toy_bank)
    with pytest.raises(ValueError, match="no class 'cat'"):
        fit(CoOp(clip, ["cat", "dog"]), toy_bank)
    with pytest.raises(ValueError, match=r"no training images for 1 classes: \['hammer'\]"):
        fit(host(clip), toy_bank.subset(toy_bank.labels < 3))
    made = {**toy_bank.fingerprint, "backbone": {"weights_hash": "0" * 16}}
    with pytest.raises(ValueError, match="the bank was made with weights 0000"):
        fit(host(clip), replace(toy_bank, fingerprint=made))


# --- resuming ---------------------------------------------------------------------------------------------


def test_stopped_and_continued_is_bit_identical(clip, toy_bank, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop_after_three(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 4:
            raise Stop
        return {}

    settings = {"epochs": 6, "batch_size": 8, "clip_grad": 1.0}
    whole, parts = host(clip), host(clip)
    fit(whole, toy_bank, out=tmp_path / "whole", **settings)
    with pytest.raises(Stop):
        fit(parts, toy_bank, out=tmp_path / "parts", measure=stop_after_three, **settings)
    again = host(clip)
    history = fit(again, toy_bank, out=tmp_path / "parts", **settings)
    assert torch.equal(whole.context, again.context)
    assert [e["epoch"] for e in history.epochs] == [1, 2, 3, 4, 5, 6]
    finished = host(clip)
    assert len(fit(finished, toy_bank, out=tmp_path / "parts", **settings).epochs) == 6
    assert torch.equal(whole.context, finished.context)


def test_a_checkpoint_of_other_settings_is_refused(clip, toy_bank, tmp_path) -> None:
    fit(host(clip), toy_bank, out=tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"belongs to another run \(train.epochs: saved 1, asked 2\)"):
        fit(host(clip), toy_bank, out=tmp_path, epochs=2)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        fit(host(clip), toy_bank, out=tmp_path, epochs=1)


def test_another_number_of_threads_is_said(clip, toy_bank, tmp_path, caplog) -> None:
    """Sums over other parts differ in their last bits, so the end is not the same bit for bit."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fit(host(clip), toy_bank, out=tmp_path, epochs=1)
        fit(host(clip), toy_bank, out=tmp_path, epochs=1)
        assert "threads" not in caplog.text
        torch.set_num_threads(2)
        fit(host(clip), toy_bank, out=tmp_path, epochs=1)
    finally:
        torch.set_num_threads(before)
    assert "was made with 1 threads and is continued with 2" in caplog.text and "OMP_NUM_THREADS=1" in caplog.text


SCRIPT = """
    import sys, time, torch
    import torch.nn.functional as F
    from safetensors.torch import save_file
    from ogenlib.utils import distributed
    from ogenlib.data import FeatureBank
    from ogenlib.hosts import CoOp
    from ogenlib.towers import load_backbone
    from ogenlib.train.loop import fit

    torch.set_num_threads(1)
    out, result, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
    distributed.start("cpu")
    clip = load_backbone("ogen-tiny")
    names = ("dog", "red apple", "train")
    labels = torch.arange(3).repeat(5)
    features = torch.randn(15, 2, clip.embed_dim, generator=torch.Generator().manual_seed(0))
    bank = FeatureBank(F.normalize(features, dim=-1), labels, names, ["x"] * 15, [str(i) for i in range(15)], {})

    def wait(host, epoch):
        time.sleep(pause)
        return {}

    host = CoOp(clip, names, "an icon of a")
    fit(host, bank, out=out, epochs=12, batch_size=7, measure=wait)
    if distributed.is_main():
        save_file({"context": host.context.detach().clone()}, result)
    distributed.barrier()
    distributed.stop()
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def run(script: Path, out: Path, result: Path, run: Callable[..., Any] = python) -> torch.Tensor:
    run(str(script), str(out), str(result), "0")
    return load_file(result)["context"]


@pytest.mark.slow
def test_killed_with_sigkill_and_resumed_is_bit_identical(script: Path, tmp_path) -> None:
    whole = run(script, tmp_path / "whole", tmp_path / "whole.safetensors")
    out, result = tmp_path / "killed", tmp_path / "killed.safetensors"
    checkpoint = out / "checkpoint.safetensors"
    kills = 0
    for pause in ("0.05", "0.03"):
        child = Python(str(script), str(out), str(result), pause)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and child.poll() is None:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns > before:
                time.sleep(0.07)  # somewhere inside a later epoch, or inside the next write
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += child.wait() == -signal.SIGKILL
    assert kills == 2 and not result.exists()
    assert torch.equal(run(script, out, result), whole)


@pytest.mark.slow
def test_two_processes_end_where_one_does(script: Path, tmp_path) -> None:
    one = run(script, tmp_path / "one", tmp_path / "one.safetensors")
    two = run(script, tmp_path / "two", tmp_path / "two.safetensors", two_of)
    torch.testing.assert_close(two, one, atol=1e-4, rtol=0)


def test_more_processes_than_images_are_refused(clip, toy_bank, monkeypatch) -> None:
    monkeypatch.setattr("ogenlib.utils.distributed.world", lambda: (0, 4))
    with pytest.raises(ValueError, match="4 processes share batches of 3 images"):
        fit(host(clip), toy_bank, batch_size=3)
