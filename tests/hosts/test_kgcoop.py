"""KgCoOp: CoOp plus a term that holds the class weights near the zero-shot ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ogenlib.hosts import Batch, CoOp, KgCoOp, ZeroShot, method
from ogenlib.runs.saved import load_run

NAMES = ["dog", "red apple", "train"]
TEMPLATE = "an icon of a {}."


def batch(clip, n: int = 3) -> Batch:
    z = torch.randn(n, clip.embed_dim, generator=torch.Generator().manual_seed(0))
    return Batch(torch.arange(n) % len(NAMES), features=F.normalize(z, dim=-1))


def moved(host: CoOp) -> CoOp:
    with torch.no_grad():
        host.context.add_(torch.randn(host.context.shape, generator=torch.Generator().manual_seed(1)))
    return host


def test_it_starts_as_zero_shot_with_nothing_to_pull(clip) -> None:
    host = KgCoOp(clip, NAMES, "an icon of a", templates=TEMPLATE)
    zero_shot = ZeroShot(clip, NAMES, TEMPLATE)
    torch.testing.assert_close(host.class_weights(), zero_shot.class_weights(), atol=1e-5, rtol=0)
    assert host.losses(batch(clip))["anchor"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("further", [None, ["fox", "dog", "bus"]])
def test_the_terms_by_hand(clip, further) -> None:
    host = moved(KgCoOp(clip, NAMES, "an icon of a", templates=TEMPLATE, weight=3.0, anchor_names=further))
    terms = host.losses(batch(clip))
    names = NAMES if further is None else [*NAMES, "fox", "bus"]  # dog is counted once
    w, anchor = host.class_weights(names), ZeroShot(clip, names, TEMPLATE).class_weights()
    cosines = [sum(a * b for a, b in zip(r.tolist(), t.tolist(), strict=True)) for r, t in zip(w, anchor, strict=True)]
    assert terms["anchor"].item() == pytest.approx(3 * (1 - sum(cosines) / len(names)), abs=1e-5)
    assert terms["anchor"].item() > 1e-3
    # On unit rows the mean squared distance is twice 1 - cosine.
    assert terms["anchor"].item() == pytest.approx(1.5 * (w - anchor).square().sum(1).mean().item(), abs=1e-5)
    coop = moved(CoOp(clip, NAMES, "an icon of a"))
    torch.testing.assert_close(terms["ce"], coop.losses(batch(clip))["ce"], atol=1e-5, rtol=1e-5)


def test_the_anchor_alone_pulls_back_to_zero_shot(clip) -> None:
    host = moved(KgCoOp(clip, NAMES, "an icon of a", templates=TEMPLATE))
    optimizer = torch.optim.Adam([host.context], 0.1)
    distances = []
    for _ in range(15):
        optimizer.zero_grad()
        distance = host.losses(batch(clip))["anchor"]
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[0] > 0.1 and distances[-1] < 0.5 * distances[0]
    assert all(p.grad is None for p in clip.parameters()) and set(host.trainable()) == {"context"}


def test_weight_zero_is_coop(clip) -> None:
    host = moved(KgCoOp(clip, NAMES, "an icon of a", templates=TEMPLATE, weight=0.0))
    coop = moved(CoOp(clip, NAMES, "an icon of a"))
    sum(host.losses(batch(clip)).values()).backward()
    sum(coop.losses(batch(clip)).values()).backward()
    torch.testing.assert_close(host.context.grad, coop.context.grad, atol=1e-6, rtol=1e-4)


def test_save_and_load(clip, tmp_path) -> None:
    host = moved(KgCoOp(clip, NAMES, None, n_context=3, weight=2.0, templates=["a {}", TEMPLATE], anchor_names=["fox"]))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert isinstance(again, KgCoOp) and again.config() == host.config()
    assert again.config()["anchor_names"] == ["fox"] and again.config()["weight"] == 2.0
    assert torch.equal(again.class_weights(["cat"]), host.class_weights(["cat"]))
    assert torch.equal(again.losses(batch(clip))["anchor"], host.losses(batch(clip))["anchor"])


def test_presets_and_dataset_options(clip) -> None:
    for preset in (KgCoOp.paper, KgCoOp.base_to_new):
        host = preset(clip, NAMES, templates=TEMPLATE)
        assert isinstance(host, KgCoOp) and host.n_context == 4 and host.weight == 8 and host.anchor_names is None
    options = method("kgcoop").dataset_options(["an icon of a {}.", "the {}"])
    assert options == {"context": "an icon of a", "templates": ["an icon of a {}.", "the {}"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, r"weight=-1\.0: must be 0 or more"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"anchor_names": "fox"}, "anchor_names='fox': pass a list"),
        ({"anchor_names": ["fox"], "class_specific": True}, "leave anchor_names out"),
        ({"anchor_names": ["fox " * 60]}, "fox fox"),
        ({"templates": "no slot"}, "must each hold"),
    ],
)
def test_bad_options_are_refused(clip, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KgCoOp(clip, NAMES, **options)
