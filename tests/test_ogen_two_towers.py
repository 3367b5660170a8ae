"""OGEN around a host that changes the image side: names without images are scored on the frozen tower's features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pixel_world import KNOWN, NEW, PixelShift, pictures
from torch import Tensor

from ogenlib import Classifier
from ogenlib.data import PixelBank
from ogenlib.evaluate import scores as evaluate
from ogenlib.export import export_open_clip, to_linear_head
from ogenlib.hosts import METHODS, Batch, CoOp, FullFT
from ogenlib.ogen.objective import cross_entropy_within
from ogenlib.ogen.scoring import mixed, two_sided, with_synthesized
from ogenlib.ogen.wrapper import OGEN
from ogenlib.towers import load_backbone

NAMES = (*KNOWN, *NEW)
SHIFT = 0.7
BARE: dict[str, Any] = {"generator": None, "teacher": None}


def shifted(clip, value: float = SHIFT) -> PixelShift:
    host = PixelShift(clip, KNOWN)
    with torch.no_grad():
        host.shift.fill_(value)
    return host


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return PixelBank.load(clip, pictures(2, NAMES), views=2, seed=1)


@torch.no_grad()
def logits(clip, pixels: Tensor, names: tuple[str, ...], shift: float) -> Tensor:
    return clip.logit_scale * clip.encode_image(pixels + shift) @ PixelShift(clip, KNOWN).class_weights(names).T


def first_views(bank: PixelBank) -> Tensor:
    return bank.pixels(torch.arange(len(bank)), torch.zeros(len(bank), dtype=torch.long))


# --- the parts --------------------------------------------------------------------------------------------


def test_two_sided_weights_give_each_name_the_cosine_of_its_own_features() -> None:
    own, frozen = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    rows, other = torch.tensor([[0.0, 1.0], [0.6, 0.8]]), torch.tensor([False, True])
    weights = two_sided(rows, other)
    assert weights.tolist() == [[0.0, 1.0, 0.0, 0.0], pytest.approx([0.0, 0.0, 0.6, 0.8])]
    assert (torch.cat([own, frozen], 1) @ weights.T).tolist() == [pytest.approx([0.0, 1.0])]


def test_made_rows_stand_for_either_tower() -> None:
    z, made = torch.zeros(2, 4), torch.tensor([[1.0, 2.0]])
    assert with_synthesized(z, made).tolist() == [[0.0] * 4, [0.0] * 4, [1.0, 2.0, 1.0, 2.0]]
    assert with_synthesized(z[:, :2], made).tolist() == [[0.0] * 2, [0.0] * 2, [1.0, 2.0]]
    assert with_synthesized(z, None) is z
    assert with_synthesized(z.bfloat16(), made).dtype == torch.bfloat16


@pytest.mark.parametrize("share, expected", [(0.0, [1.0, 0.0]), (0.5, [2**-0.5, 2**-0.5]), (1.0, [0.0, 1.0])])
def test_mixed_rows(share: float, expected: list[float]) -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    zero_shot = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = mixed(rows, zero_shot, torch.tensor([False, True]), share)
    assert found.tolist() == [[1.0, 0.0], pytest.approx(expected)]


def test_cross_entropy_within_a_side_ignores_the_other_side() -> None:
    found = cross_entropy_within(torch.tensor([[0.0, 0.0, 9.0], [9.0, 9.0, 0.0]]), torch.tensor([0, 2]), n_known=2)
    assert found.item() == pytest.approx(torch.tensor(2.0).log().item() / 2)


# --- scores -----------------------------------------------------------------------------------------------


def test_known_names_meet_the_hosts_images_and_new_ones_the_frozen_towers(clip, bank) -> None:
    pixels = first_views(bank)
    changed, frozen = (logits(clip, pixels, NAMES, shift) for shift in (SHIFT, 0.0))
    known = len(KNOWN)
    assert (changed - frozen).abs().max() > 0.5
    expected = torch.cat([changed[:, :known], frozen[:, known:]], 1)
    model = OGEN(shifted(clip), unknown=NEW, **BARE)
    torch.testing.assert_close(evaluate.predict_logits(model, bank, NAMES), expected, atol=1e-3, rtol=0)
    for names, columns in ((KNOWN, expected[:, :known]), (NEW, expected[:, known:])):
        torch.testing.assert_close(evaluate.predict_logits(model, bank, names), columns, atol=1e-3, rtol=0)
    order = (NEW[0], KNOWN[1], "a name nobody told it", KNOWN[0])
    seen = logits(clip, pixels, order, SHIFT), logits(clip, pixels, order, 0.0)
    expected = torch.stack([seen[1][:, 0], seen[0][:, 1], seen[1][:, 2], seen[0][:, 3]], 1)
    torch.testing.assert_close(evaluate.predict_logits(model, bank, order), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("settings", [{"frozen_images": False}, {"zero_shot_share": 0.5}, {"preset": "paper"}])
def test_else_every_name_meets_the_hosts_images(clip, bank, settings: dict[str, Any]) -> None:
    model = OGEN(shifted(clip), unknown=NEW, **{**settings, "generator": None, "joint": False, "warmup": 0.0})
    expected = logits(clip, first_views(bank), NAMES, SHIFT)
    torch.testing.assert_close(evaluate.predict_logits(model, bank, NAMES), expected, atol=1e-3, rtol=0)


def test_a_host_on_cached_features_is_left_as_it_was(clip) -> None:
    model = OGEN(CoOp(clip, KNOWN, "an icon of a"), unknown=NEW)
    assert model.class_weights(NAMES).shape == (len(NAMES), clip.embed_dim)
    z = F.normalize(torch.ones(2, clip.embed_dim), dim=-1)
    assert model.image_features(Batch(torch.zeros(2), features=z)).shape == z.shape


def test_a_saved_run_names_images_with_both_towers(clip, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "pixel_shift", PixelShift)
    OGEN(shifted(clip), unknown=NEW, **BARE).save(tmp_path)
    images = pictures(2, NAMES)
    found = Classifier.load(tmp_path, clip=clip).predict([images.open(i) for i in (0, 9)], top_k=6, names=NAMES)
    pixels = torch.stack([clip.preprocess(images.open(i)) for i in (0, 9)])
    both = [logits(clip, pixels, NAMES, shift) for shift in (SHIFT, 0.0)]
    chances = torch.cat([both[0][:, : len(KNOWN)], both[1][:, len(KNOWN) :]], 1).softmax(1)
    for prediction, expected in zip(found, chances, strict=True):
        by_name = dict(zip(NAMES, expected.tolist(), strict=True))
        assert list(prediction.probabilities) == pytest.approx([by_name[n] for n in prediction.names], abs=1e-4)


def test_the_head_of_trained_names_fits_the_exported_tower_and_others_are_refused(clip, tmp_path) -> None:
    host = FullFT(clip, KNOWN)
    with torch.no_grad():
        next(iter(host.trainable().values())).add_(0.1)
    model = OGEN(host, unknown=NEW, **BARE)
    images = pictures(1, KNOWN)
    export_open_clip(model, tmp_path / "exported")
    tower = load_backbone(f"local-dir:{tmp_path / 'exported'}")
    pixels = torch.stack([clip.preprocess(images.open(i)) for i in range(4)])
    head = to_linear_head(model, KNOWN)
    expected = evaluate.predict_logits(model, PixelBank.load(clip, images), KNOWN)[:4]
    torch.testing.assert_close(head(tower.encode_image(pixels)), expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="names without images on the frozen image tower"):
        export_open_clip(model, tmp_path / "both", NAMES)


# --- losses -----------------------------------------------------------------------------------------------


def test_the_loss_is_the_hand_written_one(clip, bank) -> None:
    """Cross-entropy over the host's own names; KL over all of them, where new names' logits are the reference's."""
    model = OGEN(shifted(clip), unknown=NEW, zero_shot_kl=3.0, name_groups=1, **BARE)
    known = bank.select(KNOWN)
    batch = Batch(known.labels, pixels=first_views(known), generator=torch.Generator().manual_seed(0))
    terms = model.losses(batch)
    changed, frozen = (logits(clip, batch.pixels, NAMES, shift) for shift in (SHIFT, 0.0))
    scored = torch.cat([changed[:, : len(KNOWN)], frozen[:, len(KNOWN) :]], 1)
    kl = F.kl_div(scored.log_softmax(1), frozen.log_softmax(1), log_target=True, reduction="batchmean").item()
    assert set(terms) == {"ce", "zero_shot_kl_real"}
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(changed[:, : len(KNOWN)], batch.labels).item(), rel=1e-4)
    assert kl > 1e-3 and terms["zero_shot_kl_real"].item() == pytest.approx(3 * kl, rel=1e-4)
    sum(terms.values()).backward()
    assert model.host.shift.grad.abs().max() > 0


def test_names_held_out_have_stand_ins_scored_on_the_frozen_tower(clip, bank) -> None:
    model = OGEN(shifted(clip), zero_shot_kl=1.0, pseudo_unknown=0.5, **BARE)
    known = bank.select(KNOWN)
    batch = Batch(known.labels, pixels=first_views(known), generator=torch.Generator().manual_seed(4))
    found = model.losses(batch)["zero_shot_kl_real"].item()
    changed, frozen = (logits(clip, batch.pixels, KNOWN, shift) for shift in (SHIFT, 0.0))
    expected = []
    for pair in ((a, b) for a in range(4) for b in range(a)):
        scored = changed.clone()
        scored[:, pair] = frozen[:, pair]
        kl = F.kl_div(scored.log_softmax(1), frozen.log_softmax(1), log_target=True, reduction="batchmean")
        expected.append(kl.item())
    assert min(abs(found - e) for e in expected) < 1e-4 * found  # one of the pairs of stand-ins
    whole = F.kl_div(changed.log_softmax(1), frozen.log_softmax(1), log_target=True, reduction="batchmean").item()
    assert abs(found - whole) > 1e-2 * whole


@torch.no_grad()
def test_the_teacher_scores_its_own_images_and_the_frozen_ones(clip, bank) -> None:
    model = OGEN(shifted(clip, 0.3), unknown=NEW, generator=None, teacher="mean", zero_shot_kl=0.0, name_groups=1)
    known = bank.select(KNOWN)
    model.prepare(known.frozen(clip), 4, 1)
    model.on_epoch_end(1, 4)
    held = float(model.teacher.state()["shift"][0])
    model.host.shift.fill_(-0.5)
    batch = Batch(known.labels, pixels=first_views(known), generator=torch.Generator().manual_seed(0))
    found = model.losses(batch)["teacher"].item()
    frozen, student, teacher = (logits(clip, batch.pixels, NAMES, shift) for shift in (0.0, -0.5, held))
    for scored in (student, teacher):
        scored[:, len(KNOWN) :] = frozen[:, len(KNOWN) :]
    kl = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean").item()
    assert kl > 1e-3 and found == pytest.approx(kl, rel=1e-4)
