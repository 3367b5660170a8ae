"""FLYP and StarFT: the losses over a batch's own images and texts against hand-written ones, and the pool of texts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from tuned_world import KNOWN, NEW, QUICK, TEMPLATE, batch_of, small_bank

from ogenlib.data import PixelBank
from ogenlib.hosts import FLYP, Batch, StarFT, build, zero_shot_weights
from ogenlib.hosts.parts.contrastive import info_nce
from ogenlib.hosts.parts.text_pool import TextPool, class_texts
from ogenlib.runs.assembly import assemble
from ogenlib.runs.saved import load_run
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit
from ogenlib.utils import distributed

TEMPLATES = ("an icon of a {}.", "a sketch of a {}.")
PHRASES = ("in the snow", "at night")


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return small_bank(clip)


@pytest.fixture(scope="module")
def batch(bank) -> Batch:
    """Without a generator: every class's first text."""
    return replace(batch_of(bank), generator=None)


def moved(host: FLYP) -> FLYP:
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return host.eval()


def encode(model: Any, clip: Any, texts: list[str]) -> Tensor:
    return model.encode_text(clip.tokenizer(texts), normalize=True)


# --- the losses -------------------------------------------------------------------------------------------


def test_info_nce_closed_form() -> None:
    z, t = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # images: both rows are (s, s) and (0, 0), so log 2 each; texts: columns (s, 0), of which the first is right once.
    s = 3.0
    texts = (math.log(1 + math.exp(-s)) + math.log(1 + math.exp(s))) / 2
    assert info_nce(z, t, s).item() == pytest.approx((math.log(2) + texts) / 2)


@torch.no_grad()
def test_flyp_is_the_contrastive_loss_of_the_batch(clip, batch) -> None:
    host = moved(FLYP(clip, KNOWN, TEMPLATES))
    texts = [TEMPLATES[0].format(KNOWN[y]) for y in batch.labels.tolist()]
    z, t = host.model.encode_image(batch.pixels, normalize=True), encode(host.model, clip, texts)
    logits = (clip.logit_scale * z @ t.T).double()
    rows = -torch.stack([logits[i].log_softmax(0)[i] for i in range(len(z))]).mean()
    columns = -torch.stack([logits[:, i].log_softmax(0)[i] for i in range(len(z))]).mean()
    terms = host.losses(batch)
    assert set(terms) == {"contrastive"}
    assert terms["contrastive"].item() == pytest.approx(float(rows + columns) / 2, rel=1e-4)


@torch.no_grad()
def test_starft_keeps_the_answers_to_spurious_texts(clip, batch) -> None:
    host = StarFT(clip, KNOWN, TEMPLATE, spuriosities=PHRASES, ratio=2.0)
    assert host.losses(batch)["spurious"].item() == pytest.approx(0.0, abs=1e-5)
    moved(host)
    texts = [TEMPLATE.format(f"{KNOWN[y]} {PHRASES[0]}") for y in batch.labels.tolist()]
    total = 0.0
    sides = []
    for model in (clip.model, host.model):
        z, t = model.encode_image(batch.pixels, normalize=True), encode(model, clip, texts)
        sides.append((clip.logit_scale * z @ t.T).double())
    for i, y in enumerate(batch.labels.tolist()):
        others = batch.labels != y
        p, q = (side[i, others].log_softmax(0) for side in sides)
        total += float((p.exp() * (p - q)).sum())
    expected = 2.0 * total / len(batch.labels)
    assert expected > 1e-3 and host.losses(batch)["spurious"].item() == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def test_the_ratio_falls_to_nothing_over_the_epochs(clip, bank, batch) -> None:
    host = moved(StarFT(clip, KNOWN, TEMPLATE, ratio=1.0))
    whole = host.losses(batch)["spurious"].item()
    host.prepare(bank.frozen(clip), 4, 1)
    for epoch, share in ((1, 0.75), (2, 0.5), (3, 0.25)):
        assert host.losses(batch)["spurious"].item() == pytest.approx(share * whole, rel=1e-4)
        host.on_epoch_end(epoch, 4)
    assert "spurious" not in host.losses(batch)
    again = StarFT(clip, KNOWN, TEMPLATE)
    again.load_training_state(host.training_state())
    assert again.training_state() == host.training_state() == {"epoch": 4}
    one = replace(batch, labels=batch.labels[:3], pixels=batch.pixels[:3])  # all of one class: nothing to compare
    host.on_epoch_end(0, 4)
    assert host.losses(one)["spurious"].item() == 0.0


# --- texts ------------------------------------------------------------------------------------------------


def test_texts_of_a_class_are_its_own_or_the_templates() -> None:
    assert class_texts(["a_b", "c"], None, "the {}") == [["the a b"], ["the c"]]
    assert class_texts(["c"], {"c": ["x", "y"], "d": []}, "the {}") == [["x", "y"]]
    with pytest.raises(ValueError, match=r"texts has none for 2 names: \['a', 'b'\]"):
        class_texts(["a", "b", "c"], {"b": [], "c": ["x"]}, "the {}")
    with pytest.raises(ValueError, match=r"texts\['c'\] is a string"):
        class_texts(["c"], {"c": "x"}, "the {}")


def test_every_text_is_drawn_as_often_and_of_its_own_class(clip) -> None:
    texts = [["one"], ["two", "three"], ["four", "five", "six"]]
    pool = TextPool(clip.text, texts)
    labels = torch.arange(3).repeat(400)
    draws = torch.Generator().manual_seed(0)
    ids = pool.draw(Batch(labels, generator=draws, total=len(labels)))
    each = {text: clip.text.tokenize([text])[0] for group in texts for text in group}
    for label, group in enumerate(texts):
        counts = [int((ids[labels == label] == each[text]).all(1).sum()) for text in group]
        assert sum(counts) == 400 and min(counts) > 0.7 * 400 / len(group)
    first = pool.draw(Batch(torch.tensor([2, 1])))
    assert torch.equal(first, torch.stack([each["four"], each["two"]]))


def test_a_share_of_a_step_gets_the_texts_it_would_get_in_the_whole(clip, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TextPool(clip.text, [["one", "two", "three"], ["four", "five", "six"]])
    labels = torch.tensor([0, 1, 0, 1, 0])
    whole = pool.draw(Batch(labels, generator=torch.Generator().manual_seed(3), total=5))
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "world", lambda rank=rank: (rank, 2))
        mine = distributed.share(torch.arange(5))
        parts.append(pool.draw(Batch(labels[mine], generator=torch.Generator().manual_seed(3), total=5)))
    assert torch.equal(torch.cat(parts), whole)


# --- training, saving, OGEN -------------------------------------------------------------------------------


def test_steps_over_one_batch_and_its_texts_lower_the_loss(clip) -> None:
    """Smaller batches draw other negatives, whose loss is another one."""
    one_view = small_bank(clip, views=1)
    history = fit(FLYP(clip, KNOWN, TEMPLATE), one_view, **{**QUICK, "batch_size": 12, "epochs": 3, "lr": 2e-5})
    first, second, third = history.column("contrastive")
    assert first > second > third > math.log(3)  # each image has three texts alike, of which one counts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flyp", "starft"])
def test_it_trains_goes_on_and_is_saved(clip, bank, tmp_path, name: str) -> None:
    def stop(_: Any, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    texts = {n: [f"the {n} icon", f"a drawn {n}"] for n in KNOWN}
    made = [build(name, clip, KNOWN, templates=TEMPLATE, texts=texts) for _ in range(3)]
    whole, cut, again = made
    history = fit(whole, bank, **QUICK)
    assert all(math.isfinite(v) for e in history.epochs for v in e.values())
    with pytest.raises(KeyboardInterrupt):
        fit(cut, bank, out=tmp_path / "cut", measure=stop, **QUICK)
    fit(again, bank, out=tmp_path / "cut", **QUICK)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))
    whole.save(tmp_path / "run")
    loaded = load_run(tmp_path / "run", clip=clip)
    assert loaded.config() == whole.config() and loaded.config()["texts"] == texts
    with torch.no_grad():
        w = whole.class_weights((*KNOWN, *NEW))
        assert torch.equal(loaded.class_weights((*KNOWN, *NEW)), w)
        assert (w - zero_shot_weights(clip, (*KNOWN, *NEW), TEMPLATE)).abs().max() > 1e-4


def test_ogen_around_it_trains_both_towers(clip, bank) -> None:
    small = {"k": 2, "iterations": 3, "rows": 4, "per_class": 4, "teacher": "ema"}
    model = assemble("flyp", clip, KNOWN, [TEMPLATE], ogen=small, unknown=NEW)
    history = fit(model, bank, **{**QUICK, "epochs": 1})
    assert {"contrastive", "zero_shot_kl_real", "synthesized_ce"} <= set(history.epochs[0])
    twins = model.host.frozen_twins()
    for part in ("model.visual.", "model.transformer."):
        assert any(not torch.equal(p, s) for n, (p, s) in twins.items() if n.startswith(part))


def test_options(clip) -> None:
    assert FLYP.paper(clip, KNOWN).train_settings() == FLYP.published
    TrainConfig(**FLYP.published)
    with pytest.raises(ValueError, match="texts has none for 1 names"):
        FLYP(clip, KNOWN, texts={n: ["x"] for n in KNOWN[1:]})
    with pytest.raises(ValueError, match="pass a list of phrases"):
        StarFT(clip, KNOWN, spuriosities="in the snow")
    with pytest.raises(ValueError, match="ratio=-1"):
        StarFT(clip, KNOWN, ratio=-1.0)
    with pytest.raises(ValueError, match="3 images for 4 processes"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "world", lambda: (0, 4))
        distributed.gather(torch.ones(1, 2), 3)
