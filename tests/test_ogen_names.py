"""Names without images: their mixed weights, their groups, and which classes are synthesized."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ogen_world import (
    KNOWN,
    OFF,
    SPARE,
    UNKNOWN,
    D,
    FixedRows,
    PerImage,
    adapter,
    batch,
    kl,
    make_bank,
    make_table,
    picked,
    seeded,
    shaken,
    unit,
    with_rows,
    wrapped,
)
from torch import Tensor

from ogenlib import OGEN
from ogenlib.hosts import ZeroShot

# --- weights of names without images ----------------------------------------------------------------------

MIXED = ("koi", "fox", "lark", "ant")  # unknown, known, never heard of, known


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_only_names_without_images_are_mixed(share: float) -> None:
    model = wrapped(share)
    of_host = model.host.class_weights(MIXED)
    fixed = ZeroShot(model.clip, KNOWN, "{}").class_weights(MIXED)
    got = model.class_weights(MIXED)
    assert torch.equal(model.class_weights(), model.host.class_weights())
    torch.testing.assert_close(got[[1, 3]], of_host[[1, 3]], atol=1e-6, rtol=0)
    if share == 1:
        assert torch.equal(got[[0, 2]], fixed[[0, 2]]) and torch.equal(model.class_weights(SPARE), model.anchor(SPARE))
    else:
        expected = share * fixed + (1 - share) * of_host
        torch.testing.assert_close(got[[0, 2]], (expected / expected.norm(dim=-1, keepdim=True))[[0, 2]])
    assert torch.equal(got, of_host) == (share == 0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_of_every_image_are_mixed_the_same_way(share: float) -> None:
    host, z = PerImage(make_table(), KNOWN), unit(3, D)
    model = OGEN(host, unknown=UNKNOWN, zero_shot_share=share)
    of_host, fixed = host.class_weights(MIXED, z=z), host.clip.encode_text(MIXED)
    got = model.class_weights(MIXED, z=z)
    assert got.shape == (3, 4, D)
    assert torch.equal(got[:, [1, 3]], of_host[:, [1, 3]])
    expected = F.normalize(share * fixed + (1 - share) * of_host, dim=-1)[:, [0, 2]]
    torch.testing.assert_close(got[:, [0, 2]], expected, atol=1e-6, rtol=0)
    assert torch.equal(model.class_weights(z=z), host.class_weights(z=z))
    assert model.class_weights(UNKNOWN, z=z).shape == (3, 5, D)
    if share == 1:
        assert torch.equal(got[1, 2], fixed[2])
    got[:, 1].sum().backward()
    before = host.shift.grad.clone()
    host.shift.grad = None
    host.class_weights(MIXED, z=z)[:, 1].sum().backward()
    torch.testing.assert_close(before, host.shift.grad)


# --- groups of names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_known", "n_other", "wanted", "count"),
    [(6, 5, None, 2), (6, 5, 1, 1), (6, 5, 3, 3), (6, 5, 6, 5), (6, 1, None, 1), (2, 5, None, 5), (6, 0, None, 1),
     (6, 7, None, 4), (3, 8, None, 6), (1, 8, None, 6)],
)  # fmt: skip
def test_every_unknown_name_is_in_one_group(n_known: int, n_other: int, wanted: int | None, count: int) -> None:
    pool = (*KNOWN, *UNKNOWN, *SPARE)
    others = pool[n_known : n_known + n_other]
    groups = OGEN(adapter(make_table(), pool[:n_known]), unknown=others, name_groups=wanted).scoring.groups
    assert len(groups) == count
    assert sorted(name for group in groups for name in group) == sorted(others)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_all_groups_take_turns_and_the_known_names_are_always_in_play() -> None:
    model = wrapped(zero_shot_kl=1.0, synthesized_ce=1.0, name_groups=3, rows=20)
    with_rows(model, FixedRows(11))
    seen: list[tuple[str, ...]] = []
    own = model.host.class_weights

    def spy(names: Any = None, z: Any = None) -> Tensor:
        seen.append(tuple(names))
        return own(names, z=z)

    model.host.class_weights = spy  # type: ignore[method-assign]
    draws, all_names, asked = seeded(), (*KNOWN, *UNKNOWN), set()
    for step in range(30):
        data = batch(seed=step)
        data.generator = draws
        model.losses(data)
        made = {all_names[i] for i in model.rows.asked.tolist()}
        assert made <= set(seen[-1]) and len(made) > 3
        asked |= made
    assert {names[: len(KNOWN)] for names in seen} == {KNOWN}
    assert {names[len(KNOWN) :] for names in seen} == {("gnu", "jay"), ("hen", "koi"), ("ibis",)}
    assert asked == set(all_names)


@pytest.mark.parametrize(
    ("synthesize", "others", "expected"),
    [("unknown", UNKNOWN, range(6, 11)), ("known", UNKNOWN, range(6)), ("all", UNKNOWN, range(11)),
     ("unknown", (), range(6)), ("all", (), range(6))],
)  # fmt: skip
def test_which_classes_are_synthesized(synthesize: str, others: tuple[str, ...], expected: range) -> None:
    model = wrapped(synthesize=synthesize, synthesized_ce=1.0, rows=200, name_groups=1, vocabulary=others)
    with_rows(model, FixedRows(6 + len(others))).losses(batch())
    assert set(model.rows.asked.tolist()) == set(expected) and len(model.rows.asked) == 200


# --- names held out: known ones stand in for them -------------------------------------------------------------


def held_out(images: bool, **settings: Any) -> OGEN:
    host = PerImage(make_table(), KNOWN) if images else shaken(adapter(make_table()))
    return OGEN(host, **{**OFF, "zero_shot_share": 0.4, "zero_shot_kl": 1.0, "pseudo_unknown": 0.5, **settings})


def plain(model: OGEN, mixed: tuple[int, ...]) -> tuple[float, float]:
    """Both terms of `batch()` with the rows of the classes `mixed` weighted as unknown ones."""
    z, labels = batch().features, batch().labels
    fixed, w = model.clip.encode_text(KNOWN), model.host.class_weights(z=z)
    rows = F.normalize(0.4 * fixed + 0.6 * w, dim=-1)
    w = torch.where(torch.tensor([i in mixed for i in range(6)])[:, None], rows, w)
    logits = 10 * (z[:, None] * w).sum(-1)
    return picked(logits, labels).item(), kl(10 * z @ fixed.T, logits).item()


@pytest.mark.parametrize("images", [False, True])
def test_known_names_stand_in_for_held_out_ones_and_take_turns(images: bool) -> None:
    model, data, found = held_out(images), batch(), set()
    options = {mixed: plain(model, mixed) for mixed in combinations(range(6), 3)}
    for _ in range(60):
        terms = {name: term.item() for name, term in model.losses(data).items()}
        (mixed,) = [
            m
            for m, (ce, far) in options.items()
            if abs(terms["ce"] - ce) < 1e-5 and abs(terms["zero_shot_kl_real"] - far) < 1e-5
        ]
        found.add(mixed)
    assert {i for mixed in found for i in mixed} == set(range(6)) and len(found) > 10
    z = unit(2, D)
    assert torch.equal(model.class_weights(z=z), model.host.class_weights(z=z))  # in training steps only


@pytest.mark.parametrize("settings", [{"pseudo_unknown": 0.0}, {"pseudo_unknown": 0.05}, {"zero_shot_share": 0.0}])
def test_nothing_stands_in_where_it_is_switched_off(settings: dict[str, Any]) -> None:
    model, data = held_out(False, **settings), batch()
    before = data.generator.get_state()
    assert [t.item() for t in model.losses(data).values()] == pytest.approx(plain(model, ()), abs=1e-6)
    assert torch.equal(data.generator.get_state(), before)


@pytest.mark.parametrize("names", [{"unknown": UNKNOWN}, {"vocabulary": SPARE}])
def test_nothing_stands_in_where_there_are_other_names(names: dict[str, Any]) -> None:
    model = held_out(False, name_groups=1, **names)
    assert model.losses(batch())["ce"].item() == pytest.approx(plain(model, ())[0], abs=1e-6)


def test_a_teacher_that_equals_the_student_costs_nothing_with_stand_ins() -> None:
    model = held_out(False, teacher="mean", teacher_weight=1.0)
    model.prepare(make_bank(model.clip, KNOWN), 2, 1)
    with torch.no_grad():
        for parameter in model.host.parameters():
            parameter.add_(0.1)
    model.on_epoch_end(1, 2)
    assert model.losses(batch())["teacher"].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("argument", ["unknown", "vocabulary"])
def test_a_name_in_place_of_a_list_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}='cat': pass a list of names"):
        OGEN(adapter(make_table()), **{argument: "cat"})


def test_another_spelling_of_a_known_name_is_that_name() -> None:
    table = make_table()
    with pytest.raises(ValueError, match="are in known and unknown"):
        OGEN(adapter(table), unknown=(KNOWN[0].upper(),))
    assert OGEN(adapter(table), vocabulary=(KNOWN[0].upper(), *UNKNOWN)).others == UNKNOWN


def test_ogen_around_ogen_is_refused() -> None:
    with pytest.raises(ValueError, match="is an OGEN already"):
        OGEN(OGEN(adapter(make_table()), unknown=UNKNOWN))
