"""Where synthesized rows come from: neighbours, the kept pool, rows made anew, and the loss of a joint generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ogen_world import KNOWN, SMALL, UNKNOWN, D, make_bank, make_table, seeded
from torch import Tensor

from ogenlib.generators import class_neighbours, fit_generator, list_variants, start_generator
from ogenlib.ogen.config import OGENConfig
from ogenlib.ogen.synthesis import Synthesizer

TRAINED = [v for v in list_variants() if v not in ("mapped", "shift")]


def world(views: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    table = make_table()
    banks = [make_bank(table, KNOWN, seed=s) for s in range(views)]
    features = torch.cat([b.features for b in banks], dim=1)
    return features, banks[0].labels, table.encode_text((*KNOWN, *UNKNOWN))


def make(views: int = 1, seed: int = 3, **settings: Any) -> Synthesizer:
    return Synthesizer(OGENConfig(**{**SMALL, **settings}), *world(views), seed)


def moved(rows: Synthesizer) -> Synthesizer:
    """With weights away from their start, where attention and MLP add nothing."""
    with torch.no_grad():
        for p in rows.generator.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=seeded(1)))
    return rows


def state(rows: Synthesizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in rows.generator.state_dict().items()}


def test_the_generator_is_the_one_that_is_fitted_on_every_view() -> None:
    rows = make(views=3, generator="joint")
    features, labels, embeddings = world(3)
    expected = fit_generator(
        features.reshape(-1, D),
        torch.stack([labels] * 3, 1).reshape(-1),
        embeddings[:6],
        "joint",
        iterations=5,
        seed=3,
        k=2,
        heads=2,
        dropout=0.1,
    )
    got = state(rows)
    assert all(torch.equal(got[name], value) for name, value in expected.state_dict().items())
    assert len(rows.generator.require_known().features) == 3 * len(labels)


def test_a_known_class_is_made_from_others_and_an_unknown_one_from_its_nearest() -> None:
    embeddings = world()[2]
    near = make().neighbours
    cosines = embeddings @ embeddings[:6].T
    cosines[:6].fill_diagonal_(-2)
    assert torch.equal(near, cosines.argsort(dim=1, descending=True)[:, :2])
    assert not (near[:6] == torch.arange(6)[:, None]).any()


def test_kept_rows_are_the_generators_and_drawn_by_class() -> None:
    rows = make()
    assert rows.pool is not None and rows.pool.shape == (11, 4, D)
    embeddings = world()[2]
    expected = rows.generator.synthesize(embeddings, 4, generator=seeded(3), neighbours=rows.neighbours)
    assert torch.equal(rows.pool.flatten(0, 1), expected)
    classes = torch.tensor([10, 0, 10, 5]).repeat(50)
    made = rows.draw(classes, seeded())
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(200))
    assert not made.requires_grad
    for c in (0, 5, 10):  # every kept row of the class, and no other
        found = (made[classes == c][:, None] == rows.pool[c]).all(-1)
        assert found.any(1).all() and found.any(0).all()


def test_draws_come_from_the_generator_that_is_given() -> None:
    for rows in (make(), make(joint=True, generator="joint", spread="none")):
        classes = torch.arange(11).repeat(3)
        first, again, other = (rows.draw(classes, seeded(s)) for s in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
        with torch.random.fork_rng():
            torch.manual_seed(4)
            assert torch.equal(first, rows.draw(classes, seeded(1)))


def test_a_joint_generator_makes_rows_as_it_is_now() -> None:
    rows = make(joint=True, generator="text-only", spread="none")
    assert rows.pool is None and rows.generator.history == []
    classes = torch.tensor([7, 2])
    before = rows.draw(classes, seeded())
    after = moved(rows).draw(classes, seeded())
    assert not torch.allclose(before, after, atol=1e-2) and not after.requires_grad
    own = rows.generator.synthesize(world()[2][classes], 1, generator=seeded(), neighbours=rows.neighbours[classes])
    assert torch.equal(after, own)


@pytest.mark.parametrize("variant", TRAINED)
def test_a_joint_generator_learns_from_its_loss_alone(variant: str) -> None:
    rows = moved(make(joint=True, generator=variant, dropout=0.5))
    before = torch.get_rng_state()
    first = rows.loss(8, seeded(1))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = rows.loss(8, seeded(1))
    assert torch.equal(first, again)  # dropout too, wherever torch's global state is
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, rows.loss(8, seeded(2)))
    assert not rows.generator.training
    first.backward()
    slopes = [p.grad for p in rows.generator.parameters() if p.grad is not None]
    assert slopes and all(g.isfinite().all() for g in slopes) and any(g.abs().max() > 0 for g in slopes)


def test_dropout_is_on_in_the_loss() -> None:
    with_dropout, without = (moved(make(joint=True, generator="joint", dropout=d)) for d in (0.9, 0.0))
    assert all(torch.equal(value, state(without)[name]) for name, value in state(with_dropout).items())
    assert not torch.equal(with_dropout.loss(8, seeded(1)), without.loss(8, seeded(1)))


def test_a_joint_generator_starts_like_any_other() -> None:
    features, labels, embeddings = world()
    expected = start_generator(features[:, 0], labels, embeddings[:6], "released", seed=3, k=2, heads=2)
    got = state(make(joint=True, generator="released"))
    assert all(torch.equal(got[name], value) for name, value in expected.state_dict().items())
    assert not all(
        torch.equal(value, state(make(joint=True, generator="released", seed=4))[name]) for name, value in got.items()
    )


def test_no_unknown_names_are_no_obstacle() -> None:
    features, labels, embeddings = world()
    rows = Synthesizer(OGENConfig(**SMALL), features, labels, embeddings[:6], 3)
    assert rows.neighbours.shape == (6, 2) and rows.pool is not None and len(rows.pool) == 6
    whole = make()
    assert whole.pool is not None
    torch.testing.assert_close(rows.pool, whole.pool[:6])  # unknown names change no known row
    assert torch.equal(rows.neighbours, class_neighbours(embeddings[:6], embeddings[:6], 2, exclude_self=True)[0])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="generator=None: there is nothing to synthesize with"):
        Synthesizer(OGENConfig(generator=None), *world(), 0)
    with pytest.raises(ValueError, match=r"k=6 .* of 6 known classes 1 are held out .* pass k=5 or less"):
        make(k=6)
    features, labels, embeddings = world()
    with pytest.raises(ValueError, match=r"spread='residual' needs .* pass spread='none'"):
        Synthesizer(OGENConfig(**SMALL), features[::4], labels[::4], embeddings, 0)
