"""ARF: its three losses against hand-written ones, what repeats do, retrieved pairs that are drawn alike everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pixel_world import pictures
from torch import Tensor
from tuned_world import KNOWN, NEW, QUICK, TEMPLATE, batch_of, small_bank

from ogenlib.anchors import AnchorPairs, CandidatePool, emoji_anchors, emoji_pool
from ogenlib.data import FeatureBank, PixelBank, load_dataset
from ogenlib.hosts import ARF, FLYP, Batch, build
from ogenlib.hosts.parts.contrastive import info_nce
from ogenlib.ogen.wrapper import OGEN
from ogenlib.runs.saved import load_run
from ogenlib.towers import Backbone
from ogenlib.train.loop import fit
from ogenlib.utils import distributed


@pytest.fixture(scope="module")
def bank(clip: Backbone) -> PixelBank:
    return small_bank(clip)


@pytest.fixture(scope="module")
def frozen(clip: Backbone, bank: PixelBank) -> FeatureBank:
    return bank.frozen(clip)


@pytest.fixture(scope="module")
def captions(bank: PixelBank) -> dict[str, tuple[str, ...]]:
    return {key: (f"picture {i}", f"a thing, {i}") for i, key in enumerate(bank.keys)}


@pytest.fixture(scope="module")
def anchors(clip: Backbone) -> AnchorPairs:
    """Six drawings that no test concept's name is in."""
    images, told = emoji_pool(load_dataset("emoji-categories"), ["twemoji"])
    images = images.subset(range(0, 60, 10))
    return AnchorPairs(PixelBank.load(clip, images, views=2, seed=2), {key: told[key] for key in images.keys})


def moved(host: ARF) -> ARF:
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return host.eval()


def by_hand(z: Tensor, t: Tensor, scale: float) -> float:
    """Mean over both directions, pair by pair."""
    total = 0.0
    for i in range(len(z)):
        for own, others in ((z[i], t), (t[i], z)):
            logits = [scale * float(own @ other) for other in others]
            total -= logits[i] - float(torch.tensor(logits, dtype=torch.float64).logsumexp(0))
    return total / (2 * len(z))


# --- the losses -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_three_losses_by_hand(
    clip: Backbone, bank: PixelBank, frozen: FeatureBank, captions: Any, anchors: AnchorPairs
) -> None:
    host = moved(
        ARF(
            clip,
            KNOWN,
            TEMPLATE,
            captions=captions,
            anchors=anchors,
            caption_weight=2.0,
            anchor_weight=0.5,
            anchor_batch=4,
        )
    )
    host.prepare(frozen, 1, 1)
    whole = replace(batch_of(bank), generator=None)  # first texts, first retrieved pairs in their first view
    rows = torch.tensor([7, 0, 3, 2, 5])
    batch = Batch(whole.labels[rows], pixels=whole.pixels[rows], total=5, rows=rows)

    def text(lines: list[str]) -> Tensor:
        return host.model.encode_text(clip.tokenizer(lines), normalize=True)

    z = host.model.encode_image(batch.pixels, normalize=True)
    names = text([TEMPLATE.format(KNOWN[y]) for y in batch.labels.tolist()])
    told = text([f"picture {i}" for i in rows.tolist()])
    near = anchors.pixels.pixels(torch.arange(4), torch.zeros(4, dtype=torch.long))
    near_z = host.model.encode_image(near, normalize=True)
    near_t = text([anchors.captions[key][0] for key in anchors.pixels.keys[:4]])
    scale = float(clip.logit_scale)
    terms = host.losses(batch)
    expected = {
        "contrastive": by_hand(z, names, scale),
        "captions": 2 * by_hand(z, told, scale),
        "anchors": 0.5 * by_hand(near_z, near_t, scale),
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-3)
    given = host.losses(batch, z=z.flip(0))["captions"]  # features as OGEN gives them
    assert given.item() == pytest.approx(2 * by_hand(z.flip(0), told, scale), rel=1e-3)


@torch.no_grad()
def test_without_captions_and_anchors_it_is_flyp(clip: Backbone, bank: PixelBank) -> None:
    batch = batch_of(bank)
    other = batch_of(bank)
    terms = ARF(clip, KNOWN, TEMPLATE).losses(batch)
    assert set(terms) == {"contrastive"}
    assert torch.equal(terms["contrastive"], FLYP(clip, KNOWN, TEMPLATE).losses(other)["contrastive"])


def test_terms_of_weight_zero_are_left_out(clip: Backbone, bank: PixelBank, captions: Any, anchors: Any) -> None:
    host = ARF(clip, KNOWN, TEMPLATE, captions=captions, anchors=anchors, caption_weight=0, anchor_weight=0)
    assert set(host.losses(batch_of(bank))) == {"contrastive"}


def test_repeats_in_closed_form() -> None:
    z = torch.eye(3)
    t = torch.stack([z[0], (z[0] + z[1]) / 2**0.5, z[2]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    logits = (2.0 * z @ t.T).double()

    def nll(columns: list[int], right: list[int], row: Tensor) -> float:
        chances = row[columns].log_softmax(0)
        return -float(sum(chances[columns.index(r)] for r in right)) / len(right)

    for repeats, parts in {
        "masked": [([0, 2], [0]), ([1, 2], [1]), ([0, 1, 2], [2])],
        "positives": [([0, 1, 2], [0, 1]), ([0, 1, 2], [0, 1]), ([0, 1, 2], [2])],
        "negatives": [([0, 1, 2], [i]) for i in range(3)],
    }.items():
        expected = sum(nll(*part, m[i]) for m in (logits, logits.T) for i, part in enumerate(parts)) / 6
        assert info_nce(z, t, 2.0, same=same, repeats=repeats).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="repeats='masked' needs same="):
        info_nce(z, t, 2.0, repeats="masked")
    with pytest.raises(ValueError, match="repeats='other': must be one of negatives, masked, positives"):
        info_nce(z, t, 2.0, repeats="other")


def test_equal_texts_make_negatives_and_positives_one_loss() -> None:
    draws = torch.Generator().manual_seed(0)
    z, w = (torch.nn.functional.normalize(torch.randn(n, 8, generator=draws), dim=-1) for n in (6, 3))
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    same = labels[:, None] == labels
    plain, shared, masked = (
        info_nce(z, w[labels], 10.0, same=same, repeats=r) for r in ("negatives", "positives", "masked")
    )
    torch.testing.assert_close(plain, shared)
    assert masked < plain


@torch.no_grad()
def test_pairs_repeat_each_other_by_class_or_by_text(
    clip: Backbone, bank: PixelBank, frozen: FeatureBank, anchors: AnchorPairs
) -> None:
    told = {key: "one" if i in (0, 8) else f"text {i}" for i, key in enumerate(bank.keys)}
    batch = replace(batch_of(bank), generator=None)
    hosts = {}
    for repeats in ("negatives", "masked"):
        host = hosts[repeats] = ARF(clip, KNOWN, TEMPLATE, captions=told, anchors=anchors, repeats=repeats)
        host.prepare(frozen, 1, 1)
    plain, masked = (host.losses(batch) for host in hosts.values())
    z = clip.encode_image(batch.pixels)
    t = clip.encode_text(list(told.values()))
    same = torch.eye(len(z)).bool()
    same[0, 8] = same[8, 0] = True
    expected = info_nce(z, t, clip.logit_scale, same=same, repeats="masked")
    assert masked["captions"].item() == pytest.approx(expected.item(), rel=1e-4) and expected < plain["captions"]
    names = clip.encode_text([TEMPLATE.format(KNOWN[y]) for y in batch.labels.tolist()])
    classes = info_nce(z, names, clip.logit_scale, same=batch.labels[:, None] == batch.labels, repeats="masked")
    assert masked["contrastive"].item() == pytest.approx(classes.item(), rel=1e-4)
    assert masked["anchors"].item() == pytest.approx(plain["anchors"].item(), rel=1e-6)  # no text comes twice


# --- draws ------------------------------------------------------------------------------------------------


def test_retrieved_pairs_are_drawn_without_repeats_and_shared(
    clip: Backbone, bank: PixelBank, anchors: AnchorPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, seen = ARF(clip, KNOWN, TEMPLATE, anchors=anchors, anchor_batch=5), []
    monkeypatch.setattr(
        anchors.pixels.source, "read", lambda rows, views, device: seen.append((rows, views)) or torch.zeros(len(rows))
    )

    def drawn(seed: int, labels: Tensor, total: int) -> list[int]:
        own, _ = host._drawn(Batch(labels, generator=torch.Generator().manual_seed(seed), total=total))
        assert own.total == 5
        return own.labels.tolist()

    whole = [drawn(seed, torch.zeros(12), 12) for seed in range(20)]
    assert all(len(set(rows)) == 5 for rows in whole) and len({tuple(rows) for rows in whole}) > 15
    assert {row for rows in whole for row in rows} == set(range(6))
    assert {int(view) for _, views in seen for view in views} == {0, 1}
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "world", lambda rank=rank: (rank, 2))
        parts += drawn(7, torch.zeros(6), 12)
    assert parts == whole[7]
    monkeypatch.undo()
    assert len(ARF(clip, KNOWN, TEMPLATE, anchors=anchors)._drawn(batch_of(bank))[0].labels) == 6  # all there are


def test_two_processes_make_the_gradient_of_one(
    clip: Backbone,
    bank: PixelBank,
    frozen: FeatureBank,
    captions: Any,
    anchors: AnchorPairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uneven shares of five images and three retrieved pairs; the other process's rows come from the whole step."""
    host = ARF(clip, KNOWN, TEMPLATE, captions=captions, anchors=anchors, anchor_batch=3, repeats="masked")
    host.prepare(frozen, 1, 1)
    every = batch_of(bank)
    rows = torch.tensor([7, 0, 3, 2, 5])
    gathered: list[Tensor] = []
    plain = distributed.gather

    def keep(own: Tensor, total: int | None = None) -> Tensor:
        gathered.append(own.detach())
        return plain(own, total)

    def gradient(mine: Tensor) -> dict[str, Tensor]:
        own = rows[mine]
        batch = Batch(
            every.labels[own], pixels=every.pixels[own], generator=torch.Generator().manual_seed(5), total=5, rows=own
        )
        host.zero_grad(set_to_none=True)
        torch.stack(list(host.losses(batch).values())).sum().backward()
        return {n: p.grad.clone() for n, p in host.trainable().items() if p.grad is not None}

    monkeypatch.setattr(distributed, "gather", keep)
    expected = gradient(torch.arange(5))
    monkeypatch.setattr(distributed, "gather", plain)
    total = {n: torch.zeros_like(g) for n, g in expected.items()}
    for rank in (0, 1):
        calls: Iterator[Tensor] = iter(gathered)

        def all_gather(parts: list[Tensor], own: Tensor, calls: Iterator[Tensor] = calls) -> None:
            for part, rows in zip(parts, next(calls).tensor_split(2), strict=True):
                part.zero_()[: len(rows)] = rows

        monkeypatch.setattr(distributed, "world", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(distributed.dist, "all_gather", all_gather)
        mine = distributed.share(torch.arange(5))
        for n, g in gradient(mine).items():
            total[n] += g * (len(mine) / 5)
        assert next(calls, None) is None
    scale = max(float(g.abs().max()) for g in expected.values())
    for n, g in expected.items():
        torch.testing.assert_close(total[n], g, rtol=1e-3, atol=1e-4 * scale)


# --- training, saving, OGEN -------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_trains_goes_on_and_is_saved(
    clip: Backbone, bank: PixelBank, captions: Any, anchors: AnchorPairs, tmp_path: Path
) -> None:
    def stop(_: Any, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    options: dict[str, Any] = {"templates": TEMPLATE, "captions": captions, "anchors": anchors, "anchor_batch": 4}
    whole, cut, again = (build("arf", clip, KNOWN, **options) for _ in range(3))
    fixed = replace(batch_of(bank), generator=None)
    whole.prepare(bank.frozen(clip), 1, 1)
    with torch.no_grad():
        before = whole.losses(fixed)
    history = fit(whole, bank, **QUICK)
    assert {"contrastive", "captions", "anchors"} <= set(history.epochs[0])
    with torch.no_grad():
        after = whole.losses(fixed)
    # The pairs are those of pretraining: there is nothing left to learn on them in six steps.
    assert after["captions"] < before["captions"] and sum(after.values()) < sum(before.values())
    with pytest.raises(KeyboardInterrupt):
        fit(cut, bank, out=tmp_path / "cut", measure=stop, **QUICK)
    fit(again, bank, out=tmp_path / "cut", **QUICK)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))
    other = build("arf", clip, KNOWN, **{**options, "captions": {key: "other" for key in captions}})
    with pytest.raises(ValueError, match="belongs to another run"):
        fit(other, bank, out=tmp_path / "cut", **QUICK)
    whole.save(tmp_path / "run")
    loaded = load_run(tmp_path / "run", clip=clip)
    assert loaded.config() == whole.config()
    assert loaded.config()["made_with"]["captions"]["texts"] == 24 and loaded.config()["made_with"]["anchors"]
    with torch.no_grad():
        assert torch.equal(loaded.class_weights((*KNOWN, *NEW)), whole.class_weights((*KNOWN, *NEW)))
    with pytest.raises(ValueError, match=r"made with captions and anchors, .* captions=..., anchors=..."):
        fit(loaded, bank, **QUICK)


def test_ogen_around_it(clip: Backbone, bank: PixelBank, captions: Any, anchors: AnchorPairs) -> None:
    host = ARF(clip, KNOWN, TEMPLATE, captions=captions, anchors=anchors)
    model = OGEN(host, KNOWN, NEW, k=2, iterations=3, rows=4, per_class=4, teacher="ema")
    history = fit(model, bank, **{**QUICK, "epochs": 1})
    assert {"contrastive", "captions", "anchors", "zero_shot_kl_real"} <= set(history.epochs[0])


def test_from_pictures_to_anchors(
    clip: Backbone, bank: PixelBank, frozen: FeatureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on embedded data: captions of tags, a pool of other drawings, retrieval, a step."""
    data = load_dataset("emoji-categories")
    every, told = emoji_pool(data, ["twemoji"])
    few = every.subset(range(0, len(every), 12))
    monkeypatch.setattr("ogenlib.anchors.source.emoji_pool", lambda *args, **options: (few, told))
    made = emoji_anchors(clip, data, pictures(), tmp_path / "pool", k=3, per_class=4, views=2)
    assert list(made["captions"]) == bank.keys and len(CandidatePool.load(tmp_path / "pool")) == len(few)
    pixels = made["anchors"].pixels
    assert pixels.classnames == KNOWN and pixels.views == 2 and set(pixels.keys) <= set(few.keys)
    assert len(pixels) > 4 and int(pixels.labels.bincount().max()) <= 4
    assert made["anchors"].captions[pixels.keys[0]] == told[pixels.keys[0]]
    host = ARF.paper(clip, KNOWN, templates=TEMPLATE, **made)
    assert host.train_settings() == FLYP.published
    host.prepare(frozen, 1, 1)
    terms = host.losses(batch_of(bank))
    assert len(terms) == 3 and all(term.isfinite() for term in terms.values())


def test_what_does_not_fit_is_refused(
    clip: Backbone, bank: PixelBank, frozen: FeatureBank, captions: Any, anchors: AnchorPairs
) -> None:
    for name in ("caption_weight", "anchor_weight"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            ARF(clip, KNOWN, **{name: -1})
    with pytest.raises(ValueError, match="anchor_batch=1: must be 2 or more"):
        ARF(clip, KNOWN, anchor_batch=1)
    with pytest.raises(ValueError, match="repeats='none'"):
        ARF(clip, KNOWN, repeats="none")
    few = {key: captions[key] for key in bank.keys[2:]}
    with pytest.raises(ValueError, match="captions has none for 2 of 12 training images"):
        ARF(clip, KNOWN, TEMPLATE, captions=few).prepare(frozen, 1, 1)
    with pytest.raises(RuntimeError, match="does not know which captions"):
        ARF(clip, KNOWN, TEMPLATE, captions=captions).losses(batch_of(bank))
    wrong = replace(anchors.pixels, fingerprint={**anchors.pixels.fingerprint, "preprocess": {"size": 9}})
    with pytest.raises(ValueError, match="the pixels were made for"):
        ARF(clip, KNOWN, anchors=AnchorPairs(wrong, anchors.captions))
