"""What OGEN adds to a step: every term against plain algebra, and the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ogen_world import (
    KNOWN,
    OFF,
    SMALL,
    UNKNOWN,
    D,
    FixedRows,
    PerImage,
    adapter,
    batch,
    kl,
    make_bank,
    make_table,
    noise,
    picked,
    seeded,
    shaken,
    unit,
    with_rows,
    wrapped,
)
from torch import Tensor, nn

from ogenlib import OGEN
from ogenlib.hosts import Batch, CoOp, KgCoOp, TaskRes, ZeroShotAnchor
from ogenlib.towers import EmbeddingTable

# --- one image, one synthesized row, three names in two dimensions ----------------------------------------


def two_dimensions(**settings: Any) -> OGEN:
    """Known a = (1, 0), which the host has turned to (0.6, 0.8), and b = (0, 1); unknown c = (0.6, 0.8). Scale 2."""
    table = EmbeddingTable(["a", "b", "c"], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), logit_scale=2.0)
    host = TaskRes(table, ["a", "b"], "{}", alpha=0.5)
    model = OGEN(host, unknown=["c"], **{**OFF, "rows": 1, **settings})
    bank = make_bank(table, ["a", "b"]) if table.embed_dim == D else _bank(table)
    model.prepare(bank, 4, 1)
    model.on_epoch_end(1, 4)  # an epoch's teacher holds the zero-shot weights that the host starts with
    with torch.no_grad():
        host.residual[0] = torch.tensor([-0.8, 1.6])
    rows = FixedRows(3, 2)
    rows.table = torch.tensor([[0.0, 1.0]] * 3)
    return with_rows(model, rows)


def _bank(table: EmbeddingTable):
    from ogenlib.data import FeatureBank

    return FeatureBank.from_features(torch.eye(2), [0, 1], ["a", "b"], table)


def one_image() -> Batch:
    """(1, 0), an image of a: scores of the host 0.6, 0, 0.6; zero-shot 1, 0, 0.6. All times 2."""
    return Batch(torch.tensor([0]), features=torch.tensor([[2.0, 0.0]]), generator=seeded())


def divergence(target: list[float], logits: list[float]) -> float:
    p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (target, logits))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


CE = math.log(math.exp(1.2) + 1) - 1.2  # over a and b alone
REAL = divergence([2.0, 0.0, 1.2], [1.2, 0.0, 1.2])
MADE = divergence([0.0, 2.0, 1.6], [1.6, 2.0, 1.6])  # the row (0, 1)
MADE_C = math.log(2 * math.exp(1.6) + math.exp(2)) - 1.6
WITHIN_A = math.log(math.exp(1.6) + math.exp(2)) - 1.6


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"ce": CE}),
        ({"host_weight": 0.25}, {"ce": 0.25 * CE}),
        ({"zero_shot_kl": 0.5}, {"ce": CE, "zero_shot_kl_real": 0.5 * REAL}),
        ({"zero_shot_kl": 1.0, "temperature": 2.0},
         {"ce": CE, "zero_shot_kl_real": 4 * divergence([1.0, 0.0, 0.6], [0.6, 0.0, 0.6])}),
        ({"synthesized_kl": 2.0}, {"ce": CE, "zero_shot_kl_synthesized": 2 * MADE}),
        ({"synthesized_ce": 3.0, "synthesize": "unknown"}, {"ce": CE, "synthesized_ce": 3 * MADE_C}),
        ({"synthesized_ce_within": 3.0, "synthesize": "unknown"}, {"ce": CE, "synthesized_ce_within": 0.0}),
        ({"teacher": "mean", "teacher_weight": 5.0, "teacher_loss": "l2"},
         {"ce": CE, "teacher": 5 * (0.8**2 + 1.6**2) / 6}),
        ({"teacher": "mean", "teacher_weight": 2.0}, {"ce": CE, "teacher": REAL + MADE}),
        ({"teacher": "mean", "temperature": 2.0}, {"ce": CE, "teacher": 2 * (
            divergence([1.0, 0.0, 0.6], [0.6, 0.0, 0.6]) + divergence([0.0, 1.0, 0.8], [0.8, 1.0, 0.8]))}),
        ({"teacher": "mean", "teacher_weight": 0.0}, {"ce": CE}),
        ({"zero_shot_kl": 1.0, "zero_shot_share": 1.0}, {"ce": CE, "zero_shot_kl_real": REAL}),
    ],
)  # fmt: skip
def test_every_term_by_hand(settings: dict[str, Any], expected: dict[str, float]) -> None:
    terms = two_dimensions(**settings).losses(one_image())
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-6)


def test_known_rows_compete_within_the_known_names() -> None:
    """Over 40 rows of a and b: each within the two, or over all three."""
    model = two_dimensions(synthesized_ce=1.0, synthesized_ce_within=1.0, synthesize="known", rows=40)
    terms = model.losses(one_image())
    asked: Tensor = model.rows.asked  # type: ignore[union-attr]
    share = (asked == 0).float().mean().item()
    assert asked.max() == 1 and 0 < share < 1
    within_b = math.log(math.exp(1.6) + math.exp(2)) - 2
    assert terms["synthesized_ce_within"].item() == pytest.approx(share * WITHIN_A + (1 - share) * within_b, abs=1e-6)
    over_all = math.log(2 * math.exp(1.6) + math.exp(2))
    assert terms["synthesized_ce"].item() == pytest.approx(over_all - share * 1.6 - (1 - share) * 2, abs=1e-6)


def test_mixed_weights_by_hand() -> None:
    """c keeps (0.6, 0.8) whatever the share here; a host that turned c to b meets it half-way."""
    model = two_dimensions(zero_shot_share=0.5)
    host = model.host
    host.class_weights = lambda names=None, z=None: torch.tensor(  # type: ignore[method-assign]
        [{"a": [0.6, 0.8], "b": [0.0, 1.0], "c": [0.0, 1.0]}[n] for n in names or ("a", "b")]
    )
    length = math.hypot(0.3, 0.9)
    torch.testing.assert_close(
        model.class_weights(["c", "a"]), torch.tensor([[0.3 / length, 0.9 / length], [0.6, 0.8]])
    )


# --- the same with many names, against a plain twin -------------------------------------------------------


EVERYTHING = {
    "host_weight": 0.7, "zero_shot_kl": 0.3, "synthesized_kl": 0.2, "synthesized_ce": 0.4,
    "synthesized_ce_within": 0.9, "temperature": 2.0, "rows": 9,
}  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("groups", [1, 2])
def test_terms_and_gradients_equal_the_plain_formula(share: float, groups: int) -> None:
    model = with_rows(wrapped(share, name_groups=groups, **EVERYTHING), FixedRows(len(KNOWN) + len(UNKNOWN)))
    data = batch()
    terms = model.losses(data)
    torch.stack(list(terms.values())).sum().backward()
    got = {name: p.grad for name, p in model.host.named_parameters()}

    twin = shaken(adapter(make_table()))
    z, asked = data.features, model.rows.asked
    made = FixedRows(len(KNOWN) + len(UNKNOWN)).table[asked]
    names = (*KNOWN, *UNKNOWN)
    plain = []
    for g in range(groups):
        in_play = (*KNOWN, *UNKNOWN[g::groups])
        places = [in_play.index(names[i]) if names[i] in in_play else -1 for i in asked.tolist()]
        if -1 in places:
            continue
        zero_shot = twin.clip.encode_text(in_play)
        w = twin.class_weights(in_play)
        mixed = F.normalize(share * zero_shot + (1 - share) * w, dim=-1) if share < 1 else zero_shot
        w = torch.cat([w[: len(KNOWN)], mixed[len(KNOWN) :]])
        real, synthesized = 10 * z @ w.T, 10 * made @ w.T
        labels = torch.tensor(places)
        within = []
        for row, label in zip(synthesized, places, strict=True):
            side = row[: len(KNOWN)] if label < len(KNOWN) else row[len(KNOWN) :]
            within.append(-side.softmax(-1)[label if label < len(KNOWN) else label - len(KNOWN)].log())
        plain.append(
            {
                "ce": 0.7 * picked(real[:, : len(KNOWN)], data.labels),
                "zero_shot_kl_real": 0.3 * 4 * kl(10 * z @ zero_shot.T / 2, real / 2),
                "zero_shot_kl_synthesized": 0.2 * 4 * kl(10 * made @ zero_shot.T / 2, synthesized / 2),
                "synthesized_ce": 0.4 * picked(synthesized, labels),
                "synthesized_ce_within": 0.9 * torch.stack(within).mean(),
            }
        )
    (expected,) = plain  # rows of the group in play, which are of no other
    assert list(terms) == list(expected)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], atol=1e-5, rtol=1e-5)
    torch.stack(list(expected.values())).sum().backward()
    for name, p in twin.named_parameters():
        assert p.grad.abs().max() > 1e-3
        torch.testing.assert_close(got[name], p.grad, atol=1e-5, rtol=1e-4)


def test_gradients_of_a_prompt_equal_the_plain_formula(clip) -> None:
    names, other = ("dog", "red apple", "train"), ("cat", "bus")
    settings = {**OFF, "zero_shot_share": 0.5, "zero_shot_kl": 0.3, "synthesized_ce": 1.0, "rows": 5}
    model = OGEN(CoOp(clip, names, "an icon of a"), unknown=other, name_groups=1, **settings)
    with_rows(model, FixedRows(5, clip.embed_dim))
    data = Batch(torch.arange(3), features=unit(3, clip.embed_dim, seed=2), generator=seeded())
    start = noise(*model.host.context.shape) * 0.02
    with torch.no_grad():
        model.host.context.add_(start)
    torch.stack(list(model.losses(data).values())).sum().backward()

    twin = CoOp(clip, names, "an icon of a")
    with torch.no_grad():
        twin.context.add_(start)
    w, zero_shot = twin.class_weights((*names, *other)), clip.encode_text([f"an icon of a {n}." for n in names + other])
    w = torch.cat([w[:3], F.normalize(0.5 * w[3:] + 0.5 * zero_shot[3:], dim=-1)])
    made = model.rows.table[model.rows.asked]
    scale, z = clip.logit_scale, data.features
    loss = F.cross_entropy(scale * z @ w[:3].T, data.labels)
    loss = loss + 0.3 * kl(scale * z @ zero_shot.T, scale * z @ w.T) + picked(scale * made @ w.T, model.rows.asked)
    loss.backward()
    assert twin.context.grad.abs().max() > 1e-3
    torch.testing.assert_close(model.host.context.grad, twin.context.grad, atol=1e-4, rtol=1e-3)


def test_terms_of_weight_zero_are_absent() -> None:
    everything = {**EVERYTHING, "teacher": "mean"}
    for name, term in (
        ("zero_shot_kl", "zero_shot_kl_real"),
        ("synthesized_kl", "zero_shot_kl_synthesized"),
        ("synthesized_ce", "synthesized_ce"),
        ("synthesized_ce_within", "synthesized_ce_within"),
        ("teacher_weight", "teacher"),
    ):
        found = {}
        for weight in (0.0, 1.0):
            model = wrapped(**{**everything, name: weight})
            model.prepare(make_bank(model.clip, KNOWN), 2, 1)
            model.on_epoch_end(1, 2)
            found[weight] = set(with_rows(model, FixedRows(11)).losses(batch()))
        assert found[1.0] - found[0.0] == {term} and found[0.0] < found[1.0]


def test_a_host_with_terms_of_its_own_keeps_them(clip) -> None:
    names = ("dog", "red apple", "train")
    host = shaken(KgCoOp(clip, names, "an icon of a", templates="an icon of a {}."), 0.01)
    data = Batch(torch.arange(3), features=unit(3, clip.embed_dim), generator=seeded())
    own, terms = host.losses(data), OGEN(host, **{**OFF, "host_weight": 0.5}).losses(data)
    assert set(terms) == {"ce", "anchor"} and own["anchor"] > 0
    for name, term in terms.items():
        assert term.item() == pytest.approx(0.5 * own[name].item(), rel=1e-5)


# --- the reference ----------------------------------------------------------------------------------------


class ImageSide(TaskRes):
    """Trains the image side too: what a bank holds is not what it classifies."""

    uses_cached_features = False

    def __init__(self, clip: EmbeddingTable) -> None:
        super().__init__(clip, KNOWN, "{}")
        self.move = nn.Parameter(0.4 * noise(D, seed=9))

    def image_features(self, batch: Batch) -> Tensor:
        return F.normalize(super().image_features(batch) + self.move, dim=-1)


def test_the_reference_is_the_model_with_the_host_switched_off() -> None:
    host = shaken(ImageSide(make_table()))
    model = OGEN(host, unknown=UNKNOWN, **{**OFF, "zero_shot_kl": 1.0}, name_groups=1)
    data = batch()
    model.losses(data)["zero_shot_kl_real"].backward()
    got = {name: p.grad.clone() for name, p in host.named_parameters()}
    names, z = (*KNOWN, *UNKNOWN), data.features
    zero_shot = host.clip.encode_text(names)

    def loss(reference: Tensor) -> Tensor:
        host.zero_grad()
        moved = F.normalize(z + host.move, dim=-1)
        return kl(reference, 10 * moved @ host.class_weights(names).T)

    loss(10 * z @ zero_shot.T).backward()
    for name, p in host.named_parameters():
        torch.testing.assert_close(got[name], p.grad, atol=1e-5, rtol=1e-4)
    loss(10 * F.normalize(z + host.move, dim=-1) @ zero_shot.T).backward()
    assert not torch.allclose(got["move"], host.move.grad, atol=1e-3)


def test_the_reference_uses_its_own_templates(clip) -> None:
    host = CoOp(clip, ["dog", "train"], "an icon of a")
    assert OGEN(host).reference_templates() == ("an icon of a {}.",)
    two = ["a photo of a {}.", "the {}"]
    model = OGEN(host, templates=two, unknown=["cat"], zero_shot_share=1.0)
    torch.testing.assert_close(model.class_weights(["cat"]), ZeroShotAnchor(clip, two)(["cat"]))
    assert not torch.allclose(
        OGEN(host, unknown=["cat"], zero_shot_share=1.0).class_weights(["cat"]), model.class_weights(["cat"]), atol=1e-3
    )


# --- the rest of a step ---------------------------------------------------------------------------------


def test_per_image_weights_give_the_plain_terms() -> None:
    model = OGEN(PerImage(make_table(), KNOWN), unknown=UNKNOWN, name_groups=1, **{**OFF, **EVERYTHING})
    with_rows(model, FixedRows(11))
    data = batch()
    terms = model.losses(data)
    host, z = model.host, data.features
    made = model.rows.table[model.rows.asked]
    w, w_made = (host.class_weights((*KNOWN, *UNKNOWN), z=x) for x in (z, made))
    logits = 10 * (w * z[:, None]).sum(-1)
    zero_shot = host.clip.encode_text((*KNOWN, *UNKNOWN))
    assert terms["ce"].item() == pytest.approx(0.7 * picked(logits[:, :6], data.labels).item(), rel=1e-5)
    expected = 0.3 * 4 * kl(10 * z @ zero_shot.T / 2, logits / 2).item()
    assert terms["zero_shot_kl_real"].item() == pytest.approx(expected, rel=1e-4)
    expected = 0.4 * picked(10 * (w_made * made[:, None]).sum(-1), model.rows.asked).item()
    assert terms["synthesized_ce"].item() == pytest.approx(expected, rel=1e-4)


def test_a_step_is_repeated_by_its_generator() -> None:
    model = wrapped(**EVERYTHING)
    model.prepare(make_bank(model.clip, KNOWN), 2, 1)
    first, again, other = (model.losses(batch(seed=s)) for s in (1, 1, 2))
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}
    assert first["ce"].item() != other["ce"].item()


def test_rows_that_no_term_needs_are_not_made() -> None:
    model = with_rows(wrapped(zero_shot_kl=1.0, teacher_weight=1.0), FixedRows(11))
    assert set(model.losses(batch())) == {"ce", "zero_shot_kl_real"} and len(model.rows.asked) == 0
    model = with_rows(wrapped(zero_shot_kl=1.0, synthesized_kl=1e-9), FixedRows(11))
    assert "zero_shot_kl_synthesized" in model.losses(batch()) and len(model.rows.asked) == 32


def test_a_generator_that_was_not_prepared_is_asked_for() -> None:
    model = OGEN(adapter(make_table()), unknown=UNKNOWN, **SMALL)
    with pytest.raises(RuntimeError, match=r"no generator yet; train with ogenlib\.fit, or call prepare"):
        model.losses(batch())
