"""Towers that train: copies equal to the model at the start, which itself never changes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from pixel_world import pictures
from processes import BESIDE, python, two_of
from safetensors.torch import load_file
from tuned_world import KNOWN, NAMES, NEW, QUICK, TEMPLATE, BothTowers, batch_of, small_bank

from ogenlib import OGEN, Classifier
from ogenlib.data import PixelBank
from ogenlib.evaluate import scores as evaluate
from ogenlib.export.open_clip import export_open_clip
from ogenlib.hosts import METHODS, Batch, CoOp, FullFT, Host, zero_shot_weights
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable, weights_hash
from ogenlib.train.loop import fit
from ogenlib.train.sharding import clip_gradients, divide_blocks
from ogenlib.utils import distributed

pytestmark = pytest.mark.slow

KINDS = {"full_ft": FullFT, "both_towers": BothTowers}


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return small_bank(clip)


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest, clip, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(METHODS, "both_towers", BothTowers)
    return lambda: KINDS[request.param](clip, KNOWN, TEMPLATE)


def moved(host: Host) -> Host:
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return host.eval()


@torch.no_grad()
def test_it_starts_at_zero_shot_exactly(clip, bank, make) -> None:
    host, batch = make(), batch_of(bank)
    assert torch.equal(host.image_features(batch), clip.encode_image(batch.pixels))
    assert torch.equal(host.frozen_features(batch), clip.encode_image(batch.pixels))
    for names in (KNOWN, NAMES, NEW, (NEW[0], KNOWN[1])):
        expected = zero_shot_weights(clip, names, TEMPLATE)
        torch.testing.assert_close(host.class_weights(names), expected, atol=1e-6, rtol=0)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in host.trainable().values())
    assert not any("logit" in name for name in host.trainable())


def test_training_moves_the_copy_and_never_the_model(clip, bank, make) -> None:
    host, before = make(), weights_hash(clip.model)
    start = {n: p.detach().clone() for n, p in host.trainable().items()}
    history = fit(host, bank, **{**QUICK, "epochs": 4})
    assert history.epochs[-1]["ce"] < history.epochs[0]["ce"]
    assert all(not torch.equal(p, start[n]) for n, p in host.trainable().items())
    assert weights_hash(clip.model) == before == clip.weights_hash
    assert not any(p.requires_grad or p.grad is not None for p in clip.parameters())
    batch = batch_of(bank)
    assert torch.equal(host.frozen_features(batch), clip.encode_image(batch.pixels))
    given = F.normalize(torch.ones(len(batch.labels), clip.embed_dim), dim=-1)
    torch.testing.assert_close(host.frozen_features(Batch(batch.labels, given, batch.pixels)), given)
    twins = host.frozen_twins()
    assert set(twins) == set(host.trainable()) - {"head"}
    assert all(torch.equal(frozen, start[n]) and p is host.trainable()[n] for n, (p, frozen) in twins.items())


def test_the_gradient_is_that_of_the_model_itself(clip, bank) -> None:
    """The copy against open_clip's own forward pass on a second copy of the model."""
    batch, host = batch_of(bank), BothTowers(clip, KNOWN)
    host.losses(batch)["ce"].backward()
    model = deepcopy(clip.model).requires_grad_(True)
    ids = clip.tokenizer([TEMPLATE.format(n) for n in KNOWN])
    z, w = model.encode_image(batch.pixels, normalize=True), model.encode_text(ids, normalize=True)
    F.cross_entropy(clip.logit_scale * z @ w.T, batch.labels).backward()
    for name, p in model.named_parameters():
        if name != "logit_scale":
            torch.testing.assert_close(dict(host.model.named_parameters())[name].grad, p.grad, atol=1e-4, rtol=1e-3)


def test_it_stays_in_eval_mode_while_it_trains(make) -> None:
    host = make().train()
    assert host.training and not host.visual.training
    assert not any(part.training for part in host.checkpointed()[0].modules())


def test_a_saved_run_and_its_export_give_the_same_logits(clip, bank, make, tmp_path) -> None:
    host, batch = moved(make()), batch_of(bank)
    host.save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=clip)
    assert again.config() == host.config() and set(again.state_dict()) == set(host.state_dict())
    expected = evaluate.predict_logits(host, bank, NAMES)
    assert torch.equal(evaluate.predict_logits(again, bank, NAMES), expected)
    images = pictures()
    found = Classifier.load(tmp_path / "run", clip=clip).predict([images.open(3)], names=NAMES)[0]
    clean = evaluate.predict_logits(host, images, NAMES)[3].softmax(0)
    assert found.probabilities[0] == pytest.approx(float(clean.max()), abs=1e-5)
    export_open_clip(host, tmp_path / "plain", NAMES)
    model = open_clip.create_model(f"local-dir:{tmp_path / 'plain'}").eval()
    head = load_file(tmp_path / "plain" / "head.safetensors")["weight"]
    with torch.no_grad():
        z = model.encode_image(batch.pixels, normalize=True)
        torch.testing.assert_close(clip.logit_scale * z @ head.T, expected, atol=1e-3, rtol=0)
        torch.testing.assert_close(z, host.image_features(batch), atol=1e-5, rtol=0)
        if isinstance(host, BothTowers):
            w = model.encode_text(clip.tokenizer([TEMPLATE.format(n) for n in NAMES]), normalize=True)
            torch.testing.assert_close(w, head, atol=1e-5, rtol=0)


def test_stopped_and_continued_is_bit_identical(bank, make, tmp_path) -> None:
    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    settings = {**QUICK, "epochs": 3, "warmup_steps": 2}
    whole, again = make(), make()
    fit(whole, bank, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), bank, out=tmp_path, measure=stop, **settings)
    fit(again, bank, out=tmp_path, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_bf16_autocast_trains_fp32_weights_to_nearly_the_same(bank, make) -> None:
    full, low, start = make(), make(), make()
    settings = {**QUICK, "optimizer": "sgd", "lr": 1e-3}
    fit(full, bank, **settings)
    fit(low, bank, precision="bf16", **settings)

    @torch.no_grad()
    def distance(a: Host, b: Host) -> float:
        pairs = zip(a.trainable().values(), b.trainable().values(), strict=True)
        return sum(float((p - q).norm() ** 2) for p, q in pairs)

    assert all(p.dtype == torch.float32 for p in low.trainable().values())
    assert 0 < distance(full, low) < 0.1 * distance(full, start)


def test_gradient_checkpointing_changes_nothing_but_memory(clip, bank, make) -> None:
    plain, recomputed = make(), make()
    fit(plain, bank, **QUICK)
    calls: list[int] = []
    block = recomputed.visual.transformer.resblocks[0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    fit(recomputed, bank, grad_checkpointing=True, **QUICK)
    assert len(calls) == 2 * 2 * 3  # two epochs of three steps, each forward twice
    for a, b in zip(plain.trainable().values(), recomputed.trainable().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert not recomputed.visual.transformer.grad_checkpointing and not clip.model.visual.transformer.grad_checkpointing


def test_a_table_of_features_is_refused() -> None:
    table = EmbeddingTable(["dog", "cat"], torch.eye(2, 4))
    for kind in KINDS.values():
        with pytest.raises(ValueError, match="tower"):
            kind(table, ["dog", "cat"], "{}")


# --- the head ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_head_rows_are_trained_ones_for_known_names_and_zero_shot_for_others(clip) -> None:
    host = FullFT(clip, KNOWN, TEMPLATE, extra_names=NEW[:1])
    host.head.copy_(3 * torch.eye(5, clip.embed_dim))
    fixed = zero_shot_weights(clip, ["fern", NEW[1]], TEMPLATE)
    found = host.class_weights(["fern", KNOWN[2], NEW[1], NEW[0]])
    rows = torch.eye(5, clip.embed_dim)
    torch.testing.assert_close(found, torch.stack([fixed[0], rows[2], fixed[1], rows[4]]))
    assert torch.equal(host.class_weights(), rows[:4])
    free = FullFT(clip, KNOWN, TEMPLATE, unit_head=False)
    free.head.copy_(3 * torch.eye(4, clip.embed_dim))
    assert torch.equal(free.class_weights(), 3 * rows[:4])
    with pytest.raises(ValueError, match=r"\['bird'\] more than once"):
        FullFT(clip, KNOWN, extra_names=["bird"])
    with pytest.raises(ValueError, match="pass a list of names"):
        FullFT(clip, KNOWN, extra_names="bird")
    with pytest.raises(ValueError, match="chunk=0"):
        BothTowers(clip, KNOWN, chunk=0)


# --- OGEN -------------------------------------------------------------------------------------------------


def test_ogen_trains_it_and_scores_new_names_on_frozen_images(clip, bank, make, tmp_path) -> None:
    small = {"k": 2, "iterations": 3, "rows": 4, "per_class": 4, "teacher": "ema"}
    model = OGEN(make(), unknown=NEW, **small)
    history = fit(model, bank, **QUICK)
    assert {"ce", "zero_shot_kl_real", "synthesized_ce", "teacher"} <= set(history.epochs[-1])
    assert any((p - q).abs().max() > 1e-6 for p, q in model.host.frozen_twins().values())
    test = small_bank(clip, views=1, names=NAMES)
    found = evaluate.predict_logits(model, test, NAMES)
    frozen = clip.logit_scale * test.frozen(clip).features[:, 0] @ zero_shot_weights(clip, NEW, TEMPLATE).T
    torch.testing.assert_close(found[:, len(KNOWN) :], frozen, atol=1e-3, rtol=0)
    own = evaluate.predict_logits(model.host, test, KNOWN)
    torch.testing.assert_close(found[:, : len(KNOWN)], own, atol=1e-3, rtol=0)
    model.save(tmp_path)
    again = evaluate.predict_logits(load_run(tmp_path, clip=clip), test, NAMES)
    assert torch.equal(again, found)


# --- several processes ------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from tuned_world import KNOWN, QUICK, TEMPLATE, small_bank
from ogenlib.utils import distributed
from ogenlib.hosts import build
from ogenlib.train.sharding import divide_blocks, is_divided, whole_copy
from ogenlib.towers import load_backbone
from ogenlib.train.loop import fit

torch.set_num_threads(1)
distributed.start("cpu")
clip = load_backbone("ogen-tiny")
bank, ends = small_bank(clip), {}
for name in sys.argv[2].split(","):
    for way in ["plain", "divided"] if distributed.world()[1] == 2 and name == "full_ft" else ["plain"]:
        host = build(name, clip, KNOWN, templates=TEMPLATE)
        if way == "divided":
            divide_blocks(host)
        fit(host, bank, **{**QUICK, "optimizer": "sgd", "lr": 1e-3})
        if way == "divided":
            # Half of every block, and whatever stands outside the blocks.
            kept = sum(p.to_local().numel() if is_divided(p) else 0 for p in host.parameters())
            every = sum(p.numel() if is_divided(p) else 0 for p in host.parameters())
            assert 0.4 * every < kept < 0.6 * every, (kept, every)
            host = whole_copy(host)
        ends |= {f"{way}/{name}/{k}": v.detach().clone() for k, v in host.trainable().items()}
if distributed.is_main():
    save_file(ends, sys.argv[1])
distributed.barrier()
distributed.stop()
"""
PARALLEL = ("full_ft", "flyp")


def test_two_processes_end_where_one_does(tmp_path) -> None:
    script, ends = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for run in (python, two_of):
        end = tmp_path / f"{len(ends)}.safetensors"
        run(str(script), str(end), ",".join(PARALLEL), **BESIDE)
        ends.append(load_file(end))
    start = {f"plain/full_ft/visual.{n}": p for n, p in load_start().items()}
    assert any((ends[0][n] - p).abs().max() > 1e-4 for n, p in start.items())
    for name, one in ends[0].items():
        torch.testing.assert_close(ends[1][name], one, atol=1e-5, rtol=0)
        if name.startswith("plain/full_ft"):
            torch.testing.assert_close(ends[1][name.replace("plain", "divided")], one, atol=1e-5, rtol=0)


def test_refusals_of_divided_towers(clip, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="one process to divide among"):
        divide_blocks(FullFT(clip, KNOWN))
    monkeypatch.setattr(distributed, "world", lambda: (0, 2))
    with pytest.raises(ValueError, match="coop trains no blocks"):
        divide_blocks(CoOp(clip, KNOWN))


def test_gradients_are_clipped_to_a_common_norm() -> None:
    parameters = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 10.0).item() == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == [3.0, 0.0]
    clip_gradients(parameters, 1.0)
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-5)
    assert parameters[1].grad.tolist() == pytest.approx([0.8], rel=1e-5) and parameters[2].grad is None


def load_start() -> dict[str, torch.Tensor]:
    from ogenlib.towers import load_backbone

    return dict(load_backbone("ogen-tiny").image.visual.named_parameters())
